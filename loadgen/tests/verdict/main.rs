//! The binary against a server of the test's own, which does one thing wrong at a time: the verdict, the
//! exit code and the report must say so, and must say nothing where nothing is wrong.

mod fake;

#[path = "../support/mod.rs"]
mod support;

use std::process::Command;

use fake::{Fake, Fault};
use serde_json::Value;
use support::{Agent, token_file};

/// Runs the binary and returns its exit code and report.
fn run(fake: &Fake, scenario: &str, options: &[&str]) -> (i32, Value) {
    let report = fake.directory().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .arg(scenario)
        .args([
            "--target",
            &fake.address().to_string(),
            "--quiet",
            "--sockets",
            "4",
        ])
        .args(["--ramp", "500", "--drain-timeout", "4", "--data"])
        .arg(fake.directory())
        .arg("--json")
        .arg(&report)
        .args(["--target-pid", &std::process::id().to_string()])
        .args(options)
        .output()
        .expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    let json = std::fs::read(&report).unwrap_or_else(|_| panic!("no report: {errors}"));
    (
        output.status.code().expect("an exit code"),
        serde_json::from_slice(&json).expect("JSON"),
    )
}

const CHAT: &[&str] = &["--sessions", "40", "--rate", "200", "--duration", "2"];

fn chat(fault: Fault) -> (i32, Value) {
    run(&Fake::start(fault), "chat", CHAT)
}

fn number(report: &Value, group: &str, field: &str) -> u64 {
    report[group][field]
        .as_u64()
        .unwrap_or_else(|| panic!("{group}.{field} in {report}"))
}

#[track_caller]
fn assert_passed((code, report): &(i32, Value)) {
    assert_eq!(
        (*code, &report["verdict"]),
        (0, &Value::from("pass")),
        "{report:#}"
    );
}

#[track_caller]
fn assert_failed((code, report): &(i32, Value)) {
    assert_eq!(
        (*code, &report["verdict"]),
        (2, &Value::from("fail")),
        "{report:#}"
    );
}

#[test]
fn a_server_without_fault_passes_and_the_report_has_its_fields() {
    let result = chat(Fault::None);
    assert_passed(&result);
    let report = &result.1;
    let sent = number(report, "messages", "sent");
    assert!((250..550).contains(&sent), "{sent}");
    assert_eq!(number(report, "messages", "acknowledged"), sent);
    assert_eq!(number(report, "messages", "delivered"), sent);
    assert_eq!(number(report, "receipts", "delivered"), sent);
    let read = number(report, "receipts", "read");
    assert!(
        read > 0 && read < sent,
        "about half of the chats are read: {read} of {sent}"
    );
    for (group, fields) in [
        (
            "sessions",
            &["target", "established", "failed", "lost", "reconnected"][..],
        ),
        ("messages", &["duplicated", "reordered", "lost"]),
        ("receipts", &["missing"]),
        (
            "target",
            &["pid", "rss_bytes", "bytes_per_session", "cpu_s"],
        ),
        ("generator", &["rss_bytes", "cpu_s", "saturated"]),
        ("handshakes", &["full", "resumed"]),
    ] {
        for field in fields {
            assert!(!report[group][field].is_null(), "{group}.{field}");
        }
    }
    for latency in ["ack", "deliver"] {
        for percentile in ["p50", "p90", "p99", "p999", "max"] {
            let value = report["latency_ms"][latency][percentile]
                .as_f64()
                .expect("a number");
            assert!(value > 0.0 && value < 60_000.0);
        }
    }
    assert_eq!(number(report, "handshakes", "full"), 40);
    assert_eq!(number(report, "sessions", "established"), 40);
    assert!(report["handshakes_per_s"].as_f64().expect("a number") > 10.0);
}

#[test]
fn devices_absences_and_threads_change_nothing() {
    let fake = Fake::start(Fault::None);
    let options = [
        "--devices",
        "2",
        "--offline-fraction",
        "0.3",
        "--threads",
        "2",
    ];
    let result = run(&fake, "chat", &[CHAT, &options].concat());
    assert_passed(&result);
    let report = &result.1;
    assert_eq!(
        number(report, "messages", "delivered"),
        3 * number(report, "messages", "sent")
    );
    assert_eq!(
        number(report, "sessions", "disconnected"),
        0,
        "an absence is no loss"
    );
    // The same users again: numbers go on, and what is left of the first run is not taken for this one's.
    assert_passed(&run(&fake, "chat", CHAT));
}

