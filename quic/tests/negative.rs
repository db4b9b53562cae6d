//! What a peer may not do, each with its error code and section (T15).

mod common;

use common::net::Node as _;
use common::own::{server_addr, steered};
use common::rig::{Edit, Rig, ints, varint};
use roadstead_quic::frame::ty;
use roadstead_quic::packet::Level;
use roadstead_quic::params::Params;
use roadstead_quic::{CidFormat, Code, Side};

const PLAIN: Edit = |_, _| {};

/// A frame type with integers.
fn frame(kind: u64, values: &[u64]) -> Vec<u8> {
    [varint(kind), ints(values)].concat()
}

fn stream(id: u64, offset: u64, fin: bool, data: &[u8]) -> Vec<u8> {
    let kind = ty::STREAM | 0x06 | u64::from(fin);
    [frame(kind, &[id, offset, data.len() as u64]), data.to_vec()].concat()
}

fn new_cid(sequence: u64, retire: u64, id: &[u8], token: u8) -> Vec<u8> {
    let head = frame(ty::NEW_CONNECTION_ID, &[sequence, retire]);
    [
        &head[..],
        &[u8::try_from(id.len()).unwrap()],
        id,
        &[token; 16],
    ]
    .concat()
}

fn crypto(offset: u64, data: &[u8]) -> Vec<u8> {
    [
        frame(ty::CRYPTO, &[offset, data.len() as u64]),
        data.to_vec(),
    ]
    .concat()
}

/// One case: packets of frames, one after the other; all but the last are fine.
struct Case {
    name: &'static str,
    from: Side,
    packets: Vec<Vec<u8>>,
    code: Option<Code>,
}

fn client(name: &'static str, code: Code, packets: &[Vec<u8>]) -> Case {
    Case {
        name,
        from: Side::Client,
        packets: packets.to_vec(),
        code: Some(code),
    }
}

fn server(name: &'static str, code: Code, packets: &[Vec<u8>]) -> Case {
    Case {
        name,
        from: Side::Server,
        packets: packets.to_vec(),
        code: Some(code),
    }
}

fn fine(name: &'static str, packets: &[Vec<u8>]) -> Case {
    Case {
        name,
        from: Side::Client,
        packets: packets.to_vec(),
        code: None,
    }
}

fn run(cases: Vec<Case>) {
    for case in cases {
        let mut rig = Rig::default();
        let last = case.packets.len() - 1;
        for (n, packet) in case.packets.iter().enumerate() {
            let before = rig.closed_with(case.from.peer());
            assert_eq!(before, None, "{}: closed before packet {n}", case.name);
            rig.inject(Level::Data, case.from, packet);
            let now = rig.closed_with(case.from.peer());
            let expected = if n == last { case.code } else { None };
            assert_eq!(now, expected, "{}, after packet {n}", case.name);
        }
        if case.code.is_some() {
            // The close is told to the peer, and all slots are free in the end.
            rig.net.run_for(60_000_000);
            assert!(rig.net.server.endpoint.is_empty(), "{}", case.name);
        }
    }
}

