//! Error codes: who is to blame, and whether to try again.

pub use crate::v1::ErrorCode;
use crate::v1::{self};

/// Codes that a table by code has to have room for: they end at 63.
pub const CODES_MAX: usize = 64;

impl ErrorCode {
    /// Whether the same request may succeed later without any change.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Internal
                | Self::InFlightLimit
                | Self::DeadlinePassed
                | Self::StoreUnavailable
                | Self::Overloaded
                | Self::SlowConsumer
                | Self::Draining
                | Self::RateLimited
                | Self::HelloTimeout
                | Self::EarlierRefused
        )
    }

    /// Whether the number is refused for good and its chat for a while: the same message may be taken later,
    /// under another number, and what its device sent to the chat before it knew is refused alike (R16).
    #[must_use]
    pub fn refuses_chat_for_now(self) -> bool {
        matches!(self, Self::RecipientFull | Self::ChatBusy)
    }

    /// The code as a QUIC application error code (RFC 9000, section 20.2).
    #[must_use]
    pub fn as_close_code(self) -> u32 {
        u32::try_from(i32::from(self)).unwrap_or(0)
    }

    /// The code that a connection was closed with, if it is one of this protocol's.
    #[must_use]
    pub fn from_close_code(code: u64) -> Option<Self> {
        i32::try_from(code)
            .ok()
            .and_then(|code| Self::try_from(code).ok())
    }

    /// An Error frame about the session.
    #[must_use]
    pub fn frame(self, message: impl Into<String>) -> v1::Error {
        v1::Error {
            code: self.into(),
            retryable: self.is_retryable(),
            message: message.into(),
            ..v1::Error::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_round_trip() {
        for code in (0..=28).chain(56..=58) {
            let parsed = ErrorCode::from_close_code(code).expect("a number of the table is a code");
            assert_eq!(u64::from(parsed.as_close_code()), code);
            assert!(
                code < CODES_MAX as u64,
                "counters by code have a place for it"
            );
        }
        assert_eq!(ErrorCode::from_close_code(29), None);
        assert_eq!(ErrorCode::from_close_code(59), None);
        assert_eq!(ErrorCode::from_close_code(u64::MAX), None);
    }

    #[test]
    fn blame_decides_whether_a_retry_is_safe() {
        assert!(ErrorCode::StoreUnavailable.is_retryable());
        assert!(!ErrorCode::NumberReused.is_retryable());
        assert!(!ErrorCode::TokenExpired.is_retryable());
    }

    #[test]
    fn df1_r16_a_refusal_that_belongs_to_a_chat_is_final_for_its_number() {
        for code in [
            ErrorCode::RecipientFull,
            ErrorCode::ChatBusy,
            ErrorCode::RecordDamaged,
            ErrorCode::UserUnknown,
        ] {
            assert!(!code.is_retryable(), "{code:?} would hold all other chats");
        }
        assert!(ErrorCode::EarlierRefused.is_retryable());
        assert!(ErrorCode::RecipientFull.refuses_chat_for_now());
        assert!(
            !ErrorCode::RecordDamaged.refuses_chat_for_now(),
            "waiting mends nothing"
        );
    }
}
