//! What is going to happen, and when: the only clock of a run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use roadstead::time::Time;
use roadstead::{Input, ShardId};
use roadstead_proto::v1::{ClientFrame, ServerFrame};
use roadstead_proto::{ChatId, DeviceId, UserId};

use crate::net::ConnId;
use crate::store::StoreEvent;

/// Something that will happen.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "events live in one heap and move seldom"
)]
pub(super) enum Event {
    /// A shard of a life is given something.
    Shard(u32, ShardId, Input),
    /// A shard's timer is due.
    Timer(u32, ShardId),
    /// A connection opens at the server.
    Open(ConnId),
    /// A frame arrives at the server.
    Up(ConnId, ClientFrame),
    /// Bytes arrive at the server that are no frame.
    Garbage(ConnId),
    /// A frame arrives at the client.
    Down(ConnId, ServerFrame),
    /// The server learns that a connection is over.
    CutAtServer(ConnId),
    /// The client learns that a connection is over.
    CutAtClient(ConnId),
    /// A client's turn.
    Client(usize, Wake),
    /// The store's turn.
    Store(StoreEvent),
    /// Chance has its turn.
    Fault,
    /// A node begins a new life.
    Start,
    /// Message ids are reserved.
    Reserve(u32),
    /// The clock tells its minute to the store.
    Stamp(u32),
    /// The expiry job has its turn.
    Expire(u32),
    /// A device is removed.
    Remove(UserId, DeviceId),
    /// Whether all is quiet.
    Look,
    /// Whether the engine was reopened.
    Watch,
}

/// Why a client is woken; with the epoch it belongs to, where it belongs to one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wake {
    Act,
    Connect(u32),
    Persist(u32),
    Ack(u32),
    Retry(u32),
    /// To say again what a chat refused.
    RetryChat(u32, ChatId),
}

#[derive(Debug)]
struct Scheduled {
    at: Time,
    /// Events of one moment happen in the order in which they were scheduled.
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Events {
    heap: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
}

impl Events {
    pub(super) fn push(&mut self, at: Time, event: Event) {
        self.scheduled += 1;
        self.heap.push(Reverse(Scheduled {
            at,
            number: self.scheduled,
            event,
        }));
    }

    pub(super) fn pop(&mut self) -> Option<(Time, Event)> {
        self.heap.pop().map(|Reverse(next)| (next.at, next.event))
    }
}
