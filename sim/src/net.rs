//! Connections: an ordered stream of frames each way, as QUIC gives it, until one side loses it.
//!
//! A lost packet is a delay, because the transport repeats it; frames of one stream never overtake each
//! other, frames of different connections do. What is lost for good is lost by the end of a connection,
//! which the two sides notice at different times, or not until they try.

use std::time::Duration;

use roadstead::time::Time;
use roadstead::{SessionId, ShardId};

/// Names a connection for the length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A connection.
#[derive(Debug)]
pub struct Conn {
    /// Whose.
    pub client: usize,
    /// To which life of the node.
    pub life: u32,
    /// To which of its shards.
    pub shard: ShardId,
    /// What the shard calls it; none before it is open there and after it is closed.
    pub session: Option<SessionId>,
    /// Whether the client still reads and writes.
    pub client_open: bool,
    /// Whether the server's end may still be there, open or about to be.
    pub server_open: bool,
    /// The last frames under way arrive then.
    up: Time,
    down: Time,
}

impl Conn {
    /// A connection that is being made.
    #[must_use]
    pub fn new(client: usize, life: u32, shard: ShardId, now: Time) -> Self {
        Self {
            client,
            life,
            shard,
            session: None,
            client_open: true,
            server_open: true,
            up: now,
            down: now,
        }
    }

    /// When something that the client sends now arrives.
    pub fn up_at(&mut self, now: Time, delay: Duration) -> Time {
        in_order(&mut self.up, now, delay)
    }

    /// When something that the server sends now arrives.
    pub fn down_at(&mut self, now: Time, delay: Duration) -> Time {
        in_order(&mut self.down, now, delay)
    }
}

/// Not before what was sent earlier.
pub fn in_order(last: &mut Time, now: Time, delay: Duration) -> Time {
    let at = (now + delay).max(*last + Duration::from_micros(1));
    *last = at;
    at
}
