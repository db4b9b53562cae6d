//! A server that comes back: old sessions are reset at once, tickets still work.

use std::{net::SocketAddr, time::Instant};

use roadstead_net::{
    CloseReason, ConnectParams, Error, Event, SecretKeys, Server, ServerConfig, tls::TicketKeys,
};

use super::rig::{self, RunningServer};

/// The kernel frees the port of the old server a moment after its rings are gone.
fn serve_again(address: SocketAddr, make: impl Fn() -> ServerConfig) -> RunningServer {
    let since = Instant::now();
    loop {
        let mut config = make();
        config.addresses = vec![address];
        match Server::<()>::bind(config) {
            Ok(probe) => drop(probe),
            Err(Error::PortInUse { .. }) if since.elapsed() < rig::PATIENCE => {
                std::thread::yield_now();
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        let mut config = make();
        config.addresses = vec![address];
        return rig::serve(config).0;
    }
}

/// The keys of the next start: the epoch is counted up (T2).
fn later(keys: &SecretKeys) -> SecretKeys {
    SecretKeys {
        epoch: keys.epoch + 1,
        ..keys.clone()
    }
}

fn config(keys: &SecretKeys) -> ServerConfig {
    ServerConfig {
        keys: keys.clone(),
        ..rig::server_config(2)
    }
}

#[test]
fn the_same_key_resets_old_sessions() {
    let keys = SecretKeys::random();
    let (server, remote) = rig::serve(config(&keys));
    let client = rig::start(rig::client_config(1, 4));
    let sessions: Vec<_> = (0..20).map(|_| client.open(remote)).collect();
    for conn in &sessions {
        client.echo(*conn, b"before");
    }
    server.kill();
    let server = serve_again(remote, || config(&later(&keys)));
    for conn in &sessions {
        let conn = *conn;
        client.running.tell(0, move |_, io| io.ping(conn));
    }
    for _ in &sessions {
        match client.event() {
            Event::Closed { reason, .. } => assert_eq!(reason, CloseReason::StatelessReset),
            other => panic!("{other:?}"),
        }
    }
    assert!(server.sum(|c| c.resets_sent.get()) >= 20);
    let conn = client.open(remote);
    client.echo(conn, b"after");
    server.kill();
    client.kill();
}

#[test]
fn resets_have_a_budget() {
    let keys = SecretKeys::random();
    let (server, remote) = rig::serve(config(&keys));
    let client = rig::start(rig::client_config(1, 1));
    let conn = client.open(remote);
    client.echo(conn, b"before");
    server.kill();
    let server = serve_again(remote, || ServerConfig {
        resets_per_second: 0,
        ..config(&later(&keys))
    });
    client.running.tell(0, move |_, io| io.ping(conn));
    server.until("one is suppressed", |s| {
        s.sum(|c| c.resets_suppressed.get()) > 0
    });
    assert_eq!(server.sum(|c| c.resets_sent.get()), 0);
    assert!(client.running.ask(0, move |_, io| io.is_open(conn)));
    server.kill();
    client.kill();
}

#[test]
fn tickets_survive_a_restart() {
    let (keys, tickets) = (SecretKeys::random(), TicketKeys::random());
    let with_tickets = |keys: &SecretKeys| ServerConfig {
        tls: rig::server_tls(Some(tickets.clone())),
        keys: keys.clone(),
        ..rig::server_config(1)
    };
    let (server, remote) = rig::serve(with_tickets(&keys));
    let mut config = rig::client_config(1, 1);
    config.tls = rig::client_tls(&[roadstead_net::tls::ALPN], true);
    let client = rig::start(config);
    let open = |expected: bool| {
        let conn = client.connect(0, ConnectParams::new(remote, rig::NAME));
        match client.event() {
            Event::Opened { resumed, .. } => assert_eq!(resumed, expected),
            other => panic!("{other:?}"),
        }
        // The ticket comes before the echo.
        client.echo(conn, b"a ticket, please");
        client.running.tell(0, move |_, io| io.close(conn, 0, b""));
        client.closed(conn);
    };
    open(false);
    open(true);
    assert_eq!(server.sum(|c| c.handshakes_resumed.get()), 1);
    server.kill();
    let server = serve_again(remote, || with_tickets(&later(&keys)));
    open(true);
    let counts = (
        server.sum(|c| c.handshakes_full.get()),
        server.sum(|c| c.handshakes_resumed.get()),
    );
    assert_eq!(counts, (0, 1));
    assert_eq!(server.kill()[0].resumed, 1);
    client.kill();
}
