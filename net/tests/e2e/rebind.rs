//! RFC 9000 section 9: a client whose NAT forgot its mapping goes on from another port.

use super::rig;

#[test]
fn a_rebound_socket_keeps_its_connections() {
    let (server, remote) = rig::serve(rig::server_config(1));
    let client = rig::start(rig::client_config(1, 2));
    let conns: Vec<_> = (0..4).map(|_| client.open(remote)).collect();
    for conn in &conns {
        client.echo(*conn, b"before");
    }
    for _ in 0..3 {
        let before = client.running.ask(0, |_, io| io.sockets().to_vec());
        client.running.ask(0, |_, io| (0..2).for_each(|socket| io.rebind(socket)));
        // It is done at the end of the turn, and another question may come within that turn.
        client.running.until("each socket has another port", |running| {
            let after = running.ask(0, |_, io| io.sockets().to_vec());
            before.iter().zip(&after).all(|(old, new)| old != new)
        });
        for conn in &conns {
            client.echo(*conn, b"after");
        }
    }
    server.kill();
    client.kill();
}
