//! Error codes (RFC 9000 20) and why a connection ended.

use std::fmt;

/// A transport error code (RFC 9000 20.1), as carried by CONNECTION_CLOSE of type 0x1c.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Code(pub u64);

impl Code {
    /// No error.
    pub const NO_ERROR: Self = Self(0x0);
    /// The endpoint broke an invariant of its own.
    pub const INTERNAL_ERROR: Self = Self(0x1);
    /// The server refuses a new connection.
    pub const CONNECTION_REFUSED: Self = Self(0x2);
    /// More data than a flow control limit allows.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// More streams than the limit allows.
    pub const STREAM_LIMIT_ERROR: Self = Self(0x4);
    /// A frame for a stream in a state that does not permit it.
    pub const STREAM_STATE_ERROR: Self = Self(0x5);
    /// A final size that changed, or lies below data already received.
    pub const FINAL_SIZE_ERROR: Self = Self(0x6);
    /// A malformed frame.
    pub const FRAME_ENCODING_ERROR: Self = Self(0x7);
    /// Malformed, invalid or missing transport parameters.
    pub const TRANSPORT_PARAMETER_ERROR: Self = Self(0x8);
    /// More connection ids than the limit allows.
    pub const CONNECTION_ID_LIMIT_ERROR: Self = Self(0x9);
    /// A violation that no other code names.
    pub const PROTOCOL_VIOLATION: Self = Self(0xa);
    /// A token that is not valid.
    pub const INVALID_TOKEN: Self = Self(0xb);
    /// The application closed during the handshake.
    pub const APPLICATION_ERROR: Self = Self(0xc);
    /// More CRYPTO data than can be buffered.
    pub const CRYPTO_BUFFER_EXCEEDED: Self = Self(0xd);
    /// An error in key updates.
    pub const KEY_UPDATE_ERROR: Self = Self(0xe);
    /// A limit on the use of keys was reached (RFC 9001 6.6).
    pub const AEAD_LIMIT_REACHED: Self = Self(0xf);
    /// No path can carry packets.
    pub const NO_VIABLE_PATH: Self = Self(0x10);

    /// The code of a TLS alert (RFC 9001 4.8).
    #[must_use]
    pub const fn crypto(alert: u8) -> Self {
        Self(0x100 + alert as u64)
    }
}

/// The TLS alert `unexpected_message`: 0x010a on the wire of QUIC.
pub(crate) const ALERT_UNEXPECTED_MESSAGE: u8 = 10;

/// An error that closes the connection. The peer is to blame unless the code says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransportError {
    /// What the peer is told.
    pub code: Code,
    /// The type of the frame that caused it, zero when none did (RFC 9000 19.19).
    pub frame: u64,
    /// A phrase for logs; it goes to the peer too, so it carries nothing secret.
    pub reason: &'static str,
}

impl TransportError {
    /// An error without a frame.
    #[must_use]
    pub const fn new(code: Code, reason: &'static str) -> Self {
        Self {
            code,
            frame: 0,
            reason,
        }
    }

    /// The same error, blamed on a frame type.
    #[must_use]
    pub const fn in_frame(mut self, frame: u64) -> Self {
        self.frame = frame;
        self
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "error {:#x} in frame {:#x}: {}",
            self.code.0, self.frame, self.reason
        )
    }
}

impl std::error::Error for TransportError {}

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// This side found an error of the peer and closed.
    Local(TransportError),
    /// This side's application closed with its own code.
    LocalApplication(u64),
    /// The peer's transport closed.
    PeerTransport {
        /// The peer's code.
        code: Code,
        /// The frame type the peer named.
        frame: u64,
        /// The peer's phrase, untrusted, cut at 128 bytes.
        reason: Box<[u8]>,
    },
    /// The peer's application closed.
    PeerApplication {
        /// The peer's code.
        code: u64,
        /// The peer's phrase, untrusted, cut at 128 bytes.
        reason: Box<[u8]>,
    },
    /// Nothing arrived for the idle timeout (RFC 9000 10.1).
    IdleTimeout,
    /// The peer lost its state and sent a stateless reset (RFC 9000 10.3).
    StatelessReset,
    /// The server speaks no version that this client speaks (RFC 9000 6.2).
    VersionMismatch,
    /// The handshake did not finish in time.
    HandshakeTimeout,
    /// A server gave the handshake up for that of a newcomer (T11).
    Displaced,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(error) => write!(f, "closed here: {error}"),
            Self::LocalApplication(code) => write!(f, "closed by this application: {code}"),
            Self::PeerTransport { code, frame, .. } => {
                write!(
                    f,
                    "closed by the peer: error {:#x} in frame {frame:#x}",
                    code.0
                )
            }
            Self::PeerApplication { code, .. } => {
                write!(f, "closed by the peer's application: {code}")
            }
            Self::IdleTimeout => f.write_str("idle timeout"),
            Self::StatelessReset => f.write_str("stateless reset"),
            Self::VersionMismatch => f.write_str("no common version"),
            Self::HandshakeTimeout => f.write_str("handshake timeout"),
            Self::Displaced => f.write_str("given up for another handshake"),
        }
    }
}

/// What a packet's frames may ask of the receiver instead of success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// Close the connection.
    Close(TransportError),
    /// Forget the packet without an acknowledgement: a cap of this side, not the peer's fault (T8).
    Drop,
}

impl From<TransportError> for Refusal {
    fn from(error: TransportError) -> Self {
        Self::Close(error)
    }
}

/// An invariant of this side does not hold for one connection. In a process with millions of others it is
/// no reason to end them all: this connection is closed with INTERNAL_ERROR and counted, and only tests panic
/// ([`crate::Config::strict`]).
pub(crate) const fn broken(reason: &'static str) -> TransportError {
    TransportError::new(Code::INTERNAL_ERROR, reason)
}

/// Asserts an invariant of one connection: see [`broken`].
macro_rules! ensure {
    ($condition:expr, $reason:expr) => {
        if !$condition {
            return Err(crate::error::broken($reason).into());
        }
    };
}
pub(crate) use ensure;

macro_rules! refuse {
    ($code:ident, $reason:expr) => {
        return Err(crate::error::TransportError::new(crate::error::Code::$code, $reason).into())
    };
}
pub(crate) use refuse;
