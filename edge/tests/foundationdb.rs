//! The edge on a real FoundationDB cluster that is started here, and what befalls that cluster. Without
//! `fdbserver` and `fdbcli` on the PATH every test says that it was skipped.

#[path = "../../store/tests/rig/cluster.rs"]
#[allow(dead_code, reason = "the store's tests use the rest")]
mod cluster;
mod support;

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::Cluster;
use roadstead_proto::ErrorCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::edge::roadstead;
use support::{Client, Edge, Expect, chat, sibling, soon};

/// A cluster and an edge on it.
struct Place {
    edge: Edge,
    cluster: Cluster,
}

impl Place {
    #[allow(clippy::print_stderr, reason = "a test that did not run says so")]
    fn start() -> Option<Self> {
        let Some(cluster) = Cluster::start() else {
            eprintln!("skipped: fdbserver and fdbcli are not on the PATH");
            return None;
        };
        let edge = Edge::start_with("", &on(&cluster.file().display().to_string()));
        Some(Self { edge, cluster })
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.cluster.pid()).expect("a process id");
        let pid = Pid::from_raw(pid).expect("a process id is positive");
        kill_process(pid, signal).expect("it can be signalled");
    }

    async fn becomes_ready(&self, status: u16) {
        let changed = async {
            while self.edge.get("/readyz").await.0 != status {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        soon(&format!("/readyz answering {status}"), changed).await;
    }

    fn load(&self, options: &[&str]) -> Child {
        Command::new(sibling("loadgen", "roadstead-loadgen"))
            .arg("chat")
            .args(["--target", &self.edge.listen.to_string()])
            .args(["--admin", &self.edge.admin.to_string()])
            .arg("--data")
            .arg(&self.edge.data)
            .args(["--quiet", "--json"])
            .arg(self.edge.data.join("report.json"))
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("loadgen runs")
    }

    fn passes(&self, child: Child) -> Value {
        let output = child.wait_with_output().expect("loadgen ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        let text = std::fs::read_to_string(self.edge.data.join("report.json"));
        let report: Value = serde_json::from_str(&text.expect("a report")).expect("valid JSON");
        assert_eq!(report["verdict"], "pass", "{said}");
        assert_eq!(report["messages"]["lost"], 0);
        assert_eq!(report["messages"]["duplicated"], 0);
        report
    }
}

fn on(file: &str) -> [&str; 4] {
    ["--store", "foundationdb", "--cluster-file", file]
}

/// R8, R15: the database is killed and comes back in the middle of the load. Nothing acknowledged is
/// lost, nothing comes twice, and no session is dropped for it.
#[tokio::test]
async fn the_database_is_killed_in_the_middle_of_the_load() {
    let Some(mut place) = Place::start() else {
        return;
    };
    let options = ["--sessions", "60", "--rate", "100", "--duration", "20"];
    let child = place.load(&options);
    let committed = "roadstead_sends_committed_total";
    place.edge.metric_reaches(committed, "", 300).await;
    place.cluster.kill();
    place.cluster.restart();
    let then = place.edge.metric(committed, "").await;
    place.edge.metric_reaches(committed, "", then + 300).await;
    let report = place.passes(child);
    assert_eq!(report["sessions"]["lost"], 0, "{}", report["sessions"]);
    assert_eq!(report["sessions"]["reconnected"], 0);
    place.becomes_ready(200).await;
}

/// The database stops for a minute and goes on. Sends fail as retryable, readiness turns red and green,
/// sessions stay, and what was answered is there once.
#[tokio::test]
async fn the_database_stops_for_a_minute() {
    let Some(place) = Place::start() else {
        return;
    };
    let mut two = Client::login(&place.edge, 2, 22).await;
    let mut one = Client::login(&place.edge, 1, 11).await;
    one.message(chat(1, 2), b"before").await;
    one.result().await;
    let cursor = two.deliver().await.cursor;
    two.ack(cursor).await;

    let began = Instant::now();
    place.signal(Signal::STOP);
    one.message_numbered(2, chat(1, 2), b"meanwhile").await;
    place.becomes_ready(503).await;
    assert_eq!(
        place.edge.get("/healthz").await.0,
        200,
        "alive, though not ready"
    );
    let refused = match one.next().await {
        Expect::Error(error) => error,
        other => panic!("{other:?}"),
    };
    let expected = (2, ErrorCode::StoreUnavailable, true);
    let told = (refused.number, refused.code(), refused.retryable);
    assert_eq!(told, expected, "R26: within its limit");
    assert!(began.elapsed() < Duration::from_secs(15));
    // This is the scenario: a database that is silent for a minute, by its own clock and by ours.
    tokio::time::sleep(Duration::from_secs(60).saturating_sub(began.elapsed())).await;
    place.signal(Signal::CONT);
    place.becomes_ready(200).await;

    let again = async {
        loop {
            one.message_numbered(2, chat(1, 2), b"meanwhile").await;
            match one.try_next().await.expect("the session was kept") {
                Expect::SendResult(result) => return result.number,
                Expect::Error(error) => assert!(error.retryable, "{error:?}"),
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(soon("the refused send", again).await, 2);
    let deliver = two.deliver().await;
    assert_eq!(&deliver.envelope.expect("one").payload[..], b"meanwhile");
    two.ack(deliver.cursor).await;
    one.message_numbered(3, chat(1, 2), b"after").await;
    let deliver = two.deliver().await;
    assert_eq!(
        &deliver.envelope.expect("one").payload[..],
        b"after",
        "once"
    );
}

/// R24: a second process with the same number. The first one closes its sessions and ends.
#[tokio::test]
async fn r24_an_edge_that_was_taken_over_closes_its_sessions_and_ends() {
    let Some(mut place) = Place::start() else {
        return;
    };
    let mut one = Client::login(&place.edge, 1, 11).await;
    let file = place.cluster.file().display().to_string();
    let data = tempfile::tempdir().expect("a directory");
    for name in std::fs::read_dir(&place.edge.data).expect("a directory") {
        let path = name.expect("an entry").path();
        if path.is_file() {
            let to = data.path().join(path.file_name().expect("a name"));
            std::fs::copy(&path, to).expect("copies");
        }
    }
    let second = Edge::start_on(data.path(), None, "", &on(&file));
    assert_eq!(
        soon("the end", one.closed()).await,
        Some(ErrorCode::Draining)
    );
    assert_eq!(
        place.edge.terminate().code(),
        Some(3),
        "not to be restarted"
    );
    let (mut one, _) = Client::resume(&second, 1, 11, 2, Bytes::new()).await;
    one.message(chat(1, 1), b"goes on").await;
    assert_eq!(one.result().await.number, 1);
}

/// R3: from the data directory into the cluster and back, by the commands that operators have.
#[tokio::test]
async fn r3_a_store_moves_into_the_cluster_and_back() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let edge = Edge::start();
    let mut sent = BTreeSet::new();
    Client::login(&edge, 2, 22).await.leave().await;
    let mut one = Client::login(&edge, 1, 11).await;
    for number in 1..=50 {
        one.message(chat(1, 2), format!("{number}").as_bytes())
            .await;
        sent.insert(one.result().await.position);
    }
    let data = edge.data.display().to_string();
    let file = cluster.file().display().to_string();
    let mut edge = edge;
    assert_eq!(edge.terminate().code(), Some(0));
    let out = edge.data.join("out");
    let exported = store(&["export", &out.display().to_string(), "--data", &data]);
    let mut import = vec!["import".to_owned(), out.display().to_string()];
    import.extend(on(&file).map(str::to_owned));
    let import: Vec<&str> = import.iter().map(String::as_str).collect();
    let imported = store(&import);
    let summary = |said: &str| said.split_once(' ').map(|(_, rest)| rest.to_owned());
    assert_eq!(summary(&exported), summary(&imported));

    let edge = Edge::start_on(&edge.data.clone(), None, "", &on(&file));
    let (mut two, _) = Client::resume(&edge, 2, 22, 2, Bytes::new()).await;
    for position in &sent {
        let deliver = two.deliver().await;
        assert_eq!(deliver.cursor, *position);
        two.ack(deliver.cursor).await;
    }
}

/// What a `roadstead store` command says.
fn store(arguments: &[&str]) -> String {
    let output = roadstead().arg("store").args(arguments).output();
    let output = output.expect("roadstead runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).expect("text")
}
