//! Peers that send too much of what is allowed (T8, T15): memory stays within a bound that does not grow
//! with what they send, and so do the answers, which is what their packets may cost.

mod common;

use common::net::{Net, Node, Note, Weather};
use common::own::{client_addr, fake_client, fake_server, server_addr};
use common::rig::{Edit, Rig, ints, varint};
use common::stranger::initial;
use roadstead_quic::frame::ty;
use roadstead_quic::limits::{CLOSE_REPEATS_MAX, QUOTA_PACKETS, QUOTA_WINDOW_MS};
use roadstead_quic::packet::{ConnectionId, Level};
use roadstead_quic::{CidFormat, Code, Side, Time};

const PLAIN: Edit = |_, _| {};

/// What an idle connection that is being talked to may hold: its active part, one datagram's worth of
/// bookkeeping, and the windows of its one stream.
const HEAP_MAX: usize = 24 << 10;

fn frame(kind: u64, values: &[u64]) -> Vec<u8> {
    [varint(kind), ints(values)].concat()
}

/// What a flood cost its victim.
#[derive(Debug)]
struct Cost {
    /// The most bytes held at any time.
    heap: usize,
    /// Datagrams sent.
    sent: usize,
    /// The most datagrams sent for one that came.
    burst: usize,
}

/// Sends `count` packets to the server, a millisecond apart, and lets it answer each; nothing that it
/// says is acknowledged.
fn flood(rig: &mut Rig, count: u64, frames: impl Fn(u64) -> Vec<u8>) -> Cost {
    let mut cost = Cost {
        heap: 0,
        sent: 0,
        burst: 0,
    };
    for n in 0..count {
        rig.net.now = rig.net.now + 1_000;
        rig.inject(Level::Data, Side::Client, &frames(n));
        let mut out = Vec::new();
        rig.net.server.transmit(rig.net.now, &mut out);
        cost.heap = cost.heap.max(rig.net.server.endpoint.memory().heap);
        cost.sent += out.len();
        cost.burst = cost.burst.max(out.len());
        if rig.closed_with(Side::Server).is_some() {
            break;
        }
    }
    cost
}

fn assert_flood(frames: impl Fn(u64) -> Vec<u8>) {
    let mut rig = Rig::default();
    let cost = flood(&mut rig, 5_000, frames);
    assert_eq!(rig.closed_with(Side::Server), None);
    assert!(cost.heap <= HEAP_MAX, "{cost:?}");
    assert!(cost.burst <= 1, "an acknowledgement at most: {cost:?}");
    // The connection still works, and goes back to silence.
    rig.net.run_for(2_000_000);
    assert!(rig.net.server.is_idle(), "{cost:?}");
}

/// RFC 9000 13.2.1: acknowledgements are not acknowledged, however many there are.
#[test]
fn ack_floods_t15() {
    let mut rig = Rig::default();
    let cost = flood(&mut rig, 20_000, |_| frame(ty::ACK, &[0, 0, 0, 0]));
    assert!(cost.sent <= 1, "what was owed before, at most: {cost:?}");
    assert!(cost.heap <= HEAP_MAX, "{cost:?}");
    rig.net.run_for(2_000_000);
    assert!(rig.net.server.is_idle());
}

/// ACK frames with as many ranges as a packet holds, for numbers long gone.
#[test]
fn acks_of_many_ranges_t15() {
    let mut rig = Rig::default();
    // Numbers for the ranges to name.
    let pings = flood(&mut rig, 1_500, |_| vec![1]);
    assert!(pings.heap <= HEAP_MAX, "{pings:?}");
    let largest = 1_000;
    let cost = flood(&mut rig, 2_000, |_| {
        let mut values = vec![largest, 0, 300, 0];
        values.extend([0; 600]);
        frame(ty::ACK, &values)
    });
    // Acknowledging what was skipped on purpose closes (RFC 9000 21.4); nothing else does.
    let closed = rig.closed_with(Side::Server);
    assert!(matches!(closed, None | Some(Code::PROTOCOL_VIOLATION)));
    assert!(cost.heap <= HEAP_MAX && cost.burst <= 1, "{cost:?}");
}

#[test]
fn ping_floods_t15() {
    assert_flood(|_| vec![1; 1_000]);
}

/// Each frame advances the limit by one byte.
#[test]
fn credit_floods_t15() {
    assert_flood(|n| {
        let data = (0..100).flat_map(|k| frame(ty::MAX_DATA, &[20_000 + n * 100 + k]));
        data.collect()
    });
}

