//! Frames (RFC 9000 19, RFC 9221 4): parsing from decrypted bytes, and writing.

use crate::coding::{Reader, Writer, varint_len};
use crate::error::{Code, TransportError};
use crate::packet::{ConnectionId, Level};

/// Frame types (RFC 9000 19).
#[allow(missing_docs, reason = "the names are those of RFC 9000 table 3")]
pub mod ty {
    pub const PADDING: u64 = 0x00;
    pub const PING: u64 = 0x01;
    pub const ACK: u64 = 0x02;
    pub const ACK_ECN: u64 = 0x03;
    pub const RESET_STREAM: u64 = 0x04;
    pub const STOP_SENDING: u64 = 0x05;
    pub const CRYPTO: u64 = 0x06;
    pub const NEW_TOKEN: u64 = 0x07;
    pub const STREAM: u64 = 0x08;
    pub const STREAM_LAST: u64 = 0x0f;
    pub const MAX_DATA: u64 = 0x10;
    pub const MAX_STREAM_DATA: u64 = 0x11;
    pub const MAX_STREAMS_BIDI: u64 = 0x12;
    pub const MAX_STREAMS_UNI: u64 = 0x13;
    pub const DATA_BLOCKED: u64 = 0x14;
    pub const STREAM_DATA_BLOCKED: u64 = 0x15;
    pub const STREAMS_BLOCKED_BIDI: u64 = 0x16;
    pub const STREAMS_BLOCKED_UNI: u64 = 0x17;
    pub const NEW_CONNECTION_ID: u64 = 0x18;
    pub const RETIRE_CONNECTION_ID: u64 = 0x19;
    pub const PATH_CHALLENGE: u64 = 0x1a;
    pub const PATH_RESPONSE: u64 = 0x1b;
    pub const CONNECTION_CLOSE: u64 = 0x1c;
    pub const APPLICATION_CLOSE: u64 = 0x1d;
    pub const HANDSHAKE_DONE: u64 = 0x1e;
    pub const DATAGRAM: u64 = 0x30;
    pub const DATAGRAM_LEN: u64 = 0x31;
}

/// The largest stream count a MAX_STREAMS may name (RFC 9000 19.11).
pub const MAX_STREAMS_LIMIT: u64 = 1 << 60;

/// Whether a stream carries data both ways.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dir {
    /// Bidirectional.
    Bidi = 0,
    /// Unidirectional.
    Uni = 1,
}

/// The ranges of an ACK frame, from the largest number downward (RFC 9000 19.3.1).
#[derive(Clone, Debug)]
pub struct Ack<'a> {
    /// The largest number acknowledged.
    pub largest: u64,
    /// The delay as sent: not yet scaled by the peer's exponent.
    pub delay: u64,
    first_range: u64,
    ranges: &'a [u8],
}

impl Ack<'_> {
    /// Inclusive ranges, descending. They were checked when the frame was parsed.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut r = Reader::new(self.ranges);
        let mut low = self.largest - self.first_range;
        let first = (low, self.largest);
        std::iter::once(first).chain(std::iter::from_fn(move || {
            let (gap, len) = (r.varint()?, r.varint()?);
            let high = low - gap - 2;
            low = high - len;
            Some((low, high))
        }))
    }
}

impl PartialEq for Ack<'_> {
    /// Equal when they say the same, however long their integers are.
    fn eq(&self, other: &Self) -> bool {
        self.delay == other.delay && self.ranges().eq(other.ranges())
    }
}

impl Eq for Ack<'_> {}