#[test]
fn streams_and_flow_control() {
    let w = 8 << 10;
    let big = vec![0; 100];
    run(vec![
        fine(
            "4.1: the last byte that the stream's limit permits",
            &[stream(0, w - 1, false, b"x")],
        ),
        client(
            "4.1: stream limit + 1",
            Code::FLOW_CONTROL_ERROR,
            &[stream(0, w, false, b"x")],
        ),
        client(
            "4.1: far above",
            Code::FLOW_CONTROL_ERROR,
            &[stream(0, 1 << 40, false, b"x")],
        ),
        client(
            "4.1, 19.4: final size of a reset above the limit",
            Code::FLOW_CONTROL_ERROR,
            &[frame(ty::RESET_STREAM, &[0, 7, w + 1])],
        ),
        fine(
            "19.4: final size of a reset at the limit",
            &[frame(ty::RESET_STREAM, &[0, 7, w])],
        ),
        client(
            "4.5: data beyond the final size",
            Code::FINAL_SIZE_ERROR,
            &[stream(0, 0, true, b"abc"), stream(0, 3, false, b"d")],
        ),
        client(
            "4.5: another final size",
            Code::FINAL_SIZE_ERROR,
            &[stream(0, 0, true, b"abc"), stream(0, 0, true, b"ab")],
        ),
        client(
            "4.5: final size below what arrived",
            Code::FINAL_SIZE_ERROR,
            &[stream(0, 0, false, &big), stream(0, 0, true, b"ab")],
        ),
        client(
            "4.5, 19.4: reset below what arrived",
            Code::FINAL_SIZE_ERROR,
            &[
                stream(0, 0, false, &big),
                frame(ty::RESET_STREAM, &[0, 7, 99]),
            ],
        ),
        client(
            "4.5: reset with another final size",
            Code::FINAL_SIZE_ERROR,
            &[
                stream(0, 10, true, b"abc"),
                frame(ty::RESET_STREAM, &[0, 7, 14]),
            ],
        ),
        fine(
            "4.5: the same final size again",
            &[stream(0, 0, true, b"abc"), stream(0, 0, true, b"abc")],
        ),
        client(
            "4.6: bidirectional streams + 1",
            Code::STREAM_LIMIT_ERROR,
            &[stream(4, 0, false, b"x")],
        ),
        client(
            "4.6: unidirectional streams + 1",
            Code::STREAM_LIMIT_ERROR,
            &[stream(6, 0, false, b"x")],
        ),
        fine(
            "4.6: the last unidirectional stream",
            &[stream(2, 0, false, b"x")],
        ),
        client(
            "4.6: the largest id",
            Code::STREAM_LIMIT_ERROR,
            &[stream((1 << 62) - 4, 0, false, b"")],
        ),
        client(
            "4.6: reset above the limit",
            Code::STREAM_LIMIT_ERROR,
            &[frame(ty::RESET_STREAM, &[4, 0, 0])],
        ),
        client(
            "4.6: STOP_SENDING above the limit",
            Code::STREAM_LIMIT_ERROR,
            &[frame(ty::STOP_SENDING, &[4, 0])],
        ),
        client(
            "4.6: MAX_STREAM_DATA above the limit",
            Code::STREAM_LIMIT_ERROR,
            &[frame(ty::MAX_STREAM_DATA, &[4, 9])],
        ),
        client(
            "19.8: a stream of the receiver, not opened",
            Code::STREAM_STATE_ERROR,
            &[stream(1, 0, false, b"x")],
        ),
        client(
            "19.8: the receiver's send-only stream",
            Code::STREAM_STATE_ERROR,
            &[stream(3, 0, false, b"x")],
        ),
        client(
            "19.4: reset of the receiver's send-only stream",
            Code::STREAM_STATE_ERROR,
            &[frame(ty::RESET_STREAM, &[3, 0, 0])],
        ),
        client(
            "19.4: reset of a stream that was not opened",
            Code::STREAM_STATE_ERROR,
            &[frame(ty::RESET_STREAM, &[1, 0, 0])],
        ),
        client(
            "19.5: STOP_SENDING for a receive-only stream",
            Code::STREAM_STATE_ERROR,
            &[frame(ty::STOP_SENDING, &[2, 0])],
        ),
        client(
            "19.5: STOP_SENDING for a stream not opened",
            Code::STREAM_STATE_ERROR,
            &[frame(ty::STOP_SENDING, &[1, 0])],
        ),
        client(
            "19.10: MAX_STREAM_DATA for a receive-only stream",
            Code::STREAM_STATE_ERROR,
            &[frame(ty::MAX_STREAM_DATA, &[2, 9])],
        ),
        client(
            "19.10: MAX_STREAM_DATA for a stream not opened",
            Code::STREAM_STATE_ERROR,
            &[frame(ty::MAX_STREAM_DATA, &[5, 9])],
        ),
        client(
            "19.13: STREAM_DATA_BLOCKED for a send-only stream",
            Code::STREAM_STATE_ERROR,
            &[frame(ty::STREAM_DATA_BLOCKED, &[3, 9])],
        ),
        client(
            "19.11: MAX_STREAMS above 2^60",
            Code::FRAME_ENCODING_ERROR,
            &[frame(ty::MAX_STREAMS_BIDI, &[(1 << 60) + 1])],
        ),
        fine(
            "19.11: MAX_STREAMS of 2^60",
            &[frame(ty::MAX_STREAMS_UNI, &[1 << 60])],
        ),
        client(
            "19.14: STREAMS_BLOCKED above 2^60",
            Code::FRAME_ENCODING_ERROR,
            &[frame(ty::STREAMS_BLOCKED_UNI, &[(1 << 60) + 1])],
        ),
        client(
            "19.8: stream offset beyond 2^62",
            Code::FRAME_ENCODING_ERROR,
            &[stream(0, (1 << 62) - 1, false, b"xx")],
        ),
        server(
            "19.8: a client's send-only stream",
            Code::STREAM_STATE_ERROR,
            &[stream(2, 0, false, b"x")],
        ),
        server(
            "4.6: a client permits a server one stream",
            Code::STREAM_LIMIT_ERROR,
            &[stream(5, 0, false, b"x")],
        ),
        server(
            "4.6: a client permits no unidirectional stream",
            Code::STREAM_LIMIT_ERROR,
            &[stream(3, 0, false, b"x")],
        ),
    ]);
}

