//! T21: holes in coverage. What was under way when the network went is there soon after it is back.

mod common;

use common::net::{Net, Node, Weather};
use common::own::{FakeOwn, fake_client, fake_server, server_addr};
use common::rig::Rig;
use roadstead_quic::packet::Level;
use roadstead_quic::{CidFormat, Side};

const SECOND: u64 = 1_000_000;

/// One way, in microseconds.
const DELAY: u64 = 50_000;

type Ends = Net<FakeOwn, FakeOwn>;

/// Two ends that have spoken on stream 0.
fn established(seed: u64) -> Ends {
    let client = fake_client(seed, CidFormat::Empty, |_, _| {});
    let server = fake_server(seed, |_, _| {});
    let weather = Weather {
        delay: DELAY,
        ..Weather::CALM
    };
    let mut net = Net::new(seed, weather, client, server, server_addr());
    net.establish();
    assert_eq!(net.client.open(net.now, false), Some(0));
    assert!(net.echo(0, 100, false, 10 * SECOND));
    net.run_for(5 * SECOND);
    net
}

/// Which end has something to say when the network goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    Server,
    Client,
}

/// How long after the network was back the message arrived, where the other end pings every second.
fn late_by(speaker: Speaker, hole: u64) -> u64 {
    let mut net = established(1);
    net.weather.loss = 100;
    let now = net.now;
    let written = match speaker {
        Speaker::Server => net.server.write(now, 0, b"there?"),
        Speaker::Client => net.client.write(now, 0, b"there?"),
    };
    assert_eq!(written, 6);
    net.run_for(hole * SECOND);
    net.weather.loss = 0;
    let back = net.now;
    for _ in 0..300 {
        let now = net.now;
        match speaker {
            Speaker::Server => net.client.ping(now),
            Speaker::Client => net.server.ping(now),
        };
        let arrived = net.run_until(SECOND, |net| {
            let now = net.now;
            let read = match speaker {
                Speaker::Server => net.client.read(now, 0),
                Speaker::Client => net.server.read(now, 0),
            };
            read.0 == b"there?"
        });
        assert!(net.closed().is_none(), "a hole of {hole} s");
        if arrived {
            return net.now.since(back);
        }
    }
    panic!("it never came");
}

#[test]
fn tf4_t21_after_a_hole_a_message_comes_within_a_round_trip_and_a_second() {
    for speaker in [Speaker::Server, Speaker::Client] {
        for hole in [1, 5, 10, 20, 30, 40, 60, 80] {
            let late = late_by(speaker, hole);
            assert!(
                late <= 2 * DELAY + SECOND,
                "{speaker:?}: {late} us after a hole of {hole} s"
            );
        }
    }
}

/// Nobody speaks after the hole: the back-off has an end.
#[test]
fn tf4_t21_a_session_probes_at_least_every_ten_seconds() {
    let mut net = established(2);
    net.weather.loss = 100;
    let now = net.now;
    assert_eq!(net.server.write(now, 0, b"there?"), 6);
    net.run_for(80 * SECOND);
    net.weather.loss = 0;
    let back = net.now;
    assert!(net.run_until(20 * SECOND, |net| {
        let now = net.now;
        net.client.read(now, 0).0 == b"there?"
    }));
    assert!(net.now.since(back) <= 10 * SECOND + DELAY);
}

/// A peer that pings a thousand times a second and acknowledges nothing gets a probe for each probe timeout, not for
/// each PING.
#[test]
fn tf4_t21_a_flood_of_pings_is_no_flood_of_probes() {
    let mut rig = Rig::default();
    rig.net.run_for(5 * SECOND);
    let now = rig.net.now;
    assert_eq!(rig.net.client.open(now, false), Some(0));
    assert!(rig.net.echo(0, 100, false, 10 * SECOND));
    rig.net.run_for(5 * SECOND);
    rig.net.client_is_deaf = true;
    let now = rig.net.now;
    assert_eq!(rig.net.server.write(now, 0, &[7; 1_000]), 1_000);
    let floods = 10_000;
    let before = rig.net.sent_bytes[1];
    for _ in 0..floods {
        rig.inject(Level::Data, Side::Client, &[1]);
        rig.net.run_for(1_000);
    }
    let answers = rig.net.sent_bytes[1] - before;
    // An acknowledgement for each PING at the most, and a probe for each 45 ms: a round trip of 20 and what the peer may
    // delay an acknowledgement by, 25.
    let (acknowledgement, probes) = (50, 10_000 / 45);
    assert!(
        answers <= floods * acknowledgement + probes * 1_200,
        "{answers} bytes"
    );
}
