//! The bytes of a record.
//!
//! `length u32 | checksum u32 | kind u8 | body`, integers little-endian; length counts kind and body,
//! the checksum (CRC-32C) covers both and is seeded with the length, so that neither a torn length nor
//! a run of zeros reads as a record.

use bytes::{Buf, BufMut, Bytes};
use roadstead_proto::{ChatId, DeviceId, Position};

use super::{Record, Unconfirmed};

/// Bytes before the kind.
const HEADER_BYTES: usize = 8;
/// No record is longer: a payload, its chat, number and time.
const RECORD_BYTES_MAX: usize = 128 * 1024;

/// The kind of a mark, which is of the file and not of what is in it.
const SYNCED: u8 = 8;

/// Appends a mark: so many bytes of the file were synced before it was written.
pub(super) fn encode_synced(bytes: u64, out: &mut Vec<u8>) {
    let start = out.len();
    out.put_bytes(0, HEADER_BYTES);
    out.put_u8(SYNCED);
    out.put_u64_le(bytes);
    finish(start, out);
}

/// Appends a record's bytes.
pub(super) fn encode(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.put_bytes(0, HEADER_BYTES);
    match record {
        Record::Device(device) => {
            out.put_u8(1);
            out.put_u32_le(device.get());
        }
        Record::Connect(counter) => {
            out.put_u8(2);
            out.put_u64_le(*counter);
        }
        Record::Numbers(number) => {
            out.put_u8(3);
            out.put_u64_le(*number);
        }
        Record::Send(message) => {
            out.put_u8(4);
            out.put_u64_le(message.number);
            out.put_u64_le(message.sent_unix_ms);
            out.put_slice(message.chat.as_bytes());
            out.put_slice(&message.payload);
        }
        Record::Settled(number) => {
            out.put_u8(5);
            out.put_u64_le(*number);
        }
        Record::Cursor(cursor) => {
            out.put_u8(6);
            out.put_slice(cursor.as_bytes());
        }
        Record::Renumbered { number, sent_as } => {
            out.put_u8(7);
            out.put_u64_le(*number);
            out.put_u64_le(*sent_as);
        }
    }
    finish(start, out);
}

/// Fills in the header of what begins there.
fn finish(start: usize, out: &mut [u8]) {
    let length = out.len() - start - HEADER_BYTES;
    assert!(
        length <= RECORD_BYTES_MAX,
        "payloads are checked before they get a number"
    );
    let length = u32::try_from(length).expect("below the limit");
    let checksum = checksum(length, &out[start + HEADER_BYTES..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// What stands at the front of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A record, and how many bytes it takes.
    Record(Record, usize),
    /// So many bytes of the file were synced before these were written, and how many these are.
    Synced(u64, usize),
    /// Bytes of a kind that this version does not write, intact.
    Unknown(u8),
    /// No whole record: the end, or the remains of a write that a crash cut short.
    Torn,
}

/// Reads the record at the front of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Decoded::Torn;
    };
    let (mut length_bytes, mut checksum_bytes) = header.split_at(4);
    let length = length_bytes.get_u32_le();
    let Some(content) = usize::try_from(length)
        .ok()
        .filter(|length| (1..=RECORD_BYTES_MAX).contains(length))
        .and_then(|length| rest.get(..length))
    else {
        return Decoded::Torn;
    };
    if checksum(length, content) != checksum_bytes.get_u32_le() {
        return Decoded::Torn;
    }
    if let (SYNCED, Ok(bytes)) = (content[0], content[1..].try_into()) {
        return Decoded::Synced(u64::from_le_bytes(bytes), HEADER_BYTES + content.len());
    }
    match decode_body(content[0], &content[1..]) {
        Some(record) => Decoded::Record(record, HEADER_BYTES + content.len()),
        None => Decoded::Unknown(content[0]),
    }
}