#[test]
fn held_sessions_are_reached() {
    let fake = Fake::start(Fault::None);
    let result = run(
        &fake,
        "hold",
        &["--sessions", "60", "--duration", "1", "--heartbeat", "1"],
    );
    assert_passed(&result);
    assert_eq!(number(&result.1, "messages", "sent"), 60);
    assert!(number(&result.1, "sessions", "heartbeats") > 30);
}

#[test]
fn lost_messages_are_told() {
    let result = chat(Fault::Lose);
    assert_failed(&result);
    assert!(number(&result.1, "messages", "lost") > 0);
    let details = result.1["findings"][0]["details"][0]
        .as_str()
        .expect("a detail");
    assert!(details.contains("not delivered to user"), "{details}");
}

#[test]
fn duplicates_are_told() {
    let result = chat(Fault::Duplicate);
    assert_failed(&result);
    assert!(number(&result.1, "messages", "duplicated") > 0);
}

#[test]
fn wrong_order_is_told() {
    let result = chat(Fault::Reorder);
    assert_failed(&result);
    assert!(number(&result.1, "messages", "reordered") > 0);
}

#[test]
fn receipts_that_do_not_come_are_told() {
    let result = chat(Fault::KeepReceipts);
    assert_failed(&result);
    assert!(number(&result.1, "receipts", "missing") > 0);
}

#[test]
fn an_answer_that_does_not_come_is_told() {
    let result = chat(Fault::KeepAnswers);
    assert_failed(&result);
    assert!(number(&result.1, "messages", "unacknowledged") > 0);
}

#[test]
fn refusals_for_now_are_tried_again_in_order() {
    let result = chat(Fault::Postpone);
    assert_passed(&result);
    assert!(number(&result.1, "messages", "postponed") > 0);
}

#[test]
fn cut_sessions_come_back_and_nothing_is_missing() {
    let result = chat(Fault::Cut);
    assert_passed(&result);
    assert!(number(&result.1, "sessions", "reconnected") > 0);
    assert_eq!(number(&result.1, "sessions", "lost"), 0);
}

#[test]
fn a_held_session_that_is_cut_fails_the_run() {
    let options = ["--sessions", "60", "--duration", "1"];
    assert_failed(&run(&Fake::start(Fault::Cut), "hold", &options));
}

const HOLD: &[&str] = &["--sessions", "60", "--duration", "3"];

/// What a finding says, if there is one of this kind.
fn finding<'a>(report: &'a Value, kind: &str) -> Option<&'a str> {
    let findings = report["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["kind"] == kind)?;
    found["details"][0].as_str()
}

#[test]
fn a_frame_to_a_silent_session_fails_the_run() {
    let result = run(&Fake::start(Fault::Chatty), "hold", HOLD);
    assert_failed(&result);
    let detail = finding(&result.1, "silence_broken").expect("it is told");
    assert!(detail.contains("nobody wrote to"), "{detail}");
}

#[test]
fn a_silent_session_that_is_dropped_fails_the_run_unless_it_may_come_back() {
    let result = run(&Fake::start(Fault::Drop), "hold", HOLD);
    assert_failed(&result);
    assert!(finding(&result.1, "session_cut").is_some());
    let allowed = [HOLD, &["--allow-reconnects"]].concat();
    let result = run(&Fake::start(Fault::Drop), "hold", &allowed);
    assert_passed(&result);
    assert_eq!(number(&result.1, "sessions", "disconnected"), 1);
    assert_eq!(number(&result.1, "sessions", "reconnected"), 1);
}

#[test]
fn t13_clients_on_another_engine_take_part_with_the_same_checks() {
    let mixed = [
        "--quic-engine",
        "lean",
        "--quinn-clients",
        "20",
        "--sample",
        "60",
    ];
    let options = [HOLD, &mixed].concat();
    let result = run(&Fake::start(Fault::None), "hold", &options);
    assert_passed(&result);
    let engines = &result.1["quic_engines"]["generator"];
    assert_eq!(
        (&engines["lean"], &engines["quinn"]),
        (&40.into(), &20.into())
    );
    assert_eq!(number(&result.1, "messages", "delivered"), 60);
    let result = run(&Fake::start(Fault::Lose), "chat", &[CHAT, &mixed].concat());
    assert_failed(&result);
}

