//! Silence ends a connection, and nothing else.

use std::time::{Duration, Instant};

use roadstead_net::{CloseReason, Transport};

use super::rig;

#[test]
fn both_ends_notice_the_idle_timeout() {
    let mut config = rig::server_config(1);
    config.transport.idle_timeout = Duration::from_millis(400);
    let (server, remote) = rig::serve(config);
    let client = rig::start(rig::client_config(1, 1));
    let conn = client.open(remote);
    client.echo(conn, b"the last thing said");
    let since = Instant::now();
    assert_eq!(client.closed(conn), CloseReason::IdleTimeout);
    assert!(
        since.elapsed() >= Duration::from_millis(300),
        "{:?}",
        since.elapsed()
    );
    server.until("the server noticed", |s| {
        s.sum(|c| c.closed_idle.get()) == 1
    });
    assert_eq!(server.kill()[0].closed, [CloseReason::IdleTimeout]);
    client.kill();
}

#[test]
fn heartbeats_hold_a_session() {
    let mut config = rig::server_config(1);
    config.transport.idle_timeout = Duration::from_millis(600);
    let (server, remote) = rig::serve(config);
    let client = rig::start(rig::client_config(1, 1));
    let conn = client.open(remote);
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(1500) {
        let before = client.running.sum(|c| c.packets_received.get());
        client.running.tell(0, move |_, io| io.ping(conn));
        client.running.until("an answer", |c| {
            c.sum(|c| c.packets_received.get()) > before
        });
    }
    client.echo(conn, b"still here");
    server.kill();
    client.kill();
}

#[test]
fn the_timeout_is_three_heartbeats_and_at_least_90_seconds() {
    let timeout = |seconds| Transport::idle_timeout_for(Duration::from_secs(seconds)).as_secs();
    assert_eq!((timeout(10), timeout(30), timeout(120)), (90, 90, 360));
}
