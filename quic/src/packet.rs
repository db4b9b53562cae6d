//! Packet headers (RFC 9000 17) and packet numbers (RFC 9000 17.1, A.2, A.3). No cryptography here.

use std::fmt;

use crate::coding::{Reader, Writer};

/// QUIC version 1.
pub const VERSION: u32 = 1;

/// The longest connection id of version 1 (RFC 9000 17.2).
pub const CID_LEN_MAX: usize = 20;

/// The smallest datagram that may carry an Initial packet (RFC 9000 14.1).
pub const INITIAL_DATAGRAM_MIN: usize = 1_200;

/// The first number that no packet has (RFC 9000 12.3). A packet whose number decodes to it, or beyond,
/// is none, and a connection ends before its numbers do (T19).
pub const PACKET_NUMBER_END: u64 = 1 << 62;

/// Bytes of the AEAD tag of every suite of TLS 1.3 that QUIC uses.
pub const TAG_LEN: usize = 16;

/// A connection id of zero to twenty bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    len: u8,
    bytes: [u8; CID_LEN_MAX],
}

impl ConnectionId {
    /// The id of length zero.
    pub const EMPTY: Self = Self {
        len: 0,
        bytes: [0; CID_LEN_MAX],
    };

    /// An id of these bytes; `None` when there are more than twenty.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let len = u8::try_from(bytes.len())
            .ok()
            .filter(|l| usize::from(*l) <= CID_LEN_MAX)?;
        let mut id = Self { len, ..Self::EMPTY };
        id.bytes[..bytes.len()].copy_from_slice(bytes);
        Some(id)
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// How many bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// True for the id of length zero.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice()
            .iter()
            .try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A packet number space with its own keys (RFC 9000 12.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// Initial packets.
    Initial = 0,
    /// Handshake packets.
    Handshake = 1,
    /// 1-RTT packets.
    Data = 2,
}

/// What a packet's first bytes say it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Long header, version 1, Initial (RFC 9000 17.2.2).
    Initial,
    /// Long header, version 1, 0-RTT (RFC 9000 17.2.3); always refused here.
    ZeroRtt,
    /// Long header, version 1, Handshake (RFC 9000 17.2.4).
    Handshake,
    /// Long header, version 1, Retry (RFC 9000 17.2.5).
    Retry,
    /// Short header (RFC 9000 17.3.1).
    OneRtt,
    /// Version negotiation (RFC 9000 17.2.1).
    VersionNegotiation,
    /// A long header of a version that this engine does not speak.
    OtherVersion(u32),
}

/// One packet of a datagram: offsets into its bytes, so that it can be opened in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// What it is.
    pub kind: Kind,
    /// Destination connection id.
    pub dcid: ConnectionId,
    /// Source connection id; empty for short headers.
    pub scid: ConnectionId,
    /// Where the Initial's token lies.
    pub token: (usize, usize),
    /// Where the packet number starts; for Retry and Version Negotiation, where the rest starts.
    pub pn_offset: usize,
    /// Where the packet ends and the next one starts.
    pub end: usize,
}

