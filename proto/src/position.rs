//! Positions: 16 opaque bytes that sort in commit order (R1).

use std::fmt;

/// Where an entry stands in commit order (R1): the store's generation (4 bytes), the commit stamp (10
/// bytes: FoundationDB's versionstamp or the embedded committer's counter) and the index within the
/// batch (2 bytes), all big-endian, so that comparing bytes compares positions.
///
/// An inbox cursor is the position of an entry. Clients treat positions as opaque; only the server's
/// store makes them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position([u8; 16]);

/// A commit stamp: ten bytes that grow with every commit and never recur (R9).
pub type Stamp = [u8; 10];

impl Position {
    /// Bytes of a position.
    pub const LEN: usize = 16;
    /// Before every entry of every generation.
    pub const ZERO: Self = Self([0; 16]);
    /// After every entry.
    pub const MAX: Self = Self([0xff; 16]);

    /// Composes a position.
    #[must_use]
    pub fn new(generation: u32, stamp: Stamp, index: u16) -> Self {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&generation.to_be_bytes());
        bytes[4..14].copy_from_slice(&stamp);
        bytes[14..].copy_from_slice(&index.to_be_bytes());
        Self(bytes)
    }

    /// The last position that a commit with this stamp can have: everything up to that commit.
    #[must_use]
    pub fn end_of(generation: u32, stamp: Stamp) -> Self {
        Self::new(generation, stamp, u16::MAX)
    }

    /// Reads a position; `None` if there are not exactly 16 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads an optional field of the wire, where no bytes mean [`Position::ZERO`].
    #[must_use]
    pub fn from_field(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            Some(Self::ZERO)
        } else {
            Self::from_slice(bytes)
        }
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The generation of the store that made it (R3).
    #[must_use]
    pub fn generation(self) -> u32 {
        u32::from_be_bytes(self.0[..4].try_into().expect("4 of 16 bytes"))
    }

    /// The stamp of its commit.
    #[must_use]
    pub fn stamp(self) -> Stamp {
        self.0[4..14].try_into().expect("10 of 16 bytes")
    }

    /// Its place in the batch.
    #[must_use]
    pub fn index(self) -> u16 {
        u16::from_be_bytes(self.0[14..].try_into().expect("2 of 16 bytes"))
    }
}

impl Default for Position {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut stamp = [0; 16];
        stamp[6..].copy_from_slice(&self.stamp());
        write!(
            f,
            "{}:{:x}.{}",
            self.generation(),
            u128::from_be_bytes(stamp),
            self.index()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(counter: u64) -> Stamp {
        let mut stamp = [0; 10];
        stamp[..8].copy_from_slice(&counter.to_be_bytes());
        stamp
    }

    #[test]
    fn r1_bytes_sort_in_commit_order() {
        let in_order = [
            Position::ZERO,
            Position::new(1, stamp(0), 1),
            Position::new(1, stamp(1), 0),
            Position::new(1, stamp(1), 256),
            Position::new(1, stamp(256), 0),
            Position::new(2, stamp(0), 0),
            Position::MAX,
        ];
        assert!(in_order.is_sorted());
        assert!(Position::end_of(1, stamp(1)) < Position::new(1, stamp(2), 0));
    }

    #[test]
    fn parts_survive() {
        let position = Position::new(7, stamp(u64::MAX), 513);
        assert_eq!(position.generation(), 7);
        assert_eq!(position.stamp(), stamp(u64::MAX));
        assert_eq!(position.index(), 513);
        assert_eq!(Position::from_slice(position.as_bytes()), Some(position));
    }

    #[test]
    fn only_sixteen_bytes_or_none_are_a_position() {
        assert_eq!(Position::from_slice(&[0; 15]), None);
        assert_eq!(Position::from_field(&[]), Some(Position::ZERO));
        assert_eq!(Position::from_field(&[1; 17]), None);
    }
}