#[test]
fn the_connections_window_rfc9000_4_1() {
    for (extra, code) in [(0, None), (1, Some(Code::FLOW_CONTROL_ERROR))] {
        let mut rig = Rig::established(CidFormat::Compact, PLAIN, |c, _| {
            c.transport.streams_bidi = 3;
            c.transport.connection_window = 10_000;
        });
        rig.inject(Level::Data, Side::Client, &stream(0, 7_999, false, b"x"));
        rig.inject(
            Level::Data,
            Side::Client,
            &stream(4, 1_999 + extra, false, b"x"),
        );
        assert_eq!(rig.closed_with(Side::Server), code);
    }
}

/// Frames without data ahead of the data, as reordering makes them: they count towards the limits once, and
/// what they announce is read in the end.
#[test]
fn empty_frames_ahead_of_the_data_rfc9000_4_1() {
    for fin in [false, true] {
        let mut rig = Rig::default();
        // Three times: what is counted again would exceed the connection's limit.
        for _ in 0..3 {
            rig.inject(Level::Data, Side::Client, &stream(0, 8_000, fin, b""));
        }
        rig.net.run_for(5_000_000);
        for offset in (0..8_000).step_by(1_000) {
            let data = stream(0, offset, false, &[7; 1_000]);
            rig.inject(Level::Data, Side::Client, &data);
        }
        let (data, ended) = rig.net.server.read(rig.net.now, 0);
        assert_eq!((data.len(), ended), (8_000, fin));
        assert_eq!(rig.closed_with(Side::Server), None);
    }
}

