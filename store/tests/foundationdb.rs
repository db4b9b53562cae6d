//! The engine on a real cluster: `FDB_CLUSTER_FILE=… cargo test -p roadstead-store --features
//! foundationdb --test foundationdb`. Without the variable it says that it was skipped.
//!
//! No test harness: the client's network thread starts once in a process and has to be stopped before
//! its end.
#![allow(
    clippy::print_stdout,
    reason = "there is no harness to say which check runs"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use roadstead::ShardId;
use roadstead::store::{
    Command, Completion, OpenDevice, Outcome, ReadInbox, Request, RequestId, SendItem, Sends,
    StoreError,
};
use roadstead::time::Time;
use roadstead_proto::v1::Envelope;
use roadstead_proto::{ChatId, DeviceId, Position, UserId};
use roadstead_store::Health;
use roadstead_store::conformance::{self, ConcurrentEngine};
use roadstead_store::foundationdb::{
    FoundationConfig, FoundationLimits, FoundationStore, Network, Raw,
};
use roadstead_store::txn::{Read, Txn, TxnError};

const SHARD: ShardId = ShardId(0);
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let Some(file) = std::env::var_os("FDB_CLUSTER_FILE").map(PathBuf::from) else {
        println!("skipped: FDB_CLUSTER_FILE names no cluster to test on");
        return;
    };
    let network = Network::start().expect("the client starts");
    let deployment = format!("test-{}", std::process::id());
    let check = |name: &str, run: &dyn Fn(&Network, &Path, &str)| {
        let began = Instant::now();
        run(&network, &file, &deployment);
        println!("ok {name} ({:.1} s)", began.elapsed().as_secs_f64());
    };
    check("the transaction conforms", &conforms);
    check("what is too old says so", &too_old);
    check("r9 stamps grow over a restart", &stamps_grow);
    check("r24 the second holder fences the first", &fences);
    check("messages a second, one shard", &throughput);
    network.stop();
}

fn block_on<R>(future: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(future)
}

async fn raw(network: &Network, file: &Path, deployment: &str) -> Raw {
    let timeout = Duration::from_secs(20);
    let raw = Raw::open(network, Some(file), deployment, timeout).await;
    raw.expect("the cluster answers")
}

fn conforms(network: &Network, file: &Path, deployment: &str) {
    block_on(async {
        let raw = raw(network, file, &format!("{deployment}-seam")).await;
        conformance::all(&raw).await;
        conformance::conflicts(&raw).await;
    });
}

fn too_old(network: &Network, file: &Path, deployment: &str) {
    block_on(async {
        let raw = raw(network, file, &format!("{deployment}-seam")).await;
        let mut txn = raw.begin().await.expect("begins");
        std::thread::sleep(Duration::from_secs(7));
        let read = txn.get(b"anything", Read::Serializable).await;
        assert_eq!(read, Err(TxnError::TooOld));
    });
}

fn stamps_grow(network: &Network, file: &Path, deployment: &str) {
    let mut before = Position::ZERO;
    for number in 1..=3 {
        let mut rig = Rig::open(network, file, deployment);
        rig.open_devices(2);
        let position = rig.send(&[number])[0];
        assert!(position > before);
        before = position;
        rig.store.stop();
    }
    let mut rig = Rig::open(network, file, deployment);
    assert_eq!(rig.inbox_of_second().len(), 3);
}

fn fences(network: &Network, file: &Path, deployment: &str) {
    let mut first = Rig::open(network, file, deployment);
    let mut second = Rig::open(network, file, deployment);
    first.submit_sends(&[101]);
    assert_eq!(first.answers(), [Err(StoreError::Unavailable)]);
    assert!(matches!(
        first.store.handle().health(),
        Health::Failed { .. }
    ));
    second.send(&[101]);
}

fn throughput(network: &Network, file: &Path, deployment: &str) {
    let mut rig = Rig::open(network, file, &format!("{deployment}-load"));
    rig.open_devices(500);
    let (rounds, began) = (20, Instant::now());
    for round in 1..=rounds {
        let devices: Vec<u64> = (1..=500).collect();
        rig.submit(
            devices
                .iter()
                .map(|id| sends(*id, id % 500 + 1, &[round]))
                .collect(),
        );
        for _ in 0..500 {
            assert!(rig.answers().iter().all(Result::is_ok));
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let counters = rig.store.handle();
    let counters = counters.counters();
    let sent = f64::from(u32::try_from(rounds).expect("few") * 500);
    println!("   {:.0} messages/s", sent / seconds);
    println!("   {:?}", counters.snapshot());
}

struct Rig {
    store: FoundationStore,
    answers: Receiver<Completion>,
    next: u64,
}

fn user(id: u64) -> UserId {
    UserId::new(id).expect("not 0")
}

fn device() -> DeviceId {
    DeviceId::new(1).expect("not 0")
}

fn sends(from: u64, to: u64, numbers: &[u64]) -> Command {
    let chat = ChatId::pair(user(from), user(to));
    let item = |number: &u64| SendItem {
        number: *number,
        request_hash: number * 31,
        chat,
        recipient: user(to),
        envelope: Envelope {
            message_id: from << 32 | number,
            chat: chat.as_bytes().to_vec().into(),
            sender: from,
            sender_device: 1,
            server_time_ms: 1_800_000_000_000,
            payload: vec![7; 100].into(),
            number: *number,
        },
        deadline: Time::from_micros(u64::MAX),
    };
    Command::Send(Sends {
        user: user(from),
        device: device(),
        items: numbers.iter().map(item).collect(),
    })
}

impl Rig {
    fn open(network: &Network, file: &Path, deployment: &str) -> Self {
        let (sender, answers) = unbounded();
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
            answers,
            next: 0,
        }
    }

    fn submit(&mut self, commands: Vec<Command>) {
        let requests = commands.into_iter().map(|command| {
            self.next += 1;
            Request {
                id: RequestId(self.next),
                command,
            }
        });
        let refused = self.store.handle().submit(SHARD, requests.collect());
        assert!(refused.is_empty(), "{refused:?}");
    }

    fn wait(&self) -> Result<Outcome, StoreError> {
        let completion = self.answers.recv_timeout(PATIENCE);
        completion.expect("an answer comes").outcome
    }

    fn open_devices(&mut self, users: u64) {
        let open = |id| {
            Command::OpenDevice(OpenDevice {
                user: user(id),
                device: device(),
                cursor: Position::ZERO,
                want_highest_number: false,
                unix_ms: 1,
            })
        };
        self.submit((1..=users).map(open).collect());
        for _ in 0..users {
            self.wait().expect("opens");
        }
    }

    /// From the first user to the second.
    fn submit_sends(&mut self, numbers: &[u64]) {
        self.submit(vec![sends(1, 2, numbers)]);
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

    fn send(&mut self, numbers: &[u64]) -> Vec<Position> {
        self.submit_sends(numbers);
        let answers = self.answers();
        answers
            .into_iter()
            .map(|answer| answer.expect("committed"))
            .collect()
    }

    fn inbox_of_second(&mut self) -> Vec<Position> {
        self.submit(vec![Command::ReadInbox(ReadInbox {
            user: user(2),
            device: device(),
            after: Position::ZERO,
            entries_max: 1_000,
            bytes_max: 1 << 20,
        })]);
        match self.wait() {
            Ok(Outcome::Inbox(page)) => page.entries.iter().map(|entry| entry.cursor).collect(),
            other => panic!("{other:?}"),
        }
    }
}