/// Why a datagram's bytes are no packet. The rest of the datagram is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl Packet {
    /// Parses the header of the first packet in `bytes`. Short headers carry no length of their
    /// destination id, so the receiver's own length comes as `short_cid_len`. Long ids of other
    /// versions than 1 (up to 255 bytes, RFC 8999) are reported as malformed beyond 20 bytes.
    pub fn parse(bytes: &[u8], short_cid_len: usize) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let first = r.u8().ok_or(Malformed)?;
        if first & 0x80 == 0 {
            return Self::parse_short(bytes, first, short_cid_len);
        }
        let version = r.u32().ok_or(Malformed)?;
        let dcid = parse_cid(&mut r)?;
        let scid = parse_cid(&mut r)?;
        let at = |r: &Reader<'_>| bytes.len() - r.remaining();
        let packet = |kind, pn_offset, end| Self {
            kind,
            dcid,
            scid,
            token: (0, 0),
            pn_offset,
            end,
        };
        if version == 0 {
            return Ok(packet(Kind::VersionNegotiation, at(&r), bytes.len()));
        }
        if version != VERSION {
            return Ok(packet(Kind::OtherVersion(version), at(&r), bytes.len()));
        }
        // The fixed bit: packets without it are not valid in this version (RFC 9000 17.2).
        if first & 0x40 == 0 {
            return Err(Malformed);
        }
        let kind = match (first >> 4) & 3 {
            0 => Kind::Initial,
            1 => Kind::ZeroRtt,
            2 => Kind::Handshake,
            _ => return Ok(packet(Kind::Retry, at(&r), bytes.len())),
        };
        let mut token = (0, 0);
        if kind == Kind::Initial {
            let len = r.prefixed().ok_or(Malformed)?.len();
            token = (at(&r) - len, at(&r));
        }
        let length = r
            .varint()
            .and_then(|n| usize::try_from(n).ok())
            .ok_or(Malformed)?;
        let pn_offset = at(&r);
        if length > r.remaining() {
            return Err(Malformed);
        }
        Ok(Self {
            token,
            ..packet(kind, pn_offset, pn_offset + length)
        })
    }

    fn parse_short(bytes: &[u8], first: u8, cid_len: usize) -> Result<Self, Malformed> {
        let id = bytes.get(1..1 + cid_len).ok_or(Malformed)?;
        // The fixed bit again (RFC 9000 17.3.1).
        if first & 0x40 == 0 {
            return Err(Malformed);
        }
        Ok(Self {
            kind: Kind::OneRtt,
            dcid: ConnectionId::new(id).ok_or(Malformed)?,
            scid: ConnectionId::EMPTY,
            token: (0, 0),
            pn_offset: 1 + cid_len,
            end: bytes.len(),
        })
    }

    /// Where the sample for header protection starts (RFC 9001 5.4.2); `None` when the packet is
    /// too short to have been protected.
    #[must_use]
    pub fn sample_offset(&self) -> Option<usize> {
        let at = self.pn_offset + 4;
        (at + 16 <= self.end).then_some(at)
    }
}

fn parse_cid(r: &mut Reader<'_>) -> Result<ConnectionId, Malformed> {
    let len = r.u8().ok_or(Malformed)?;
    let bytes = r.bytes(usize::from(len)).ok_or(Malformed)?;
    ConnectionId::new(bytes).ok_or(Malformed)
}

/// Bytes needed to send `pn` when `acked` is the largest number the peer acknowledged (RFC 9000
/// A.2): the receiver's window must be more than twice the distance.
#[must_use]
pub fn pn_len(pn: u64, acked: Option<u64>) -> usize {
    let unacked = acked.map_or(pn.saturating_add(1), |a| pn.saturating_sub(a));
    match unacked {
        0..=0x7f => 1,
        0x80..=0x7fff => 2,
        0x8000..=0x7f_ffff => 3,
        _ => 4,
    }
}

/// The packet number nearest to the one expected that ends in `truncated` (RFC 9000 A.3). `None` when
/// that is [`PACKET_NUMBER_END`] or beyond (RFC 9000 12.3).
#[must_use]
pub fn pn_decode(largest: Option<u64>, truncated: u64, bytes: usize) -> Option<u64> {
    let expected = largest.map_or(0, |l| l.saturating_add(1));
    let window = 1u64 << (8 * bytes);
    let half = window / 2;
    let candidate = (expected & !(window - 1)) | truncated;
    let pn = if candidate.saturating_add(half) <= expected
        && candidate.saturating_add(window) < PACKET_NUMBER_END
    {
        candidate + window
    } else if candidate > expected.saturating_add(half) && candidate >= window {
        candidate - window
    } else {
        candidate
    };
    (pn < PACKET_NUMBER_END).then_some(pn)
}

/// Writes the low `len` bytes of a packet number.
pub(crate) fn write_pn(w: &mut Writer<'_>, pn: u64, len: usize) {
    w.bytes(&pn.to_be_bytes()[8 - len..]);
}