/// One frame. Data borrow the packet.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "fields are those of RFC 9000 19")]
pub enum Frame<'a> {
    /// Any number of padding bytes.
    Padding,
    Ping,
    Ack(Ack<'a>),
    ResetStream {
        id: u64,
        code: u64,
        final_size: u64,
    },
    StopSending {
        id: u64,
        code: u64,
    },
    Crypto {
        offset: u64,
        data: &'a [u8],
    },
    NewToken(&'a [u8]),
    Stream {
        id: u64,
        offset: u64,
        fin: bool,
        data: &'a [u8],
    },
    MaxData(u64),
    MaxStreamData {
        id: u64,
        max: u64,
    },
    MaxStreams {
        dir: Dir,
        max: u64,
    },
    DataBlocked(u64),
    StreamDataBlocked {
        id: u64,
        limit: u64,
    },
    StreamsBlocked {
        dir: Dir,
        limit: u64,
    },
    NewConnectionId {
        sequence: u64,
        retire_prior_to: u64,
        id: ConnectionId,
        token: [u8; 16],
    },
    RetireConnectionId(u64),
    PathChallenge([u8; 8]),
    PathResponse([u8; 8]),
    ConnectionClose {
        code: u64,
        frame: u64,
        reason: &'a [u8],
    },
    ApplicationClose {
        code: u64,
        reason: &'a [u8],
    },
    HandshakeDone,
    Datagram(&'a [u8]),
}

/// The frames of one packet's payload.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    r: Reader<'a>,
}

const fn malformed(ty: u64, reason: &'static str) -> TransportError {
    TransportError::new(Code::FRAME_ENCODING_ERROR, reason).in_frame(ty)
}

impl<'a> Frames<'a> {
    /// Frames of a decrypted payload. A packet without frames is refused by the first `next`
    /// (RFC 9000 12.4: PROTOCOL_VIOLATION).
    pub fn new(payload: &'a [u8]) -> Result<Self, TransportError> {
        if payload.is_empty() {
            return Err(TransportError::new(
                Code::PROTOCOL_VIOLATION,
                "packet without frames",
            ));
        }
        Ok(Self {
            r: Reader::new(payload),
        })
    }

    /// The next frame with its type, or `None` at the end.
    pub fn next_frame(&mut self) -> Result<Option<(u64, Frame<'a>)>, TransportError> {
        if self.r.is_empty() {
            return Ok(None);
        }
        let before = self.r.remaining();
        let ty = self
            .r
            .varint()
            .ok_or(malformed(0, "truncated frame type"))?;
        // RFC 9000 12.4: a type that is not in its shortest encoding MAY be refused.
        if before - self.r.remaining() != varint_len(ty) {
            let error = TransportError::new(Code::PROTOCOL_VIOLATION, "long frame type");
            return Err(error.in_frame(ty));
        }
        let frame = self.body(ty)?.ok_or(malformed(ty, "truncated frame"))?;
        Ok(Some((ty, frame)))
    }

    fn body(&mut self, ty: u64) -> Result<Option<Frame<'a>>, TransportError> {
        let r = &mut self.r;
        let frame = match ty {
            ty::PADDING => {
                r.skip_zeroes();
                Some(Frame::Padding)
            }
            ty::PING => Some(Frame::Ping),
            ty::ACK | ty::ACK_ECN => return parse_ack(r, ty).map(|a| a.map(Frame::Ack)),
            ty::CRYPTO => return parse_crypto(r),
            ty::NEW_TOKEN => match r.prefixed() {
                // RFC 9000 19.7: an empty token is a FRAME_ENCODING_ERROR.
                Some([]) => return Err(malformed(ty, "empty token")),
                token => token.map(Frame::NewToken),
            },
            ty::STREAM..=ty::STREAM_LAST => return parse_stream(r, ty),
            ty::NEW_CONNECTION_ID => return parse_new_cid(r),
            ty::CONNECTION_CLOSE | ty::APPLICATION_CLOSE => parse_close(r, ty),
            ty::HANDSHAKE_DONE => Some(Frame::HandshakeDone),
            ty::DATAGRAM => Some(Frame::Datagram(r.take_rest())),
            ty::DATAGRAM_LEN => r.prefixed().map(Frame::Datagram),
            ty::PATH_CHALLENGE => r.array().map(Frame::PathChallenge),
            ty::PATH_RESPONSE => r.array().map(Frame::PathResponse),
            ty::RETIRE_CONNECTION_ID => r.varint().map(Frame::RetireConnectionId),
            ty::RESET_STREAM | ty::STOP_SENDING => parse_stream_end(r, ty),
            ty::MAX_DATA..=ty::STREAMS_BLOCKED_UNI => return parse_credit(r, ty),
            // RFC 9000 12.4: an unknown type is a FRAME_ENCODING_ERROR.
            _ => return Err(malformed(ty, "unknown frame type")),
        };
        Ok(frame)
    }
}

fn parse_ack<'a>(r: &mut Reader<'a>, ty: u64) -> Result<Option<Ack<'a>>, TransportError> {
    let head = (r.varint(), r.varint(), r.varint(), r.varint());
    let (Some(largest), Some(delay), Some(count), Some(first_range)) = head else {
        return Ok(None);
    };
    // RFC 9000 19.3.1: a computed number below zero is a FRAME_ENCODING_ERROR.
    let below_zero = malformed(ty, "acknowledgement below zero");
    let mut low = largest.checked_sub(first_range).ok_or(below_zero)?;
    let start = r.clone().take_rest();
    for _ in 0..count {
        let (Some(gap), Some(len)) = (r.varint(), r.varint()) else {
            return Ok(None);
        };
        let high = low
            .checked_sub(gap)
            .and_then(|l| l.checked_sub(2))
            .ok_or(below_zero)?;
        low = high.checked_sub(len).ok_or(below_zero)?;
    }
    let ranges = &start[..start.len() - r.remaining()];
    if ty == ty::ACK_ECN && (r.varint().is_none() | r.varint().is_none() | r.varint().is_none()) {
        return Ok(None);
    }
    Ok(Some(Ack {
        largest,
        delay,
        first_range,
        ranges,
    }))
}