#[test]
fn blocked_floods_t15() {
    assert_flood(|n| {
        let mut frames = frame(ty::DATA_BLOCKED, &[n]);
        frames.extend(frame(ty::STREAMS_BLOCKED_BIDI, &[n]));
        frames.extend(frame(ty::STREAMS_BLOCKED_UNI, &[n]));
        frames.repeat(50)
    });
}

/// Answers to challenges that nobody put.
#[test]
fn path_response_floods_t15() {
    assert_flood(|n| {
        let response = [&[0x1b][..], &n.to_be_bytes()].concat();
        response.repeat(100)
    });
}

/// Datagrams are handed on and not kept.
#[test]
fn datagram_floods_rfc9221() {
    assert_flood(|_| [&[0x30][..], &[7; 1_100]].concat());
}

/// Streams opened and abandoned at once: what the peer may open grows only as fast as it lets go.
#[test]
fn stream_churn_t8() {
    let mut rig = Rig::established(CidFormat::Compact, PLAIN, |c, _| {
        c.transport.streams_bidi = 4
    });
    let mut refused = 0;
    for n in 0..4_000u64 {
        let id = n * 4;
        rig.net.now = rig.net.now + 1_000;
        let mut frames = [vec![0x0a], ints(&[id, 1]), vec![b'x']].concat();
        frames.extend(frame(ty::RESET_STREAM, &[id, 9, 1]));
        frames.extend(frame(ty::STOP_SENDING, &[id, 9]));
        rig.inject(Level::Data, Side::Client, &frames);
        let mut out = Vec::new();
        rig.net.server.transmit(rig.net.now, &mut out);
        let memory = rig.net.server.endpoint.memory();
        assert!(memory.heap <= HEAP_MAX, "{memory:?} after {n}");
        assert!(out.len() <= 2, "{} datagrams", out.len());
        if rig.closed_with(Side::Server) == Some(Code::STREAM_LIMIT_ERROR) {
            refused = n;
            break;
        }
    }
    // Its own resets are never acknowledged, so the streams are not done and the limit holds.
    assert_eq!(refused, 4, "RFC 9000 4.6");
}

/// Streams that are opened, written and left: no more than the limit, whatever the application does.
#[test]
fn stream_exhaustion_rfc9000_4_6() {
    let mut rig = Rig::established(CidFormat::Compact, PLAIN, |c, _| {
        c.transport.streams_bidi = 64;
        c.transport.streams_uni = 64;
    });
    let open = |id: u64| [vec![0x0a], ints(&[id, 1]), vec![b'x']].concat();
    let mut heap = 0;
    for n in 0..64u64 {
        rig.inject(Level::Data, Side::Client, &open(n * 4));
        rig.inject(Level::Data, Side::Client, &open(n * 4 + 2));
        rig.net.server.transmit(rig.net.now, &mut Vec::new());
        heap = rig.net.server.endpoint.memory().heap;
    }
    assert_eq!(rig.closed_with(Side::Server), None);
    assert!(heap <= 128 * 1_024 + HEAP_MAX, "{heap}");
    rig.inject(Level::Data, Side::Client, &open(64 * 4));
    assert_eq!(
        rig.closed_with(Side::Server),
        Some(Code::STREAM_LIMIT_ERROR)
    );
}

/// A connection that is closing answers a few packets and then none (RFC 9000 10.2.1).
#[test]
fn packets_after_the_close_rfc9000_10_2_1() {
    let mut rig = Rig::default();
    rig.net.server.close(rig.net.now);
    rig.net.server.transmit(rig.net.now, &mut Vec::new());
    let mut sent = 0;
    for _ in 0..2_000 {
        rig.inject(Level::Data, Side::Client, &[1]);
        let mut out = Vec::new();
        rig.net.server.transmit(rig.net.now, &mut out);
        sent += out.len();
    }
    assert!(sent <= usize::from(CLOSE_REPEATS_MAX), "{sent}");
}

/// An Initial with one piece of a hello, as a client that holds no keys but these can make it.
fn hello_piece(odcid: &ConnectionId, pn: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let piece = [
        frame(ty::CRYPTO, &[offset, data.len() as u64]),
        data.to_vec(),
    ]
    .concat();
    initial(odcid, &[], u32::try_from(pn).expect("small"), &piece)
}

