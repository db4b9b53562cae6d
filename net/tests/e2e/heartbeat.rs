//! T10: a heartbeat is one packet each way.

use std::time::{Duration, Instant};

use super::rig::{self, RunningClient, RunningServer};

/// Longer than a delayed acknowledgement and a probe timeout on loopback.
const QUIET: Duration = Duration::from_millis(150);

/// Packets that the client sent and received, once nothing has moved for a while.
fn when_quiet(server: &RunningServer, client: &RunningClient) -> (u64, u64) {
    let count = || {
        let client = &client.running;
        (
            client.sum(|c| c.packets_sent.get()),
            client.sum(|c| c.packets_received.get()),
        )
    };
    let (mut last, mut since) = (count(), Instant::now());
    while since.elapsed() < QUIET {
        server.ask(0, |_, _| ());
        client.running.ask(0, |_, _| ());
        let now = count();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

#[test]
fn one_packet_each_way() {
    let (server, remote) = rig::serve(rig::server_config(1));
    let client = rig::start(rig::client_config(1, 1));
    let conn = client.open(remote);
    client.echo(conn, b"so that the handshake is confirmed");
    let mut before = when_quiet(&server, &client);
    // A machine that stalls for a moment causes a probe, so the best of some is what counts.
    let best = (0..10).any(|_| {
        client.running.tell(0, move |_, io| io.ping(conn));
        let after = when_quiet(&server, &client);
        let cost = (after.0 - before.0, after.1 - before.1);
        before = after;
        assert!(
            cost.0 >= 1 && cost.1 >= 1,
            "a heartbeat without an answer: {cost:?}"
        );
        cost == (1, 1)
    });
    assert!(best);
    server.kill();
    client.kill();
}