fn parse_crypto<'a>(r: &mut Reader<'a>) -> Result<Option<Frame<'a>>, TransportError> {
    let (Some(offset), Some(data)) = (r.varint(), r.prefixed()) else {
        return Ok(None);
    };
    // RFC 9000 19.6: offset plus length stays below 2^62.
    if offset + data.len() as u64 > crate::coding::VARINT_MAX {
        return Err(malformed(ty::CRYPTO, "crypto offset too large"));
    }
    Ok(Some(Frame::Crypto { offset, data }))
}

fn parse_stream<'a>(r: &mut Reader<'a>, ty: u64) -> Result<Option<Frame<'a>>, TransportError> {
    let Some(id) = r.varint() else {
        return Ok(None);
    };
    let offset = if ty & 0x04 != 0 { r.varint() } else { Some(0) };
    let Some(offset) = offset else {
        return Ok(None);
    };
    let data = if ty & 0x02 != 0 {
        r.prefixed()
    } else {
        Some(r.take_rest())
    };
    let Some(data) = data else { return Ok(None) };
    // RFC 9000 19.8: offset plus length stays below 2^62.
    if offset + data.len() as u64 > crate::coding::VARINT_MAX {
        return Err(malformed(ty, "stream offset too large"));
    }
    Ok(Some(Frame::Stream {
        id,
        offset,
        fin: ty & 0x01 != 0,
        data,
    }))
}

fn parse_new_cid<'a>(r: &mut Reader<'a>) -> Result<Option<Frame<'a>>, TransportError> {
    let head = (r.varint(), r.varint(), r.u8());
    let (Some(sequence), Some(retire_prior_to), Some(len)) = head else {
        return Ok(None);
    };
    // RFC 9000 19.15: ids of 1 to 20 bytes, and nothing newer than itself is retired.
    if len == 0 || usize::from(len) > crate::packet::CID_LEN_MAX {
        return Err(malformed(ty::NEW_CONNECTION_ID, "connection id length"));
    }
    if retire_prior_to > sequence {
        return Err(malformed(
            ty::NEW_CONNECTION_ID,
            "retire prior to above sequence",
        ));
    }
    let (Some(id), Some(token)) = (r.bytes(usize::from(len)), r.array()) else {
        return Ok(None);
    };
    let id = ConnectionId::new(id).expect("the length was checked");
    Ok(Some(Frame::NewConnectionId {
        sequence,
        retire_prior_to,
        id,
        token,
    }))
}

fn parse_close<'a>(r: &mut Reader<'a>, ty: u64) -> Option<Frame<'a>> {
    let code = r.varint()?;
    let frame = if ty == ty::CONNECTION_CLOSE {
        r.varint()?
    } else {
        0
    };
    let reason = r.prefixed()?;
    Some(match ty {
        ty::CONNECTION_CLOSE => Frame::ConnectionClose {
            code,
            frame,
            reason,
        },
        _ => Frame::ApplicationClose { code, reason },
    })
}

fn parse_stream_end<'a>(r: &mut Reader<'a>, ty: u64) -> Option<Frame<'a>> {
    let (id, code) = (r.varint()?, r.varint()?);
    Some(match ty {
        ty::RESET_STREAM => Frame::ResetStream {
            id,
            code,
            final_size: r.varint()?,
        },
        _ => Frame::StopSending { id, code },
    })
}

fn parse_credit<'a>(r: &mut Reader<'a>, ty: u64) -> Result<Option<Frame<'a>>, TransportError> {
    let Some(first) = r.varint() else {
        return Ok(None);
    };
    let dir = if ty & 1 == 0 { Dir::Bidi } else { Dir::Uni };
    let count = |max: u64| match max {
        // RFC 9000 19.11, 19.14: no stream id could be expressed beyond 2^60.
        ..=MAX_STREAMS_LIMIT => Ok(max),
        _ => Err(malformed(ty, "stream count above 2^60")),
    };
    Ok(match ty {
        ty::MAX_DATA => Some(Frame::MaxData(first)),
        ty::DATA_BLOCKED => Some(Frame::DataBlocked(first)),
        ty::MAX_STREAM_DATA => r
            .varint()
            .map(|max| Frame::MaxStreamData { id: first, max }),
        ty::STREAM_DATA_BLOCKED => r
            .varint()
            .map(|limit| Frame::StreamDataBlocked { id: first, limit }),
        ty::MAX_STREAMS_BIDI | ty::MAX_STREAMS_UNI => Some(Frame::MaxStreams {
            dir,
            max: count(first)?,
        }),
        _ => Some(Frame::StreamsBlocked {
            dir,
            limit: count(first)?,
        }),
    })
}