#[test]
fn the_course_of_a_run_is_recorded() {
    let result = run(&Fake::start(Fault::None), "hold", HOLD);
    let series = result.1["series"].as_array().expect("points");
    assert!(series.len() >= 3, "{series:?}");
    let held = series.iter().filter(|point| point["stage"] == "hold");
    let sessions: Vec<_> = held.map(|point| point["sessions"].as_u64()).collect();
    assert!(
        sessions.len() >= 2 && sessions.iter().all(|s| *s == Some(60)),
        "{sessions:?}"
    );
    assert!(
        series
            .iter()
            .all(|point| point["generator_rss_bytes"].as_u64() > Some(1_000_000))
    );
}

const QUICK: &[&str] = &["--sessions", "60", "--duration", "1", "--sample", "60"];

#[test]
fn a_storm_brings_everyone_back_while_a_control_group_goes_on() {
    for engine in ["quinn", "lean"] {
        let storm = ["--control", "20", "--quic-engine", engine];
        let fake = Fake::start(Fault::None);
        let result = run(&fake, "storm", &[QUICK, &storm].concat());
        assert_passed(&result);
        let report = &result.1;
        assert_eq!(number(report, "sessions", "cut"), 40);
        assert_eq!(number(report, "sessions", "reconnected"), 40);
        assert_eq!(
            number(report, "sessions", "disconnected"),
            0,
            "cut on purpose"
        );
        let come_back = &report["latency_ms"]["come_back"];
        assert_eq!(come_back["count"], 40);
        assert!(come_back["max"].as_f64() > Some(0.0));
        assert_eq!(number(report, "control", "sessions"), 20);
        assert_eq!(
            number(report, "messages", "sent"),
            number(report, "messages", "acknowledged")
        );
    }
}

#[test]
fn rebound_sockets_keep_their_sessions() {
    for engine in ["quinn", "lean"] {
        let fake = Fake::start(Fault::None);
        let options = [QUICK, &["--over", "1s", "--quic-engine", engine]].concat();
        let result = run(&fake, "rebind", &options);
        assert_passed(&result);
        assert_eq!(number(&result.1, "sessions", "rebinds"), 4);
        assert_eq!(number(&result.1, "sessions", "disconnected"), 0);
        assert_eq!(number(&result.1, "messages", "delivered"), 60);
    }
}

#[test]
fn sessions_leave_and_join_and_nothing_is_missing() {
    let options = [
        "--sessions",
        "40",
        "--rate",
        "100",
        "--duration",
        "4",
        "--churn",
        "0.2",
    ];
    let result = run(&Fake::start(Fault::None), "churn", &options);
    assert_passed(&result);
    let churned = number(&result.1, "sessions", "churned");
    assert!(
        (15..=40).contains(&churned),
        "a fifth of 40 each second, for 4 s: {churned}"
    );
    assert_eq!(number(&result.1, "sessions", "disconnected"), 0);
}

#[test]
fn a_fan_out_is_measured_to_its_last_receiver() {
    let options = [
        "--sessions",
        "40",
        "--rate",
        "20",
        "--duration",
        "2",
        "--receivers",
        "9",
    ];
    let result = run(&Fake::start(Fault::None), "fanout", &options);
    assert_passed(&result);
    let sent = number(&result.1, "messages", "sent");
    let fanned_out = &result.1["latency_ms"]["fan_out"];
    assert_eq!(fanned_out["count"].as_u64(), Some(sent / 9), "{fanned_out}");
    let deliver = &result.1["latency_ms"]["deliver"];
    assert!(fanned_out["max"].as_f64() >= deliver["max"].as_f64());
}

#[test]
fn a_day_has_conversations() {
    let options = [
        "--sessions",
        "40",
        "--rate",
        "150",
        "--duration",
        "3",
        "--think",
        "100ms",
    ];
    let result = run(&Fake::start(Fault::None), "day", &options);
    assert_passed(&result);
    assert!(number(&result.1, "messages", "sent") > 100);
}

