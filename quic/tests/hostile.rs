//! Hostile peers: regressions of known failures of other stacks and bounds on memory (T8, T15).

mod common;

use common::fake::FakeAead;
use common::net::{Dice, Node, Note, Packet};
use common::own::{address, client_addr, fake_client, fake_server, server_addr};
use common::rig::{Edit, Rig, ints, varint};
use roadstead_quic::coding::Writer;
use roadstead_quic::crypto::retry_tag;
use roadstead_quic::frame::ty;
use roadstead_quic::packet::{ConnectionId, Kind, Level, Packet as Header};
use roadstead_quic::{CidFormat, Code, Side};

const PLAIN: Edit = |_, _| {};

fn frame(kind: u64, values: &[u64]) -> Vec<u8> {
    [varint(kind), ints(values)].concat()
}

/// quic-go CVE-2023-49295: PATH_CHALLENGE without end, and the peer acknowledges nothing. One
/// response is owed at most, and congestion control holds the rest.
#[test]
fn path_challenges_without_end_quic_go_cve_2023_49295() {
    let mut rig = Rig::default();
    for n in 0..20_000u64 {
        let mut challenges = Vec::new();
        for _ in 0..20 {
            challenges.extend(varint(ty::PATH_CHALLENGE));
            challenges.extend(n.to_be_bytes());
        }
        rig.inject(Level::Data, Side::Client, &challenges);
        let mut out = Vec::new();
        rig.net.server.transmit(rig.net.now, &mut out);
        assert!(out.len() <= 1);
    }
    let memory = rig.net.server.endpoint.memory();
    assert!(memory.heap < 16 << 10, "{memory:?}");
    assert_eq!(rig.closed_with(Side::Server), None);
}

/// quic-go CVE-2024-22189: NEW_CONNECTION_ID that retire each other, with the RETIRE frames never
/// acknowledged.
#[test]
fn retirements_without_end_quic_go_cve_2024_22189() {
    let mut rig = Rig::default();
    for n in 1..100u64 {
        let mut f = frame(ty::NEW_CONNECTION_ID, &[n, n]);
        f.push(8);
        f.extend(n.to_be_bytes());
        f.extend([0; 16]);
        rig.inject(Level::Data, Side::Client, &f);
        if let Some(code) = rig.closed_with(Side::Server) {
            assert_eq!(code, Code::CONNECTION_ID_LIMIT_ERROR);
            assert!(n <= 6, "after {n}");
            return;
        }
        let mut out = Vec::new();
        rig.net.server.transmit(rig.net.now, &mut out);
    }
    panic!("never closed");
}

/// T-F11: an honest peer behind a bad network was closed. A RETIRE_CONNECTION_ID that probes repeat is one id to retire.
#[test]
fn tf11_t18_a_retirement_that_is_repeated_counts_once() {
    let mut rig = Rig::default();
    let new_cid = |n: u64| {
        let mut f = frame(ty::NEW_CONNECTION_ID, &[n, n]);
        f.push(8);
        f.extend(n.to_be_bytes());
        f.extend([0; 16]);
        f
    };
    rig.net.client_is_deaf = true;
    rig.inject(Level::Data, Side::Client, &new_cid(1));
    let before = rig.net.sent[1];
    rig.net.run_for(20_000_000);
    assert!(rig.net.sent[1] - before >= 6, "probes repeat it");
    rig.inject(Level::Data, Side::Client, &new_cid(2));
    assert_eq!(rig.closed_with(Side::Server), None);
}

