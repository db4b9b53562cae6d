//! A store in a made-up cluster, with one shard that asks and waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, unbounded};
use roadstead::ShardId;
use roadstead::store::{
    Command, Completion, Flush, Grown, InboxLimits, InboxPage, OpenDevice, Outcome, ReadInbox,
    Request, RequestId, SendItem, Sends, Sent, StoreError,
};
use roadstead::time::Time;
use roadstead_proto::v1::Envelope;
use roadstead_proto::{ChatId, DeviceId, Position, UserId};

use super::super::cluster::Cluster;
use super::super::fake::World;
use super::super::{FoundationConfig, FoundationLimits, FoundationStore, open};
use crate::keys::Keys;

pub(super) const SHARD: ShardId = ShardId(0);
pub(super) const KEYS: Keys = Keys::new([7; 16]);
pub(super) const NOW_MS: u64 = 1_800_000_000_000;

type Device = (UserId, DeviceId);

pub(super) struct Rig {
    pub(super) store: FoundationStore,
    clock: Arc<AtomicU64>,
    world: World,
    answers: Receiver<Completion>,
    next: u64,
}

pub(super) fn user(id: u64) -> UserId {
    UserId::new(id).expect("not 0")
}

pub(super) fn device(id: u32) -> DeviceId {
    DeviceId::new(id).expect("not 0")
}

pub(super) fn item(from: Device, to: UserId, number: u64, payload: &[u8]) -> SendItem {
    let chat = ChatId::pair(from.0, to);
    SendItem {
        number,
        request_hash: number * 31,
        after: 0,
        refused: None,
        chat,
        recipient: to,
        envelope: Envelope {
            message_id: from.0.get() << 32 | number,
            chat: Bytes::copy_from_slice(chat.as_bytes()),
            sender: from.0.get(),
            sender_device: from.1.get(),
            server_time_ms: NOW_MS,
            payload: Bytes::copy_from_slice(payload),
            number,
        },
        deadline: Time::from_micros(u64::MAX),
    }
}

pub(super) fn read_command(who: Device) -> Command {
    Command::ReadInbox(ReadInbox {
        user: who.0,
        device: who.1,
        after: Position::ZERO,
        entries_max: 1_000,
        bytes_max: 1 << 20,
    })
}

pub(super) fn request(id: u64, command: Command) -> Request {
    Request {
        id: RequestId(id),
        command,
    }
}

impl Rig {
    pub(super) fn open(world: World) -> Self {
        Self::with(world, FoundationLimits::default())
    }

    /// A node whose leases are renewed all the time.
    pub(super) fn of_node(world: World, node: u16) -> Self {
        let limits = FoundationLimits {
            renew_every: Duration::from_millis(10),
            ..FoundationLimits::default()
        };
        Self::start(world, limits, node)
    }

    pub(super) fn with(world: World, limits: FoundationLimits) -> Self {
        Self::start(world, limits, 1)
    }

    fn start(world: World, limits: FoundationLimits, node: u16) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let (sender, answers) = unbounded();
        let sink = Arc::new(move |_: ShardId, completions: Vec<Completion>| {
            for completion in completions {
                let _ = sender.send(completion);
            }
        });
        let time = clock.clone();
        let config = FoundationConfig {
            cluster_file: None,
            deployment: "test".into(),
            node,
            placement_key: [7; 16],
            clock: Arc::new(move || Time::from_micros(time.load(SeqCst))),
            limits,
        };
        let cluster = Cluster::Fake(world.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let opened = runtime
            .expect("a runtime")
            .block_on(open::open_in(cluster, config, sink));
        let store = FoundationStore::start(opened.expect("opens")).expect("starts");
        Self {
            store,
            clock,
            world,
            answers,
            next: 0,
        }
    }

    pub(super) fn set_clock(&self, micros: u64) {
        self.clock.store(micros, SeqCst);
    }

    /// The clock jumps when the engine first waits after a failure.
    pub(super) fn late_after_back_off(&self, micros: u64) {
        let clock = self.clock.clone();
        self.world.on_back_off(move || clock.store(micros, SeqCst));
    }

    pub(super) fn submit(&mut self, commands: Vec<Command>) {
        let requests = commands.into_iter().map(|command| {
            self.next += 1;
            request(self.next, command)
        });
        let refused = self.store.handle().submit(SHARD, requests.collect());
        assert!(refused.is_empty(), "{refused:?}");
    }

    pub(super) fn submit_send(&mut self, from: Device, items: Vec<SendItem>) {
        let sends = self.sends(from, items);
        self.submit(vec![sends]);
    }

    fn wait(&self) -> Completion {
        self.answers
            .recv_timeout(Duration::from_secs(60))
            .expect("an answer comes")
    }

    /// Waits for so many answers and expects every send among them to be committed.
    pub(super) fn wait_for(&self, count: usize) {
        for _ in 0..count {
            let answers = Self::answers_of(self.wait().outcome);
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        }
    }

    pub(super) fn answers_of(
        outcome: Result<Outcome, StoreError>,
    ) -> Vec<Result<Sent, StoreError>> {
        match outcome {
            Ok(Outcome::Sent { answers, .. }) => answers,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn ask(&mut self, command: Command) -> Result<Outcome, StoreError> {
        self.submit(vec![command]);
        self.wait().outcome
    }

    pub(super) fn open_device(&mut self, who: Device) {
        let open = Command::OpenDevice(OpenDevice {
            user: who.0,
            device: who.1,
            cursor: Position::ZERO,
            want_highest_number: true,
            unix_ms: 1,
            issued_s: 0,
        });
        let opened = self.ask(open);
        assert!(matches!(opened, Ok(Outcome::DeviceOpened(_))), "{opened:?}");
    }

    pub(super) fn alice_and_bob(&mut self) -> (Device, Device) {
        let (alice, bob) = ((user(1), device(1)), (user(2), device(2)));
        self.open_device(alice);
        self.open_device(bob);
        (alice, bob)
    }

    pub(super) fn sends(&self, from: Device, items: Vec<SendItem>) -> Command {
        Command::Send(Sends {
            user: from.0,
            device: from.1,
            limits: InboxLimits::DEFAULT,
            items,
        })
    }

    pub(super) fn send(
        &mut self,
        from: Device,
        items: Vec<SendItem>,
    ) -> (Vec<Result<Sent, StoreError>>, Vec<Grown>) {
        match self.ask(self.sends(from, items)) {
            Ok(Outcome::Sent { answers, grown }) => (answers, grown),
            other => panic!("{other:?}"),
        }
    }

    /// Sends one message and expects it to be committed.
    pub(super) fn send_one(&mut self, from: Device, to: UserId, number: u64) -> Sent {
        let (answers, _) = self.send(from, vec![item(from, to, number, b"hello")]);
        answers[0].expect("committed")
    }

    pub(super) fn read(&mut self, who: Device) -> InboxPage {
        match self.ask(read_command(who)) {
            Ok(Outcome::Inbox(page)) => page,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn flush(
        &mut self,
        who: Device,
        upto: Position,
    ) -> Result<(Position, Vec<Grown>), StoreError> {
        let flush = Command::Flush(Flush {
            user: who.0,
            device: who.1,
            upto,
            known: None,
        });
        match self.ask(flush)? {
            Outcome::Flushed {
                more: true, grown, ..
            } => {
                let rest = self.flush(who, upto)?;
                Ok((rest.0, [grown, rest.1].concat()))
            }
            Outcome::Flushed {
                stored_ack, grown, ..
            } => Ok((stored_ack, grown)),
            other => panic!("{other:?}"),
        }
    }
}
