//! The engine on a real cluster: the one that `FDB_CLUSTER_FILE` names, or one that is started here if
//! `fdbserver` and `fdbcli` are installed. Otherwise it says that it was skipped.
//!
//! No test harness: the client's network thread starts once in a process and has to be stopped before
//! its end.
#![allow(
    clippy::print_stdout,
    reason = "there is no harness to say which check runs"
)]

mod rig;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use rig::ask::{Ask, Who};
use rig::cluster::Cluster;
use rig::{PATIENCE, SHARD, device, item, rules, user};
use roadstead::ShardId;
use roadstead::store::{
    Command, Completion, InboxLimits, Outcome, Request, RequestId, Sends, StoreError,
};
use roadstead::time::Time;
use roadstead_proto::Position;
use roadstead_store::Health;
use roadstead_store::conformance::{self, ConcurrentEngine};
use roadstead_store::foundationdb::{
    FoundationConfig, FoundationError, FoundationLimits, FoundationStore, Network, Raw,
};
use roadstead_store::memory::MemoryEngine;
use roadstead_store::transfer::{self, TransferError};
use roadstead_store::txn::{Txn, ready};

fn main() {
    let network = Network::start().expect("the client starts");
    a_silent_cluster_is_told(&network);
    let named = std::env::var_os("FDB_CLUSTER_FILE").map(PathBuf::from);
    let own = if named.is_none() {
        Cluster::start()
    } else {
        None
    };
    let Some(file) = named.or_else(|| own.as_ref().map(Cluster::file)) else {
        println!(
            "the rest is skipped: FDB_CLUSTER_FILE names no cluster, and no fdbserver is installed"
        );
        network.stop();
        return;
    };
    let place = Place {
        network,
        file,
        run: format!("test-{}", std::process::id()),
    };
    let began = Instant::now();
    conforms(&place);
    moves(&place);
    stamps_grow(&place);
    fences(&place);
    macro_rules! run {
        ($($name:ident),* $(,)?) => { $(
            rules::$name(&mut place.rig(stringify!($name)));
            println!("ok {}", stringify!($name));
        )* };
    }
    rules::for_every_rule!(run);
    throughput(&place);
    println!("ok, all in {:.1} s", began.elapsed().as_secs_f64());
    place.network.stop();
}

/// Nobody listens where the cluster should be: that takes as long as it was given, and no longer.
fn a_silent_cluster_is_told(network: &Network) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cluster");
    std::fs::write(&file, "nobody:nobody@127.0.0.1:1").expect("a cluster file");
    let began = Instant::now();
    let timeout = Duration::from_millis(200);
    let opened = block_on(Raw::open(network, Some(&file), "default", timeout));
    assert!(
        matches!(opened, Err(FoundationError::NoAnswer)),
        "{opened:?}"
    );
    assert!(began.elapsed() < PATIENCE);
    println!("ok a silent cluster is told");
}

/// A cluster, and a part of it for this run.
struct Place {
    network: Network,
    file: PathBuf,
    run: String,
}

impl Place {
    fn deployment(&self, check: &str) -> String {
        format!("{}-{check}", self.run)
    }

    fn rig(&self, check: &str) -> Rig {
        Rig::open(&self.network, &self.file, &self.deployment(check))
    }

    async fn raw(&self, check: &str) -> Raw {
        let (timeout, deployment) = (Duration::from_secs(20), self.deployment(check));
        let raw = Raw::open(&self.network, Some(&self.file), &deployment, timeout).await;
        raw.expect("the cluster answers")
    }
}

fn block_on<R>(future: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(future)
}

fn conforms(place: &Place) {
    block_on(async {
        let raw = place.raw("seam").await;
        conformance::all(&raw).await;
        conformance::conflicts(&raw).await;
        println!("ok the transaction conforms");
        conformance::too_old(&raw, async || versions_pass(&raw).await).await;
        println!("ok what is too old says so");
    });
}

