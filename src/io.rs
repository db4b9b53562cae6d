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
    /// The driver leaves the frames of a session where they are, for reasons of this side (R26): whatever the peer
    /// says meanwhile is not heard.
    Paused(SessionId),
    /// It reads them on.
    Resumed(SessionId),
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
    /// The store ended what let a user's sessions in. To the user's home.
    Ended(Ended),
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
        /// Its connect counter, which the resume token of its Welcome names.
        connect_counter: u64,
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
    /// A fresh resume token for the Welcome, bound to user, device, connect counter and the check of the
    /// signed token that all of them go back to.
    pub resume_token: Bytes,
    /// When that signed token was issued, or checked if a resume token was shown, in seconds since the Unix
    /// epoch; 0 if it does not say.
    pub issued_s: u64,
    /// What it showed.
    pub proof: Proof,
}

/// How a session got in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By a signed token.
    Signed,
    /// By a resume token.
    Resumed {
        /// The connect counter of the session whose Welcome brought it, if it says so.
        counter: Option<u64>,
    },
}

/// What the store has ended: sessions that it let in end too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// This device was removed (R13).
    Device(UserId, DeviceId),
    /// This user was signed out.
    Logins {
        /// Whose.
        user: UserId,
        /// Logins that go back to a token of before this, in seconds since the Unix epoch.
        valid_after_s: u64,
    },
}

impl Ended {
    /// The user whose home has to hear of it.
    #[must_use]
    pub fn user(self) -> UserId {
        match self {
            Self::Device(user, _) | Self::Logins { user, .. } => user,
        }
    }

    /// Why a session of this user and device ends by it, if it does.
    pub(crate) fn ends(self, session: (UserId, DeviceId), issued_s: u64) -> Option<ErrorCode> {
        match self {
            Self::Device(user, device) if (user, device) == session => {
                Some(ErrorCode::DeviceRemoved)
            }
            Self::Logins {
                user,
                valid_after_s,
            } if user == session.0 && issued_s < valid_after_s => Some(ErrorCode::TokenExpired),
            Self::Device(..) | Self::Logins { .. } => None,
        }
    }
}

/// Why a session is closed by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseReason {
    /// Becomes the application error code of the connection.
    pub code: ErrorCode,
    /// For people who debug a client.
    pub message: &'static str,
}