/// quiche CVE-2024-1765: CRYPTO frames without end after the handshake. Servers refuse the first
/// (negative.rs); clients read only tickets, in a buffer of 4 KiB.
#[test]
fn crypto_without_end_quiche_cve_2024_1765() {
    let mut rig = Rig::established(CidFormat::Compact, PLAIN, |_, t| t.tickets = 0);
    let ticket = [&[4, 0, 3, 0xfc][..], &[0; 1_020]].concat();
    for n in 0..2_000u64 {
        let head = frame(ty::CRYPTO, &[n * 1_024, 1_024]);
        rig.inject(Level::Data, Side::Server, &[head, ticket.clone()].concat());
        rig.net.client.transmit(rig.net.now, &mut Vec::new());
        assert_eq!(rig.closed_with(Side::Client), None);
        assert!(
            rig.net.client.endpoint.memory().heap < 4 << 10,
            "nothing is kept but the wait of an acknowledgement"
        );
    }
    rig.net.run_for(50_000);
    assert!(rig.net.client.is_idle(), "nothing is kept");
    // Out of order they are bounded too.
    for n in 0..200u64 {
        let head = frame(ty::CRYPTO, &[2_000 * 1_024 + 1 + n * 2, 1]);
        rig.inject(Level::Data, Side::Server, &[head, vec![0]].concat());
    }
    assert!(rig.net.client.endpoint.memory().heap < 16 << 10);
}

/// Optimistic acknowledgement (RFC 9000 21.4; quiche CVE-2025-4820): a peer that acknowledges what
/// it never received meets a number that was never sent.
#[test]
fn optimistic_acknowledgements_close_rfc9000_21_4() {
    let mut rig = Rig::established(CidFormat::Compact, PLAIN, |c, _| {
        c.transport.stream_send_buffer = 8 << 20;
        c.transport.pacing = false;
    });
    rig.inject(
        Level::Data,
        Side::Client,
        &[vec![0x0a], ints(&[0, 1]), vec![b'x']].concat(),
    );
    // The peer permits everything.
    rig.inject(Level::Data, Side::Client, &frame(ty::MAX_DATA, &[1 << 40]));
    rig.inject(
        Level::Data,
        Side::Client,
        &frame(ty::MAX_STREAM_DATA, &[0, 1 << 40]),
    );
    let now = rig.net.now;
    assert!(rig.net.server.write(now, 0, &vec![0; 4 << 20]) > 0);
    let mut sent = 0u64;
    for _ in 0..2_000 {
        let mut out = Vec::new();
        rig.net.server.transmit(rig.net.now, &mut out);
        sent += out.len() as u64;
        // Acknowledge everything up to what was seen leaving: one number must be missing.
        let largest = 8 + sent;
        rig.net.now = rig.net.now + 1_000;
        rig.inject(
            Level::Data,
            Side::Client,
            &frame(ty::ACK, &[largest.min(sent), 0, 0, sent]),
        );
        if let Some(code) = rig.closed_with(Side::Server) {
            assert_eq!(code, Code::PROTOCOL_VIOLATION);
            assert!(sent < 1_000, "noticed after {sent} packets");
            return;
        }
    }
    panic!("never noticed");
}

/// LSQUIC CVE-2025-54939: datagrams whose coalesced packets are for other connections, before any
/// handshake. What is not authentic leaves no state.
#[test]
fn unauthentic_initials_leave_no_state_lsquic_cve_2025_54939() {
    let mut server = fake_server(5, |_, _| {});
    let now = roadstead_quic::Time::from_millis(1_000);
    let mut dice = Dice(5);
    let empty = server.endpoint.memory();
    for n in 0..5_000u64 {
        let mut data = Vec::new();
        // Several packets with different ids, none of them authentic.
        for _ in 0..3 {
            data.extend([0xc0, 0, 0, 0, 1, 8]);
            data.extend(dice.next().to_be_bytes());
            data.extend([0, 0, 0x41, 0x40]);
            data.extend((0..320).map(|_| dice.next().to_le_bytes()[0]));
        }
        data.resize(1_300, 0);
        let from = address(7, u16::try_from(1 + n % 60_000).unwrap());
        server.receive(
            now,
            Packet {
                from,
                to: server_addr(),
                data,
            },
        );
    }
    assert!(server.endpoint.is_empty());
    assert_eq!(server.endpoint.half_open(), 0);
    assert_eq!(server.endpoint.memory().heap, empty.heap);
    let mut out = Vec::new();
    server.transmit(now, &mut out);
    assert!(out.is_empty(), "nothing is answered");
}

