//! `loadgen agent` and `--agents`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::{Agent, CHAT, Done, Edge, token_file};

/// A run on these agents that writes its report.
fn options(edge: &Edge, agents: &[&Agent]) -> Vec<String> {
    let names: Vec<&str> = agents.iter().map(|agent| agent.address.as_str()).collect();
    let token = token_file(edge.directory()).display().to_string();
    ["--agents", &names.join(","), "--agent-token-file", &token]
        .map(str::to_owned)
        .into()
}

fn with<'a>(fixed: &[&'a str], more: &'a [String]) -> Vec<&'a str> {
    let more = more.iter().map(String::as_str);
    fixed.iter().copied().chain(more).collect()
}

#[test]
fn a_leader_and_two_agents_make_one_run_and_each_is_seen() {
    let edge = Edge::start();
    let agents = [
        Agent::start(edge.directory()),
        Agent::start(edge.directory()),
    ];
    let page = edge.directory().join("report.html");
    let page_name = page.display().to_string();
    let run = options(&edge, &[&agents[0], &agents[1]]);
    let fixed = [&CHAT[..], &["--html", &page_name]].concat();
    let done = edge.run(&["chat"], &with(&fixed, &run)).passed();

    assert_eq!(done.count("sessions.established"), 200);
    assert!(done.number("target.rss_bytes") > 1e6);
    let parts = done.report["agents"].as_array().expect("a list").clone();
    assert_eq!(parts.len(), 2);
    let sum = |path: [&str; 2]| -> u64 {
        let of = |part: &serde_json::Value| part[path[0]][path[1]].as_u64().expect("a count");
        parts.iter().map(of).sum()
    };
    assert_eq!(sum(["messages", "sent"]), done.count("messages.sent"));
    assert_eq!(
        sum(["messages", "delivered"]),
        done.count("messages.delivered")
    );
    let html = std::fs::read_to_string(&page).expect("a page");
    for (part, agent) in parts.iter().zip(&agents) {
        assert_eq!(part["name"], *agent.address);
        assert_eq!(part["sessions"]["established"], 100);
        assert_eq!(part["findings"], 0);
        assert!(part["generator"]["rss_bytes"].as_u64() > Some(1_000_000));
        assert!(part["generator"]["cpu_s"].as_f64() > Some(0.0));
        assert!(part["generator"]["saturated"].is_boolean());
        assert!(part["sent_per_s"].as_f64() > Some(0.0));
        // One clock, asked twice over a loopback.
        let (ahead, error) = (&part["clock_ahead_ms"], &part["clock_error_ms"]);
        let (ahead, error) = (
            ahead.as_f64().expect("known"),
            error.as_f64().expect("known"),
        );
        assert!(ahead.abs() <= error + 0.001, "{ahead} +- {error}");
        assert!(part["start_late_ms"].as_f64() >= Some(0.0));
        assert!(part["series"].as_array().expect("points").len() >= 3);
        assert!(html.contains(&agent.address), "the page has its row");
        let line = done.stderr.lines().find(|line| {
            line.contains(&agent.address)
                && line.contains("100/100 sessions")
                && line.contains("RSS")
        });
        line.unwrap_or_else(|| panic!("no line of {}: {}", agent.address, done.stderr));
        assert!(
            done.stdout.contains(&agent.address),
            "the table has its row"
        );
    }
    assert!(html.contains("Sessions by agent") && html.contains("CPUs in use by agent"));
}

/// The run ends at once, with the name; the other agent stops its part and is free for the next run.
#[test]
fn an_agent_that_dies_fails_the_run_with_its_name() {
    let edge = Edge::start();
    let mut dies = Agent::start(edge.directory());
    let stays = Agent::start(edge.directory());
    let run = options(&edge, &[&stays, &dies]);
    let endless = ["--sessions", "100", "--rate", "20", "--duration", "2h"];
    let mut leader = edge
        .loadgen(&["chat"], &with(&endless, &run))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(leader.stderr.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    while !next().contains(" exchange ") {}
    dies.kill();
    let complaint = loop {
        let line = next();
        if line.starts_with("loadgen:") {
            break line;
        }
    };
    assert_eq!(leader.wait().expect("it ends").code(), Some(1));
    assert!(complaint.contains(&dies.address), "{complaint}");
    assert!(complaint.contains("gone"), "{complaint}");

    let run = options(&edge, &[&stays]);
    let done: Done = edge.run(&["chat"], &with(&CHAT, &run));
    assert_eq!(done.passed().count("sessions.established"), 200);
}
