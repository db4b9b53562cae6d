//! Limits on the use of keys (RFC 9001 6.6, T4), lowered so that a test reaches them.

use crate::common::net::{Net, Node as _, Weather};
use crate::common::own::{FakeOwn, fake_client, fake_server, server_addr};
use crate::common::rig::{Edit, Rig};
use roadstead_quic::crypto::Suite;
use roadstead_quic::packet::Level;
use roadstead_quic::{CidFormat, CloseReason, Code, KeyLimits, Side};

const PLAIN: Edit = |_, _| {};

fn sent_at_most(confidentiality: u64) -> KeyLimits {
    KeyLimits {
        confidentiality,
        ..KeyLimits::NONE
    }
}

fn pair(client_limit: u64, server_limit: u64) -> Net<FakeOwn, FakeOwn> {
    let client = fake_client(1, CidFormat::Compact, |c, _| {
        c.transport.key_limits = sent_at_most(client_limit);
    });
    let server = fake_server(1, |c, _| {
        c.transport.key_limits = sent_at_most(server_limit)
    });
    Net::new(1, Weather::CALM, client, server, server_addr())
}

fn reason(node: &FakeOwn) -> Option<Code> {
    match node.last_close {
        Some(CloseReason::Local(error)) => Some(error.code),
        _ => None,
    }
}

#[test]
fn the_limits_of_the_suites_rfc9001_6_6() {
    for (suite, sent, forged) in [
        (Suite::Aes128Gcm, 1 << 23, 1 << 52),
        (Suite::Aes256Gcm, 1 << 23, 1 << 52),
        (Suite::ChaCha20Poly1305, 1 << 36, 1 << 36),
    ] {
        assert_eq!(suite.confidentiality_limit(), sent);
        assert_eq!(suite.integrity_limit(), forged);
    }
}

/// Keys are updated before they are used up, over and over, and nothing is lost by it.
#[test]
fn keys_are_updated_before_their_limit_rfc9001_6_6() {
    let mut net = pair(256, 256);
    net.establish();
    let id = net.client.open(net.now, false).unwrap();
    assert!(
        net.echo(id, 1_000_000, false, 120_000_000),
        "{:?}",
        net.closed()
    );
    assert!(
        net.sent.iter().all(|n| *n > 3 * 256),
        "several times each way"
    );
    assert_eq!(net.closed(), None);
}

/// Where an update is not possible the connection closes before the limit, and says why, with the
/// last packets that the key may protect.
#[test]
fn keys_that_can_not_be_updated_close_rfc9001_6_6() {
    const LIMIT: u64 = 40;
    let mut net = pair(u64::MAX, LIMIT);
    net.establish();
    let id = net.client.open(net.now, false).unwrap();
    assert!(net.echo(id, 1_000, false, 5_000_000));
    net.run_for(2_000_000);
    // Its own update is never answered, so there can be no second one.
    net.weather.loss = 100;
    assert!(net.server.update_keys(net.now));
    let before = net.sent[1];
    net.server.write(net.now, id, &[7; 60_000]);
    net.run_until(80_000_000, |n| n.server.last_close.is_some());
    assert_eq!(reason(&net.server), Some(Code::AEAD_LIMIT_REACHED));
    net.run_for(10_000_000);
    assert!(net.sent[1] - before <= LIMIT, "{}", net.sent[1] - before);
    assert!(net.server.endpoint.is_empty());
}

#[test]
fn the_peer_is_told_why_rfc9001_6_6() {
    // Before the first acknowledgement of the peer no update is possible either.
    let mut net = pair(u64::MAX, 17);
    net.run_until(20_000_000, |n| n.server.last_close.is_some());
    net.run_for(1_000_000);
    assert_eq!(reason(&net.server), Some(Code::AEAD_LIMIT_REACHED));
    let heard = matches!(
        net.client.last_close,
        Some(CloseReason::PeerTransport {
            code: Code::AEAD_LIMIT_REACHED,
            ..
        })
    );
    assert!(heard, "{:?}", net.client.last_close);
}

/// RFC 9001 6.6: the integrity limit counts packets of all keys, and closes at once beyond it.
#[test]
fn forgeries_beyond_the_integrity_limit_close_rfc9001_6_6() {
    for victim in [Side::Client, Side::Server] {
        let limited: Edit = |c, _| c.transport.key_limits.integrity = 10;
        let mut rig = match victim {
            Side::Client => Rig::established(CidFormat::Compact, limited, PLAIN),
            Side::Server => Rig::established(CidFormat::Compact, PLAIN, limited),
        };
        let from = victim.peer();
        for n in 0..11 {
            assert_eq!(rig.closed_with(victim), None, "after {n}");
            let mut forged = rig.forge(Level::Data, from, &[0x01]);
            let last = forged.len() - 1;
            forged[last] ^= 1;
            rig.deliver(from, forged);
        }
        assert_eq!(rig.closed_with(victim), Some(Code::AEAD_LIMIT_REACHED));
    }
}
