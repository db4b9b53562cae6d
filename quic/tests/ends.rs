//! The ends of the numbers that a peer chooses (T19): packet numbers, offsets, limits, counts, sequence
//! numbers, delays. At the end of its range a number is refused or the connection closed; nothing wraps and
//! nothing panics.

mod common;

use common::net::{Node, Packet};
use common::rig::{Edit, Rig, ints, varint};
use roadstead_quic::coding::{Reader, VARINT_MAX};
use roadstead_quic::frame::ty;
use roadstead_quic::limits::NUMBER_RESERVE;
use roadstead_quic::packet::{Level, PACKET_NUMBER_END};
use roadstead_quic::{CidFormat, CloseReason, Code, Side};

const PLAIN: Edit = |_, _| {};

const LAST: u64 = PACKET_NUMBER_END - 1;

fn frame(kind: u64, values: &[u64]) -> Vec<u8> {
    [varint(kind), ints(values)].concat()
}

/// A pair whose client left out numbers until `largest`.
fn leapt(largest: u64) -> Rig {
    let mut rig = Rig::default();
    let server = rig.net.server.h();
    rig.net.server.endpoint.leap_received(server, largest);
    rig.next_pn = largest + 1;
    rig
}

/// quiche 2650, s2n-quic 3222, xquic 654: a peer may advance its numbers by 2^31 with each packet (RFC 9000
/// 17.1), and 2^31 packets reach the end.
#[test]
fn tf1_t19_a_peer_at_the_end_of_its_numbers_is_closed() {
    let mut rig = leapt(LAST - 3);
    let before = rig.net.server.endpoint.stats();
    // Two below the last are packets like any other, and acknowledged.
    rig.inject(Level::Data, Side::Client, &[1]);
    rig.inject(Level::Data, Side::Client, &[1]);
    let mut out = Vec::new();
    rig.net.server.transmit(rig.net.now, &mut out);
    let acks = common::wire::frames(Side::Server, &out, 8);
    assert!(acks.iter().any(|f| f.contains("Ack")), "{acks:?}");
    assert_eq!(rig.closed_with(Side::Server), None);
    // The last one is the end, whatever is in it.
    rig.inject(Level::Data, Side::Client, &[0; 20]);
    assert_eq!(
        rig.closed_with(Side::Server),
        Some(Code::PROTOCOL_VIOLATION)
    );
    rig.net.server.transmit(rig.net.now, &mut Vec::new());
    let after = rig.net.server.endpoint.stats();
    assert_eq!(after.numbers_refused, before.numbers_refused);
}

/// RFC 9000 12.3: a number of 2^62 is none. Before, its acknowledgement ended the process.
#[test]
fn tf1_t19_a_number_of_2_62_is_no_packet() {
    let mut rig = leapt(LAST);
    for frames in [&[1][..], &[0; 20], &frame(ty::MAX_DATA, &[1 << 20])] {
        rig.inject(Level::Data, Side::Client, frames);
        rig.net.server.transmit(rig.net.now, &mut Vec::new());
    }
    assert_eq!(rig.net.server.endpoint.stats().numbers_refused, 3);
    assert_eq!(rig.closed_with(Side::Server), None, "dropped, not believed");
}

/// RFC 9000 12.3: the own numbers end too, while there is one left to say so with.
#[test]
fn tf1_t19_the_own_numbers_end_with_a_close() {
    let mut rig = Rig::default();
    let server = rig.net.server.h();
    let end = PACKET_NUMBER_END - NUMBER_RESERVE;
    rig.net.server.endpoint.leap_sent(server, end - 1);
    rig.net.server.ping(rig.net.now);
    let mut out = Vec::new();
    rig.net.server.transmit(rig.net.now, &mut out);
    assert_eq!(out.len(), 2, "the last packet and the close");
    rig.net.server.notes(rig.net.now);
    assert_eq!(rig.closed_with(Side::Server), Some(Code::NO_ERROR));
    // Nothing but answers of a closing connection follows, and none past the end.
    for _ in 0..300 {
        rig.inject(Level::Data, Side::Client, &[1]);
        rig.net.server.transmit(rig.net.now, &mut out);
    }
    assert!(out.len() < usize::try_from(NUMBER_RESERVE).unwrap());
}