#[test]
fn frames_and_their_places() {
    let mut cases = vec![
        client(
            "12.4: a packet without frames",
            Code::PROTOCOL_VIOLATION,
            &[vec![]],
        ),
        client(
            "12.4: an unknown frame",
            Code::FRAME_ENCODING_ERROR,
            &[varint(0x21)],
        ),
        client(
            "12.4: a type in too many bytes",
            Code::PROTOCOL_VIOLATION,
            &[vec![0x40, 0x01]],
        ),
        client(
            "19.20: HANDSHAKE_DONE from a client",
            Code::PROTOCOL_VIOLATION,
            &[frame(ty::HANDSHAKE_DONE, &[])],
        ),
        client(
            "19.7: NEW_TOKEN from a client",
            Code::PROTOCOL_VIOLATION,
            &[[frame(ty::NEW_TOKEN, &[3]), vec![1, 2, 3]].concat()],
        ),
        client(
            "19.7: an empty token",
            Code::FRAME_ENCODING_ERROR,
            &[frame(ty::NEW_TOKEN, &[0])],
        ),
        client(
            "13.1: acknowledgement of a number never sent",
            Code::PROTOCOL_VIOLATION,
            &[frame(ty::ACK, &[1 << 40, 0, 0, 0])],
        ),
        client(
            "19.3.1: first range below zero",
            Code::FRAME_ENCODING_ERROR,
            &[frame(ty::ACK, &[1, 0, 0, 2])],
        ),
        client(
            "19.3.1: gap below zero",
            Code::FRAME_ENCODING_ERROR,
            &[frame(ty::ACK, &[1, 0, 1, 0, 0, 0])],
        ),
        client(
            "19.3.1: fewer ranges than announced",
            Code::FRAME_ENCODING_ERROR,
            &[frame(ty::ACK, &[1, 0, 1 << 50, 0])],
        ),
        client(
            "19.3.2: ECN counts missing",
            Code::FRAME_ENCODING_ERROR,
            &[frame(ty::ACK_ECN, &[0, 0, 0, 0, 1])],
        ),
        client(
            "RFC 9001 6, 8.3: CRYPTO in 1-RTT from a client",
            Code::crypto(10),
            &[crypto(0, b"x")],
        ),
        client(
            "19.6: CRYPTO beyond 2^62",
            Code::FRAME_ENCODING_ERROR,
            &[crypto((1 << 62) - 1, b"xx")],
        ),
        server(
            "7.5: CRYPTO far ahead after the handshake",
            Code::CRYPTO_BUFFER_EXCEEDED,
            &[crypto(1 << 20, b"x")],
        ),
        client(
            "19.15: an id of no bytes",
            Code::FRAME_ENCODING_ERROR,
            &[new_cid(1, 0, &[], 0)],
        ),
        client(
            "19.15: an id of 21 bytes",
            Code::FRAME_ENCODING_ERROR,
            &[new_cid(1, 0, &[1; 21], 0)],
        ),
        client(
            "19.15: retires more than itself",
            Code::FRAME_ENCODING_ERROR,
            &[new_cid(1, 2, &[1; 8], 0)],
        ),
        fine(
            "5.1.1: as many ids as permitted",
            &[new_cid(1, 0, &[1; 8], 0)],
        ),
        fine(
            "19.15: the same frame again",
            &[new_cid(1, 0, &[1; 8], 0), new_cid(1, 0, &[1; 8], 0)],
        ),
        client(
            "5.1.1: one id too many",
            Code::CONNECTION_ID_LIMIT_ERROR,
            &[new_cid(1, 0, &[1; 8], 0), new_cid(2, 0, &[2; 8], 0)],
        ),
        client(
            "19.15: a number with another id",
            Code::PROTOCOL_VIOLATION,
            &[new_cid(1, 0, &[1; 8], 0), new_cid(1, 0, &[2; 8], 0)],
        ),
        client(
            "19.15: a number with another token",
            Code::PROTOCOL_VIOLATION,
            &[new_cid(1, 0, &[1; 8], 0), new_cid(1, 0, &[1; 8], 1)],
        ),
        client(
            "19.15: an id under another number",
            Code::PROTOCOL_VIOLATION,
            &[new_cid(1, 0, &[1; 8], 0), new_cid(2, 0, &[1; 8], 0)],
        ),
        client(
            "19.16: retires an id that was never issued",
            Code::PROTOCOL_VIOLATION,
            &[frame(ty::RETIRE_CONNECTION_ID, &[2])],
        ),
        client(
            "19.16: retires the id of its own packet",
            Code::PROTOCOL_VIOLATION,
            &[frame(ty::RETIRE_CONNECTION_ID, &[0])],
        ),
        fine(
            "19.16: retires the spare id",
            &[frame(ty::RETIRE_CONNECTION_ID, &[1])],
        ),
        fine(
            "RFC 9221 3: a datagram at the limit",
            &[[frame(ty::DATAGRAM, &[]), vec![0; 1_199]].concat()],
        ),
        client(
            "RFC 9221 3: a datagram above the limit",
            Code::PROTOCOL_VIOLATION,
            &[[frame(ty::DATAGRAM, &[]), vec![0; 1_200]].concat()],
        ),
        client(
            "RFC 9221 3: with its length above the limit",
            Code::PROTOCOL_VIOLATION,
            &[[frame(ty::DATAGRAM_LEN, &[1_198]), vec![0; 1_198]].concat()],
        ),
    ];
    for (name, kind) in [
        ("19.4: truncated", ty::RESET_STREAM),
        ("19.5: truncated", ty::STOP_SENDING),
        ("19.6: truncated", ty::CRYPTO),
        ("19.7: truncated", ty::NEW_TOKEN),
        ("19.8: truncated", ty::STREAM),
        ("19.9: truncated", ty::MAX_DATA),
        ("19.10: truncated", ty::MAX_STREAM_DATA),
        ("19.11: truncated", ty::MAX_STREAMS_BIDI),
        ("19.12: truncated", ty::DATA_BLOCKED),
        ("19.13: truncated", ty::STREAM_DATA_BLOCKED),
        ("19.14: truncated", ty::STREAMS_BLOCKED_BIDI),
        ("19.15: truncated", ty::NEW_CONNECTION_ID),
        ("19.16: truncated", ty::RETIRE_CONNECTION_ID),
        ("19.17: truncated", ty::PATH_CHALLENGE),
        ("19.18: truncated", ty::PATH_RESPONSE),
        ("19.19: truncated", ty::CONNECTION_CLOSE),
    ] {
        cases.push(client(
            name,
            Code::FRAME_ENCODING_ERROR,
            &[frame(kind, &[])],
        ));
    }
    run(cases);
}

