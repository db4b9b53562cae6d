//! T11: half-open handshakes past the limit make newcomers prove their address, and go in time.

use std::time::Duration;

use roadstead_net::{CloseReason, ConnectParams};

use super::rig;

/// A client that sends `count` first packets and is never heard of again.
fn half_open(remote: std::net::SocketAddr, count: usize) {
    let client = rig::start(rig::client_config(1, 1));
    client.running.tell(0, move |_, io| {
        for _ in 0..count {
            io.connect(&ConnectParams::new(remote, rig::NAME)).unwrap();
        }
        io.stop();
    });
    client.kill();
}

fn remote_of_all() -> std::net::IpAddr {
    rig::loopback().ip()
}

#[test]
fn newcomers_get_a_retry_and_are_served() {
    let mut config = rig::server_config(2);
    config.retry_half_open = 10;
    // All of them come from one address.
    config.blocks.unlimited = vec![(remote_of_all(), 8)];
    config.transport.handshake_timeout = Duration::from_secs(600);
    let (server, remote) = rig::serve(config);
    half_open(remote, 100);
    server.until("both shards are at the limit", |s| {
        s.counters.iter().all(|c| c.half_open.get() >= 10)
            && s.sum(|c| c.half_open.get() + c.retries_sent.get()) >= 100
    });
    let (retries, half_open) = (
        server.sum(|c| c.retries_sent.get()),
        server.sum(|c| c.half_open.get()),
    );
    assert!(half_open <= 20, "{half_open} half open");
    let client = rig::start(rig::client_config(1, 1));
    for _ in 0..10 {
        let conn = client.open(remote);
        client.echo(conn, b"let in after all");
    }
    assert_eq!(server.sum(|c| c.handshakes_full.get()), 10);
    assert!(server.sum(|c| c.retries_sent.get()) >= retries + 10);
    client.kill();
    let shards = server.kill();
    let sum = |pick: fn(&rig::Echo) -> usize| shards.iter().map(pick).sum::<usize>();
    assert_eq!((sum(|app| app.proofs), sum(|app| app.proven)), (10, 10));
}

#[test]
fn past_the_last_limit_newcomers_are_dropped_until_the_dead_are_gone() {
    let mut config = rig::server_config(1);
    config.half_open_max = 8;
    config.blocks.unlimited = vec![(remote_of_all(), 8)];
    config.transport.handshake_timeout = Duration::from_millis(500);
    let (server, remote) = rig::serve(config);
    half_open(remote, 50);
    server.until("some are dropped", |s| {
        s.sum(|c| c.drop_half_open.get()) > 0
    });
    server.until("the dead are gone", |s| {
        s.sum(|c| c.half_open.get()) == 0 && s.sum(|c| c.handshakes_failed_timeout.get()) >= 8
    });
    let client = rig::start(rig::client_config(1, 1));
    let conn = client.open(remote);
    client.echo(conn, b"after the storm");
    client.kill();
    server.kill();
}

/// All of them come from one address, which has a sixteenth of the places; beyond it it has to prove itself.
#[test]
fn tf2_t11_one_address_has_its_part_of_the_places() {
    let mut config = rig::server_config(1);
    config.half_open_max = 64;
    config.transport.handshake_timeout = Duration::from_secs(600);
    let (server, remote) = rig::serve(config);
    half_open(remote, 50);
    server.until("all have come", |s| {
        s.sum(|c| c.half_open.get() + c.retries_sent.get()) >= 50
    });
    assert_eq!(server.sum(|c| c.half_open.get()), 4);
    server.kill();
}

#[test]
fn a_handshake_that_nobody_answers_times_out() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = rig::client_config(1, 1);
    config.transport.handshake_timeout = Duration::from_millis(300);
    let client = rig::start(config);
    let params = ConnectParams::new(silent.local_addr().unwrap(), rig::NAME);
    let conn = client.connect(0, params);
    assert_eq!(client.closed(conn), CloseReason::HandshakeTimeout);
    client.kill();
}