#[test]
fn a_scenario_file_has_steps() {
    let fake = Fake::start(Fault::None);
    let path = fake.directory().join("evening.toml");
    let text = r#"
name = "evening"
[options]
sessions = 40
devices = 2
[[step]]
do = "exchange"
rate = "20-200@1s,200"
time = "2s"
[[step]]
do = "hold"
time = "4s"
[[step]]
do = "storm"
spread = "1s"
[[step]]
do = "exchange"
who = "sample"
"#;
    std::fs::write(&path, text).expect("written");
    let path = path.to_str().expect("UTF-8").to_owned();
    let result = run(&fake, "run", &[&path, "--sample", "20"]);
    assert_passed(&result);
    assert_eq!(result.1["scenario"], "evening");
    assert_eq!(number(&result.1, "sessions", "cut"), 40);
    let series = result.1["series"].as_array().expect("points");
    let held = series
        .iter()
        .filter(|point| point["stage"] == "hold")
        .count();
    assert!(
        held >= 5,
        "two seconds after the ramp and four as a step: {held}"
    );
    let sent = number(&result.1, "messages", "sent");
    assert!((240..420).contains(&sent), "110 + 200 + 20: {sent}");
}

/// Some of those who went away in the exchange stay away until the end of the run: a storm is over
/// without them.
#[test]
fn an_upset_waits_for_nobody_who_was_away_before_it() {
    let fake = Fake::start(Fault::None);
    let path = fake.directory().join("away.toml");
    let text = r#"
name = "away"
[options]
sessions = 60
[[step]]
do = "exchange"
rate = 100
time = "2s"
offline = 0.5
[[step]]
do = "storm"
patience = "60s"
[[step]]
do = "exchange"
who = "sample"
"#;
    std::fs::write(&path, text).expect("written");
    let path = path.to_str().expect("UTF-8").to_owned();
    let result = run(&fake, "run", &[&path]);
    assert_passed(&result);
    assert!(number(&result.1, "sessions", "cut") < 60, "some were away");
    let series = result.1["series"].as_array().expect("points");
    let storm = series.iter().filter(|point| point["stage"] == "storm");
    assert!(storm.count() < 50, "it did not wait for its patience");
}

/// A sample has no end but its last message: it must not wait for those of conversations before it.
#[test]
fn conversations_end_with_their_exchange() {
    let fake = Fake::start(Fault::None);
    let path = fake.directory().join("talk.toml");
    let text = r#"
name = "talk"
[options]
sessions = 40
sample = 20
[[step]]
do = "exchange"
who = "talk"
rate = 100
time = "1s"
think = "30s"
[[step]]
do = "exchange"
who = "sample"
"#;
    std::fs::write(&path, text).expect("written");
    let path = path.to_str().expect("UTF-8").to_owned();
    let result = run(&fake, "run", &[&path]);
    assert_passed(&result);
    let series = result.1["series"].as_array().expect("points");
    let sending = series.iter().filter(|point| point["stage"] == "exchange");
    assert!(sending.count() < 40, "the sample waited for a minute");
}

#[test]
fn a_limit_that_is_not_kept_fails_the_run() {
    let kept = [
        "--assert",
        "ack.p99_ms<60000",
        "--assert",
        "sessions.lost==0",
    ];
    let result = run(&Fake::start(Fault::None), "chat", &[CHAT, &kept].concat());
    assert_passed(&result);
    let broken = ["--assert", "ack.p99_ms<0.000001"];
    let result = run(&Fake::start(Fault::None), "chat", &[CHAT, &broken].concat());
    assert_failed(&result);
    assert_eq!(result.1["limits"][0]["kept"], false);
    let unmeasured = ["--assert", "come_back.p99_ms<60000"];
    assert_failed(&run(
        &Fake::start(Fault::None),
        "chat",
        &[CHAT, &unmeasured].concat(),
    ));
}

#[test]
fn a_limit_on_nothing_known_is_an_error_at_once() {
    let fake = Fake::start(Fault::None);
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["chat", "--assert", "deliver.p98_ms<1", "--data"])
        .arg(fake.directory())
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("deliver.p99_ms"), "{errors}");
}

