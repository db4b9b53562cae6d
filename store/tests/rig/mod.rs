//! A store with one shard that asks and waits.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "every test binary uses a part of it"
)]

pub(crate) mod ask;
pub(crate) mod cluster;
pub(crate) mod rules;
pub(crate) mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, unbounded};
use roadstead::ShardId;
use roadstead::store::{Command, Completion, Outcome, Request, RequestId, SendItem, StoreError};
use roadstead::time::Time;
use roadstead_proto::v1::Envelope;
use roadstead_proto::{ChatId, DeviceId, UserId};
use roadstead_store::{EmbeddedConfig, EmbeddedLimits, EmbeddedStore};

/// Longer than anything takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const SHARD: ShardId = ShardId(0);

pub(crate) struct Rig {
    pub(crate) store: EmbeddedStore,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) answers: Receiver<Completion>,
    next: u64,
}

pub(crate) fn user(id: u64) -> UserId {
    UserId::new(id).expect("not 0")
}

pub(crate) fn device(id: u32) -> DeviceId {
    DeviceId::new(id).expect("not 0")
}

pub(crate) fn config(path: &Path, clock: &Arc<AtomicU64>) -> EmbeddedConfig {
    let clock = clock.clone();
    EmbeddedConfig {
        path: path.to_path_buf(),
        node: 1,
        placement_key: [7; 16],
        clock: Arc::new(move || Time::from_micros(clock.load(SeqCst))),
        limits: EmbeddedLimits {
            block_cache_bytes: 1024 * 1024,
            // Hundreds of stores are open at once.
            reserve_bytes_max: 0,
            ..EmbeddedLimits::default()
        },
    }
}

pub(crate) fn item(from: (UserId, DeviceId), to: UserId, number: u64, payload: &[u8]) -> SendItem {
    let chat = ChatId::pair(from.0, to);
    SendItem {
        number,
        request_hash: payload
            .iter()
            .fold(7u64, |hash, byte| hash.rotate_left(5) ^ u64::from(*byte)),
        after: 0,
        refused: None,
        chat,
        recipient: to,
        envelope: Envelope {
            message_id: from.0.get() << 32 | number,
            chat: Bytes::copy_from_slice(chat.as_bytes()),
            sender: from.0.get(),
            sender_device: from.1.get(),
            server_time_ms: 1_800_000_000_000,
            payload: Bytes::copy_from_slice(payload),
            number,
        },
        deadline: Time::from_micros(u64::MAX),
    }
}

impl Rig {
    pub(crate) fn open(path: &Path) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let config = config(path, &clock);
        Self::with(config, clock)
    }

    pub(crate) fn with(config: EmbeddedConfig, clock: Arc<AtomicU64>) -> Self {
        let (sender, answers) = unbounded();
        let sink = Arc::new(move |_: ShardId, completions: Vec<Completion>| {
            for completion in completions {
                // The rig may be gone while the store stops.
                let _ = sender.send(completion);
            }
        });
        let store = EmbeddedStore::open(config, sink).expect("the store opens");
        Self {
            store,
            clock,
            answers,
            next: 0,
        }
    }

    /// Asks without waiting.
    pub(crate) fn submit(&mut self, command: Command) -> RequestId {
        self.next += 1;
        let id = RequestId(self.next);
        let refused = self
            .store
            .handle()
            .submit(SHARD, vec![Request { id, command }]);
        assert!(refused.is_empty(), "{refused:?}");
        id
    }

    pub(crate) fn wait(&mut self) -> Completion {
        self.answers
            .recv_timeout(PATIENCE)
            .expect("an answer comes")
    }

    pub(crate) fn ask(&mut self, command: Command) -> Result<Outcome, StoreError> {
        let id = self.submit(command);
        let completion = self.wait();
        assert_eq!(completion.id, id);
        completion.outcome
    }
}