/// quinn's fragment metadata: data in pieces of one byte, every other one missing. Memory stays
/// near the window, and the packets beyond the cap are not acknowledged (T8).
#[test]
fn tiny_fragments_t8() {
    let mut rig = Rig::default();
    for n in (1..8_000u64).step_by(2) {
        rig.inject(
            Level::Data,
            Side::Client,
            &[vec![0x0e], ints(&[0, n, 1]), vec![7]].concat(),
        );
        rig.net.server.transmit(rig.net.now, &mut Vec::new());
    }
    assert_eq!(rig.closed_with(Side::Server), None);
    assert!(rig.net.server.endpoint.memory().heap < 24 << 10);
}

/// quinn's panics (CVE-2023-42805 and others): arbitrary authentic payloads in every space.
#[test]
fn random_payloads_never_panic() {
    let mut dice = Dice(77);
    for round in 0..600 {
        let mut rig = match round % 3 {
            0 => Rig::default(),
            1 => Rig::established(CidFormat::Empty, PLAIN, PLAIN),
            _ => {
                let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
                rig.hello();
                rig
            }
        };
        for _ in 0..20 {
            let from = if dice.percent(50) {
                Side::Client
            } else {
                Side::Server
            };
            let level = match round % 3 {
                2 if from.is_client() && dice.percent(50) => Level::Initial,
                2 => Level::Handshake,
                _ => Level::Data,
            };
            let len = usize::try_from(dice.below(60)).unwrap();
            let mut payload = Vec::new();
            for _ in 0..1 + dice.below(4) {
                payload.push(dice.next().to_le_bytes()[0] % 0x32);
                // Small numbers reach further than large ones.
                payload.extend((0..len).map(|_| dice.next().to_le_bytes()[0] % 5));
            }
            rig.inject(level, from, &payload);
            rig.net.flush();
        }
        rig.net.run_for(50_000_000);
    }
}

/// Bits flipped in real datagrams, and random ones: nothing happens, but for a lost packet.
#[test]
fn random_datagrams_never_panic() {
    let mut rig = Rig::default();
    let mut dice = Dice(78);
    for _ in 0..20_000 {
        let mut data: Vec<u8> = (0..dice.below(80))
            .map(|_| dice.next().to_le_bytes()[0])
            .collect();
        if data.len() > 30 && dice.percent(50) {
            data[1..9].copy_from_slice(&rig.cids[1].as_slice()[..8]);
            let cid = rig.cids[0];
            if dice.percent(50) {
                data[1..1 + cid.len()].copy_from_slice(cid.as_slice());
            }
        }
        let from = if dice.percent(50) {
            Side::Client
        } else {
            Side::Server
        };
        rig.deliver(from, data);
    }
    assert_eq!(rig.closed_with(Side::Server), None);
    assert_eq!(rig.closed_with(Side::Client), None);
    let id = rig.net.client.open(rig.net.now, false).unwrap();
    assert!(rig.net.echo(id, 1_000, false, 20_000_000));
}

/// RFC 9000 8.1: an unvalidated address gets three times its bytes, whatever it does.
#[test]
fn amplification_rfc9000_8_1() {
    let mut client = fake_client(9, CidFormat::Empty, |_, _| {});
    let mut server = fake_server(9, |_, t| t.chain = 20_000);
    let mut now = roadstead_quic::Time::from_millis(1_000);
    let mut out = Vec::new();
    client.transmit(now, &mut out);
    let received: usize = out.iter().map(|p| p.data.len()).sum();
    out.into_iter().for_each(|p| server.receive(now, p));
    let mut sent = 0;
    for _ in 0..200 {
        let mut out = Vec::new();
        server.transmit(now, &mut out);
        sent += out.iter().map(|p| p.data.len()).sum::<usize>();
        now = now + 100_000;
        server.timeout(now);
    }
    assert!(sent <= 3 * received, "{sent} for {received}");
    assert!(sent > received);
    assert!(server.endpoint.is_empty(), "the handshake timed out");
}

