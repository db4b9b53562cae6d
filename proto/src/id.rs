//! Identifiers of users, devices, chats and messages.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use thiserror::Error;

/// Why bytes or a number are no identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IdError {
    /// Zero is nobody.
    #[error("an identifier must not be 0")]
    Zero,
    /// A chat id has 16 bytes.
    #[error("a chat id has 16 bytes, not {0}")]
    ChatLength(usize),
    /// A group's id names a cluster that this version does not know: its first byte behind the zeros is 0.
    #[error("a group of cluster {0}, which is unknown here")]
    ClusterUnknown(u8),
    /// In a pair's id the smaller user id comes first.
    #[error("the pair is out of order: the smaller user id comes first")]
    PairOrder,
}

/// A user: an account, with up to a few devices. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(NonZeroU64);

/// A device of a user, chosen at random by the installation, never 0 and never used twice (R13).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(NonZeroU32);

/// A message's identity: 41 bits of milliseconds, 10 of node, 12 of sequence. Identifies; never orders.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u64);

/// A chat. A pair's id is both user ids, the smaller first, big-endian, so it needs no look-up; a
/// group's id starts with eight zero bytes, which no pair has because no user is 0. The byte behind them is
/// kept for the cluster that holds the group (R27): 0, while there is one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChatId([u8; 16]);

