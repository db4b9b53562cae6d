//! Connections without ids, found by their path (T5).

mod common;

use common::fake::FakeConfig;
use common::net::{Net, Node as _, Weather};
use common::own::{address, fake_client, fake_server, server_addr};
use roadstead_quic::{CidFormat, Connect, ConnectError, Path, Time};

fn connect(socket: u16) -> Connect<'static> {
    Connect {
        server_name: "localhost",
        path: Path {
            socket,
            remote: server_addr(),
        },
        token: Vec::new(),
        home: None,
        app: 0,
    }
}

/// A path that a connection left by migrating is not that of whoever has its slot next.
#[test]
fn a_path_that_was_left_finds_nobody() {
    let client = fake_client(11, CidFormat::Empty, |_, _| {});
    let server = fake_server(11, |_, _| {});
    let mut net = Net::new(11, Weather::CALM, client, server, server_addr());
    net.establish();
    net.run_for(1_000_000);
    net.client.addresses.push(address(3, 7_777));
    let first = net.client.h();
    net.client.endpoint.migrate(net.now, first, 1).unwrap();
    net.run_for(5_000_000);
    net.client.close(net.now);
    net.run_for(20_000_000);
    assert!(net.client.endpoint.is_empty());
    let tls = FakeConfig::new(5);
    let next = net.client.endpoint.connect(net.now, &tls, connect(2));
    let next = next.unwrap();
    assert_eq!(next.index(), first.index(), "the slot is used again");
    let mut late = vec![0x40; 60];
    for socket in [0, 1] {
        let found = net
            .client
            .endpoint
            .handle_datagram(net.now, socket, server_addr(), &mut late);
        assert_eq!(found, None, "socket {socket}");
    }
    // And both paths are free for others.
    for socket in [0, 1] {
        assert!(
            net.client
                .endpoint
                .connect(net.now, &tls, connect(socket))
                .is_ok()
        );
    }
}

#[test]
fn one_connection_per_path() {
    let mut client = fake_client(12, CidFormat::Empty, |_, _| {});
    let tls = FakeConfig::new(5);
    let now = Time::from_millis(1_000);
    let again = client.endpoint.connect(now, &tls, connect(0));
    assert_eq!(again, Err(ConnectError::PathInUse));
    // Any number of sockets: a client's threads have thousands.
    for socket in [1, 255, 256, u16::MAX] {
        let handle = client.endpoint.connect(now, &tls, connect(socket)).unwrap();
        assert_eq!(client.endpoint.path(handle).unwrap().socket, socket);
    }
}
