//! `loadgen run FILE`, with the files that are shipped in loadgen/scenarios.

use std::path::{Path, PathBuf};

use crate::support::{Done, Edge, loadgen, roadstead};

fn shipped() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = std::fs::read_dir(folder).expect("scenarios are shipped");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.collect()
}

/// An error about what is wrong on purpose is one that comes after the file was read.
#[test]
fn every_shipped_file_can_be_run() {
    let edge = Edge::start();
    let files = shipped();
    assert!(files.len() >= 3);
    for file in files {
        let path = file.to_str().expect("UTF-8");
        let done = edge.run(&["run", path], &["--assert", "no.such.name<1"]);
        assert_eq!(done.code, 1, "{path}");
        assert!(done.stderr.contains("no metric"), "{path}: {}", done.stderr);
    }
}

/// Every kind of step, one after the other, on the same sessions.
#[test]
fn the_shipped_smoke_test_passes() {
    let directory = tempfile::tempdir().expect("a directory");
    let report = directory.path().join("report.json");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/smoke.toml");
    let output = loadgen()
        .arg("run")
        .arg(file)
        .arg("--edge")
        .arg(roadstead())
        .args(["--quiet", "--json"])
        .arg(&report)
        .output()
        .expect("it runs");
    let done = Done::new(&output, &report).passed();
    let sessions = done.count("sessions.target");
    assert_eq!(done.count("sessions.established"), sessions);
    assert_eq!(done.count("sessions.lost"), 0);
    assert_eq!(done.count("target.restarts"), 1);
    assert!(done.count("sessions.cut") > 0, "the storm");
    assert!(done.count("sessions.churned") > 0);
    assert!(done.count("sessions.rebinds") > 0);
    // Who is away when the restart comes can not be sent away.
    assert!(done.count("sessions.goaways") * 10 > sessions * 9);
    assert!(done.count("latency_ms.fan_out.count") > 0);
    assert_eq!(
        done.count("messages.sent"),
        done.count("messages.acknowledged")
    );
    // A step that is over within a second, as most are here, may lie between two points of the course.
    let series = done.report["series"].as_array().expect("points");
    assert!(series.iter().any(|point| point["stage"] == "exchange"));
}

#[test]
fn a_restart_of_somebody_elses_edge_is_refused_at_once() {
    let edge = Edge::start();
    let file = edge.directory().join("restart.toml");
    std::fs::write(&file, "name = 'x'\n[[step]]\ndo = 'restart'\n").expect("written");
    let done = edge.run(&["run", file.to_str().expect("UTF-8")], &[]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("--start-edge"), "{}", done.stderr);
    assert!(
        !done.stderr.contains("sessions="),
        "no run began: {}",
        done.stderr
    );
}
