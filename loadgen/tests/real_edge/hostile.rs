//! `loadgen hostile`: attackers beside honest users.

use crate::support::Edge;

/// Every kind is refused by its counter, and the honest lose nothing.
#[test]
fn attackers_are_refused_and_harm_nobody() {
    let edge = Edge::start();
    // Too short for a Hello that never ends, and a debug build under a flood is too slow to say anything.
    let options = [
        "--sessions",
        "40",
        "--rate",
        "40",
        "--duration",
        "6",
        "--quiet",
    ];
    let fewer = ["--half-frames", "0", "--no-ping-flood", "--no-number-walk"];
    let done = edge.run(&["hostile"], &[&options[..], &fewer].concat());
    let done = done.passed();
    assert_eq!(done.count("messages.late"), 0);
    assert_eq!(done.count("sessions.disconnected"), 0);
    assert!(done.count("messages.outside") > 0);
    let rows = done.report["hostile"]["rows"].as_array().expect("rows");
    for kind in ["full recipient", "read marks", "half-open handshakes"] {
        let row = rows.iter().find(|row| row["kind"] == kind);
        let row = row.unwrap_or_else(|| panic!("{kind} in {rows:#?}"));
        assert!(row["increase"].as_u64() > Some(0), "{row:#}");
    }
}

/// An attack that no counter has seen is a finding: this edge has no limit on read marks.
#[test]
fn an_attack_that_is_not_refused_fails_the_run() {
    let edge = Edge::start_with("[limits]\nsends_per_s = 0\n");
    let options = [
        "--sessions",
        "20",
        "--rate",
        "20",
        "--duration",
        "2",
        "--quiet",
    ];
    let fewer = ["--half-frames", "0", "--no-ping-flood", "--no-number-walk"];
    let only = ["--fillers", "0", "--half-open", "0"];
    let done = edge.run(&["hostile"], &[&options[..], &fewer, &only].concat());
    let done = done.failed();
    assert_eq!(done.report["findings"][0]["kind"], "not_refused");
}

/// What could only fail is refused before it begins.
#[test]
fn a_run_too_short_for_half_a_hello_is_not_made() {
    let edge = Edge::start();
    let done = edge.run(&["hostile"], &["--duration", "5"]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("--half-frames 0"), "{}", done.stderr);
}
