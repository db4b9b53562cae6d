//! Newcomers wait (T11): who goes first, who is dropped, what is counted. And what one session may send (T21).

use roadstead_quic::limits::QUOTA_PACKETS;

use super::*;
use crate::config::INITIAL_BACKLOG_MAX;

/// The address of one of many strangers.
fn stranger(number: usize) -> SocketAddr {
    let [.., a, b] = number.to_be_bytes();
    SocketAddr::from(([198, 51, 100, a], 1_024 + u16::from(b)))
}

fn receive(end: &mut Lean, now: Instant, peer: SocketAddr, mut data: Vec<u8>) {
    let datagram = Datagram {
        socket: 0,
        peer,
        data: &mut data,
    };
    end.receive(now, datagram, &mut Wire::default());
}

/// What an end sends now, with the addresses it goes to.
fn sent(end: &mut Lean, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut wire = Wire::default();
    end.flush(now, &mut wire);
    wire.peers.into_iter().zip(wire.packets).collect()
}

/// First packets of clients that are all the same to the server but for their ids and addresses.
fn initials(pair: &mut Pair, count: usize) -> Vec<Vec<u8>> {
    let params = ConnectParams::new(address(1), NAME);
    for _ in 0..count {
        pair.client.connect(pair.now, 0, &params).unwrap();
    }
    let packets = sent(&mut pair.client, pair.now);
    packets.into_iter().map(|(_, data)| data).collect()
}

/// A pair whose server asked for a proof, and the client's first packet with it.
fn asked_for_proof() -> (Pair, Vec<u8>) {
    let mut pair = Pair::connecting(0);
    let hello = pair.turn(false, vec![]);
    let retry = pair.turn(true, hello);
    assert_eq!(retry.len(), 1, "a Retry");
    let mut hello = pair.turn(false, retry);
    (pair, hello.swap_remove(0))
}

#[test]
fn tf9_t11_who_has_proven_an_address_does_not_wait_behind_others() {
    let (mut pair, hello) = asked_for_proof();
    let others = initials(&mut pair, 500);
    for (n, data) in others.into_iter().enumerate() {
        receive(&mut pair.server, pair.now, stranger(n), data);
    }
    receive(&mut pair.server, pair.now, address(2), hello);
    pair.server.admit_some(&mut |_| true, || true);
    let packets = sent(&mut pair.server, pair.now);
    assert_eq!(
        pair.server.counters.half_open.get(),
        1,
        "its handshake is begun"
    );
    assert!(packets.iter().any(|(peer, _)| *peer == address(2)));
}

#[test]
fn tf9_t11_answers_go_by_time_and_not_by_eight_a_turn() {
    let mut pair = Pair::connecting(0);
    let others = initials(&mut pair, 300);
    for (n, data) in others.into_iter().enumerate() {
        receive(&mut pair.server, pair.now, stranger(n), data);
    }
    let mut left = 200;
    let is_late = || {
        left -= 1;
        left == 0
    };
    pair.server.admit_some(&mut |_| true, is_late);
    assert_eq!(sent(&mut pair.server, pair.now).len(), 200);
    assert_eq!(pair.server.counters.retries_sent.get(), 200);
}

#[test]
fn tf9_t11_a_full_queue_drops_who_waited_longest_and_proved_nothing() {
    let (mut pair, hello) = asked_for_proof();
    receive(&mut pair.server, pair.now, address(2), hello);
    let other = initials(&mut pair, 1).swap_remove(0);
    for n in 0..INITIAL_BACKLOG_MAX + 9 {
        receive(&mut pair.server, pair.now, stranger(n), other.clone());
    }
    assert_eq!(pair.server.counters.drop_initial_backlog.get(), 10);
    let mut asked = Vec::new();
    let mut proven = |peer| {
        asked.push(peer);
        true
    };
    pair.server.admit_some(&mut proven, || true);
    assert_eq!(asked, [address(2)], "it is still there, and first");
    // Of the others the newest are there.
    let answered = sent(&mut pair.server, pair.now);
    let answered: Vec<_> = answered.into_iter().map(|(peer, _)| peer).collect();
    assert!(answered.contains(&stranger(10)), "{answered:?}");
}

#[test]
fn tf2_t11_a_proof_is_counted_once_and_before_tls() {
    let (mut pair, hello) = asked_for_proof();
    assert_eq!(pair.asked, []);
    // Refused, nothing is begun, and its token is good for another attempt.
    receive(&mut pair.server, pair.now, address(2), hello.clone());
    pair.server.admit_some(&mut |_| false, || false);
    assert!(sent(&mut pair.server, pair.now).is_empty());
    assert_eq!(pair.server.counters.half_open.get(), 0);
    // It came twice before its turn, as a hello in two datagrams does.
    receive(&mut pair.server, pair.now, address(2), hello.clone());
    let answers = pair.turn(true, vec![hello]);
    assert_eq!(pair.asked, [address(2)]);
    let finished = pair.turn(false, answers);
    pair.turn(true, finished);
    pair.settle();
    let proven = |event: &Event| matches!(event, Event::Opened { proven: true, peer, .. } if *peer == address(2));
    assert!(pair.told.iter().any(proven), "{:?}", pair.told);
    assert_eq!(pair.asked.len(), 1);
}

#[test]
fn tf2_t11_who_was_not_asked_for_a_proof_is_counted_when_it_opens() {
    let pair = Pair::connected();
    let unproven = |event: &Event| matches!(event, Event::Opened { proven: false, peer, .. } if *peer == address(2));
    assert!(pair.told.iter().any(unproven), "{:?}", pair.told);
    assert_eq!(pair.asked, []);
}

#[test]
fn tf8_t21_a_session_beyond_its_quota_is_dropped_while_the_loop_is_behind() {
    let mut pair = Pair::connected();
    let quota = usize::from(QUOTA_PACKETS);
    let pings = |pair: &mut Pair| {
        let mut packets = Vec::new();
        for _ in 0..quota + 45 {
            pair.client.ping(pair.conn);
            packets.extend(pair.turn(false, vec![]));
        }
        let before = pair.server.counters.drop_quota.get();
        pair.turn(true, packets);
        pair.server.counters.drop_quota.get() - before
    };
    assert_eq!(pings(&mut pair), 0, "the loop has time");
    pair.server.set_behind(true);
    assert_eq!(pings(&mut pair), 45);
    pair.server.set_behind(false);
    assert_eq!(pings(&mut pair), 0);
    // A client takes what it asked for.
    pair.client.set_behind(true);
    let pong = pair.turn(true, vec![]);
    for _ in 0..quota + 45 {
        pair.turn(false, pong.clone());
    }
    assert_eq!(pair.client.counters.drop_quota.get(), 0);
}
