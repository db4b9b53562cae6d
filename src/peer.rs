//! What shards say to each other.
//!
//! Nothing here would be lost for good if a message were lost: the inbox is the truth, and a session
//! reads it when it registers. Within a node the queues lose nothing.

use roadstead_proto::v1::Typing;
use roadstead_proto::{DeviceId, UserId};

use crate::io::SessionId;
use crate::placement::ShardId;
use crate::store::Grown;

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// The shard that holds the connection.
    pub shard: ShardId,
    /// The connection there.
    pub session: SessionId,
}

/// A message between two shards of a node.
#[derive(Debug, Clone)]
pub enum ShardMessage {
    /// Holder to home: this session serves this device (R13).
    Register {
        /// Of which user.
        user: UserId,
        /// Which device.
        device: DeviceId,
        /// The client's connect counter: the higher one wins.
        connect_counter: u64,
        /// Where it is.
        holder: Holder,
    },
    /// Home to holder: registered; from now on notifies come (R5).
    Registered(SessionId),
    /// Home to holder: a session with a higher connect counter serves this device.
    Replaced(SessionId),
    /// Holder to home: this session is over. Ignored unless it is the one registered (R13).
    Unregister {
        /// Of which user.
        user: UserId,
        /// Which device.
        device: DeviceId,
        /// Where it was.
        holder: Holder,
    },
    /// Writer to home: an inbox grew.
    Grown(Grown),
    /// Home to holder: the inbox of your session grew.
    Notify(SessionId, Grown),
    /// Writer to home: pass this on to every session of the user.
    Typing(UserId, Typing),
    /// Home to holder: pass this on to your session.
    TypingFor(SessionId, Typing),
}