/// A hello that comes byte by byte: it is given up in time, and holds no more than its pieces.
#[test]
fn slow_handshakes_t11() {
    let mut server = fake_server(31, |_, _| {});
    let mut now = Time::from_millis(1_000);
    let odcid = ConnectionId::new(&[3; 8]).expect("short");
    let mut heap = 0;
    let mut given_up = None;
    for n in 0..100u64 {
        // The first of it announces a message of 4 KB that never ends.
        let data = [[1, 0, 16, 0], [0; 4]][usize::from(n > 0)];
        deliver(&mut server, now, hello_piece(&odcid, n, n * 4, &data));
        heap = heap.max(server.endpoint.memory().heap);
        now = now + 250_000;
        server.timeout(now);
        server.transmit(now, &mut Vec::new());
        let timed_out = Note::Closed("handshake timeout".to_owned());
        if server.notes(now).contains(&timed_out) {
            given_up = Some(n);
            break;
        }
    }
    let after = given_up.expect("it is given up");
    assert!((10..=13).contains(&after), "3 s are 12 pieces: {after}");
    assert!(heap <= HEAP_MAX, "{heap}");
    now = now + 5_000_000;
    server.timeout(now);
    assert!(server.endpoint.is_empty());
}

/// Pieces of a hello with gaps between them: the gaps are counted (T8).
#[test]
fn hello_in_fragments_t8() {
    let mut server = fake_server(32, |_, _| {});
    let now = Time::from_millis(1_000);
    let odcid = ConnectionId::new(&[4; 8]).expect("short");
    for n in 0..2_000u64 {
        let offset = 1 + n * 2 % 4_000;
        deliver(&mut server, now, hello_piece(&odcid, n, offset, &[7]));
        let memory = server.endpoint.memory();
        assert!(memory.heap <= HEAP_MAX, "{memory:?}");
    }
    let mut out = Vec::new();
    server.transmit(now, &mut out);
    assert!(out.len() <= 4, "{} datagrams", out.len());
}

fn deliver(server: &mut common::own::FakeOwn, now: Time, data: Vec<u8>) {
    let (from, to) = (client_addr(), common::own::server_addr());
    server.receive(now, common::net::Packet { from, to, data });
    server.notes(now);
    server.endpoint.check_invariants();
}

/// T21: small packets of one session, while the shard has no time to spare. What is beyond the quota costs a
/// look-up; the other sessions and the next window are as before.
#[test]
fn tf8_t21_a_session_has_a_quota_while_the_shard_is_behind() {
    let quota = u64::from(QUOTA_PACKETS);
    let mut rig = Rig::default();
    let pings = |rig: &mut Rig, count: u64| {
        let before = rig.net.server.endpoint.stats();
        for _ in 0..count {
            rig.inject(Level::Data, Side::Client, &[1]);
            rig.net.server.transmit(rig.net.now, &mut Vec::new());
        }
        let after = rig.net.server.endpoint.stats();
        after.quota_dropped - before.quota_dropped
    };
    assert_eq!(pings(&mut rig, 1_000), 0, "there is time for all");
    rig.net.server.endpoint.set_behind(true);
    assert_eq!(pings(&mut rig, 1_000), 1_000 - quota);
    assert_eq!(pings(&mut rig, 10), 10, "the same window");
    // Another session of the same client's address.
    let mut other = fake_client(9, CidFormat::Compact, |_, _| {});
    let mut out = Vec::new();
    other.transmit(rig.net.now, &mut out);
    for mut packet in out.drain(..) {
        packet.from.set_port(5_001);
        rig.net.server.receive(rig.net.now, packet);
    }
    rig.net.server.transmit(rig.net.now, &mut out);
    assert!(out.iter().any(|p| p.to.port() == 5_001), "it is answered");
    rig.net.now = rig.net.now + 1_000 * QUOTA_WINDOW_MS;
    assert_eq!(pings(&mut rig, 300), 300 - quota, "another window");
    rig.net.server.endpoint.set_behind(false);
    assert_eq!(pings(&mut rig, 1_000), 0);
    assert_eq!(rig.closed_with(Side::Server), None);
}

/// T21: a client that sends as much as its window permits is not touched by the quota, whatever the round trip
/// of a real path.
#[test]
fn tf8_t21_an_honest_bulk_sender_stays_below_the_quota() {
    for delay in [1_000, 5_000, 40_000] {
        let client = fake_client(3, CidFormat::Compact, |c, _| {
            c.transport.stream_send_buffer = 1 << 20;
        });
        let server = fake_server(3, |c, _| {
            (c.transport.stream_window, c.transport.connection_window) = (64 << 10, 64 << 10);
        });
        let weather = Weather {
            delay,
            ..Weather::CALM
        };
        let mut net = Net::new(3, weather, client, server, server_addr());
        net.establish();
        net.server.endpoint.set_behind(true);
        let id = net.client.open(net.now, false).unwrap();
        assert!(net.echo(id, 1 << 20, false, 600_000_000));
        assert_eq!(net.server.endpoint.stats().quota_dropped, 0, "{delay} us");
    }
}