#[test]
fn datagrams_that_were_not_offered_rfc9221_3() {
    let mut rig = Rig::established(CidFormat::Compact, PLAIN, |c, _| {
        c.transport.datagram_frame_max = 0
    });
    rig.inject(Level::Data, Side::Client, &frame(ty::DATAGRAM, &[]));
    assert_eq!(
        rig.closed_with(Side::Server),
        Some(Code::PROTOCOL_VIOLATION)
    );
}

#[test]
fn ids_for_a_peer_without_ids_rfc9000_19_15() {
    let mut rig = Rig::established(CidFormat::Empty, PLAIN, PLAIN);
    // The client's id is empty, so it may not give the server more of them.
    rig.inject(Level::Data, Side::Client, &new_cid(1, 0, &[1; 8], 0));
    assert_eq!(
        rig.closed_with(Side::Server),
        Some(Code::PROTOCOL_VIOLATION)
    );
    let mut rig = Rig::established(CidFormat::Empty, PLAIN, PLAIN);
    rig.inject(
        Level::Data,
        Side::Server,
        &frame(ty::RETIRE_CONNECTION_ID, &[0]),
    );
    assert_eq!(
        rig.closed_with(Side::Client),
        Some(Code::PROTOCOL_VIOLATION)
    );
}

#[test]
fn reserved_bits_rfc9000_17_2_and_17_3_1() {
    let mut rig = Rig::default();
    rig.flip = 0x18;
    rig.inject(Level::Data, Side::Client, &[1]);
    assert_eq!(
        rig.closed_with(Side::Server),
        Some(Code::PROTOCOL_VIOLATION)
    );
    let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
    rig.hello();
    rig.flip = 0x0c;
    rig.inject(Level::Initial, Side::Client, &[1]);
    assert_eq!(
        rig.closed_with(Side::Server),
        Some(Code::PROTOCOL_VIOLATION)
    );
    let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
    rig.hello();
    rig.flip = 0x04;
    rig.inject(Level::Handshake, Side::Client, &[1]);
    assert_eq!(
        rig.closed_with(Side::Server),
        Some(Code::PROTOCOL_VIOLATION)
    );
}

#[test]
fn a_cleared_fixed_bit_is_no_packet_rfc9000_17_3_1() {
    let mut rig = Rig::default();
    rig.flip = 0x40;
    rig.inject(Level::Data, Side::Client, &varint(0x21));
    assert_eq!(rig.closed_with(Side::Server), None);
}

/// RFC 9000 12.4, table 3.
#[test]
fn frames_in_the_wrong_packets_rfc9000_12_4() {
    for level in [Level::Initial, Level::Handshake] {
        for kind in (0x04..0x32).filter(|k| !matches!(k, 0x06 | 0x1c | 0x1f..0x30)) {
            for victim in [Side::Client, Side::Server] {
                let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
                rig.hello();
                if victim == Side::Client && level == Level::Initial {
                    // The client left the Initial space with its Handshake packet.
                    continue;
                }
                let body = [varint(kind), vec![0x10; 60]].concat();
                rig.inject(level, victim.peer(), &body);
                let code = rig.closed_with(victim);
                let expected = [Code::PROTOCOL_VIOLATION, Code::FRAME_ENCODING_ERROR];
                assert!(
                    code.is_some_and(|c| expected.contains(&c)),
                    "{kind:#x} {level:?}"
                );
            }
        }
    }
    let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
    rig.hello();
    rig.inject(
        Level::Handshake,
        Side::Client,
        &frame(ty::HANDSHAKE_DONE, &[]),
    );
    assert_eq!(
        rig.closed_with(Side::Server),
        Some(Code::PROTOCOL_VIOLATION)
    );
}

