//! A sender that the peer's limits hold back says so, once per limit, and the peer that hears of it
//! gives what it can (RFC 9000 4.1, 4.2, 4.6, 19.12 to 19.14).

use crate::common::net::{Node as _, Packet};
use crate::common::own::FakeOwn;
use crate::common::rig::{Edit, Rig, ints};
use crate::common::wire::frames;
use roadstead_quic::frame::ty;
use roadstead_quic::packet::Level;
use roadstead_quic::{CidFormat, Dir, Side, Time};

const PLAIN: Edit = |_, _| {};

fn sent(node: &mut FakeOwn, now: Time) -> Vec<Packet> {
    let mut out = Vec::new();
    node.transmit(now, &mut out);
    out
}

/// The frames of a kind that a client sends.
fn of_kind(packets: &[Packet], name: &str) -> Vec<String> {
    let mut all = frames(Side::Client, packets, 12);
    all.retain(|f| f.starts_with(name));
    all
}

#[test]
fn a_full_stream_window_is_told_once_rfc9000_4_1() {
    let mut rig = Rig::established(CidFormat::Compact, PLAIN, |c, _| {
        c.transport.stream_window = 1_024;
        c.transport.connection_window = 4_096;
    });
    let now = rig.net.now;
    let id = rig.net.client.open(now, false).unwrap();
    rig.net.client.write(now, id, &[7; 1_000]);
    let packets = sent(&mut rig.net.client, now);
    assert!(
        of_kind(&packets, "StreamDataBlocked").is_empty(),
        "room is left"
    );
    rig.net.client.write(now, id, &[7; 5_000]);
    let mut packets = sent(&mut rig.net.client, now);
    rig.net.client.write(now, id, &[7; 100]);
    packets.extend(sent(&mut rig.net.client, now));
    assert_eq!(
        of_kind(&packets, "StreamDataBlocked"),
        ["StreamDataBlocked { id: 0, limit: 1024 }"]
    );
    assert!(of_kind(&packets, "DataBlocked").is_empty());
    // A higher limit that holds back again is told too.
    let raised = [vec![0x11], ints(&[0, 2_000])].concat();
    rig.inject(Level::Data, Side::Server, &raised);
    let packets = sent(&mut rig.net.client, now);
    assert_eq!(
        of_kind(&packets, "StreamDataBlocked"),
        ["StreamDataBlocked { id: 0, limit: 2000 }"]
    );
}

#[test]
fn a_full_connection_window_is_told_once_rfc9000_4_1() {
    let mut rig = Rig::established(CidFormat::Compact, PLAIN, |c, _| {
        c.transport.stream_window = 4_096;
        c.transport.connection_window = 1_024;
    });
    let now = rig.net.now;
    let id = rig.net.client.open(now, false).unwrap();
    rig.net.client.write(now, id, &[7; 3_000]);
    let mut packets = sent(&mut rig.net.client, now);
    rig.net.client.write(now, id, &[7; 100]);
    packets.extend(sent(&mut rig.net.client, now));
    assert_eq!(of_kind(&packets, "DataBlocked"), ["DataBlocked(1024)"]);
    assert!(of_kind(&packets, "StreamDataBlocked").is_empty());
}

#[test]
fn a_stream_that_may_not_open_is_told_once_rfc9000_4_6() {
    let mut rig = Rig::default();
    let now = rig.net.now;
    assert_eq!(rig.net.client.open(now, false), Some(0));
    for _ in 0..3 {
        assert_eq!(rig.net.client.open(now, false), None);
    }
    let packets = sent(&mut rig.net.client, now);
    let told = of_kind(&packets, "StreamsBlocked");
    assert_eq!(told, ["StreamsBlocked { dir: Bidi, limit: 1 }"]);
    // Nothing of it stays once the peer knows.
    for packet in packets {
        rig.net.server.receive(now, packet);
    }
    rig.net.run_for(1_000_000);
    assert!(rig.net.client.is_idle());
    let handle = rig.net.client.h();
    assert_eq!(rig.net.client.endpoint.open(now, handle, Dir::Bidi), None);
}

#[test]
fn a_lost_word_is_repeated_rfc9000_13_3() {
    let mut rig = Rig::established(CidFormat::Compact, PLAIN, |c, _| {
        c.transport.stream_window = 1_024;
    });
    let now = rig.net.now;
    let id = rig.net.client.open(now, false).unwrap();
    rig.net.client.write(now, id, &[7; 3_000]);
    assert_eq!(
        of_kind(&sent(&mut rig.net.client, now), "StreamDataBlocked").len(),
        1
    );
    // All of that is lost; a probe repeats it.
    let due = rig.net.client.next_timeout(now).unwrap();
    let mut repeated = Vec::new();
    let mut at = due;
    while repeated.is_empty() {
        rig.net.client.timeout(at);
        repeated = of_kind(&sent(&mut rig.net.client, at), "StreamDataBlocked");
        at = rig.net.client.next_timeout(at).unwrap();
        assert!(at < now + 5_000_000, "within a few probe timeouts");
    }
    assert_eq!(repeated.len(), 1);
}

/// The window is told again when half of it is read (RFC 9000 4.2); who is stuck before that is
/// helped at once.
#[test]
fn who_is_stuck_gets_what_was_read_rfc9000_4_2() {
    let mut rig = Rig::established(CidFormat::Compact, PLAIN, |c, _| {
        c.transport.stream_window = 1_024;
        c.transport.connection_window = 1_024;
    });
    let now = rig.net.now;
    let stream = [vec![0x0a], ints(&[0, 300]), vec![7; 300]].concat();
    rig.inject(Level::Data, Side::Client, &stream);
    assert_eq!(rig.net.server.read(now, 0).0.len(), 300);
    let quiet = frames(Side::Server, &sent(&mut rig.net.server, now), 8);
    assert!(!quiet.iter().any(|f| f.starts_with("Max")), "{quiet:?}");
    let blocked = ints(&[ty::STREAM_DATA_BLOCKED, 0, 1_024]);
    rig.inject(Level::Data, Side::Client, &blocked);
    rig.inject(Level::Data, Side::Client, &ints(&[ty::DATA_BLOCKED, 1_024]));
    let helped = frames(Side::Server, &sent(&mut rig.net.server, now), 8);
    assert!(
        helped.contains(&"MaxStreamData { id: 0, max: 1324 }".to_owned()),
        "{helped:?}"
    );
    assert!(helped.contains(&"MaxData(1324)".to_owned()), "{helped:?}");
    // With nothing to give, nothing is said.
    rig.inject(Level::Data, Side::Client, &blocked);
    rig.inject(
        Level::Data,
        Side::Client,
        &ints(&[ty::STREAMS_BLOCKED_BIDI, 1]),
    );
    let silent = frames(Side::Server, &sent(&mut rig.net.server, rig.net.now), 8);
    assert!(!silent.iter().any(|f| f.starts_with("Max")), "{silent:?}");
}
