//! Ends of connections, as both sides see them.

use bytes::Bytes;
use roadstead_net::{CloseReason, ConnectError, ConnectParams, Event};

use super::rig;

#[test]
fn the_server_closes_with_a_code() {
    let (server, remote) = rig::serve(rig::server_config(1));
    let client = rig::start(rig::client_config(1, 1));
    let conn = client.open(remote);
    client.echo(conn, b"hello");
    server.tell(0, |app, io| {
        let session = *app.open.keys().next().unwrap();
        assert_eq!(io.write(session, b"last words"), 10);
        io.close(session, 42, b"enough");
        assert_eq!(io.write(session, b"too late"), 0);
        io.close(session, 43, b"twice");
    });
    match client.report() {
        rig::Report::Data(_, from, data) => {
            assert_eq!((from, &data[..]), (conn, &b"last words"[..]));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.event(), Event::Readable { conn });
    let reason = Bytes::from_static(b"enough");
    assert_eq!(
        client.closed(conn),
        CloseReason::Application { code: 42, reason }
    );
    assert_eq!(server.kill()[0].closed, [CloseReason::Local]);
    client.kill();
}

#[test]
fn a_finished_stream_is_told_and_answered() {
    let (server, remote) = rig::serve(rig::server_config(1));
    let client = rig::start(rig::client_config(1, 1));
    let conn = client.open(remote);
    client.echo(conn, b"all");
    client.running.tell(0, move |_, io| io.finish(conn));
    loop {
        match client.event() {
            Event::Finished { .. } => break,
            Event::Readable { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    server.kill();
    client.kill();
}

#[test]
fn a_name_of_a_connection_that_is_gone_finds_nothing() {
    let (server, remote) = rig::serve(rig::server_config(1));
    let client = rig::start(rig::client_config(1, 1));
    let first = client.open(remote);
    client.running.tell(0, move |_, io| io.close(first, 0, b""));
    assert_eq!(client.closed(first), CloseReason::Local);
    client.running.tell(0, move |_, io| {
        io.close(first, 0, b"");
        io.ping(first);
        assert_eq!((io.write(first, b"x"), io.write_capacity(first)), (0, 0));
        assert!(io.read(first).is_none() && !io.is_open(first) && io.peer(first).is_none());
    });
    let second = client.open(remote);
    assert_ne!(first, second);
    client.echo(second, b"the second");
    server.kill();
    client.kill();
}

#[test]
fn one_killed_client_harms_no_other() {
    let mut config = rig::server_config(1);
    config.transport.idle_timeout = std::time::Duration::from_millis(800);
    let (server, remote) = rig::serve(config);
    let victim = rig::start(rig::client_config(1, 1));
    let other = rig::start(rig::client_config(1, 1));
    let doomed = victim.open(remote);
    victim.echo(doomed, b"still here");
    let conn = other.open(remote);
    victim.kill();
    while server.sum(|c| c.closed_idle.get()) == 0 {
        other.echo(conn, b"alive");
    }
    let shard = server.kill().remove(0);
    assert_eq!(
        (shard.closed, shard.open.len()),
        (vec![CloseReason::IdleTimeout], 1)
    );
    other.kill();
}

#[test]
fn a_connect_that_cannot_be_is_refused_at_once() {
    let (server, remote) = rig::serve(rig::server_config(1));
    let client = rig::start(rig::client_config(1, 1));
    let wrong = [
        ConnectParams::new("[::1]:9".parse().unwrap(), rig::NAME),
        ConnectParams {
            socket: Some(9),
            ..ConnectParams::new(remote, rig::NAME)
        },
        ConnectParams::new(remote, "not a name"),
        ConnectParams::new("127.0.0.1:0".parse().unwrap(), rig::NAME),
    ];
    for params in wrong {
        let text = format!("{params:?}");
        let error = client.running.ask(0, move |_, io| io.connect(&params));
        assert!(error.is_err(), "{text}");
    }
    let refused = server.ask(0, move |_, io| {
        io.connect(&ConnectParams::new(remote, rig::NAME))
    });
    assert_eq!(refused, Err(ConnectError::NotAClient));
    server.kill();
    client.kill();
}
