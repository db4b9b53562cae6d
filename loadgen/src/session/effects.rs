//! What goes into a session and what comes of it.

use bytes::BytesMut;
use roadstead_proto::v1::{self, hello};
use roadstead_proto::{DeviceId, ErrorCode, MessageId, Position};

use crate::clock::Micros;

/// What a connection attempt must know of the device.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) credential: hello::Credential,
    pub(crate) device: DeviceId,
    /// Added to the session's count of connections, so that a later run outranks an earlier one.
    pub(crate) counter_base: u64,
}

/// What came of some input.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Frames to write.
    pub(crate) out: BytesMut,
    /// To be booked, in order.
    pub(crate) happened: Vec<Happened>,
    /// Call [`Session::flush`] again at this time.
    pub(crate) wake_at: Option<Micros>,
}

impl Effects {
    /// Asks for a flush at this time, or before.
    pub(crate) fn wake(&mut self, at: Micros) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// Something that the account of a run must know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Happened {
    /// The session is open.
    Welcomed(Welcomed),
    /// A send is committed.
    Answered {
        message: u64,
        number: u64,
        id: MessageId,
        position: Position,
    },
    /// A number that was already answered was answered again, as happens after a retry.
    AnsweredAgain { number: u64 },
    /// A send was refused and may be tried again.
    Postponed { code: ErrorCode },
    /// A number was refused for good because its chat takes nothing for a while: its message goes again under another
    /// (P112).
    ChatRefused { code: ErrorCode },
    /// A send was refused for good.
    Refused { message: u64, code: ErrorCode },
    /// A message of the inbox.
    Delivered {
        position: Position,
        envelope: v1::Envelope,
        resynced: bool,
    },
    /// A receipt of the inbox.
    Receipt(v1::ReceiptUpdate),
    /// The inbox has a hole.
    Gap { reason: i32 },
    /// A cursor did not grow (DESIGN, invariant 4).
    Backwards { cursor: Position, after: Position },
    /// The session was refused or ended with this error.
    SessionError { code: ErrorCode },
    /// The server asks to come back later.
    GoAway { after: Micros },
    /// Something that needs no account: a typing notice, an answer to a message-level ping.
    Ephemeral(&'static str),
    /// The server broke the protocol.
    Broken(String),
}

/// What a Welcome said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Welcomed {
    pub(crate) user: u64,
    pub(crate) heartbeat: Micros,
    pub(crate) home: Option<(u32, u32)>,
}
