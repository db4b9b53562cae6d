//! loadgen against a real edge, with its full accounting.

mod support;

use std::process::{Command, Stdio};

use support::{Edge, sibling};

fn loadgen(edge: &Edge, scenario: &str, options: &[&str]) -> Command {
    let mut command = Command::new(sibling("loadgen", "roadstead-loadgen"));
    command
        .arg(scenario)
        .args([
            "--target",
            &edge.listen.to_string(),
            "--admin",
            &edge.admin.to_string(),
        ])
        .arg("--data")
        .arg(&edge.data)
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn report(path: &std::path::Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).expect("loadgen writes its report");
    serde_json::from_str(&text).expect("valid JSON")
}

#[tokio::test]
async fn a_held_crowd_stays() {
    let edge = Edge::start();
    let json = edge.data.join("hold.json");
    let options = ["--sessions", "300", "--duration", "3", "--quiet", "--json"];
    let output = loadgen(&edge, "hold", &options)
        .arg(&json)
        .output()
        .expect("loadgen runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let report = report(&json);
    assert_eq!(report["verdict"], "pass");
    assert_eq!(report["sessions"]["established"], 300);
    assert_eq!(report["sessions"]["lost"], 0);
}

/// R8, R12, R15, T1, T14: the edge is killed in the middle of the load and comes back on the same data.
/// Sessions resume by themselves; nothing acknowledged is lost and nothing is shown twice.
#[tokio::test]
async fn kill_9_in_the_middle_of_the_load() {
    let mut edge = Edge::start();
    let json = edge.data.join("chat.json");
    let options = [
        "--sessions",
        "100",
        "--rate",
        "300",
        "--duration",
        "8",
        "--quiet",
        "--json",
    ];
    let child = loadgen(&edge, "chat", &options)
        .arg(&json)
        .spawn()
        .expect("loadgen runs");
    edge.metric_reaches("roadstead_sends_committed_total", "", 300)
        .await;
    edge.kill();
    edge.restart();
    edge.metric_reaches("roadstead_sends_committed_total", "", 300)
        .await;
    let output = child.wait_with_output().expect("loadgen ends");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let report = report(&json);
    assert_eq!(report["verdict"], "pass");
    assert!(
        report["sessions"]["reconnected"].as_u64() > Some(0),
        "{}",
        report["sessions"]
    );
    assert_eq!(report["messages"]["lost"], 0);
    assert_eq!(report["messages"]["duplicated"], 0);
}

/// A verdict that can not fail proves nothing: without an edge there is none to pass.
#[tokio::test]
async fn no_edge_is_no_pass() {
    let mut edge = Edge::start();
    edge.kill();
    let options = [
        "--sessions",
        "5",
        "--rate",
        "5",
        "--duration",
        "1",
        "--drain-timeout",
        "2",
    ];
    let status = loadgen(&edge, "chat", &options)
        .status()
        .expect("loadgen runs");
    assert!(!status.success());
}