impl UserId {
    /// Checks and wraps a number.
    ///
    /// # Errors
    /// [`IdError::Zero`] for 0.
    pub const fn new(id: u64) -> Result<Self, IdError> {
        match NonZeroU64::new(id) {
            Some(id) => Ok(Self(id)),
            None => Err(IdError::Zero),
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl DeviceId {
    /// Checks and wraps a number.
    ///
    /// # Errors
    /// [`IdError::Zero`] for 0.
    pub const fn new(id: u32) -> Result<Self, IdError> {
        match NonZeroU32::new(id) {
            Some(id) => Ok(Self(id)),
            None => Err(IdError::Zero),
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl MessageId {
    /// Milliseconds between the Unix epoch and the epoch of message ids, 2025-01-01T00:00:00Z.
    pub const EPOCH_UNIX_MS: u64 = 1_735_689_600_000;
    /// Bits of the node number.
    pub const NODE_BITS: u32 = 10;
    /// Bits of the sequence.
    pub const SEQUENCE_BITS: u32 = 12;
    /// The first millisecond since the epoch of message ids that none can name: in September 2094.
    pub const MS_END: u64 = 1 << 41;

    /// Wraps a number.
    #[must_use]
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// Composes an id. Bits above each field's width must be clear.
    ///
    /// # Panics
    /// If a part does not fit its field: the caller's counters are broken.
    #[must_use]
    pub fn from_parts(ms_since_epoch: u64, node: u16, sequence: u16) -> Self {
        assert!(ms_since_epoch < Self::MS_END, "message ids end in 2094");
        assert!(node < 1 << Self::NODE_BITS);
        assert!(sequence < 1 << Self::SEQUENCE_BITS);
        Self(
            ms_since_epoch << (Self::NODE_BITS + Self::SEQUENCE_BITS)
                | u64::from(node) << Self::SEQUENCE_BITS
                | u64::from(sequence),
        )
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Unix time in ms at which the id was made.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        (self.0 >> (Self::NODE_BITS + Self::SEQUENCE_BITS)) + Self::EPOCH_UNIX_MS
    }
}

impl ChatId {
    /// Bytes of a chat id.
    pub const LEN: usize = 16;

    /// The chat of two users. A user may have a chat with itself: notes to its own devices.
    #[must_use]
    pub fn pair(a: UserId, b: UserId) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&a.get().min(b.get()).to_be_bytes());
        id[8..].copy_from_slice(&a.get().max(b.get()).to_be_bytes());
        Self(id)
    }

    /// Checks and wraps bytes from the wire.
    ///
    /// # Errors
    /// [`IdError`] if the length is not 16 or a pair is out of order.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
        let id = Self(
            bytes
                .try_into()
                .map_err(|_| IdError::ChatLength(bytes.len()))?,
        );
        let (low, high) = id.halves();
        if high == 0 {
            return Err(IdError::Zero);
        }
        if low > high {
            return Err(IdError::PairOrder);
        }
        let [cluster, ..] = high.to_be_bytes();
        if low == 0 && cluster != 0 {
            return Err(IdError::ClusterUnknown(cluster));
        }
        Ok(id)
    }

    /// Both users, if this is a pair's chat.
    #[must_use]
    pub fn users(self) -> Option<(UserId, UserId)> {
        let (low, high) = self.halves();
        Some((UserId::new(low).ok()?, UserId::new(high).ok()?))
    }

    /// The other user of a pair's chat, if `user` is one of the two.
    #[must_use]
    pub fn peer_of(self, user: UserId) -> Option<UserId> {
        match self.users()? {
            (a, b) if a == user => Some(b),
            (a, b) if b == user => Some(a),
            _ => None,
        }
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    fn halves(self) -> (u64, u64) {
        let number = u128::from_be_bytes(self.0);
        let low = u64::try_from(number >> 64).expect("64 bits are left");
        let high = u64::try_from(number & u128::from(u64::MAX)).expect("64 bits are left");
        (low, high)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "u{}", self.0)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{:08x}", self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{:016x}", self.0)
    }
}

impl fmt::Debug for ChatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.halves() {
            (0, group) => write!(f, "group {group:x}"),
            (low, high) => write!(f, "pair {low}+{high}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: u64) -> UserId {
        UserId::new(id).expect("not 0")
    }

    #[test]
    fn zero_is_nobody() {
        assert_eq!(UserId::new(0), Err(IdError::Zero));
        assert_eq!(DeviceId::new(0), Err(IdError::Zero));
    }

    #[test]
    fn a_pair_has_one_id_whoever_asks() {
        let chat = ChatId::pair(user(7), user(3));
        assert_eq!(chat, ChatId::pair(user(3), user(7)));
        assert_eq!(chat.peer_of(user(3)), Some(user(7)));
        assert_eq!(chat.peer_of(user(7)), Some(user(3)));
        assert_eq!(chat.peer_of(user(8)), None);
        assert_eq!(ChatId::from_slice(chat.as_bytes()), Ok(chat));
    }

    #[test]
    fn a_pair_with_oneself_is_a_chat() {
        let chat = ChatId::pair(user(5), user(5));
        assert_eq!(chat.peer_of(user(5)), Some(user(5)));
    }

    #[test]
    fn malformed_chat_ids_are_refused() {
        assert_eq!(ChatId::from_slice(&[1; 15]), Err(IdError::ChatLength(15)));
        assert_eq!(ChatId::from_slice(&[0; 16]), Err(IdError::Zero));
        let mut reversed = [0; 16];
        reversed[7] = 9;
        reversed[15] = 3;
        assert_eq!(ChatId::from_slice(&reversed), Err(IdError::PairOrder));
    }

    #[test]
    fn a_group_id_is_no_pair() {
        let mut group = [0; 16];
        group[15] = 1;
        assert_eq!(ChatId::from_slice(&group).expect("valid").users(), None);
    }

    #[test]
    fn r27_a_group_of_another_cluster_is_unknown() {
        for cluster in [1, 63, 64, 255] {
            let mut group = [0; 16];
            (group[8], group[15]) = (cluster, 1);
            assert_eq!(
                ChatId::from_slice(&group),
                Err(IdError::ClusterUnknown(cluster))
            );
        }
    }

    #[test]
    fn message_ids_carry_their_time() {
        let id = MessageId::from_parts(1_000, 1023, 4095);
        assert_eq!(id.unix_ms(), MessageId::EPOCH_UNIX_MS + 1_000);
        assert!(MessageId::from_parts(1_001, 0, 0).get() > id.get());
    }
}