/// Whether a frame type may be in a packet of this level (RFC 9000 12.4, table 3).
#[must_use]
pub const fn allowed(ty: u64, level: Level) -> bool {
    match level {
        Level::Data => true,
        Level::Initial | Level::Handshake => matches!(
            ty,
            ty::PADDING | ty::PING | ty::ACK | ty::ACK_ECN | ty::CRYPTO | ty::CONNECTION_CLOSE
        ),
    }
}

/// Whether a frame asks for an acknowledgement (RFC 9002 2).
#[must_use]
pub const fn ack_eliciting(ty: u64) -> bool {
    !matches!(
        ty,
        ty::PADDING | ty::ACK | ty::ACK_ECN | ty::CONNECTION_CLOSE | ty::APPLICATION_CLOSE
    )
}

/// Whether a packet of only such frames is a probe of a path (RFC 9000 9.1).
#[must_use]
pub const fn probing(ty: u64) -> bool {
    matches!(
        ty,
        ty::PADDING | ty::PATH_CHALLENGE | ty::PATH_RESPONSE | ty::NEW_CONNECTION_ID
    )
}

/// Writes an ACK frame from inclusive descending ranges, as many as fit in `w` (at least the
/// first), and says whether it fitted at all.
pub fn write_ack(
    w: &mut Writer<'_>,
    delay: u64,
    mut ranges: impl Iterator<Item = (u64, u64)> + Clone,
) -> bool {
    let Some((first_low, largest)) = ranges.next() else {
        return false;
    };
    // The fixed head, with a count of at most two bytes.
    let first = largest.saturating_sub(first_low);
    let head = 1 + varint_len(largest) + varint_len(delay) + 2 + varint_len(first);
    let Some(room) = w.room().checked_sub(head) else {
        return false;
    };
    let (mut count, mut used, mut low) = (0u64, 0, first_low);
    for (next_low, high) in ranges.clone() {
        let len = varint_len(gap(low, high)) + varint_len(high.saturating_sub(next_low));
        if used + len > room || count == 1_000 {
            break;
        }
        (count, used, low) = (count + 1, used + len, next_low);
    }
    w.varint(ty::ACK);
    w.varint(largest);
    w.varint(delay);
    w.varint(count);
    w.varint(first);
    let mut low = first_low;
    for (next_low, high) in ranges.take(crate::time::to_usize(count)) {
        w.varint(gap(low, high));
        w.varint(high.saturating_sub(next_low));
        low = next_low;
    }
    true
}

/// The gap between two ranges as it is written (RFC 9000 19.3.1).
const fn gap(low: u64, high: u64) -> u64 {
    low.saturating_sub(high).saturating_sub(2)
}

/// Writes the type and the given integers: the shape of most control frames.
pub fn write_ints(w: &mut Writer<'_>, ty: u64, values: &[u64]) {
    w.varint(ty);
    values.iter().for_each(|v| w.varint(*v));
}

/// Bytes that [`write_ints`] takes.
#[must_use]
pub fn ints_len(values: &[u64]) -> usize {
    1 + values.iter().map(|v| varint_len(*v)).sum::<usize>()
}

