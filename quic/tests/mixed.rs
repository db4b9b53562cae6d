//! Mixed pairs with quinn-proto, both ways, over the seeded network (T15).

mod common;

use common::net::{Dice, Net, Node, Note, Weather};
use common::own::{RealOwn, address, client_addr, real_client, real_server, server_addr, steered};
use common::quinn::Quinn;
use common::real;
use common::session::session;
use roadstead_quic::CidFormat;

fn own_client(seed: u64, weather: Weather, format: CidFormat) -> Net<RealOwn, Quinn> {
    let client = real_client(seed, format, real::AES_128, |_| {});
    let server = Quinn::server(Dice(seed).seed(), server_addr());
    Net::new(seed, weather, client, server, server_addr())
}

fn own_server(seed: u64, weather: Weather) -> Net<Quinn, RealOwn> {
    let client = Quinn::client(Dice(seed).seed(), client_addr(), server_addr());
    let server = real_server(seed, |c| {
        c.transport.streams_bidi = 8;
        c.transport.streams_uni = 2;
    });
    Net::new(seed, weather, client, server, server_addr())
}

#[test]
fn own_client_with_quinn_server_in_calm() {
    for (n, format) in [CidFormat::Empty, CidFormat::Compact, steered()]
        .into_iter()
        .enumerate()
    {
        session(&mut own_client(n as u64, Weather::CALM, format), true, true);
    }
}

#[test]
fn quinn_client_with_own_server_in_calm() {
    for seed in 0..3 {
        session(&mut own_server(seed, Weather::CALM), false, true);
    }
}

/// `ROADSTEAD_QUIC_SEEDS` raises the number of seeds of every simulated test.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let n = std::env::var("ROADSTEAD_QUIC_SEEDS")
        .ok()
        .and_then(|v| v.parse().ok());
    0..n.unwrap_or(default)
}

#[test]
fn own_client_with_quinn_server_in_weather() {
    for seed in seeds(60) {
        let mut dice = Dice(seed);
        let weather = Weather::draw(&mut dice);
        let formats = [CidFormat::Empty, CidFormat::Compact, steered()];
        let format = formats[usize::try_from(seed % 3).unwrap()];
        session(&mut own_client(seed, weather, format), true, false);
    }
}

#[test]
fn quinn_client_with_own_server_in_weather() {
    for seed in seeds(60) {
        let weather = Weather::draw(&mut Dice(seed));
        session(&mut own_server(seed, weather), false, false);
    }
}

#[test]
fn quinn_server_that_asks_for_retry() {
    let mut net = own_client(5, Weather::CALM, CidFormat::Empty);
    net.server.always_retry = true;
    session(&mut net, true, true);
}

#[test]
fn quinn_client_asked_for_retry() {
    let mut net = own_server(5, Weather::CALM);
    let server = real_server(5, |c| {
        c.retry_above = 0;
        c.transport.streams_bidi = 8;
    });
    net.server = server;
    session(&mut net, false, true);
    assert_eq!(net.server.endpoint.stats().retries_sent, 1);
}

/// A closing quinn answers every packet with its CONNECTION_CLOSE at once (RFC 9000 10.2.1 says SHOULD limit the
/// rate), and a server that asks for Retry answers every Initial, unread. The client's closing period ends it,
/// and no answer is longer than the question.
#[test]
fn quinn_client_that_closes_while_it_is_asked_for_retry() {
    let mut net = own_server(8, Weather::CALM);
    net.server = real_server(8, |c| c.retry_above = 0);
    net.weather.duplicate = 20;
    net.flush();
    net.client.close(net.now);
    net.run_for(30_000_000);
    let [client, server] = net.sent;
    let retries = net.server.endpoint.stats().retries_sent;
    assert!(retries > 1, "they answered each other");
    assert_eq!(retries, server, "with nothing but Retry");
    assert!(net.server.endpoint.is_empty());
    let before = net.sent;
    net.run_for(30_000_000);
    assert_eq!(
        net.sent, before,
        "{client} and {server} packets, then silence"
    );
}

#[test]
fn quinn_client_behind_a_nat_that_rebinds() {
    let mut net = own_server(6, Weather::CALM);
    net.establish();
    let id = net.client.open(net.now, false).unwrap();
    assert!(net.echo(id, 2_000, false, 10_000_000));
    for (host, port) in [(1, 6_000), (9, 7_000)] {
        net.nat.insert(client_addr(), address(host, port));
        assert!(
            net.echo(id, 50_000, false, 60_000_000),
            "{:?}",
            net.closed()
        );
        net.run_for(10_000_000);
        let path = net.server.endpoint.path(net.server.h()).unwrap();
        assert_eq!(path.remote, address(host, port));
    }
    assert!(net.server_notes.contains(&Note::Migrated));
    assert!(net.server.is_idle());
}

#[test]
fn quinn_client_that_migrates_on_purpose() {
    let mut net = own_server(7, Weather::CALM);
    net.establish();
    let id = net.client.open(net.now, false).unwrap();
    assert!(net.echo(id, 2_000, false, 10_000_000));
    net.client.rebind(address(3, 9_000));
    assert!(
        net.echo(id, 50_000, false, 60_000_000),
        "{:?}",
        net.closed()
    );
    net.run_for(10_000_000);
    assert_eq!(
        net.server.endpoint.path(net.server.h()).unwrap().remote,
        address(3, 9_000)
    );
    assert!(net.server.is_idle());
}

#[test]
fn all_suites() {
    use rustls::CipherSuite::*;
    for suite in [
        TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384,
        TLS13_CHACHA20_POLY1305_SHA256,
    ] {
        let client = real_client(8, steered(), &[suite], |_| {});
        let server = Quinn::server([1; 32], server_addr());
        let mut net = Net::new(8, Weather::CALM, client, server, server_addr());
        session(&mut net, true, true);
    }
}

#[test]
fn a_megabyte_each_way() {
    let mut net = own_server(
        9,
        Weather {
            delay: 5_000,
            loss: 1,
            ..Weather::CALM
        },
    );
    net.establish();
    let id = net.client.open(net.now, false).unwrap();
    let handle = net.server.h();
    net.server
        .endpoint
        .set_windows(net.now, handle, 1 << 20, 2 << 20)
        .unwrap();
    assert!(
        net.echo(id, 1 << 20, true, 300_000_000),
        "{:?}",
        net.closed()
    );
}