/// RFC 9000 17.2.5.2, T15: forged and repeated Retry packets.
#[test]
fn forged_retries_rfc9000_17_2_5_2() {
    let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
    let mut first = Vec::new();
    rig.net.client.transmit(rig.net.now, &mut first);
    let header = Header::parse(&first[0].data, 0).unwrap();
    let retry = |scid: &[u8], token: &[u8], odcid: &ConnectionId| {
        let mut buf = vec![0; 200];
        let mut w = Writer::new(&mut buf);
        w.u8(0xf0);
        w.u32(1);
        for id in [header.scid.as_slice(), scid] {
            w.u8(u8::try_from(id.len()).unwrap());
            w.bytes(id);
        }
        w.bytes(token);
        let tag = retry_tag(&FakeAead, odcid, w.written());
        w.bytes(&tag);
        w.written().to_vec()
    };
    let good = retry(&[5; 12], b"token", &header.dcid);
    let mut bad_tag = good.clone();
    *bad_tag.last_mut().unwrap() ^= 1;
    let wrong_id = retry(&[5; 12], b"token", &ConnectionId::new(&[1; 8]).unwrap());
    let no_token = retry(&[5; 12], b"", &header.dcid);
    let same_id = retry(header.dcid.as_slice(), b"token", &header.dcid);
    for forged in [bad_tag, wrong_id, no_token, same_id] {
        rig.deliver(Side::Server, forged);
        let mut out = Vec::new();
        rig.net.client.transmit(rig.net.now, &mut out);
        assert!(out.is_empty(), "ignored");
    }
    rig.deliver(Side::Server, good);
    let mut out = Vec::new();
    rig.net.client.transmit(rig.net.now, &mut out);
    let again = Header::parse(&out[0].data, 0).unwrap();
    assert_eq!(again.dcid.as_slice(), [5; 12]);
    assert_eq!(&out[0].data[again.token.0..again.token.1], b"token");
    // A second one is ignored.
    rig.deliver(Side::Server, retry(&[6; 12], b"other", &header.dcid));
    let mut out = Vec::new();
    rig.net.client.transmit(rig.net.now, &mut out);
    assert!(out.is_empty());
}

/// RFC 9000 6.2, 17.2.1.
#[test]
fn version_negotiation_rfc9000_6() {
    // The server answers other versions, in datagrams of full size only (T11).
    let mut server = fake_server(3, |_, _| {});
    let now = roadstead_quic::Time::from_millis(1_000);
    for (len, answers) in [(1_200, 1), (1_199, 0)] {
        let mut data = vec![0; len];
        data[..12].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 4, 1, 2, 3, 4, 1, 9]);
        server.receive(
            now,
            Packet {
                from: client_addr(),
                to: server_addr(),
                data,
            },
        );
        let mut out = Vec::new();
        server.transmit(now, &mut out);
        assert_eq!(out.len(), answers);
        if let Some(p) = out.first() {
            let header = Header::parse(&p.data, 0).unwrap();
            assert_eq!(header.kind, Kind::VersionNegotiation);
            assert_eq!(header.dcid.as_slice(), [9]);
            assert_eq!(header.scid.as_slice(), [1, 2, 3, 4]);
            assert!(
                p.data[header.pn_offset..]
                    .chunks(4)
                    .any(|v| v == [0, 0, 0, 1])
            );
        }
    }
    // The client gives up only when its version is missing and the ids are right.
    for (versions, wrong_id, ends) in [
        (vec![[0x0a, 0x0a, 0x0a, 0x0a], [0, 0, 0, 2]], false, true),
        (vec![[0, 0, 0, 2], [0, 0, 0, 1]], false, false),
        (vec![[0, 0, 0, 2]], true, false),
        (vec![], false, false),
    ] {
        let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
        let mut first = Vec::new();
        rig.net.client.transmit(rig.net.now, &mut first);
        let header = Header::parse(&first[0].data, 0).unwrap();
        let mut buf = vec![0; 100];
        let mut w = Writer::new(&mut buf);
        w.u8(0x80);
        w.u32(0);
        let mut scid = header.dcid.as_slice().to_vec();
        scid[0] ^= u8::from(wrong_id);
        for id in [header.scid.as_slice(), &scid] {
            w.u8(u8::try_from(id.len()).unwrap());
            w.bytes(id);
        }
        versions.iter().for_each(|v| w.bytes(v));
        let packet = w.written().to_vec();
        rig.deliver(Side::Server, packet);
        let ended = rig
            .net
            .client_notes
            .contains(&Note::Closed("no common version".to_owned()));
        assert_eq!(ended, ends);
    }
}

