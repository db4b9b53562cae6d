//! Peers that speak something else.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use roadstead_net::{
    CloseReason, ConnectParams,
    tls::{ALPN, ClientTls, ServerTls},
};

use super::rig;

#[test]
fn a_wrong_protocol_name_is_told_to_both() {
    let (server, remote) = rig::serve(rig::server_config(1));
    let mut config = rig::client_config(1, 1);
    config.tls = rig::client_tls(&[b"something/9"], false);
    let stranger = rig::start(config);
    let conn = stranger.connect(0, ConnectParams::new(remote, rig::NAME));
    assert_eq!(stranger.closed(conn), CloseReason::Alpn);
    server.until("it is counted", |s| {
        s.sum(|c| c.handshakes_failed_alpn.get()) == 1
    });
    assert_eq!(server.sum(|c| c.handshakes_full.get()), 0);
    let client = rig::start(rig::client_config(1, 1));
    let conn = client.open(remote);
    client.echo(conn, b"unharmed");
    assert_eq!(server.kill()[0].closed, []);
    stranger.kill();
    client.kill();
}

#[test]
fn a_certificate_that_is_not_trusted_ends_the_handshake() {
    let (server, remote) = rig::serve(rig::server_config(1));
    let other = rcgen::generate_simple_self_signed([rig::NAME.to_owned()]).unwrap();
    let mut config = rig::client_config(1, 1);
    let tls = ClientTls::trusting_pem(other.cert.pem().as_bytes(), &[ALPN], false).unwrap();
    config.tls = Arc::new(tls);
    let client = rig::start(config);
    let conn = client.connect(0, ConnectParams::new(remote, rig::NAME));
    assert!(matches!(client.closed(conn), CloseReason::Tls { .. }));
    server.until("it is counted", |s| {
        s.sum(|c| c.handshakes_failed.get()) == 1
    });
    server.kill();
    client.kill();
}

/// T11: a chain of 5 KB does not fit what a server may send before the address is proven.
#[test]
fn a_long_chain_is_served_within_the_amplification_limit() {
    let names: Vec<String> = (0..160)
        .map(|n| format!("{n:030}.roadstead.test"))
        .collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    assert!(made.cert.der().len() > 5000, "{}", made.cert.der().len());
    let mut config = rig::server_config(2);
    let tls = ServerTls::from_pem(chain.as_bytes(), key.as_bytes(), &[ALPN], None).unwrap();
    config.tls = Arc::new(tls);
    let (server, remote) = rig::serve(config);
    let mut config = rig::client_config(1, 1);
    config.tls = Arc::new(ClientTls::dangerous_accept_any(&[ALPN]).unwrap());
    let client = rig::start(config);
    let conn = client.open(remote);
    client.echo(conn, b"a long introduction");
    server.kill();
    client.kill();
}

#[test]
fn any_certificate_will_do_for_a_test() {
    let (server, remote) = rig::serve(rig::server_config(1));
    let mut config = rig::client_config(1, 1);
    config.tls = Arc::new(ClientTls::dangerous_accept_any(&[ALPN]).unwrap());
    let client = rig::start(config);
    let conn = client.open(remote);
    client.echo(conn, b"whoever you are");
    server.kill();
    client.kill();
}

/// RFC 9000 section 5.2.2: versions are negotiated with datagrams of 1,200 bytes and more only.
#[test]
fn an_unknown_version_is_answered_if_the_datagram_is_large() {
    let (server, remote) = rig::serve(rig::server_config(1));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(rig::PATIENCE)).unwrap();
    let mut packet = vec![0xc0, 0x0a, 0x0a, 0x0a, 0x0a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0];
    packet.resize(1199, 0);
    socket.send_to(&packet, remote).unwrap();
    packet.push(0);
    packet[6] = 0xff;
    socket.send_to(&packet, remote).unwrap();
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).unwrap();
    assert_eq!(answer[1..5], [0; 4], "a version negotiation packet");
    assert!(
        answer[..length]
            .windows(4)
            .any(|version| version == [0, 0, 0, 1])
    );
    server.until("both are counted", |s| {
        s.sum(|c| c.other_responses_sent.get()) == 1 && s.sum(|c| c.drop_unroutable.get()) == 1
    });
    server.kill();
}

#[test]
fn noise_harms_nobody() {
    let (server, remote) = rig::serve(rig::server_config(2));
    let client = rig::start(rig::client_config(1, 1));
    let conn = client.open(remote);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut x = 1_u32;
    for n in 0..3000_usize {
        let mut noise: Vec<u8> = (0..n % 1400)
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                x.to_be_bytes()[0]
            })
            .collect();
        if n % 3 == 0 && noise.len() > 6 {
            noise[..6].copy_from_slice(&[0xc0, 0, 0, 0, 1, 8]);
        }
        socket.send_to(&noise, remote).unwrap();
        if n % 500 == 0 {
            client.echo(conn, b"through the noise");
        }
    }
    client.echo(conn, b"after the noise");
    server.kill();
    client.kill();
}

#[test]
fn the_kernel_gives_up_no_port_that_is_taken() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = rig::server_config(1);
    config.addresses = vec![taken.local_addr().unwrap()];
    config.transport.idle_timeout = Duration::from_secs(1);
    let error = roadstead_net::Server::<()>::bind(config)
        .map(drop)
        .unwrap_err();
    assert!(
        error.to_string().contains("in use by another process"),
        "{error}"
    );
}
