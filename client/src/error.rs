//! Errors that say who is to blame and whether a retry is safe.

use std::io;

use roadstead_proto::{ErrorCode, FrameError};
use thiserror::Error;

/// Who has to change something before the same call can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The application: it asked for something that can not be had.
    Application,
    /// The server or the network between: nothing in the application is wrong.
    Service,
    /// This machine: its disk, its sockets, its files.
    Host,
}

/// Why a call on the client failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The configuration names no server, or one that can not be used.
    #[error("the configuration is unusable: {0}")]
    Config(String),
    /// A certificate, or the TLS set-up made of it, was refused.
    #[error("TLS can not be set up: {0}")]
    Tls(String),
    /// The journal could not be read or written. Nothing was sent that it does not hold.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The payload is larger than a frame can carry.
    #[error("the payload has {length} bytes, the limit is {max}")]
    PayloadTooLarge {
        /// Bytes of the payload.
        length: usize,
        /// Most that the server takes.
        max: usize,
    },
    /// As many messages are unconfirmed as the client keeps. Try again after one of them has been
    /// [confirmed](crate::Event::SendConfirmed) or [given up](crate::Event::SendFailed).
    #[error("too many messages are unconfirmed")]
    OutboxFull,
    /// As many messages wait for this chat as may, because the server takes no more of it at the moment.
    /// Other chats have room.
    #[error("too many messages wait for this chat, which takes none at the moment")]
    ChatFull,
    /// The journal is new, and the server has not said yet which numbers this device has used (R13). Try
    /// again after [`Event::Connected`](crate::Event::Connected).
    #[error("the server has not said yet which numbers this device has used")]
    NumbersUnknown,
    /// The client has stopped: it was shut down, or the server ended the device's use of it for good.
    #[error("the client has stopped")]
    Stopped,
}

impl ClientError {
    /// Who has to change something.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Config(_) | Self::Tls(_) | Self::PayloadTooLarge { .. } | Self::Stopped => {
                Blame::Application
            }
            Self::OutboxFull | Self::ChatFull | Self::NumbersUnknown => Blame::Service,
            Self::Journal(_) => Blame::Host,
        }
    }

    /// Whether the same call may succeed later without a change by the application.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::OutboxFull | Self::ChatFull | Self::NumbersUnknown => true,
            Self::Journal(error) => matches!(error, JournalError::Io(_)),
            _ => false,
        }
    }
}

/// Why the journal failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The medium refused.
    #[error("the journal can not be read or written: {0}")]
    Io(#[from] io::Error),
    /// What is there was not written by this library, or is damaged in its middle.
    #[error("the journal is damaged: {0}")]
    Damaged(String),
    /// Another process has it open.
    #[error("the journal is in use by another process")]
    InUse,
}

/// Why a message was given up. The same message may be sent again, as a new one, once the cause is gone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The server refused it for good.
    #[error("the server refused the message: {code:?} {message}")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// The server's words, for people.
        message: String,
    },
    /// It stayed unconfirmed longer than the client keeps messages.
    #[error("the message was not confirmed in time")]
    Expired,
    /// The application took it back before the server had it.
    #[error("the message was taken back")]
    TakenBack,
    /// The client stopped first. The journal keeps the message for the next start.
    #[error("the client stopped before the message was confirmed")]
    Stopped,
}

impl SendError {
    /// Who has to change something.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Refused { .. } | Self::TakenBack | Self::Stopped => Blame::Application,
            Self::Expired => Blame::Service,
        }
    }
}

/// Why a connection ended or did not come about.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Cause {
    /// The server closed the session with this code.
    #[error("the server closed the session: {0:?}")]
    Closed(ErrorCode),
    /// The server told its sessions to go elsewhere, and this one did.
    #[error("the server is going away")]
    GoAway,
    /// The server no longer knows the connection (a stateless reset: it restarted).
    #[error("the server no longer knows the connection")]
    Reset,
    /// Nothing was heard for too long.
    #[error("the connection timed out")]
    TimedOut,
    /// No TLS or QUIC connection could be made, or it broke.
    #[error("the connection failed: {0}")]
    Transport(String),
    /// The credential provider had nothing to offer.
    #[error("no credential: {0}")]
    Credential(String),
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// The journal failed: the client sends nothing that it might forget.
    #[error("the journal failed: {0}")]
    Journal(String),
    /// The application shut the client down.
    #[error("the client was shut down")]
    Shutdown,
}

impl Cause {
    /// Whether connecting again can help. The client does so by itself if it can.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Closed(code) => !matches!(
                code,
                ErrorCode::VersionUnsupported
                    | ErrorCode::DeviceInvalid
                    | ErrorCode::DeviceLimit
                    | ErrorCode::DeviceRemoved
                    | ErrorCode::SessionReplaced
            ),
            Self::Shutdown | Self::Journal(_) => false,
            _ => true,
        }
    }
}

impl From<FrameError> for Cause {
    fn from(error: FrameError) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// A credential provider's failure, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct CredentialError(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_device_is_not_retried_and_a_lost_network_is() {
        assert!(!Cause::Closed(ErrorCode::SessionReplaced).is_retryable());
        assert!(!Cause::Closed(ErrorCode::DeviceRemoved).is_retryable());
        assert!(Cause::Closed(ErrorCode::TokenExpired).is_retryable());
        assert!(Cause::Reset.is_retryable());
    }

    #[test]
    fn df1_p112_what_has_no_room_now_may_have_it_later() {
        for error in [
            ClientError::OutboxFull,
            ClientError::ChatFull,
            ClientError::NumbersUnknown,
        ] {
            assert!(error.is_retryable(), "{error}");
        }
        assert!(!ClientError::Stopped.is_retryable());
    }

    #[test]
    fn blame_falls_on_who_can_mend_it() {
        let full = ClientError::from(JournalError::Io(io::ErrorKind::StorageFull.into()));
        assert_eq!(full.blame(), Blame::Host);
        assert!(full.is_retryable());
        assert_eq!(ClientError::Stopped.blame(), Blame::Application);
        assert_eq!(ClientError::OutboxFull.blame(), Blame::Service);
        assert_eq!(SendError::Expired.blame(), Blame::Service);
    }
}