/// Writes a CONNECTION_CLOSE (RFC 9000 19.19); the phrase is cut to what fits.
pub fn write_close(w: &mut Writer<'_>, ty: u64, code: u64, frame: u64, reason: &[u8]) {
    w.varint(ty);
    w.varint(code);
    if ty == ty::CONNECTION_CLOSE {
        w.varint(frame);
    }
    let len = reason.len().min(w.room().saturating_sub(2));
    w.varint(len as u64);
    w.bytes(&reason[..len]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(payload: &[u8]) -> Result<Vec<(u64, Frame<'_>)>, TransportError> {
        let mut frames = Frames::new(payload)?;
        let mut out = Vec::new();
        while let Some(frame) = frames.next_frame()? {
            out.push(frame);
        }
        Ok(out)
    }

    #[test]
    fn ack_round_trip() {
        let ranges = [(95, 100), (90, 92), (3, 80), (0, 1)];
        let mut buf = [0; 64];
        let mut w = Writer::new(&mut buf);
        assert!(write_ack(&mut w, 7, ranges.into_iter()));
        let frames = all(w.written()).unwrap();
        let Frame::Ack(ack) = &frames[0].1 else {
            panic!()
        };
        assert_eq!((ack.largest, ack.delay), (100, 7));
        assert_eq!(ack.ranges().collect::<Vec<_>>(), ranges);
    }

    #[test]
    fn ack_is_cut_to_the_room_left() {
        let ranges = (0..200u64).rev().map(|n| (n * 10, n * 10 + 3));
        let mut buf = [0; 40];
        let mut w = Writer::new(&mut buf);
        assert!(write_ack(&mut w, 0, ranges));
        let frames = all(w.written()).unwrap();
        let Frame::Ack(ack) = &frames[0].1 else {
            panic!()
        };
        assert!(ack.ranges().count() > 5);
    }

    #[test]
    fn ack_below_zero_rfc9000_19_3_1() {
        for payload in [
            &[2u8, 5, 0, 0, 6][..],
            &[2, 5, 0, 1, 0, 4, 0],
            &[2, 5, 0, 1, 0, 3, 1],
        ] {
            assert_eq!(all(payload).unwrap_err().code, Code::FRAME_ENCODING_ERROR);
        }
        // The lowest that is valid.
        assert!(all(&[2, 5, 0, 1, 0, 3, 0]).is_ok());
    }

    #[test]
    fn malformed_frames_close_with_the_right_code() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let with = |head: &[u8], tail: &[u8]| [head, &huge, tail].concat();
        let cases: Vec<(Vec<u8>, Code, &str)> = vec![
            (vec![], Code::PROTOCOL_VIOLATION, "no frames, 12.4"),
            (
                vec![0x40, 0x01],
                Code::PROTOCOL_VIOLATION,
                "long type, 12.4",
            ),
            (vec![0x1f], Code::FRAME_ENCODING_ERROR, "unknown type, 12.4"),
            (
                vec![0x40, 0x41],
                Code::FRAME_ENCODING_ERROR,
                "unknown two-byte type, 12.4",
            ),
            (
                vec![0x07, 0],
                Code::FRAME_ENCODING_ERROR,
                "empty token, 19.7",
            ),
            (
                vec![0x06, 0, 5, 1],
                Code::FRAME_ENCODING_ERROR,
                "short crypto, 19.6",
            ),
            (
                with(&[0x06], &[1, 9]),
                Code::FRAME_ENCODING_ERROR,
                "crypto offset, 19.6",
            ),
            (
                with(&[0x0e, 0], &[1, 9]),
                Code::FRAME_ENCODING_ERROR,
                "stream offset, 19.8",
            ),
            (
                with(&[0x12], &[]),
                Code::FRAME_ENCODING_ERROR,
                "MAX_STREAMS, 19.11",
            ),
            (
                with(&[0x13], &[]),
                Code::FRAME_ENCODING_ERROR,
                "MAX_STREAMS uni, 19.11",
            ),
            (
                with(&[0x16], &[]),
                Code::FRAME_ENCODING_ERROR,
                "STREAMS_BLOCKED, 19.14",
            ),
            (
                [&[0x18, 1, 0, 0][..], &[0; 16]].concat(),
                Code::FRAME_ENCODING_ERROR,
                "19.15",
            ),
            (
                [&[0x18, 1, 0, 21][..], &[0; 40]].concat(),
                Code::FRAME_ENCODING_ERROR,
                "19.15",
            ),
            (
                [&[0x18, 1, 2, 4][..], &[0; 20]].concat(),
                Code::FRAME_ENCODING_ERROR,
                "19.15",
            ),
            (
                vec![0x1a, 0, 0],
                Code::FRAME_ENCODING_ERROR,
                "short challenge, 19.17",
            ),
            (
                vec![0x1c, 0, 0, 9],
                Code::FRAME_ENCODING_ERROR,
                "short reason, 19.19",
            ),
            (
                vec![0x31, 9, 0],
                Code::FRAME_ENCODING_ERROR,
                "short datagram, RFC 9221 4",
            ),
        ];
        for (payload, code, what) in cases {
            assert_eq!(all(&payload).expect_err(what).code, code, "{what}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frames) = all(&bytes) {
                for (_, frame) in frames {
                    if let Frame::Ack(ack) = frame {
                        prop_assert!(ack.ranges().all(|(low, high)| low <= high));
                    }
                }
            }
        }
    }
}
