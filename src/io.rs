//! What goes into a shard and what comes out of it.

use bytes::Bytes;
use roadstead_proto::v1::{ClientFrame, ServerFrame};
use roadstead_proto::{DeviceId, ErrorCode, FrameError, UserId};

use crate::peer::ShardMessage;
use crate::placement::ShardId;
use crate::store::{Completion, Request};

/// A connection of this shard: the transport's own index and generation, so that finding a session is
/// arithmetic and a stale id finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// The transport's slot. Dense: slots are used again.
    pub index: u32,
    /// How often the slot had been used before.
    pub generation: u32,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A connection completed its handshake.
    Opened(SessionId),
    /// A frame arrived.
    Frame(SessionId, ClientFrame),
    /// Bytes arrived that are no frame.
    Malformed(SessionId, FrameError),
    /// A connection is gone, whoever ended it.
    Closed(SessionId),
    /// The answer to [`Output::Authenticate`].
    Authenticated(SessionId, Result<Identity, ErrorCode>),
    /// A message of a shard, perhaps of this one.
    Shard(ShardId, ShardMessage),
    /// The store answers.
    Store(Completion),
    /// Message ids up to this moment are reserved for this node (R24).
    MessageIdsReserved {
        /// Ids of this millisecond (since the epoch of message ids) and later may be used…
        from_ms: u64,
        /// …and those before this one.
        until_ms: u64,
    },
    /// The store was reopened after a failure: commits that it answered as unknown may have been durable,
    /// and nobody was told of what they appended (R15).
    StoreReopened,
    /// Send every session away, then be idle.
    Drain,
}

/// Something to be done.
#[derive(Debug)]
pub enum Output {
    /// Send a frame.
    Frame(SessionId, ServerFrame),
    /// Check a credential and answer with [`Input::Authenticated`].
    Authenticate {
        /// Who waits.
        session: SessionId,
        /// What it showed.
        credential: Credential,
        /// The device it says it is.
        device: DeviceId,
    },
    /// Close a connection once what was sent before has been delivered, or soon.
    Close(SessionId, CloseReason),
    /// Hand a message to a shard of this node; never to this one.
    Shard(ShardId, ShardMessage),
    /// Ask the store.
    Store(Request),
}

/// What a Hello shows to prove who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A signed token.
    Token(String),
    /// A token that an earlier Welcome issued.
    Resume(Bytes),
}

/// Who a credential proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// A fresh resume token for the Welcome, bound to user and device.
    pub resume_token: Bytes,
}

/// Why a session is closed by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseReason {
    /// Becomes the application error code of the connection.
    pub code: ErrorCode,
    /// For people who debug a client.
    pub message: &'static str,
}
