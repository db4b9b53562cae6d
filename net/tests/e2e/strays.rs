//! T1: a packet that lands on the wrong shard reaches the right one, and only the owner answers.

use roadstead_net::Event;

use super::rig;

#[test]
fn sessions_live_without_steering_by_forwarding() {
    let mut config = rig::server_config(2);
    config.steer_in_kernel = false;
    let (server, remote) = rig::serve(config);
    // Sockets of their own, so that the kernel's hash of the addresses spreads them.
    let client = rig::start(rig::client_config(1, 16));
    let sessions: Vec<_> = (0..32).map(|_| client.open(remote)).collect();
    for conn in &sessions {
        client.echo(*conn, b"over the wrong shard and back");
    }
    let forwarded = server.sum(|c| c.strays_forwarded.get());
    assert!(forwarded > 32, "{forwarded} strays");
    // The owner mostly sleeps when a stray comes, and is woken through its ring.
    assert!(server.sum(|c| c.wakes_sent.get()) > 0 && server.sum(|c| c.wakes_received.get()) > 0);
    server.until("all are taken", |s| {
        s.sum(|c| c.strays_taken.get()) == s.sum(|c| c.strays_forwarded.get())
    });
    assert_eq!(
        server.sum(|c| c.strays_received.get()),
        server.sum(|c| c.strays_forwarded.get())
    );
    assert_eq!(
        server.sum(|c| c.resets_sent.get() + c.drop_stray_queue_full.get()),
        0
    );
    let shards = server.kill();
    assert_eq!(
        shards.iter().map(|shard| shard.open.len()).sum::<usize>(),
        sessions.len()
    );
    assert!(shards.iter().all(|shard| !shard.open.is_empty()));
    client.kill();
}

#[test]
fn with_steering_nothing_is_forwarded() {
    let (server, remote) = rig::serve(rig::server_config(2));
    let client = rig::start(rig::client_config(1, 4));
    for _ in 0..16 {
        let conn = client.open(remote);
        client.echo(conn, b"straight");
    }
    assert_eq!(server.sum(|c| c.strays_received.get()), 0);
    server.kill();
    client.kill();
}

#[test]
fn a_home_prefix_chooses_the_shard() {
    use roadstead_net::{ConnectParams, HomePrefix};
    let (server, remote) = rig::serve(rig::server_config(2));
    let client = rig::start(rig::client_config(1, 4));
    for shard in [1_u16, 0, 1, 1] {
        let mut params = ConnectParams::new(remote, rig::NAME);
        params.home = Some(HomePrefix {
            prefix: shard << 15,
            bits: 1,
        });
        let conn = client.connect(0, params);
        assert!(matches!(client.event(), Event::Opened { .. }));
        client.echo(conn, b"home");
    }
    let homes: Vec<_> = server.kill().iter().map(|shard| shard.open.len()).collect();
    assert_eq!(homes, [1, 3]);
    client.kill();
}

#[test]
fn each_address_answers_for_itself() {
    let mut config = rig::server_config(2);
    config.addresses = vec![
        "127.0.0.1:0".parse().unwrap(),
        "127.0.0.2:0".parse().unwrap(),
    ];
    let (server, addresses) = rig::serve_with(config, |_| rig::Echo::default());
    let client = rig::start(rig::client_config(1, 2));
    // A client takes no packet from another address than the one it sent to, so an echo proves it.
    for n in 0..8 {
        let conn = client.open(addresses[n % 2]);
        client.echo(conn, b"from here");
    }
    server.kill();
    client.kill();
}

#[test]
fn both_families_are_served_by_one_loop() {
    let v6: std::net::SocketAddr = "[::1]:0".parse().unwrap();
    if std::net::UdpSocket::bind(v6).is_err() {
        return; // This machine has no IPv6.
    }
    let mut config = rig::server_config(2);
    config.addresses.push(v6);
    let (server, addresses) = rig::serve_with(config, |_| rig::Echo::default());
    let mut config = rig::client_config(1, 4);
    config.local.push(v6);
    let client = rig::start(config);
    for n in 0..8 {
        let conn = client.open(addresses[n % 2]);
        client.echo(conn, b"either way");
    }
    server.kill();
    client.kill();
}
