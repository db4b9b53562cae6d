//! Frames: what parses is written again in its canonical form, and parses to the same (RFC 9000 19).

use roadstead_quic::coding::Writer;
use roadstead_quic::frame::{Dir, Frame, Frames, ty, write_ack, write_close, write_ints};

/// No packet holds more.
const PAYLOAD_MAX: usize = 1_500;

/// A decrypted payload.
pub fn run(data: &[u8]) {
    let data = &data[..data.len().min(PAYLOAD_MAX)];
    let Some(first) = parse(data) else {
        return;
    };
    let written = write(&first);
    let Some(second) = parse(&written) else {
        assert!(written.is_empty(), "what was written parses");
        return;
    };
    assert_eq!(first, second);
    assert_eq!(write(&second), written, "the form is canonical");
}

/// The frames of a payload, or nothing if any is malformed.
fn parse(payload: &[u8]) -> Option<Vec<Frame<'_>>> {
    let mut frames = Frames::new(payload).ok()?;
    let mut out = Vec::new();
    loop {
        match frames.next_frame() {
            Ok(Some((_, frame))) => {
                if let Frame::Ack(ack) = &frame {
                    let descends = |[(low, high), (below, next)]: [(u64, u64); 2]| {
                        below <= next && next + 1 < low && low <= high
                    };
                    let ranges: Vec<_> = ack.ranges().collect();
                    assert!(ranges.array_windows().copied().all(descends));
                    assert_eq!(ranges.first().map(|range| range.1), Some(ack.largest));
                }
                out.push(frame);
            }
            Ok(None) => return Some(out),
            Err(_) => return None,
        }
    }
}

fn write(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut buf = vec![0; 4 * PAYLOAD_MAX];
    let mut w = Writer::new(&mut buf);
    frames.iter().for_each(|frame| put(&mut w, frame));
    w.written().to_vec()
}

fn prefixed(w: &mut Writer<'_>, data: &[u8]) {
    w.varint(data.len() as u64);
    w.bytes(data);
}

fn dir(kind: u64, dir: Dir) -> u64 {
    kind + dir as u64
}

fn put(w: &mut Writer<'_>, frame: &Frame<'_>) {
    match frame {
        Frame::Padding => w.u8(0),
        Frame::Ping => w.varint(ty::PING),
        Frame::Ack(ack) => {
            let ranges: Vec<_> = ack.ranges().collect();
            assert!(write_ack(w, ack.delay, ranges.into_iter()));
        }
        Frame::ResetStream {
            id,
            code,
            final_size,
        } => write_ints(w, ty::RESET_STREAM, &[*id, *code, *final_size]),
        Frame::StopSending { id, code } => write_ints(w, ty::STOP_SENDING, &[*id, *code]),
        Frame::Crypto { offset, data } => {
            write_ints(w, ty::CRYPTO, &[*offset]);
            prefixed(w, data);
        }
        Frame::NewToken(token) => {
            w.varint(ty::NEW_TOKEN);
            prefixed(w, token);
        }
        Frame::Stream {
            id,
            offset,
            fin,
            data,
        } => {
            write_ints(w, ty::STREAM | 0x06 | u64::from(*fin), &[*id, *offset]);
            prefixed(w, data);
        }
        Frame::MaxData(max) => write_ints(w, ty::MAX_DATA, &[*max]),
        Frame::MaxStreamData { id, max } => write_ints(w, ty::MAX_STREAM_DATA, &[*id, *max]),
        Frame::MaxStreams { dir: d, max } => write_ints(w, dir(ty::MAX_STREAMS_BIDI, *d), &[*max]),
        Frame::DataBlocked(limit) => write_ints(w, ty::DATA_BLOCKED, &[*limit]),
        Frame::StreamDataBlocked { id, limit } => {
            write_ints(w, ty::STREAM_DATA_BLOCKED, &[*id, *limit]);
        }
        Frame::StreamsBlocked { dir: d, limit } => {
            write_ints(w, dir(ty::STREAMS_BLOCKED_BIDI, *d), &[*limit]);
        }
        Frame::NewConnectionId {
            sequence,
            retire_prior_to,
            id,
            token,
        } => {
            write_ints(w, ty::NEW_CONNECTION_ID, &[*sequence, *retire_prior_to]);
            w.u8(u8::try_from(id.len()).expect("at most 20"));
            w.bytes(id.as_slice());
            w.bytes(token);
        }
        Frame::RetireConnectionId(sequence) => {
            write_ints(w, ty::RETIRE_CONNECTION_ID, &[*sequence]);
        }
        Frame::PathChallenge(data) => {
            w.varint(ty::PATH_CHALLENGE);
            w.bytes(data);
        }
        Frame::PathResponse(data) => {
            w.varint(ty::PATH_RESPONSE);
            w.bytes(data);
        }
        Frame::ConnectionClose {
            code,
            frame,
            reason,
        } => write_close(w, ty::CONNECTION_CLOSE, *code, *frame, reason),
        Frame::ApplicationClose { code, reason } => {
            write_close(w, ty::APPLICATION_CLOSE, *code, 0, reason);
        }
        Frame::HandshakeDone => w.varint(ty::HANDSHAKE_DONE),
        Frame::Datagram(data) => {
            w.varint(ty::DATAGRAM_LEN);
            prefixed(w, data);
        }
    }
}

/// Each frame of RFC 9000 19 and RFC 9221 4 alone, and all of them in one payload.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut each: Vec<Vec<u8>> = vec![
        vec![0, 0, 0],
        vec![0x01],
        vec![0x02, 0x40, 100, 7, 1, 5, 3, 2],
        vec![0x03, 9, 0, 0, 9, 1, 2, 3],
        vec![0x04, 4, 1, 0x44, 0],
        vec![0x05, 4, 1],
        vec![0x06, 0, 3, 1, 2, 3],
        vec![0x07, 2, 8, 9],
        vec![0x0f, 0, 5, 2, b'h', b'i'],
        vec![0x0a, 0, 1, b'x'],
        vec![0x10, 0x80, 0, 0x40, 0],
        vec![0x11, 0, 0x60, 0],
        vec![0x12, 1],
        vec![0x13, 2],
        vec![0x14, 5],
        vec![0x15, 0, 5],
        vec![0x16, 1],
        vec![0x17, 1],
        [&[0x18, 1, 0, 8][..], &[7; 24]].concat(),
        vec![0x19, 1],
        [&[0x1a][..], &[3; 8]].concat(),
        [&[0x1b][..], &[3; 8]].concat(),
        vec![0x1c, 0x0a, 0x08, 2, b'n', b'o'],
        vec![0x1d, 42, 0],
        vec![0x1e],
        vec![0x31, 2, b'h', b'i'],
        vec![0x30, b'h', b'i'],
    ];
    each.push(each.concat());
    each
}