/// Writes a version negotiation packet (RFC 9000 17.2.1) that answers a packet with these ids, and
/// returns its length. One reserved version is listed too, so that clients stay tolerant (6.3).
#[must_use]
pub fn write_version_negotiation(
    out: &mut [u8],
    random: u32,
    peer_scid: &[u8],
    peer_dcid: &[u8],
) -> usize {
    let mut w = Writer::new(out);
    let [r0, ..] = random.to_be_bytes();
    w.u8(0xc0 | r0);
    w.u32(0);
    for id in [peer_scid, peer_dcid] {
        w.u8(u8::try_from(id.len()).expect("an id of a parsed header"));
        w.bytes(id);
    }
    w.u32((random & 0xf0f0_f0f0) | 0x0a0a_0a0a);
    w.u32(VERSION);
    w.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The examples of RFC 9000 A.2.
    #[test]
    fn pn_encoding_of_rfc9000_a2() {
        assert_eq!(pn_len(0xac_5c02, Some(0xab_e8b3)), 2);
        assert_eq!(pn_len(0xac_e8fe, Some(0xab_e8b3)), 3);
    }

    /// The example of RFC 9000 A.3.
    #[test]
    fn pn_decoding_of_rfc9000_a3() {
        assert_eq!(pn_decode(Some(0xa82f_30ea), 0x9b32, 2), Some(0xa82f_9b32));
    }

    /// RFC 9000 12.3, at both ends of the range.
    #[test]
    fn tf1_t19_a_packet_number_ends_below_2_62() {
        let last = PACKET_NUMBER_END - 1;
        assert_eq!(pn_decode(None, 0, 1), Some(0));
        assert_eq!(pn_decode(None, 0xff, 1), Some(0xff), "none below zero");
        assert_eq!(pn_decode(Some(last - 1), 0xff, 1), Some(last));
        assert_eq!(pn_decode(Some(last - 1), 0xffff_ffff, 4), Some(last));
        // Ahead of the last but one there is only the last: these are old ones.
        assert_eq!(pn_decode(Some(last - 1), 0, 1), Some(last - 0xff));
        // After the last one nothing is ahead.
        for bytes in 1..=4 {
            assert_eq!(pn_decode(Some(last), 0, bytes), None, "{bytes} bytes");
            assert_eq!(pn_decode(Some(last), 1, bytes), None, "{bytes} bytes");
        }
        for largest in [last + 1, 1 << 63, u64::MAX] {
            for bits in [0, 1, 0xff] {
                let pn = pn_decode(Some(largest), bits, 1);
                assert!(pn.is_none_or(|pn| pn < PACKET_NUMBER_END), "{pn:?}");
            }
        }
        for pn in [0, 1, last, u64::MAX] {
            assert!((1..=4).contains(&pn_len(pn, None)));
            assert!((1..=4).contains(&pn_len(pn, Some(pn))));
        }
    }

    proptest! {
        #[test]
        fn pn_round_trip(acked in 0u64..1 << 40, ahead in 1u64..1 << 20, behind in 0u64..100) {
            let pn = acked + ahead;
            let len = pn_len(pn, Some(acked));
            let truncated = pn & ((1 << (8 * len)) - 1);
            // The receiver has seen something between what was acknowledged and just before.
            let seen = (pn - 1).saturating_sub(behind).max(acked);
            prop_assert_eq!(pn_decode(Some(seen), truncated, len), Some(pn));
        }

        /// Against the definition: the number of the window around the one expected that has these
        /// bits, where the range permits it; at both ends of the range.
        #[test]
        fn tf1_t19_a_packet_number_is_the_nearest_at_both_ends(
            from_end in any::<bool>(), distance in 0u64..1 << 33, bits in any::<u32>(), len in 1usize..5,
        ) {
            let largest = if from_end { PACKET_NUMBER_END - 1 - distance } else { distance };
            let window = 1i128 << (8 * len);
            let truncated = u64::from(bits) & ((1 << (8 * len)) - 1);
            let expected = i128::from(largest) + 1;
            // In (expected - half, expected + half].
            let first = expected - window / 2 + 1;
            let nearest = first + (i128::from(truncated) - first).rem_euclid(window);
            let end = i128::from(PACKET_NUMBER_END);
            let wanted = match nearest {
                n if n < 0 => n + window,
                n if n >= end && expected < end => n - window,
                n => n,
            };
            let wanted = (wanted < end).then(|| u64::try_from(wanted).unwrap());
            prop_assert_eq!(pn_decode(Some(largest), truncated, len), wanted);
        }

        #[test]
        fn any_bytes_parse_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(p) = Packet::parse(&bytes, 12) {
                prop_assert!(p.pn_offset <= p.end && p.end <= bytes.len());
                prop_assert!(p.token.0 <= p.token.1 && p.token.1 <= p.pn_offset);
            }
        }
    }

    #[test]
    fn cid_of_21_bytes_in_version_1_is_malformed_rfc9000_17_2() {
        let mut bytes = vec![0xc0, 0, 0, 0, 1, 21];
        bytes.resize(60, 0);
        assert_eq!(Packet::parse(&bytes, 12), Err(Malformed));
    }
}
