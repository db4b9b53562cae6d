//! What operators rely on: readiness, metrics, drain, clear errors.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use bytes::Bytes;
use roadstead_proto::ErrorCode;
use rustix::process::{Pid, Signal, kill_process};
use support::edge::roadstead;
use support::{Client, Edge, Expect, chat, soon};

#[tokio::test]
async fn health_readiness_and_metrics_answer() {
    let edge = Edge::start();
    let (status, body) = edge.get("/healthz").await;
    assert!(
        status == 200 && body.contains("\"status\":\"ok\""),
        "{body}"
    );
    assert_eq!(edge.get("/readyz").await.0, 200);
    assert_eq!(edge.get("/nothing").await.0, 404);
    let _one = Client::login(&edge, 1, 11).await;
    edge.metric_reaches("roadstead_sessions_active", "", 1)
        .await;
    edge.metric_reaches("roadstead_net_handshakes_full_total", "", 1)
        .await;
    edge.metric_reaches("roadstead_logins_by_token_total", "", 1)
        .await;
}

/// A message to a session that waits for it is timed, one that waited for its session is not.
#[tokio::test]
async fn deliveries_are_timed() {
    let edge = Edge::start();
    let mut one = Client::login(&edge, 1, 11).await;
    Client::login(&edge, 2, 22).await.leave().await;
    edge.metric_reaches("roadstead_sessions_active", "", 1)
        .await;
    one.message(chat(1, 2), b"while it is away").await;
    one.result().await;
    let (mut two, _) = Client::resume(&edge, 2, 22, 2, Bytes::new()).await;
    two.deliver().await;
    one.message(chat(1, 2), b"while it waits").await;
    two.deliver().await;
    edge.metric_reaches("roadstead_deliver_seconds_count", "", 1)
        .await;
    edge.metric_reaches("roadstead_deliver_seconds_bucket", "+Inf", 1)
        .await;
    let counted = edge.metric("roadstead_deliver_seconds_count", "").await;
    assert_eq!(counted, 1);
}

#[tokio::test]
async fn the_account_of_memory_names_each_shard_and_the_rest() {
    let edge = Edge::start();
    let _one = Client::login(&edge, 1, 11).await;
    let (status, text) = edge.get("/debug/memory").await;
    assert_eq!(status, 200, "{text}");
    let sessions = text
        .lines()
        .filter_map(|line| line.strip_prefix("shard ")?.split_whitespace().nth(1))
        .map(|count| count.parse::<u32>().expect("a number"));
    assert_eq!(sessions.sum::<u32>(), 1, "{text}");
    for part in ["transport, table", "directory", "rest", "anonymous memory"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn sigterm_drains_and_exits_with_zero() {
    let mut edge = Edge::start();
    let mut one = Client::login(&edge, 1, 11).await;
    let mut two = Client::login(&edge, 2, 22).await;
    one.message(chat(1, 2), b"before the drain").await;
    one.result().await;
    let deliver = two.deliver().await;
    two.ack(deliver.cursor.clone()).await;
    edge.signal(Signal::TERM);
    let pick = |frame| {
        if let Expect::GoAway(it) = frame {
            Some(it)
        } else {
            None
        }
    };
    let go_away = one.wait_for("GoAway", pick).await;
    assert!(go_away.reconnect_after_ms < 5_000);
    assert_eq!(one.closed().await, Some(ErrorCode::Draining));
    assert_eq!(edge.terminate().code(), Some(0));

    // R18: what was acknowledged before the drain does not come again.
    edge.restart();
    let mut two = Client::login(&edge, 2, 22).await;
    let mut one = Client::login(&edge, 1, 11).await;
    one.message_numbered(2, chat(1, 2), b"after it").await;
    assert_eq!(
        &two.deliver().await.envelope.expect("one").payload[..],
        b"after it"
    );
}

/// A log on a full disk, or one whose reader has gone.
#[test]
fn a_log_that_can_not_be_written_ends_nothing() {
    let full = || File::options().write(true).open("/dev/full");
    let data = tempfile::tempdir().expect("a directory");
    let mut child = roadstead()
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .arg("--data")
        .arg(data.path())
        .stdout(Stdio::piped())
        .stderr(full().expect("Linux has it"))
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("read");
    assert!(line.starts_with("roadstead ready"), "{line:?}");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    assert_eq!(child.wait().expect("it was started").code(), Some(0));

    // A command whose answer is lost has failed, in words.
    let output = roadstead()
        .arg("config")
        .stdout(full().expect("Linux has it"))
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("standard output"), "{error}");
}

/// A log into a pipe that nobody reads: its lines are dropped and counted, and no shard waits for it.
#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    // quinn-proto says the most.
    let mut edge = Edge::start_unread("log = \"trace\"\nquic_engine = \"quinn\"\n");
    let mut one = Client::login(&edge, 1, 11).await;
    let mut two = Client::login(&edge, 2, 22).await;
    let until_dropped = async {
        while edge.metric("roadstead_log_dropped_total", "").await == 0 {
            pass_a_message(&mut one, &mut two).await;
        }
    };
    soon("a dropped line", until_dropped).await;
    for _ in 0..20 {
        pass_a_message(&mut one, &mut two).await;
    }
    assert_eq!(edge.terminate().code(), Some(0));
}

async fn pass_a_message(one: &mut Client, two: &mut Client) {
    one.message(chat(1, 2), b"anything").await;
    one.result().await;
    let deliver = two.deliver().await;
    two.ack(deliver.cursor).await;
}

#[tokio::test]
async fn t17_a_port_in_use_is_a_clear_error() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = taken.local_addr().expect("bound").to_string();
    let data = tempfile::tempdir().expect("a directory");
    let output = roadstead()
        .args([
            "serve",
            "--listen",
            &address,
            "--admin",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(data.path())
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains(&address) && error.contains("in use"),
        "{error}"
    );
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused() {
    let edge = Edge::start();
    let output = roadstead()
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(&edge.data)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("store"), "{error}");
}

#[tokio::test]
async fn a_broken_configuration_is_named() {
    let data = tempfile::tempdir().expect("a directory");
    let file = data.path().join("edge.toml");
    std::fs::write(&file, "[sessions]\nheartbeet_s = 3\n").expect("written");
    let output = roadstead()
        .arg("serve")
        .arg("--config")
        .arg(&file)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("heartbeet_s") && error.contains("edge.toml"),
        "{error}"
    );
}

#[tokio::test]
async fn secrets_are_the_owners_alone() {
    let edge = Edge::start();
    for name in [
        "cert-key.pem",
        "token-key.pem",
        "reset.key",
        "retry.key",
        "resume.key",
    ] {
        let mode = std::fs::metadata(edge.data.join(name))
            .expect(name)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn shards_are_pinned_to_cores_that_the_process_may_use() {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .expect("the kernel says")
        .trim();
    let last = list.rsplit([',', '-']).next().expect("a core");
    let data = tempfile::tempdir().expect("a directory");
    let mut child = std::process::Command::new("taskset")
        .args(["--cpu-list", last])
        .arg(roadstead().get_program())
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .arg("--data")
        .arg(data.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("taskset runs");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("read");
    let mut shards = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("its threads") {
        let task = task.expect("a thread").path();
        let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        if name.starts_with("shard-") {
            let status = std::fs::read_to_string(task.join("status")).expect("readable");
            assert!(
                status.contains(&format!("Cpus_allowed_list:\t{last}\n")),
                "{status}"
            );
            shards.push(name);
        }
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it was started");
    assert!(line.starts_with("roadstead ready"), "{line}");
    assert_eq!(shards, ["shard-0\n"], "one core, one shard");
}
