//! T8: what waits, for its turn or for its shard, is at most as large as what this end advertises to take.

use std::net::{SocketAddr, UdpSocket};

use roadstead_net::config::DATAGRAM_BYTES_MAX;

use super::rig;

/// A datagram that begins like an Initial of a newcomer, for the shard of its prefix.
fn initial(prefix: u8, size: usize) -> Vec<u8> {
    let mut bytes = vec![0xc3, 0, 0, 0, 1, 8, prefix, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0x44, 0xd0];
    bytes.resize(size, 7);
    bytes
}

/// One of an established session, for the shard of its prefix.
fn short(prefix: u8, size: usize) -> Vec<u8> {
    let mut bytes = vec![0x43, prefix];
    bytes.resize(size, 7);
    bytes
}

fn send(remote: SocketAddr, datagrams: &[Vec<u8>]) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for datagram in datagrams {
        socket.send_to(datagram, remote).unwrap();
    }
}

#[test]
fn tf10_t8_a_waiting_initial_is_at_most_of_the_advertised_size() {
    let (server, remote) = rig::serve(rig::server_config(1));
    let sizes = [DATAGRAM_BYTES_MAX + 1, 9_000, 60_000];
    send(remote, &sizes.map(|size| initial(1, size)));
    server.until("all are dropped", |s| s.sum(|c| c.drop_oversized.get()) == 3);
    // One of full size is looked at, and is none.
    send(remote, &[initial(1, DATAGRAM_BYTES_MAX)]);
    server.until("it had its turn", |s| s.sum(|c| c.drop_unroutable.get()) == 1);
    assert_eq!(server.sum(|c| c.drop_oversized.get()), 3);
    assert_eq!(server.sum(|c| c.half_open.get()), 0);
    let client = rig::start(rig::client_config(1, 1));
    let conn = client.open(remote);
    client.echo(conn, b"as ever");
    client.kill();
    server.kill();
}

#[test]
fn tf10_t8_a_stray_is_at_most_of_the_advertised_size() {
    let mut config = rig::server_config(2);
    config.steer_in_kernel = false;
    let (server, remote) = rig::serve(config);
    // For both shards: whichever the kernel chooses, half of them are strays.
    for prefix in [0, 0xff] {
        let large = |size| [initial(prefix, size), short(prefix, size)];
        let large: Vec<_> = [DATAGRAM_BYTES_MAX + 1, 60_000].map(large).concat();
        send(remote, &large);
    }
    server.until("all are dropped", |s| s.sum(|c| c.drop_oversized.get()) == 8);
    assert_eq!(server.sum(|c| c.strays_received.get()), 0);
    server.kill();
}
