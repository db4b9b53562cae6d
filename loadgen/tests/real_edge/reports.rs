//! What a run leaves behind: JSON, CSV and HTML, and its exit code.

use std::collections::BTreeSet;

use crate::support::{CHAT, Edge, loadgen};

#[test]
fn a_run_is_told_as_json_csv_and_html() {
    let edge = Edge::start();
    let file = |name: &str| edge.directory().join(name).display().to_string();
    let (page, table) = (file("report.html"), file("report.csv"));
    let files = ["--quiet", "--html", &page, "--csv", &table];
    let done = edge.run(&["chat"], &[&CHAT[..], &files].concat()).passed();

    assert!(done.number("target.rss_bytes") > 1e6);
    assert!(done.number("target.cpu_s") > 0.0);
    assert!(done.number("generator.rss_bytes") > 1e6);
    let points = done.report["series"].as_array().expect("points").len();

    let csv = std::fs::read_to_string(table).expect("a table");
    assert_eq!(csv.lines().count(), points + 1, "a line a point, and names");
    let rss = csv.lines().next().expect("names").split(',');
    let rss = rss.clone().position(|name| name == "target_rss_bytes");
    let rss = rss.expect("the server's memory");
    let last = csv.lines().last().expect("a point").split(',').nth(rss);
    assert!(last.expect("a field").parse::<u64>().expect("known") > 1_000_000);

    let html = std::fs::read_to_string(page).expect("a page");
    for plot in [
        "Sessions",
        "Rates",
        "Acknowledgement",
        "Delivery",
        "memory per session",
        "Latency from the intended send to the delivery",
    ] {
        assert!(html.contains(plot), "{plot}");
    }
    assert!(html.contains("PASS") && !html.contains("<script"));
}

/// The report for a program is alone on standard output.
#[test]
fn json_on_standard_output_is_json() {
    let edge = Edge::start();
    let output = loadgen()
        .args(["chat", "--target", &edge.listen.to_string(), "--data"])
        .arg(edge.directory())
        .args(CHAT)
        .args(["--json", "-"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON only");
    assert_eq!(report["verdict"], "pass");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("PASS"), "people read it there: {words}");
}

#[test]
fn a_limit_that_is_broken_is_exit_code_2() {
    let edge = Edge::start();
    let limits = [
        "--assert",
        "ack.max_ms<0.000001",
        "--assert",
        "sessions.lost==0",
    ];
    let done = edge.run(&["chat"], &[&CHAT[..], &limits].concat()).failed();
    let kept = |n: usize| &done.report["limits"][n]["kept"];
    assert_eq!((kept(0), kept(1)), (&false.into(), &true.into()));
    assert!(done.stdout.contains("NOT KEPT"), "{}", done.stdout);
}

/// An hour's run must not end with a file that can not be written.
#[test]
fn a_report_that_can_not_be_written_is_an_error_before_the_run() {
    let edge = Edge::start();
    for option in ["--json", "--csv", "--html"] {
        let done = edge.run(
            &["hold"],
            &["--duration", "10m", option, "/no/such/folder/x"],
        );
        assert_eq!(done.code, 1);
        assert!(done.stderr.contains("/no/such/folder"), "{}", done.stderr);
    }
}

/// Every name that docs/LOADGEN.md gives for `--assert` is one that the program knows.
#[test]
fn the_names_of_the_manual_are_those_of_the_report() {
    let output = loadgen()
        .args(["chat", "--start-edge", "--edge"])
        .arg(crate::support::roadstead())
        .args(["--assert", "no.such.name<1"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    let (_, names) = errors.split_once("there are: ").expect("all names");
    let known: BTreeSet<&str> = names.trim().split(", ").collect();

    let manual = include_str!("../../../docs/LOADGEN.md");
    let (_, limits) = manual.split_once("## Limits").expect("the section");
    let (limits, _) = limits.split_once("\n## ").expect("another section");
    let quoted: Vec<&str> = limits.split('`').skip(1).step_by(2).collect();
    let is_name = |word: &&str| {
        let mut bytes = word.bytes();
        bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'.')
    };
    let words: Vec<&str> = quoted.into_iter().filter(is_name).collect();
    let (percentiles, rest): (Vec<&str>, Vec<&str>) = words
        .into_iter()
        .partition(|word| word.ends_with("_ms") || *word == "count");
    let (paths, latencies): (Vec<&str>, Vec<&str>) = rest
        .into_iter()
        .chain(
            percentiles
                .iter()
                .copied()
                .filter(|word| word.contains('.')),
        )
        .partition(|word| word.contains('.') || word.contains("_per_s"));
    assert!(
        paths.len() >= 5 && latencies.len() >= 8,
        "{paths:?} {latencies:?}"
    );
    for path in paths {
        assert!(known.contains(path), "{path}");
    }
    for latency in latencies {
        for percentile in percentiles.iter().filter(|word| !word.contains('.')) {
            let name = format!("{latency}.{percentile}");
            assert!(known.contains(&*name), "{name}");
        }
    }
}
