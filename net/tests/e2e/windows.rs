//! R26 and T8: what is not read is not sent, on either side of the wire.

use bytes::Bytes;
use roadstead_net::{ConnId, Event};

use super::rig::{self, Report, RunningClient};

const TOTAL: usize = 600_000;

fn byte(at: usize) -> u8 {
    u8::try_from(at % 251).unwrap()
}

/// Writes what is accepted of the bytes from `from` on, and answers how far it came.
fn write_on(client: &RunningClient, conn: ConnId, from: usize) -> usize {
    client.running.ask(0, move |_, io| {
        let data: Vec<u8> = (from..TOTAL).map(byte).collect();
        from + io.write(conn, &data)
    })
}

#[test]
fn a_server_that_does_not_read_holds_the_client_back() {
    let mut config = rig::server_config(1);
    config.transport.receive_window_initial = 4096;
    let (server, remote) = rig::serve_with(config, |_| rig::Echo {
        deaf: true,
        ..rig::Echo::default()
    });
    let client = rig::start(rig::client_config(1, 1));
    let conn = client.open(remote[0]);
    let backlog = roadstead_net::config::SEND_BACKLOG_BYTES_DEFAULT;
    let mut written = write_on(&client, conn, 0);
    assert!(
        written >= backlog && written <= backlog + 4096,
        "{written} accepted"
    );
    assert_eq!(
        client.running.ask(0, move |_, io| io.write_capacity(conn)),
        0
    );
    assert_eq!(write_on(&client, conn, written), written);
    // From here on the server reads, with a larger window.
    server.tell(0, |app, io| {
        app.deaf = false;
        for conn in app.open.keys() {
            io.raise_receive_window(*conn, 64 * 1024);
        }
        let conns: Vec<_> = app.open.keys().copied().collect();
        for conn in conns {
            let mut count = 0;
            while let Some(data) = io.read(conn) {
                count += data.len();
                assert_eq!(io.write(conn, &data), data.len());
            }
            assert!(count <= 4096, "the window was {count}");
        }
    });
    let mut echoed = 0;
    while echoed < TOTAL {
        match client.report() {
            Report::Data(_, _, data) => {
                assert!(
                    data.iter()
                        .enumerate()
                        .all(|(at, b)| *b == byte(echoed + at))
                );
                echoed += data.len();
            }
            Report::Event(_, Event::Writable { .. }) => {
                written = write_on(&client, conn, written);
            }
            Report::Event(_, Event::Readable { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((written, echoed), (TOTAL, TOTAL));
    assert!(client.running.sum(|c| c.gso_trains_sent.get()) > 0);
    server.kill();
    client.kill();
}

#[test]
fn a_datagram_comes_back() {
    let mut config = rig::server_config(1);
    config.transport.datagram_buffer = 4 * 1024;
    let (server, remote) = rig::serve(config);
    let mut config = rig::client_config(1, 1);
    config.transport.datagram_buffer = 4 * 1024;
    let client = rig::start(config);
    let conn = client.open(remote);
    client.running.tell(0, move |_, io| {
        assert!(io.datagram_max(conn).unwrap() >= 1000);
        assert!(io.send_datagram(conn, Bytes::from_static(b"typing")));
        assert!(
            !io.send_datagram(conn, Bytes::from(vec![0; 5000])),
            "too large"
        );
    });
    assert_eq!(
        client.event(),
        Event::Datagram {
            conn,
            data: Bytes::from_static(b"typing")
        }
    );
    server.kill();
    client.kill();
}

#[test]
fn fc9_nobody_announces_datagrams_unless_told() {
    let (server, remote) = rig::serve(rig::server_config(1));
    let client = rig::start(rig::client_config(1, 1));
    let conn = client.open(remote);
    client.echo(conn, b"both are open");
    let (max, sent) = client.running.ask(0, move |_, io| {
        let sent = io.send_datagram(conn, Bytes::from_static(b"typing"));
        (io.datagram_max(conn), sent)
    });
    assert_eq!((max, sent), (None, false), "of the server");
    let known = server.ask(0, |echo, _| *echo.open.keys().next().expect("it is open"));
    let max = server.ask(0, move |_, io| io.datagram_max(known));
    assert_eq!(max, None, "of the client");
    server.kill();
    client.kill();
}