#[test]
fn crypto_data_of_the_handshake() {
    // RFC 9000 7.5: beyond the buffer; T8: 4 KiB before validation, 64 KiB after.
    for (level, offset, code) in [
        (Level::Initial, 4 << 10, Some(Code::CRYPTO_BUFFER_EXCEEDED)),
        (
            Level::Handshake,
            64 << 10,
            Some(Code::CRYPTO_BUFFER_EXCEEDED),
        ),
        (Level::Handshake, (64 << 10) - 1, None),
    ] {
        let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
        rig.hello();
        let far = crypto(offset + 1_000, b"x");
        let frames = if code.is_some() {
            far
        } else {
            crypto(offset, b"x")
        };
        rig.inject(level, Side::Client, &frames);
        assert_eq!(rig.closed_with(Side::Server), code, "{level:?} {offset}");
    }
    // RFC 9001 4.1.3: new data at a level that TLS has left.
    let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
    rig.hello();
    let hello = 1 + rig.net.server.endpoint.len() as u64;
    assert_eq!(hello, 2);
    for offset in (0..1_200).step_by(8) {
        rig.inject(Level::Initial, Side::Client, &crypto(offset, &[0; 8]));
    }
    assert_eq!(
        rig.closed_with(Side::Server),
        Some(Code::PROTOCOL_VIOLATION)
    );
    // RFC 9001 4.8: TLS refuses; decrypt_error here.
    let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
    rig.hello();
    let finished = [&[20, 0, 0, 32][..], &[9; 32]].concat();
    rig.inject(Level::Handshake, Side::Client, &crypto(0, &finished));
    assert_eq!(rig.closed_with(Side::Server), Some(Code::crypto(51)));
    // RFC 9001 4.8: an unexpected message.
    let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
    rig.hello();
    rig.inject(
        Level::Handshake,
        Side::Client,
        &crypto(0, &[24, 0, 0, 1, 0]),
    );
    assert_eq!(rig.closed_with(Side::Server), Some(Code::crypto(10)));
}

#[test]
fn acknowledgements_of_the_handshake_rfc9000_13_1() {
    for level in [Level::Initial, Level::Handshake] {
        let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
        rig.hello();
        rig.inject(level, Side::Client, &frame(ty::ACK, &[50, 0, 0, 0]));
        assert_eq!(
            rig.closed_with(Side::Server),
            Some(Code::PROTOCOL_VIOLATION),
            "{level:?}"
        );
    }
}

/// T6, RFC 9001 6: after the handshake a server's KeyUpdate message closes with 0x010a, whether or
/// not TLS is still there.
#[test]
fn a_tls_key_update_rfc9001_6() {
    for (resumption, tls) in [(false, "dropped"), (true, "kept")] {
        let client: Edit = match resumption {
            true => |c, _| c.transport.resumption = true,
            false => |_, _| {},
        };
        let mut rig = Rig::start(CidFormat::Compact, client, |_, t| t.sends_key_update = true);
        rig.hello();
        rig.net.run_for(5_000_000);
        assert_eq!(
            rig.closed_with(Side::Client),
            Some(Code::crypto(10)),
            "TLS {tls}"
        );
    }
}

/// RFC 9001 6.2: a second update before the first was acknowledged.
#[test]
fn key_updates_too_fast_rfc9001_6_2() {
    let mut rig = Rig::default();
    rig.generation = 1;
    rig.inject(Level::Data, Side::Client, &[1]);
    assert_eq!(rig.closed_with(Side::Server), None);
    rig.generation = 2;
    rig.inject(Level::Data, Side::Client, &[1]);
    assert_eq!(rig.closed_with(Side::Server), Some(Code::KEY_UPDATE_ERROR));
    // With an acknowledgement in between it is fine.
    let mut rig = Rig::default();
    for generation in 1..5 {
        rig.generation = generation;
        rig.inject(Level::Data, Side::Client, &[1]);
        rig.net.run_for(1_000);
        assert_eq!(rig.closed_with(Side::Server), None);
    }
}

/// Changes one parameter of a side's own encoding.
fn edited(bytes: Vec<u8>, from: Side, edit: impl FnOnce(&mut Params)) -> Vec<u8> {
    let mut params = Params::decode(&bytes, from).unwrap();
    edit(&mut params);
    params.encode(None)
}

fn other_id() -> Option<roadstead_quic::packet::ConnectionId> {
    roadstead_quic::packet::ConnectionId::new(&[9; 9])
}

