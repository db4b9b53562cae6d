//! Whoever asks too much of the admin address, which asks nobody who they are, harms neither the store nor the operator.

mod support;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::edge::roadstead_after;
use support::{Client, Edge, PATIENCE, chat, soon};

/// The least hard limit that a server of two shards is content with, and some more.
const FEW_DESCRIPTORS: &str = "ulimit -n 300";

/// Connections that hoard.
const HOARDED: usize = 1_100;

/// Bytes of messages that make the store begin files: more than it keeps in memory.
const STORED_BYTES: usize = 36 << 20;

/// Connections of this process.
fn raise_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
}

/// Connections that say nothing, that never end a request, and that read none of many answers.
fn hoard(admin: SocketAddr) -> Vec<TcpStream> {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    let said = [String::new(), request[..30].to_owned(), request.repeat(100)];
    let open = |n: usize| {
        let mut stream = TcpStream::connect(admin).expect("admin listens");
        // It may have made room for another already.
        let _ = stream.write_all(said[n % said.len()].as_bytes());
        stream
    };
    (0..HOARDED).map(open).collect()
}

/// The log files of the store.
fn logs(data: &Path) -> BTreeSet<OsString> {
    let folder = std::fs::read_dir(data.join("store/log")).expect("a folder");
    folder
        .map(|entry| entry.expect("an entry").file_name())
        .collect()
}

/// Reads until the end of a connection, and answers what came.
fn read_to_end(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => bytes,
    }
}

#[tokio::test]
async fn fc3_idle_admin_connections_leave_the_store_its_files() {
    raise_own_limit();
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    // One inbox has room for all of it, and one sender may fill that.
    let config = folder.path().join("roadstead.toml");
    std::fs::write(&config, "[sessions]\ninbox_mib_max = 1024\n").expect("a file");
    let config = config.display().to_string();
    let options = ["--shards", "2", "--config", &config];
    let edge = Edge::start_after(FEW_DESCRIPTORS, &data, &options);
    Client::login(&edge, 2, 22).await.leave().await;
    let mut one = Client::login(&edge, 1, 11).await;
    let before = logs(&data);
    let hoarded = hoard(edge.admin);

    // The operator gets in: one that hoards makes room.
    assert_eq!(edge.get("/healthz").await.0, 200);
    assert_eq!(edge.get("/readyz").await.0, 200);
    // The store begins logs and tables, and refuses nothing: `result` skips no error.
    let payload = vec![7; roadstead_proto::limits::PAYLOAD_BYTES_MAX];
    for _ in 0..=STORED_BYTES / payload.len() {
        one.message(chat(1, 2), &payload).await;
        let committed = soon("an answer", one.try_next()).await.expect("open");
        assert!(
            matches!(committed, support::Expect::SendResult(_)),
            "{committed:?}"
        );
    }
    assert_ne!(logs(&data), before, "a log was begun");
    Client::login(&edge, 3, 33).await;
    assert_eq!(edge.get("/readyz").await.0, 200);
    assert_eq!(edge.metric("roadstead_store_failures_total", "").await, 0);
    assert_eq!(
        edge.metric("roadstead_store_unavailable_total", "").await,
        0
    );
    assert_eq!(
        edge.metric("roadstead_admin_accept_failed_total", "").await,
        0
    );
    let open = edge.metric("roadstead_admin_connections", "").await;
    assert!((1..=64).contains(&open), "{open}");
    let name = "roadstead_admin_connections_closed_total";
    let closed = edge.metric(name, "hoarded").await;
    assert!(closed >= (HOARDED - 64) as u64, "{closed}");
    drop(hoarded);
}

#[tokio::test]
async fn fc3_a_connection_without_a_request_is_ended() {
    let edge = Edge::start();
    let silent = TcpStream::connect(edge.admin).expect("admin listens");
    let mut half = TcpStream::connect(edge.admin).expect("admin listens");
    half.write_all(b"GET /healthz HTTP/1.1\r\nHost: ")
        .expect("sent");
    // One that was answered and asks nothing more.
    let mut kept = TcpStream::connect(edge.admin).expect("admin listens");
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", edge.admin);
    kept.write_all(request.as_bytes()).expect("sent");
    let ends =
        [silent, half, kept].map(|stream| tokio::task::spawn_blocking(|| read_to_end(stream)));
    let mut answers = Vec::new();
    for end in ends {
        answers.push(soon("its end", end).await.expect("it ended"));
    }
    assert!(answers[2].starts_with(b"HTTP/1.1 200"), "{answers:?}");
    edge.metric_reaches("roadstead_admin_connections_closed_total", "timeout", 3)
        .await;
}

