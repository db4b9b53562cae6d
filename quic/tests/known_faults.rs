//! Known failures of other stacks, each by its number (T15): what its peer did, and what comes of it here. Older
//! ones are in hostile.rs.

mod common;

use common::net::{Node, Note, Packet};
use common::own::{address, server_addr};
use common::rig::{Edit, Rig, ints, varint};
use common::wire;
use roadstead_quic::frame::ty;
use roadstead_quic::packet::{Level, Packet as Header};
use roadstead_quic::{CidFormat, Code, Side};

const PLAIN: Edit = |_, _| {};

fn frame(kind: u64, values: &[u64]) -> Vec<u8> {
    [varint(kind), ints(values)].concat()
}

/// A client whose server has answered its hello, and that answer.
fn answered() -> (Rig, Vec<Vec<u8>>) {
    let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
    let now = rig.net.now;
    let mut out = Vec::new();
    rig.net.client.transmit(now, &mut out);
    let first = Header::parse(&out[0].data, 0).unwrap();
    (rig.odcid, rig.cids[1]) = (first.dcid, first.scid);
    out.into_iter().for_each(|p| rig.net.server.receive(now, p));
    let mut back = Vec::new();
    rig.net.server.transmit(now, &mut back);
    rig.cids[0] = Header::parse(&back[0].data, 0).unwrap().scid;
    (rig, back.into_iter().map(|p| p.data).collect())
}

/// quic-go CVE-2025-59530: HANDSHAKE_DONE before it can be true, while a packet waits for its keys. It was taken
/// inside of the one that confirmed the handshake, and had moved the window of received numbers past it when
/// that one was noted.
#[test]
fn tf6_t15_a_premature_handshake_done_quic_go_cve_2025_59530() {
    for early in [500, 100, 4] {
        let (mut rig, mut flight) = answered();
        // A 1-RTT packet overtakes the server's flight, and waits.
        rig.next_pn = early;
        rig.inject(Level::Data, Side::Server, &[1]);
        // The flight, with the end of the handshake behind it in the same datagram.
        rig.next_pn = 3;
        let done = rig.forge(Level::Data, Side::Server, &frame(ty::HANDSHAKE_DONE, &[]));
        flight.last_mut().unwrap().extend(done);
        for data in flight {
            rig.deliver(Side::Server, data);
        }
        assert_eq!(rig.closed_with(Side::Client), None);
        let confirmed = rig.net.client_notes.contains(&Note::Confirmed);
        assert!(confirmed, "{:?}", rig.net.client_notes);
        // What waited was taken after it: the answer acknowledges that.
        let mut out = Vec::new();
        rig.net.client.transmit(rig.net.now, &mut out);
        let answer = wire::frames(Side::Client, &out, 12);
        let acks = answer.iter().filter(|f| f.starts_with("Ack"));
        let largest = format!("largest: {early},");
        assert!(acks.clone().any(|f| f.contains(&largest)), "{answer:?}");
        // Another of its kind is an old one.
        rig.next_pn = 3;
        rig.inject(Level::Data, Side::Server, &frame(ty::HANDSHAKE_DONE, &[]));
        assert_eq!(rig.closed_with(Side::Client), None);
    }
}

/// The same at a server: what overtook the client's Finished is taken after it, with the address and length
/// of its own datagram.
#[test]
fn tf6_t8_a_packet_that_overtook_finished_is_taken_after_it() {
    let (mut rig, flight) = answered();
    for data in flight {
        rig.deliver(Side::Server, data);
    }
    let mut finished = Vec::new();
    rig.net.client.transmit(rig.net.now, &mut finished);
    rig.next_pn = 300;
    let hello = [vec![0x0a], ints(&[0, 5]), b"early".to_vec()].concat();
    rig.inject(Level::Data, Side::Client, &hello);
    assert_eq!(rig.net.server.read(rig.net.now, 0).0, b"", "no keys yet");
    for packet in finished {
        rig.deliver(Side::Client, packet.data);
    }
    assert!(rig.net.server_notes.contains(&Note::Confirmed));
    assert_eq!(rig.net.server.read(rig.net.now, 0).0, b"early");
    assert_eq!(rig.closed_with(Side::Server), None);
}

