//! What shards say to each other.
//!
//! Nothing here would be lost for good if a message were lost: the inbox is the truth, and a session
//! reads it when it registers. Within a node the queues lose nothing.

use roadstead_proto::v1::Typing;
use roadstead_proto::{DeviceId, UserId};

use crate::io::{Ended, Proof, SessionId};
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

/// By what of two sessions of a device one serves it (R13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The client's connect counter: the higher one wins.
    pub connect_counter: u64,
    /// [`DeviceOpened::version`](crate::store::DeviceOpened::version): of equal counters the later opening wins.
    pub version: u64,
    /// How it got in.
    pub proof: Proof,
    /// [`Identity::issued_s`](crate::io::Identity::issued_s).
    pub issued_s: u64,
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
        /// By what.
        claim: Claim,
        /// Where it is.
        holder: Holder,
    },
    /// Home to holder: registered; from now on notifies come (R5).
    Registered(SessionId),
    /// Home to holder: a later session serves this device.
    Replaced(SessionId),
    /// Home to holder: the resume token that let this session in is older than the one that let in the session
    /// which serves the device.
    Overtaken(SessionId),
    /// Home to holder: the store has ended what lets this session in.
    Ended(SessionId, Ended),
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