fn decode_body(kind: u8, mut body: &[u8]) -> Option<Record> {
    let number = |body: &[u8]| body.try_into().ok().map(u64::from_le_bytes);
    Some(match kind {
        1 => {
            let device = u32::from_le_bytes(body.try_into().ok()?);
            Record::Device(DeviceId::new(device).ok()?)
        }
        2 => Record::Connect(number(body)?),
        3 => Record::Numbers(number(body)?),
        4 if body.len() >= 32 => Record::Send(Unconfirmed {
            number: body.get_u64_le(),
            sent_unix_ms: body.get_u64_le(),
            chat: ChatId::from_slice(&body[..16]).ok()?,
            payload: Bytes::copy_from_slice(&body[16..]),
        }),
        5 => Record::Settled(number(body)?),
        6 => Record::Cursor(Position::from_slice(body)?),
        7 if body.len() == 16 => Record::Renumbered {
            number: body.get_u64_le(),
            sent_as: body.get_u64_le(),
        },
        _ => return None,
    })
}

/// CRC-32C, bit by bit: a device writes a few records a second.
fn checksum(seed: u32, bytes: &[u8]) -> u32 {
    let step = |mut crc: u32, byte: &u8| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
        crc
    };
    let crc = seed.to_le_bytes().iter().fold(u32::MAX, step);
    !bytes.iter().fold(crc, step)
}

#[cfg(test)]
pub(super) mod tests {
    use roadstead_proto::UserId;

    use super::*;
    use crate::journal::Saved;

    pub(in crate::journal) fn sample_saved() -> Saved {
        let mut saved = Saved::default();
        samples().iter().for_each(|record| saved.apply(record));
        saved
    }

    pub(in crate::journal) fn samples() -> Vec<Record> {
        let user = |id| UserId::new(id).expect("not 0");
        let send = |number, payload: &'static [u8]| {
            Record::Send(Unconfirmed {
                number,
                chat: ChatId::pair(user(1), user(2)),
                payload: Bytes::from_static(payload),
                sent_unix_ms: 1_700_000_000_000,
            })
        };
        vec![
            Record::Device(DeviceId::new(77).expect("not 0")),
            Record::Connect(3),
            Record::Numbers(40),
            send(41, b"hello"),
            send(42, b""),
            Record::Settled(41),
            Record::Cursor(Position::new(1, [2; 10], 3)),
            send(43, b"waits"),
            Record::Renumbered {
                number: 42,
                sent_as: 44,
            },
            Record::Renumbered {
                number: 43,
                sent_as: 0,
            },
        ]
    }

    #[test]
    fn every_record_survives() {
        for record in samples() {
            let mut bytes = Vec::new();
            encode(&record, &mut bytes);
            let length = bytes.len();
            bytes.extend_from_slice(b"what follows");
            assert_eq!(decode(&bytes), Decoded::Record(record, length));
        }
    }

    /// The bytes of a journal that an application has: they are read for ever.
    #[test]
    fn df1_p35_the_bytes_of_a_renumbered_message_are_these() {
        let mut bytes = Vec::new();
        let record = Record::Renumbered {
            number: 0x0102,
            sent_as: 0x0304,
        };
        encode(&record, &mut bytes);
        let body = [7, 2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes[..4], [17, 0, 0, 0]);
        assert_eq!(bytes[HEADER_BYTES..], body);
        let mut longer = Vec::new();
        longer.extend_from_slice(&18u32.to_le_bytes());
        longer.extend_from_slice(&checksum(18, &[&body[..], &[0]].concat()).to_le_bytes());
        longer.extend_from_slice(&[&body[..], &[0]].concat());
        assert_eq!(decode(&longer), Decoded::Unknown(7), "of a newer version");
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        encode(&samples()[3], &mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Decoded::Torn, "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), Decoded::Torn, "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(decode(&[0; 64]), Decoded::Torn);
    }

    #[test]
    fn checksum_is_crc_32c() {
        // The check value of CRC-32C is that of "123456789"; here the first four bytes are the seed.
        let seed = u32::from_le_bytes(*b"1234");
        assert_eq!(checksum(seed, b"56789"), 0xe306_9283);
    }
}