/// What a client may say of numbers at both ends of their range: no panic, and either nothing happens or
/// the connection is closed for a fault of the peer.
#[test]
fn tf1_t19_every_integer_of_a_frame_at_both_ends() {
    let edges = [
        0,
        1,
        63,
        64,
        u64::from(u32::MAX) - 1,
        u64::from(u32::MAX),
        1 << 60,
        VARINT_MAX - 1,
        VARINT_MAX,
    ];
    let kinds: Vec<u64> = (0..0x20).chain([0x30, 0x31]).collect();
    for from in [Side::Client, Side::Server] {
        for kind in &kinds {
            for first in edges {
                let mut rig = Rig::established(CidFormat::Compact, PLAIN, |c, _| {
                    c.transport.streams_bidi = 4;
                });
                for second in edges {
                    // Enough integers for the longest frame, then an id and a token.
                    let values = [first, second, edges[0], second, first];
                    let tail = [&[8][..], &[7; 8], &[9; 16]].concat();
                    for count in 0..=values.len() {
                        let frames = [frame(*kind, &values[..count]), tail.clone()].concat();
                        rig.inject(Level::Data, from, &frames);
                    }
                    rig.net.flush();
                }
                rig.net.run_for(200_000);
                for end in [&rig.net.client, &rig.net.server] {
                    if let Some(CloseReason::Local(error)) = &end.last_close {
                        assert_ne!(error.code, Code::INTERNAL_ERROR, "{error}");
                    }
                    assert_eq!(end.endpoint.stats().invariants_broken, 0);
                }
            }
        }
    }
}

/// RFC 9000 10.1, 18.2: an idle timeout beyond what the wheel tells apart. The timer is looked at seldom, not
/// every millisecond.
#[test]
fn tf1_t19_an_endless_idle_timeout_does_not_spin() {
    let endless: Edit = |c, t| {
        c.transport.idle_timeout_ms = 0;
        t.edit_params = Some(|b| [&b[..], &[0x01, 8], &varint(VARINT_MAX)[..]].concat());
    };
    let mut rig = Rig::established(CidFormat::Compact, endless, |c, _| {
        c.transport.idle_timeout_ms = 0;
    });
    let until = rig.net.now + 60_000_000;
    let mut woken = 0;
    while let Some(at) = rig
        .net
        .server
        .next_timeout(rig.net.now)
        .filter(|at| *at < until)
    {
        rig.net.now = at.max(rig.net.now + 1);
        rig.net.server.timeout(rig.net.now);
        woken += 1;
        assert!(woken < 100, "the timer spins");
    }
    assert_eq!(rig.closed_with(Side::Server), None);
}

/// RFC 9000 19.15: sequence numbers at the end of what is kept of them.
#[test]
fn tf1_t19_connection_id_sequence_numbers_at_their_end() {
    for (sequence, retire) in [
        (u64::from(u32::MAX), 0),
        (u64::from(u32::MAX), u64::from(u32::MAX)),
        (u64::from(u32::MAX) + 1, 1),
        (VARINT_MAX, VARINT_MAX),
    ] {
        let mut rig = Rig::default();
        let mut frames = frame(ty::NEW_CONNECTION_ID, &[sequence, retire]);
        frames.push(8);
        frames.extend([5; 8]);
        frames.extend([6; 16]);
        rig.inject(Level::Data, Side::Client, &frames);
        assert_eq!(
            rig.closed_with(Side::Server),
            Some(Code::CONNECTION_ID_LIMIT_ERROR),
            "{sequence} {retire}"
        );
    }
}

