//! Many sessions on few sockets, each of which gets its own bytes back.

use std::collections::HashMap;

use bytes::Bytes;
use roadstead_net::{CloseReason, ConnId, ConnectParams, Event};

use super::rig::{self, NAME, Report};

/// Handshakes under way at once. A busy machine must finish them before they time out.
const CONNECTING_MAX: usize = 200;

fn payload(n: usize) -> Vec<u8> {
    (0..600 + n % 3000)
        .map(|at| u8::try_from((at * 31 + n) % 251).unwrap())
        .collect()
}

/// Opens `sessions` over all threads, echoes a payload of its own on each, closes all.
fn echo_many(sessions: usize, shards: u16, threads: u16, sockets: u16) {
    let (server, remote) = rig::serve(rig::server_config(shards));
    let client = rig::start(rig::client_config(threads, sockets));
    let threads = usize::from(threads);
    let connect = |n: usize| {
        client.running.tell(n % threads, move |_, io| {
            io.connect(&ConnectParams::new(remote, NAME)).unwrap();
        });
    };
    (0..sessions.min(CONNECTING_MAX)).for_each(connect);
    let (mut expected, mut done, mut closed) = (HashMap::new(), 0, 0);
    let mut next = 0;
    while closed < sessions {
        match client.report() {
            Report::Event(thread, Event::Opened { conn, resumed, .. }) => {
                assert!(!resumed);
                let data = payload(next);
                next += 1;
                if next + CONNECTING_MAX <= sessions {
                    connect(next + CONNECTING_MAX - 1);
                }
                expected.insert((thread, conn), data.clone());
                client.running.tell(thread, move |_, io| {
                    assert!(io.write_capacity(conn) >= data.len());
                    assert_eq!(io.write(conn, &data), data.len());
                });
            }
            Report::Data(thread, conn, data) => {
                if took(&mut expected, (thread, conn), &data) {
                    done += 1;
                    client
                        .running
                        .tell(thread, move |_, io| io.close(conn, 7, b"done"));
                }
            }
            Report::Event(_, Event::Closed { reason, .. }) => {
                assert_eq!(reason, CloseReason::Local);
                closed += 1;
            }
            Report::Event(_, Event::Readable { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((done, next, expected.len()), (sessions, sessions, 0));
    let all = sessions as u64;
    server.until("every session is closed", |s| {
        s.sum(|c| c.closed_by_peer.get()) == all
    });
    assert_eq!(server.sum(|c| c.handshakes_full.get()), all);
    server.until("nothing is left", |s| {
        s.sum(|c| c.connections.get() + c.half_open.get()) == 0
    });
    assert!(
        server.counters.iter().all(|c| c.handshakes_full.get() > 0),
        "all shards have some"
    );
    client.kill();
    for shard in server.kill() {
        let expected = CloseReason::Application {
            code: 7,
            reason: Bytes::from_static(b"done"),
        };
        assert!(shard.closed.iter().all(|reason| *reason == expected));
        assert!(shard.open.is_empty() && shard.carry.is_empty());
    }
}

fn took(
    expected: &mut HashMap<(usize, ConnId), Vec<u8>>,
    key: (usize, ConnId),
    data: &[u8],
) -> bool {
    let left = expected
        .get_mut(&key)
        .expect("bytes of a session that waits for them");
    assert_eq!(
        left[..data.len()],
        *data,
        "another session's bytes, or out of order"
    );
    left.drain(..data.len());
    left.is_empty() && expected.remove(&key).is_some()
}

#[test]
fn one_session_one_shard() {
    echo_many(1, 1, 1, 1);
}

#[test]
fn a_hundred_sessions_on_one_socket() {
    echo_many(100, 2, 1, 1);
}

#[test]
fn two_thousand_sessions_on_eight_sockets() {
    echo_many(2000, 2, 2, 8);
}
