//! `loadgen chat --find-max`.

use serde_json::Value;

use crate::support::{Done, Edge};

const QUICK: [&str; 9] = [
    "--sessions",
    "200",
    "--ramp",
    "1000",
    "--rate",
    "50",
    "--duration",
    "1",
    "--find-max",
];

fn search(edge: &Edge, options: &[&str]) -> Done {
    edge.run(&["chat"], &[&QUICK[..], options].concat())
}

fn trials(done: &Done) -> &[Value] {
    done.report["find_max"]["trials"]
        .as_array()
        .expect("a list")
}

const LIMIT: &str = "ack.count<300";

/// The limit is one that no machine's speed decides: a rate of so many messages breaks it on any. A busy
/// machine may be limited by this end before that, and then the search must say so.
#[test]
fn the_highest_rate_that_keeps_a_limit_is_found() {
    let edge = Edge::start();
    let done = search(&edge, &["--assert", LIMIT]);
    let found = &done.report["find_max"];
    let (mut kept, mut broken) = (Vec::new(), Vec::new());
    for trial in trials(&done) {
        let rate = trial["rate"].as_f64().expect("a rate");
        let acks = trial["ack_ms"]["count"].as_u64().expect("a count");
        match trial["broke"].as_str() {
            None => {
                assert!(acks < 300, "{trial}");
                kept.push(rate);
            }
            Some(why) => {
                assert!(why != LIMIT || acks >= 300, "{trial}");
                broken.push((rate, why));
            }
        }
    }
    broken.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (least, why) = broken[0];
    let best = kept.into_iter().filter(|rate| *rate < least);
    let best = best.fold(None, |best: Option<f64>, rate| {
        Some(best.map_or(rate, |b| b.max(rate)))
    });
    assert_eq!(found["rate"].as_f64(), best, "{found:#}");
    assert_eq!(found["limited_by"], why);
    assert_eq!(found["generator_limited"], why == "generator");
    if let Some(best) = best {
        assert!(least < best * 1.1, "{least} after {best}");
    }
    let wanted = format!("limited by {why}");
    assert!(done.stdout.contains(&wanted), "{}", done.stdout);
    assert_eq!(done.code, if best.is_some() { 0 } else { 2 });
    assert_eq!(
        done.count("messages.sent"),
        done.count("messages.delivered")
    );
}

#[test]
fn a_limit_that_no_rate_keeps_fails_the_search() {
    let edge = Edge::start();
    let done = search(&edge, &["--quiet", "--assert", "deliver.p50_ms<0.000001"]).failed();
    assert!(done.report["find_max"]["rate"].is_null());
    assert!(trials(&done).iter().all(|trial| !trial["broke"].is_null()));
    // Quiet, but for the verdict of a run that did not pass.
    assert_eq!(done.stderr, "loadgen: FAIL: see above\n");
}

/// What a trial does not measure is judged by the whole run, not passed over.
#[test]
fn a_limit_on_the_whole_run_is_kept_by_the_whole_run() {
    let edge = Edge::start();
    let limits = ["--quiet", "--assert", "ack.count<100", "--assert"];
    let with = |limit| search(&edge, &[&limits[..], &[limit]].concat());
    let done = with("sessions.established==200");
    let kept = &done.report["limits"][0];
    assert_eq!(kept["kept"], true, "{kept}");
    assert_eq!(kept["limit"], "sessions.established==200");
    let done = with("messages.sent<1").failed();
    assert_eq!(done.report["limits"][0]["kept"], false);
}

#[test]
fn only_a_chat_searches() {
    let edge = Edge::start();
    let done = edge.run(&["hold"], &["--sessions", "10", "--find-max"]);
    assert_eq!(done.code, 1);
    assert!(
        done.stderr.contains("--find-max is for chat"),
        "{}",
        done.stderr
    );
}