#[test]
fn the_report_is_written_for_people_and_for_spreadsheets() {
    let fake = Fake::start(Fault::None);
    let page = fake.directory().join("report.html");
    let table = fake.directory().join("report.csv");
    let files = [
        "--html",
        page.to_str().expect("UTF-8"),
        "--csv",
        table.to_str().expect("UTF-8"),
    ];
    assert_passed(&run(&fake, "chat", &[CHAT, &files].concat()));
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.matches("<svg").count() >= 8 && page.contains("PASS"));
    for outside in ["http://", "https://", "<script", "<link", "<img"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let table = std::fs::read_to_string(table).expect("a table");
    assert!(table.lines().count() >= 4, "{table}");
}

#[test]
fn the_highest_rate_is_searched() {
    let options = [
        "--sessions",
        "40",
        "--rate",
        "40",
        "--duration",
        "1",
        "--find-max",
    ];
    // No server keeps this one: the search goes down to nothing.
    let impossible = [&options[..], &["--assert", "ack.p99_ms<0.000001"]].concat();
    let result = run(&Fake::start(Fault::None), "chat", &impossible);
    assert_failed(&result);
    let search = &result.1["find_max"];
    assert!(search["rate"].is_null(), "{search}");
    assert_eq!(search["limited_by"], "ack.p99_ms<0.000001");
    assert!(search["trials"].as_array().expect("a list").len() >= 4);
}

/// A run on two agents of the test's own, and their names.
fn run_on_agents(fake: &Fake) -> ((i32, Value), [String; 2]) {
    let agents = [0, 1].map(|_| Agent::start(fake.directory()));
    let names = agents.each_ref().map(|agent| agent.address.clone());
    let token = token_file(fake.directory());
    let token = token.to_str().expect("UTF-8");
    let all = names.join(",");
    let options = ["--agents", &all, "--agent-token-file", token];
    (run(fake, "chat", &[CHAT, &options].concat()), names)
}

#[test]
fn agents_make_one_run_together() {
    let (result, _) = run_on_agents(&Fake::start(Fault::None));
    assert_passed(&result);
    let report = &result.1;
    assert_eq!(number(report, "sessions", "established"), 40);
    assert_eq!(report["threads"], 2, "one each");
    let sent = number(report, "messages", "sent");
    assert!((250..550).contains(&sent), "the rate is shared: {sent}");
    assert_eq!(
        report["latency_ms"]["ack"]["count"].as_u64(),
        Some(sent),
        "all histograms"
    );
}

#[test]
fn an_agent_that_sees_a_fault_fails_the_run_and_is_named() {
    let (result, names) = run_on_agents(&Fake::start(Fault::Lose));
    assert_failed(&result);
    let report = &result.1;
    let findings = report["findings"].as_array().expect("a list");
    let lost = findings.iter().find(|finding| finding["kind"] == "lost");
    let lost = lost.expect("messages were lost");
    let by_agent = lost["by_agent"].as_object().expect("who found it");
    let counts = by_agent
        .values()
        .map(|count| count.as_u64().expect("a count"));
    assert_eq!(Some(counts.sum()), lost["count"].as_u64());
    assert!(by_agent.keys().all(|name| names.contains(name)), "{lost}");
    let detail = lost["details"][0].as_str().expect("words");
    assert!(
        names.iter().any(|name| detail.starts_with(name)),
        "{detail}"
    );
    let parts = report["agents"].as_array().expect("a list");
    let found = parts.iter().map(|part| part["findings"].as_u64());
    let all = findings.iter().map(|finding| finding["count"].as_u64());
    assert_eq!(
        found.map(Option::unwrap_or_default).sum::<u64>(),
        all.map(Option::unwrap_or_default).sum::<u64>()
    );
}

#[test]
fn an_agent_serves_nobody_without_its_token() {
    let fake = Fake::start(Fault::None);
    let agent = Agent::start(fake.directory());
    let other = fake.directory().join("other-token");
    std::fs::write(&other, "another token of some length").expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["chat", "--agents", &agent.address, "--agent-token-file"])
        .arg(&other)
        .arg("--data")
        .arg(fake.directory())
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("same token"), "{errors}");
}
