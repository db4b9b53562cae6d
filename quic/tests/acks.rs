//! When acknowledgements leave (RFC 9000 13.2): with other frames, with the second packet, or alone
//! before the promised delay is over. Those of an idle connection are in heartbeat.rs (T10).

mod common;

use common::net::{Net, Node, Note, Weather};
use common::own::{FakeOwn, fake_client, fake_server, server_addr};
use common::rig::Rig;
use roadstead_quic::packet::Level;
use roadstead_quic::{CidFormat, Side};

/// An idle pair with a stream, 10 ms apart.
fn idle(max_ack_delay_ms: u16) -> (Net<FakeOwn, FakeOwn>, u64) {
    let client = fake_client(1, CidFormat::Compact, |c, _| {
        c.transport.max_ack_delay_ms = max_ack_delay_ms;
    });
    let server = fake_server(1, |c, _| c.transport.max_ack_delay_ms = max_ack_delay_ms);
    let mut net = Net::new(1, Weather::CALM, client, server, server_addr());
    net.establish();
    let id = net.client.open(net.now, false).unwrap();
    assert!(net.echo(id, 10, false, 5_000_000));
    net.run_for(5_000_000);
    assert!(net.client.is_idle() && net.server.is_idle());
    net.sent = [0; 2];
    (net, id)
}

#[test]
fn a_lone_packet_is_acknowledged_before_the_delay_is_over_rfc9000_13_2_1() {
    let (mut net, id) = idle(25);
    net.client.write(net.now, id, b"one");
    net.run_for(29_000);
    assert_eq!(net.sent, [1, 0], "arrived after 10 ms, waits for 20 ms");
    assert_eq!(net.server.read(net.now, id).0, b"one");
    assert!(!net.server.is_idle(), "the wait needs its timer");
    net.run_for(3_000);
    assert_eq!(net.sent, [1, 1]);
    assert!(net.server.is_idle());
    net.run_for(1_000_000);
    assert_eq!(net.sent, [1, 1], "an ACK is not acknowledged");
    assert!(net.client.is_idle() && net.server.is_idle());
}

#[test]
fn an_answer_carries_the_acknowledgement_rfc9000_13_2_1() {
    let (mut net, id) = idle(25);
    for n in 1..=20 {
        net.client.write(net.now, id, b"request");
        net.run_for(11_000);
        assert_eq!(net.server.read(net.now, id).0, b"request");
        net.server.write(net.now, id, b"answer");
        net.run_for(11_000);
        assert_eq!(net.client.read(net.now, id).0, b"answer");
        // A number is left out now and then, and the gap is acknowledged at once (RFC 9000 21.4).
        assert!(net.sent[0] + net.sent[1] <= 2 * n + 2, "{:?}", net.sent);
    }
}

#[test]
fn the_second_packet_is_acknowledged_at_once_rfc9000_13_2_2() {
    let (mut net, id) = idle(25);
    for text in [b"one", b"two"] {
        net.client.write(net.now, id, text);
        net.run_for(1_000);
    }
    net.run_for(9_500);
    assert_eq!(net.sent, [2, 1]);
}

#[test]
fn a_gap_is_acknowledged_at_once_rfc9000_13_2_1() {
    let (mut net, id) = idle(25);
    net.weather.loss = 100;
    net.client.write(net.now, id, b"lost");
    net.flush();
    net.weather.loss = 0;
    net.client.write(net.now, id, b"there");
    net.run_for(10_500);
    assert_eq!(net.sent, [2, 1]);
    net.run_for(2_000_000);
    assert_eq!(net.server.read(net.now, id).0, b"lostthere");
}

/// The peer subtracts the delay that an ACK tells (RFC 9002 5.3).
#[test]
fn the_delay_is_told_rfc9000_13_2_5() {
    let (mut net, id) = idle(25);
    for _ in 0..50 {
        net.client.write(net.now, id, b"one");
        net.run_for(100_000);
        let _ = net.server.read(net.now, id);
    }
    let rtt = net.client.endpoint.rtt_us(net.client.h()).unwrap();
    assert!(
        (19_000..22_000).contains(&rtt),
        "{rtt} us for a path of 20 ms"
    );
}

#[test]
fn without_a_delay_acknowledgements_wait_for_the_batch_only() {
    let (mut net, id) = idle(5);
    net.client.write(net.now, id, b"one");
    net.run_for(10_500);
    assert_eq!(net.sent, [1, 1]);
}

/// A PING of a busy connection waits as all else does, and its answer comes.
#[test]
fn a_ping_while_an_acknowledgement_waits_t10() {
    let (mut net, id) = idle(25);
    net.client.write(net.now, id, b"one");
    net.run_for(15_000);
    net.client.ping(net.now);
    net.run_for(25_000);
    assert!(net.client_notes.contains(&Note::Pong));
    assert_eq!(net.sent, [2, 1]);
}

/// T20: the caller of the engine takes all that has arrived and polls once. What fell out of the window of 128 was
/// never acknowledged: the peer took it for lost.
#[test]
fn tf5_t20_every_packet_of_a_long_turn_is_acknowledged() {
    for packets in [47, 48, 49, 128, 190] {
        let (mut net, id) = idle(25);
        let mut flight = Vec::new();
        for _ in 0..packets {
            assert_eq!(net.client.write(net.now, id, b"a small packet"), 14);
            net.client.transmit(net.now, &mut flight);
        }
        assert_eq!(flight.len(), packets, "one packet each");
        for packet in flight {
            net.server.receive(net.now, packet);
        }
        net.run_for(3_000_000);
        assert_eq!(net.server.read(net.now, id).0.len(), packets * 14);
        assert_eq!(
            net.sent[0], 0,
            "nothing of {packets} packets was sent again"
        );
        assert!(net.client.is_idle(), "all was acknowledged");
    }
}

/// The same for PINGs of an idle session, which has no active part.
#[test]
fn tf5_t20_pings_of_a_long_turn_are_acknowledged_without_an_active_part() {
    let mut rig = Rig::default();
    rig.net.run_for(5_000_000);
    // The rig's numbers are far above the client's: the first is a jump.
    rig.net.client_is_deaf = true;
    rig.inject(Level::Data, Side::Client, &[1]);
    rig.net.flush();
    let before = rig.net.sent[1];
    for _ in 0..190 {
        rig.inject(Level::Data, Side::Client, &[1]);
        assert!(rig.net.server.is_idle());
    }
    rig.net.flush();
    let acknowledgements = rig.net.sent[1] - before;
    assert_eq!(acknowledgements, 190_u64.div_ceil(48));
}