/// A broken invariant of one connection ends that one, in a server that is not a test: with INTERNAL_ERROR, told
/// to both ends and counted, and the others go on.
#[test]
fn tf1_t19_a_broken_invariant_ends_its_connection_alone() {
    let mut rig = Rig::established(CidFormat::Compact, PLAIN, |c, _| c.strict = false);
    let sent = break_server(&mut rig);
    assert_eq!(rig.closed_with(Side::Server), Some(Code::INTERNAL_ERROR));
    assert_eq!(rig.net.server.endpoint.stats().invariants_broken, 1);
    let told = common::wire::frames(Side::Server, &sent, 8);
    let told = told
        .iter()
        .any(|f| f.starts_with("ConnectionClose { code: 1,"));
    assert!(told, "the peer is told");
}

/// The same in a test: it panics, so that the fault is found.
#[test]
#[should_panic(expected = "broken invariant")]
fn tf1_t19_a_broken_invariant_panics_where_that_is_wanted() {
    let mut rig = Rig::established(CidFormat::Compact, PLAIN, |c, _| c.strict = true);
    break_server(&mut rig);
}

/// Lets the server hold something unread, and think that it holds more. Returns what it then sends.
fn break_server(rig: &mut Rig) -> Vec<Packet> {
    let server = rig.net.server.h();
    let stream = [vec![0x0a], ints(&[0, 1]), vec![b'x']].concat();
    rig.inject(Level::Data, Side::Client, &stream);
    rig.net.server.endpoint.break_invariant(server);
    assert_eq!(rig.net.server.read(rig.net.now, 0).0, b"x");
    let mut sent = Vec::new();
    rig.net.now = rig.net.now + 25_000;
    rig.net.server.timeout(rig.net.now);
    rig.net.server.transmit(rig.net.now, &mut sent);
    rig.net.server.transmit(rig.net.now, &mut sent);
    let notes = rig.net.server.notes(rig.net.now);
    rig.net.server_notes.extend(notes);
    sent
}

thread_local! {
    /// The parameter that [`with_one`] replaces.
    static ONE: std::cell::Cell<(u64, u64)> = const { std::cell::Cell::new((0, 0)) };
}

/// The parameters with one of them set to a value.
fn with_one(bytes: Vec<u8>) -> Vec<u8> {
    let (id, value) = ONE.get();
    let mut out = Vec::new();
    let mut r = Reader::new(&bytes);
    while let (Some(other), Some(old)) = (r.varint(), r.prefixed()) {
        if other != id {
            out.extend(ints(&[other, old.len() as u64]));
            out.extend(old);
        }
    }
    out.extend(ints(&[id, varint(value).len() as u64, value]));
    out
}

/// RFC 9000 18.2: each integer among the parameters, at both ends of its range and beyond: refused, or a
/// connection that works or is given up, whatever the value makes of its times and windows.
#[test]
fn tf1_t19_every_parameter_at_both_ends() {
    let ids = [
        0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0e, 0x20,
    ];
    let edges = [
        0,
        1,
        2,
        20,
        21,
        1_199,
        1_200,
        (1 << 14) - 1,
        1 << 14,
        u64::from(u32::MAX),
    ];
    let edges = edges
        .into_iter()
        .chain([1 << 32, 1 << 60, (1 << 60) + 1, VARINT_MAX]);
    for (id, value) in ids
        .into_iter()
        .flat_map(|id| edges.clone().map(move |v| (id, v)))
    {
        for of_client in [true, false] {
            ONE.set((id, value));
            let edit: Edit = |_, t| t.edit_params = Some(with_one);
            let (client, server) = if of_client {
                (edit, PLAIN)
            } else {
                (PLAIN, edit)
            };
            let mut rig = Rig::start(CidFormat::Compact, client, server);
            rig.net.run_for(500_000);
            if let Some(stream) = rig.net.client.open(rig.net.now, false) {
                rig.net.client.write(rig.net.now, stream, &[7; 3_000]);
                rig.net.client.ping(rig.net.now);
            }
            rig.net.run_for(20_000_000);
            // And nobody answers any more.
            rig.net.weather.loss = 100;
            rig.net.server.write(rig.net.now, 0, &[7; 3_000]);
            rig.net.run_for(200_000_000);
            for end in [&rig.net.client, &rig.net.server] {
                end.endpoint.check_invariants();
                assert_eq!(end.endpoint.stats().invariants_broken, 0, "{id:#x} {value}");
            }
        }
    }
}
