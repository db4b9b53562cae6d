//! What stands between this host and so many sessions, told before the first.

use crate::support::{Agent, Edge, loadgen, token_file};

/// More than four billion sessions fit into no host.
const ALL: [&str; 4] = ["--sessions", "4294967294", "--quic-engine", "lean"];

#[test]
fn a_run_that_this_host_has_no_memory_for_is_refused_before_an_edge_starts() {
    let output = loadgen()
        .args(["hold", "--start-edge", "--edge", "/no/such/edge"])
        .args(ALL)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("4294967294 sessions need about"),
        "{errors}"
    );
    assert!(errors.contains("this host has"), "{errors}");
    assert!(!errors.contains("/no/such/edge"), "{errors}");
}

/// It is the agents' hosts that must have it.
#[test]
fn a_part_that_an_agents_host_has_no_memory_for_is_refused_by_the_agent() {
    let edge = Edge::start();
    let agent = Agent::start(edge.directory());
    let token = token_file(edge.directory()).display().to_string();
    let agents = ["--agents", &agent.address, "--agent-token-file", &token];
    let done = edge.run(&["hold"], &[&ALL[..], &agents].concat());
    assert_eq!(done.code, 1);
    let expected = format!("agent {}: 4294967294 sessions need about", agent.address);
    assert!(done.stderr.contains(&expected), "{}", done.stderr);
}