/// T11: half-open handshakes are capped, and beyond a threshold Retry is asked.
#[test]
fn handshake_floods_t11() {
    let mut server = fake_server(4, |c, _| {
        c.retry_above = 50;
        c.half_open_max = 60;
    });
    let now = roadstead_quic::Time::from_millis(1_000);
    for n in 0..500u16 {
        let mut client = fake_client(u64::from(n), CidFormat::Empty, |_, _| {});
        let mut out = Vec::new();
        client.transmit(now, &mut out);
        for mut packet in out {
            let host = u8::try_from(1 + n % 200).unwrap();
            packet.from = address(host, 1_000 + n);
            server.receive(now, packet);
        }
        server.transmit(now, &mut Vec::new());
    }
    assert_eq!(server.endpoint.half_open(), 50);
    assert_eq!(server.endpoint.stats().retries_sent, 450);
    let heap = server.endpoint.memory().heap;
    assert!(heap < 50 * (20 << 10), "{heap}");
    // They time out, and all is as before.
    let later = now + 15_000_000;
    server.timeout(later);
    server.timeout(later + 5_000_000);
    assert_eq!(server.endpoint.half_open(), 0);
    assert!(server.endpoint.is_empty());
}

/// T11: a Retry token is bound to its address and used once.
#[test]
fn tokens_are_bound_and_used_once_t11() {
    let mut server = fake_server(6, |c, _| c.retry_above = 0);
    let now = roadstead_quic::Time::from_millis(1_000);
    let mut client = fake_client(6, CidFormat::Empty, |_, _| {});
    let exchange = |server: &mut common::own::FakeOwn, packets: Vec<Packet>| {
        packets.into_iter().for_each(|p| server.receive(now, p));
        let mut out = Vec::new();
        server.transmit(now, &mut out);
        out
    };
    let mut out = Vec::new();
    client.transmit(now, &mut out);
    for packet in exchange(&mut server, out) {
        client.receive(now, packet);
    }
    let mut second = Vec::new();
    client.transmit(now, &mut second);
    assert!(!second.is_empty(), "the hello with the token");
    let elsewhere: Vec<Packet> = second
        .iter()
        .map(|p| Packet {
            from: address(66, 6),
            ..p.clone()
        })
        .collect();
    exchange(&mut server, elsewhere);
    assert!(server.endpoint.is_empty(), "another address");
    assert_eq!(server.endpoint.stats().refused, 1);
    exchange(&mut server, second.clone());
    assert_eq!(server.endpoint.len(), 1);
    // The same token in another connection: another first id, so the keys differ.
    let later = now + 40_000_000;
    server.timeout(later);
    server.timeout(later + 20_000_000);
    assert!(server.endpoint.is_empty());
    server.receive(later, second.remove(0));
    assert!(server.endpoint.is_empty(), "used");
}

/// RFC 9000 10.3.3: two endpoints that know nothing do not reset each other for ever.
#[test]
fn resets_do_not_loop_rfc9000_10_3_3() {
    let mut a = fake_server(1, |_, _| {});
    let now = roadstead_quic::Time::from_millis(1_000);
    let mut data = vec![0x55; 60];
    // An id of this shard that belongs to nobody.
    data[1] = 0x45;
    let mut lens = Vec::new();
    for _ in 0..60 {
        a.receive(
            now,
            Packet {
                from: client_addr(),
                to: server_addr(),
                data: data.clone(),
            },
        );
        let mut out = Vec::new();
        a.transmit(now, &mut out);
        let Some(p) = out.pop() else { break };
        assert!(p.data.len() < data.len());
        data = p.data;
        data[1] = 0x45;
        lens.push(data.len());
    }
    assert!(!lens.is_empty() && lens.len() < 30, "{lens:?}");
    assert_eq!(*lens.last().unwrap(), 21);
    // T1: ids of other shards are strays, and never answered.
    let mut stray = vec![0x55; 60];
    stray[1] = 0xf5;
    a.receive(
        now,
        Packet {
            from: client_addr(),
            to: server_addr(),
            data: stray,
        },
    );
    let mut out = Vec::new();
    a.transmit(now, &mut out);
    assert!(out.is_empty());
    assert_eq!(a.endpoint.stats().strays, 1);
}