/// The cluster keeps versions for five seconds, by its own count.
async fn versions_pass(raw: &Raw) {
    let began = version(raw).await;
    while version(raw).await < began + 8_000_000 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn version(raw: &Raw) -> u64 {
    let txn = raw.begin().await.expect("begins");
    // A transaction that wrote nothing commits as of its read version.
    let stamp = txn.commit().await.expect("commits");
    u64::from_be_bytes(stamp[..8].try_into().expect("8 bytes"))
}

/// R3: from here to another engine and back, by checksum.
fn moves(place: &Place) {
    let mut rig = place.rig("moved");
    let (one, two) = rig.pair();
    for number in 1..=300 {
        rig.submit(sends(one, two, &[number]));
    }
    for _ in 1..=300 {
        rig.answers();
    }
    let raw = block_on(place.raw("moved"));
    assert_eq!(
        block_on(raw.is_served()),
        Ok(true),
        "a server holds a lease"
    );
    rig.store.stop();
    let mut file = Vec::new();
    let out = block_on(transfer::export(&raw, &mut file)).expect("exports");
    let memory = MemoryEngine::new();
    let into = ready(transfer::import(&memory, &mut &file[..])).expect("imports");
    assert_eq!(into, out);
    let mut file = Vec::new();
    ready(transfer::export(&memory, &mut file)).expect("exports");
    let target = block_on(place.raw("moved-back"));
    let back = block_on(transfer::import(&target, &mut &file[..])).expect("imports");
    assert_eq!(back, out);
    let full = block_on(transfer::import(&target, &mut &file[..]));
    assert!(matches!(full, Err(TransferError::NotEmpty)), "{full:?}");
    let mut rig = place.rig("moved-back");
    assert_eq!(rig.store.generation(), 3);
    assert_eq!(rig.entries(two).len(), 300);
    assert!(rig.send(one, two.0, 300).repeated);
    block_on(transfer::remove(&target)).expect("removes");
    println!("ok r3 a store moves out of the cluster and into it");
}

fn stamps_grow(place: &Place) {
    let mut before = Position::ZERO;
    for number in 1..=3 {
        let mut rig = place.rig("stamps");
        let (one, two) = rig.pair();
        let position = rig.send(one, two.0, number).position;
        assert!(position > before);
        before = position;
        rig.store.stop();
    }
    let mut rig = place.rig("stamps");
    let (_, two) = rig.pair();
    assert_eq!(rig.entries(two).len(), 3);
    println!("ok r9 stamps grow over a restart");
}

fn fences(place: &Place) {
    let mut first = place.rig("fence");
    let (one, two) = first.pair();
    let mut second = place.rig("fence");
    let refused = first.try_send(one, two.0, 1);
    assert_eq!(refused, Err(StoreError::Unavailable));
    assert_eq!(first.store.handle().health(), Health::Fenced);
    second.send(one, two.0, 1);
    println!("ok r24 the second holder fences the first");
}

/// The store alone, without sessions: what one shard gets through.
fn throughput(place: &Place) {
    let mut rig = place.rig("load");
    let devices: Vec<Who> = (1..=500).map(|id| (user(id), device(1))).collect();
    for who in &devices {
        Ask::open(&mut rig, *who);
    }
    let (rounds, began) = (20, Instant::now());
    for round in 1..=rounds {
        let to_next = |(at, from): (usize, &Who)| {
            let to = devices[(at + 1) % devices.len()];
            sends(*from, to, &[round])
        };
        rig.submit_all(devices.iter().enumerate().map(to_next).collect());
        for _ in &devices {
            assert!(rig.answers().iter().all(Result::is_ok));
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let handle = rig.store.handle();
    let counters = handle.counters();
    let sent = counters.sends.get();
    assert_eq!(sent, rounds * 500);
    let of_one = |sum: u64| sum as f64 / sent as f64;
    println!(
        "   {:.0} messages/s, {:.3} transactions, {:.1} writes and {:.0} bytes a message",
        sent as f64 / seconds,
        of_one(counters.commits.get()),
        of_one(counters.writes.get()),
        of_one(counters.written_bytes.get()),
    );
}

struct Rig {
    store: FoundationStore,
    completions: Receiver<Completion>,
    next: u64,
}

fn sends(from: Who, to: Who, numbers: &[u64]) -> Command {
    Command::Send(Sends {
        user: from.0,
        device: from.1,
        limits: InboxLimits::DEFAULT,
        items: numbers
            .iter()
            .map(|number| item(from, to.0, *number, b"hello"))
            .collect(),
    })
}

impl Rig {
    fn open(network: &Network, file: &Path, deployment: &str) -> Self {
        let (sender, completions) = unbounded();
        let config = FoundationConfig {
            cluster_file: Some(file.to_path_buf()),
            deployment: deployment.into(),
            node: 1,
            placement_key: [7; 16],
            clock: Arc::new(|| Time::ZERO),
            limits: FoundationLimits::default(),
        };
        let sink = Arc::new(move |_: ShardId, completions: Vec<Completion>| {
            for completion in completions {
                let _ = sender.send(completion);
            }
        });
        let store = FoundationStore::open(network, config, sink).expect("opens");
        Self {
            store,
            completions,
            next: 0,
        }
    }

    /// Two users with a device each.
    fn pair(&mut self) -> (Who, Who) {
        let (one, two) = ((user(1), device(1)), (user(2), device(2)));
        Ask::open(self, one);
        Ask::open(self, two);
        (one, two)
    }

    fn submit(&mut self, command: Command) {
        self.submit_all(vec![command]);
    }

    fn submit_all(&mut self, commands: Vec<Command>) {
        let requests = commands.into_iter().map(|command| {
            self.next += 1;
            let id = RequestId(self.next);
            Request { id, command }
        });
        let refused = self.store.handle().submit(SHARD, requests.collect());
        assert!(refused.is_empty(), "{refused:?}");
    }

    fn wait(&self) -> Result<Outcome, StoreError> {
        let completion = self.completions.recv_timeout(PATIENCE);
        completion.expect("an answer comes").outcome
    }

    fn answers(&self) -> Vec<Result<Position, StoreError>> {
        match self.wait() {
            Ok(Outcome::Sent { answers, .. }) => answers
                .iter()
                .map(|answer| answer.map(|sent| sent.position))
                .collect(),
            other => panic!("{other:?}"),
        }
    }
}

impl Ask for Rig {
    fn ask(&mut self, command: Command) -> Result<Outcome, StoreError> {
        self.submit(command);
        self.wait()
    }
}