/// quic-go CVE-2025-29785: acknowledgements of packets that probed a path, after the connection has moved on:
/// repeated, of both paths, and of probes that are lost already.
#[test]
fn tf6_t15_acknowledged_path_probes_quic_go_cve_2025_29785() {
    let mut rig = Rig::default();
    let mut probes = Vec::new();
    for host in 0..8u8 {
        // From another address each time, and before the last one is validated.
        let data = rig.forge(Level::Data, Side::Client, &[1]);
        let from = address(60 + host, 9_000);
        let to = server_addr();
        rig.net
            .server
            .receive(rig.net.now, Packet { from, to, data });
        let mut out = Vec::new();
        rig.net.server.transmit(rig.net.now, &mut out);
        let challenges = wire::frames(Side::Server, &out, 8);
        assert!(challenges.iter().any(|f| f.starts_with("PathChallenge")));
        probes.extend(wire::numbers(Side::Server, &out, 8));
        // All of them, the newest alone, the oldest alone, and a range with all between.
        let (low, high) = (*probes.iter().min().unwrap(), *probes.iter().max().unwrap());
        for (largest, range) in [(high, high - low), (high, 0), (low, 0), (high, high - low)] {
            rig.inject(
                Level::Data,
                Side::Client,
                &frame(ty::ACK, &[largest, 0, 0, range]),
            );
            assert_eq!(rig.closed_with(Side::Server), None);
        }
        rig.net.now = rig.net.now + 300_000;
        rig.net.server.timeout(rig.net.now);
    }
    // It goes on from the client's own address.
    rig.inject(Level::Data, Side::Client, &[1]);
    rig.net.server.transmit(rig.net.now, &mut Vec::new());
    assert_eq!(rig.closed_with(Side::Server), None);
    rig.net.server.endpoint.check_invariants();
}

/// quiche CVE-2025-7054: ids retired from several paths at once, so that a packet that says so could only be
/// sent with an id that it retires. Building packets ends, and no packet retires the id that it is sent with.
#[test]
fn tf6_t15_ids_retired_across_paths_quiche_cve_2025_7054() {
    let new_cid = |sequence: u64, retire: u64| {
        let mut f = frame(ty::NEW_CONNECTION_ID, &[sequence, retire]);
        f.push(8);
        f.extend((0x4000 + sequence).to_be_bytes());
        f.extend([3; 16]);
        f
    };
    // The id in use, a spare one, both, and one after the other, on a path of its own each.
    let plans: [&[(u64, u64)]; 4] = [
        &[(1, 0), (2, 1), (3, 2)],
        &[(1, 1), (2, 2)],
        &[(1, 0), (3, 3)],
        &[(1, 0), (2, 2), (3, 3), (4, 4), (5, 5)],
    ];
    for plan in plans {
        let mut rig = Rig::default();
        let mut host = 80;
        for (sequence, retire) in plan {
            host += 1;
            let data = rig.forge(Level::Data, Side::Client, &new_cid(*sequence, *retire));
            // A frame that is no probe, so that the path moves.
            let moves = rig.forge(Level::Data, Side::Client, &[1]);
            for data in [data, moves] {
                let (from, to) = (address(host, 7), server_addr());
                rig.net
                    .server
                    .receive(rig.net.now, Packet { from, to, data });
                let mut out = Vec::new();
                rig.net.server.transmit(rig.net.now, &mut out);
                assert!(out.len() <= 4, "{} datagrams", out.len());
                for packet in &out {
                    let used = Header::parse(&packet.data, 8).unwrap().dcid;
                    let retired = wire::frames(Side::Server, std::slice::from_ref(packet), 8);
                    for n in plan.iter().map(|(n, _)| *n) {
                        let own = used.as_slice() == (0x4000 + n).to_be_bytes();
                        let retires = retired.contains(&format!("RetireConnectionId({n})"));
                        assert!(!(own && retires), "{retired:?}");
                    }
                }
            }
        }
        match rig.closed_with(Side::Server) {
            None | Some(Code::CONNECTION_ID_LIMIT_ERROR) => {}
            other => panic!("{other:?} after {plan:?}"),
        }
        rig.net.run_for(60_000_000);
    }
}