/// T1: resets have a budget.
#[test]
fn resets_have_a_budget_t1() {
    let mut a = fake_server(1, |_, _| {});
    let now = roadstead_quic::Time::from_millis(1_000);
    for n in 0..20_000u32 {
        let mut data = vec![0x55; 60];
        data[1] = 0x45;
        data[3..7].copy_from_slice(&n.to_be_bytes());
        a.receive(
            now,
            Packet {
                from: client_addr(),
                to: server_addr(),
                data,
            },
        );
        a.transmit(now, &mut Vec::new());
    }
    assert_eq!(
        a.endpoint.stats().resets_sent,
        roadstead_quic::limits::RESET_BURST
    );
}

/// A peer that takes a thousand spare ids: the sequence numbers end before an id recurs (T2).
#[test]
fn id_exhaustion_t2() {
    let mut rig = Rig::default();
    for n in 1..1_000u64 {
        rig.inject(
            Level::Data,
            Side::Client,
            &frame(ty::RETIRE_CONNECTION_ID, &[n]),
        );
        rig.net.run_for(50_000);
        if rig.closed_with(Side::Server).is_some() {
            assert!((250..256).contains(&n), "{n}");
            return;
        }
    }
    panic!("ids without end");
}

/// A NAT rebind to an address that does not answer: the connection goes back to the old one
/// (RFC 9000 9.3.2), and the wrong address got no more than three times what came from it.
#[test]
fn a_spoofed_address_is_left_again_rfc9000_9_3_2() {
    let mut rig = Rig::default();
    let data = rig.forge(Level::Data, Side::Client, &[1]);
    let len = data.len();
    let spoofed = address(99, 9);
    let now = rig.net.now;
    rig.net.server.receive(
        now,
        Packet {
            from: spoofed,
            to: server_addr(),
            data,
        },
    );
    let mut sent = 0;
    let until = now + 20_000_000;
    while let Some(at) = rig
        .net
        .server
        .next_timeout(rig.net.now)
        .filter(|t| *t < until)
    {
        let mut out = Vec::new();
        rig.net.server.transmit(rig.net.now, &mut out);
        let to_spoofed = out.iter().filter(|p| p.to == spoofed);
        sent += to_spoofed.map(|p| p.data.len()).sum::<usize>();
        rig.net.now = at.max(rig.net.now + 1);
        rig.net.server.timeout(rig.net.now);
    }
    assert!(sent > 0 && sent <= 3 * len, "{sent} for {len}");
    let path = rig.net.server.endpoint.path(rig.net.server.h()).unwrap();
    assert_eq!(path.remote, client_addr());
}

/// Slow reading: a peer that opens its window by one byte at a time costs no more than its packets.
#[test]
fn tiny_windows() {
    let mut rig = Rig::default();
    rig.inject(
        Level::Data,
        Side::Client,
        &[vec![0x0a], ints(&[0, 1]), vec![b'x']].concat(),
    );
    let now = rig.net.now;
    rig.net.server.write(now, 0, &vec![0; 60_000]);
    for n in 0..1_000u64 {
        rig.inject(
            Level::Data,
            Side::Client,
            &frame(ty::MAX_STREAM_DATA, &[0, 8_192 + n]),
        );
        rig.inject(
            Level::Data,
            Side::Client,
            &frame(ty::MAX_DATA, &[16_384 + n]),
        );
        let mut out = Vec::new();
        rig.net.server.transmit(rig.net.now, &mut out);
        assert!(out.len() <= 12);
    }
    assert!(rig.net.server.endpoint.memory().heap < 160 << 10);
}