/// RFC 9000 7.3: connection ids are authenticated; 7.4, 18: parameters are checked.
#[test]
fn parameters_of_a_client_rfc9000_7_3_7_4_18_2() {
    let bad = Some(Code::TRANSPORT_PARAMETER_ERROR);
    let cases: Vec<(&str, Edit, Option<Code>)> = vec![
        (
            "7.3: no initial_source_connection_id",
            |_, t| {
                t.edit_params =
                    Some(|b| edited(b, Side::Client, |p| p.initial_source_connection_id = None));
            },
            bad,
        ),
        (
            "7.3: another initial_source_connection_id",
            |_, t| {
                t.edit_params = Some(|b| {
                    edited(b, Side::Client, |p| {
                        p.initial_source_connection_id = other_id()
                    })
                });
            },
            bad,
        ),
        (
            "18.2: a client's reset token",
            |_, t| {
                t.edit_params =
                    Some(|b| edited(b, Side::Client, |p| p.stateless_reset_token = Some([1; 16])));
            },
            bad,
        ),
        (
            "18.2: a client's original_destination_connection_id",
            |_, t| {
                t.edit_params = Some(|b| {
                    edited(b, Side::Client, |p| {
                        p.original_destination_connection_id = other_id()
                    })
                });
            },
            bad,
        ),
        (
            "7.4: a parameter twice",
            |_, t| {
                t.edit_params = Some(|b| [&b[..], &[0x0b, 1, 1, 0x0b, 1, 1]].concat());
            },
            bad,
        ),
        (
            "18: truncated",
            |_, t| t.edit_params = Some(|b| [&b[..], &[0x04]].concat()),
            bad,
        ),
        (
            "18.2: ack_delay_exponent of 21",
            |_, t| {
                t.edit_params = Some(|b| [&b[..], &[0x0a, 1, 21]].concat());
            },
            bad,
        ),
        (
            "RFC 9001 8.2: no parameters",
            |_, t| t.no_params = true,
            Some(Code::crypto(109)),
        ),
        (
            "18.1: reserved parameters are fine",
            |_, t| {
                t.edit_params = Some(|b| [&b[..], &[27, 3, 1, 2, 3]].concat());
            },
            None,
        ),
    ];
    for (name, client, code) in cases {
        let mut rig = Rig::start(CidFormat::Compact, client, PLAIN);
        rig.net.run_for(3_000_000);
        assert_eq!(rig.closed_with(Side::Server), code, "{name}");
    }
}

#[test]
fn parameters_of_a_server_rfc9000_7_3() {
    let cases: Vec<(&str, Edit)> = vec![
        ("7.3: no original_destination_connection_id", |_, t| {
            t.edit_params = Some(|b| {
                edited(b, Side::Server, |p| {
                    p.original_destination_connection_id = None
                })
            });
        }),
        ("7.3: another original_destination_connection_id", |_, t| {
            t.edit_params = Some(|b| {
                edited(b, Side::Server, |p| {
                    p.original_destination_connection_id = other_id()
                })
            });
        }),
        ("7.3: no initial_source_connection_id", |_, t| {
            t.edit_params =
                Some(|b| edited(b, Side::Server, |p| p.initial_source_connection_id = None));
        }),
        ("7.3: retry_source_connection_id without a Retry", |_, t| {
            t.edit_params = Some(|b| {
                edited(b, Side::Server, |p| {
                    p.retry_source_connection_id = other_id()
                })
            });
        }),
        (
            "7.3: no retry_source_connection_id after a Retry",
            |c, t| {
                c.retry_above = 0;
                t.edit_params =
                    Some(|b| edited(b, Side::Server, |p| p.retry_source_connection_id = None));
            },
        ),
        (
            "7.3: another retry_source_connection_id after a Retry",
            |c, t| {
                c.retry_above = 0;
                t.edit_params = Some(|b| {
                    edited(b, Side::Server, |p| {
                        p.retry_source_connection_id = other_id()
                    })
                });
            },
        ),
    ];
    for (name, server) in cases {
        for format in [CidFormat::Empty, steered()] {
            let mut rig = Rig::start(format, PLAIN, server);
            rig.net.run_for(3_000_000);
            let code = rig.closed_with(Side::Client);
            assert_eq!(code, Some(Code::TRANSPORT_PARAMETER_ERROR), "{name}");
        }
    }
    let _ = server_addr();
}
