//! What a message carries, so that its receiver can tell it from every other and see damage.
//!
//! 40 bytes of header, little-endian, then filler that follows from the header:
//!
//! ```text
//! 0   magic     u16    4   run      u32    16  sender  u64    32  checksum u64, of all other bytes
//! 2   thread    u16    8   message  u64    24  number  u64    40  filler
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::rng::Rng;

/// The smallest `--size`.
pub(crate) const BYTES_MIN: usize = 40;

const MAGIC: u16 = 0x6c72;
const CHECKSUM_AT: usize = 32;

/// Which message a payload belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The thread whose ledger knows the message.
    pub(crate) thread: u16,
    /// Tells runs apart: a server's inboxes may hold messages of an earlier one.
    pub(crate) run: u32,
    /// The ledger's number of the message.
    pub(crate) message: u64,
    /// The sending user.
    pub(crate) sender: u64,
    /// The sending device's number (R12).
    pub(crate) number: u64,
}

/// Why bytes are no payload of a load generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadError {
    /// Too short, or without the magic number: some other client's.
    Foreign,
    /// The checksum does not match.
    Damaged,
}

/// A payload of `size` bytes, at least [`BYTES_MIN`]. The same header always gives the same bytes, so a
/// message that must be sent again need not be kept (R12: same number, same request).
pub(crate) fn encode(header: &Header, size: usize) -> Bytes {
    let size = size.max(BYTES_MIN);
    let mut bytes = BytesMut::with_capacity(size + 8);
    bytes.put_u16_le(MAGIC);
    bytes.put_u16_le(header.thread);
    bytes.put_u32_le(header.run);
    bytes.put_u64_le(header.message);
    bytes.put_u64_le(header.sender);
    bytes.put_u64_le(header.number);
    bytes.put_u64_le(0);
    let mut filler = Rng::stream(header.message, header.sender);
    while bytes.len() < size {
        bytes.put_u64_le(filler.next());
    }
    bytes.truncate(size);
    let sum = checksum(&bytes);
    bytes[CHECKSUM_AT..BYTES_MIN].copy_from_slice(&sum.to_le_bytes());
    bytes.freeze()
}

/// Reads the header back.
pub(crate) fn decode(bytes: &[u8]) -> Result<Header, PayloadError> {
    if bytes.len() < BYTES_MIN || bytes[..2] != MAGIC.to_le_bytes() {
        return Err(PayloadError::Foreign);
    }
    if word(bytes, CHECKSUM_AT) != checksum(bytes) {
        return Err(PayloadError::Damaged);
    }
    Ok(Header {
        thread: u16::from_le_bytes([bytes[2], bytes[3]]),
        run: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        message: word(bytes, 8),
        sender: word(bytes, 16),
        number: word(bytes, 24),
    })
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Sees any one damaged byte; not meant against forgery. Eight bytes a step: checking must cost little
/// beside receiving.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, word: u64| {
        (sum ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    };
    let mut sum = step(bytes.len() as u64, 0);
    for chunk in bytes[..CHECKSUM_AT]
        .chunks(8)
        .chain(bytes[BYTES_MIN..].chunks(8))
    {
        let mut padded = [0; 8];
        padded[..chunk.len()].copy_from_slice(chunk);
        sum = step(sum, u64::from_le_bytes(padded));
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            thread: 3,
            run: 0xdead_beef,
            message: 77,
            sender: 12,
            number: 9,
        }
    }

    #[test]
    fn a_payload_reads_back_and_has_its_size() {
        for size in [40, 41, 47, 48, 100, 4_096] {
            let bytes = encode(&header(), size);
            assert_eq!(bytes.len(), size);
            assert_eq!(decode(&bytes), Ok(header()));
            assert_eq!(
                bytes,
                encode(&header(), size),
                "a retry is the same request"
            );
        }
        assert_eq!(encode(&header(), 1).len(), BYTES_MIN);
    }

    #[test]
    fn every_damaged_byte_is_seen() {
        let bytes = encode(&header(), 101);
        for at in 2..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x10;
            assert_eq!(decode(&damaged), Err(PayloadError::Damaged), "byte {at}");
        }
        assert_eq!(decode(&bytes[..100]), Err(PayloadError::Damaged));
    }

    proptest! {
        #[test]
        fn other_peoples_bytes_are_foreign_or_damaged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
