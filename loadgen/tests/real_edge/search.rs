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

/// The limit is one that no machine's speed decides: a rate of so many messages breaks it on any.
#[test]
fn the_highest_rate_that_keeps_a_limit_is_found() {
    let edge = Edge::start();
    let done = search(&edge, &["--assert", "ack.count<300"]).passed();
    let found = &done.report["find_max"];
    let rate = found["rate"].as_f64().expect("a rate");
    assert!((150.0..400.0).contains(&rate), "{found:#}");
    assert_eq!(found["limited_by"], "ack.count<300");
    assert_eq!(found["generator_limited"], false);
    let broken = trials(&done)
        .iter()
        .filter(|trial| !trial["broke"].is_null());
    let least = broken.filter_map(|trial| trial["rate"].as_f64());
    let least = least.fold(f64::INFINITY, f64::min);
    assert!(least > rate && least < rate * 1.1, "{least} after {rate}");
    assert!(
        done.stdout.contains("limited by ack.count<300"),
        "{}",
        done.stdout
    );
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
    assert_eq!(done.stderr, "", "it was to be quiet");
}

/// What a trial does not measure is judged by the whole run, not passed over.
#[test]
fn a_limit_on_the_whole_run_is_kept_by_the_whole_run() {
    let edge = Edge::start();
    let limits = ["--quiet", "--assert", "ack.count<100", "--assert"];
    let with = |limit| search(&edge, &[&limits[..], &[limit]].concat());
    let done = with("sessions.established==200").passed();
    assert_eq!(
        done.report["limits"][0]["limit"],
        "sessions.established==200"
    );
    let done = with("messages.sent<1").failed();
    assert_eq!(done.report["limits"][0]["kept"], false);
    assert!(done.report["find_max"]["rate"].as_f64().is_some());
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