#[tokio::test]
async fn fc3_a_head_that_is_too_large_is_refused() {
    let edge = Edge::start();
    let mut stream = TcpStream::connect(edge.admin).expect("admin listens");
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\nX: ", edge.admin);
    stream.write_all(request.as_bytes()).expect("sent");
    let _ = stream.write_all(&[b'x'; 9_000]);
    let _ = stream.write_all(b"\r\n\r\n");
    let answer = read_to_end(stream);
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(edge.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn fc3_the_soft_limit_of_open_files_is_raised() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let edge = Edge::start_after("ulimit -S -n 128", &data, &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", edge.id())).expect("it runs");
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.expect("the kernel says").split_whitespace();
    assert_eq!(numbers.next(), numbers.next(), "{limits}");
}

/// P9 of the field: with 16 it said 'ready', and the admin address never answered.
#[tokio::test]
async fn fc3_a_limit_of_open_files_that_is_too_low_is_a_clear_error() {
    for limit in [16, 24, 64, 128] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = roadstead_after(&format!("ulimit -n {limit}"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command
            .args(["--shards", "2", "--data"])
            .arg(folder.path().join("data"));
        let child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = soon("its end", child.wait_with_output())
            .await
            .expect("it ran");
        assert_eq!(output.status.code(), Some(1), "{limit}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = format!("the limit of open files is {limit}, and 263 are needed");
        assert!(error.contains(&said), "{error}");
    }
}

#[tokio::test]
async fn df23_the_account_of_memory_is_taken_once_a_second_for_all_who_ask() {
    let edge = Edge::start();
    let before = Instant::now();
    let asked: Vec<_> = (0..40).map(|_| edge.get("/debug/memory")).collect();
    for (status, text) in futures_util::future::join_all(asked).await {
        assert!(status == 200 && text.contains("anonymous memory"), "{text}");
    }
    // Whoever hangs up at once is no cause to begin again either.
    for _ in 0..40 {
        let mut stream = TcpStream::connect(edge.admin).expect("admin listens");
        let request = format!("GET /debug/memory HTTP/1.1\r\nHost: {}\r\n\r\n", edge.admin);
        stream.write_all(request.as_bytes()).expect("sent");
    }
    assert_eq!(edge.get("/debug/memory").await.0, 200);
    let taken = edge.metric("roadstead_memory_accounts_total", "").await;
    let seconds = before.elapsed().as_secs();
    assert!((1..=seconds + 1).contains(&taken), "{taken} in {seconds} s");
    // What it says is not older than that.
    let _one = Client::login(&edge, 1, 11).await;
    let counted = async {
        while !edge.get("/debug/memory").await.1.contains("1 sessions") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("the session in the account", counted).await;
}

/// What a page of evil.example asks when that name leads to this address.
#[tokio::test]
async fn fc9_a_request_for_another_host_is_not_answered() {
    let edge = Edge::start();
    let port = edge.admin.port();
    let pages = [
        "/metrics",
        "/healthz",
        "/readyz",
        "/debug/memory",
        "/nothing",
    ];
    for path in pages {
        let (status, body) = edge
            .get_with(path, &format!("Host: evil.example:{port}\r\n"))
            .await;
        assert_eq!(status, 421, "{path}: {body}");
        assert!(!body.contains("shard") && !body.contains("pid"), "{body}");
    }
    for host in ["localhost", "[::1]", "127.0.0.1"] {
        let (status, _) = edge
            .get_with("/healthz", &format!("Host: {host}:{port}\r\n"))
            .await;
        assert_eq!(status, 200, "{host}");
    }
    let foreign = format!("Host: {}\r\nOrigin: http://evil.example\r\n", edge.admin);
    assert_eq!(edge.get_with("/metrics", &foreign).await.0, 403);
    let own = format!("Host: {0}\r\nOrigin: http://{0}\r\n", edge.admin);
    assert_eq!(edge.get_with("/metrics", &own).await.0, 200);
    assert_eq!(edge.get_with("/metrics", "").await.0, 400);

    let refused = |reason| edge.metric("roadstead_admin_refused_total", reason);
    assert_eq!(refused("host").await, pages.len() as u64);
    assert_eq!(refused("origin").await, 1);
    assert_eq!(refused("malformed").await, 1);
}

#[tokio::test]
async fn fc9_a_name_that_the_operator_gave_is_answered() {
    let edge = Edge::start_with("admin_names = [\"metrics.example\"]\n", &[]);
    for (host, expected) in [
        ("metrics.example", 200),
        ("metrics.example:80", 200),
        ("other.example", 421),
    ] {
        let (status, _) = edge
            .get_with("/healthz", &format!("Host: {host}\r\n"))
            .await;
        assert_eq!(status, expected, "{host}");
    }
}

/// What Prometheus asks of a name: seconds, and never a part of them.
#[tokio::test]
async fn fp13_times_are_seconds() {
    let edge = Edge::start_with("", &["--shards", "1"]);
    let mut one = Client::login(&edge, 1, 11).await;
    let _two = Client::login(&edge, 2, 22).await;
    one.message(chat(1, 2), b"timed").await;
    one.result().await;
    let names = [
        "roadstead_login_seconds_total",
        "roadstead_store_commit_seconds_total",
        "roadstead_store_read_seconds_total",
    ];
    let (_, page) = edge.get("/metrics").await;
    for name in names {
        let samples = page.lines().filter(|line| line.starts_with(name));
        let values = samples.map(|line| line.rsplit(' ').next().expect("a value"));
        let sum: f64 = values.map(|value| value.parse::<f64>().expect(name)).sum();
        assert!((0.0..3_600.0).contains(&sum), "{name} {sum}");
        assert!(page.contains(&format!("# TYPE {name} counter")), "{name}");
    }
    assert!(
        !page.contains("microseconds") && !page.contains("_us_total"),
        "{page}"
    );
}
