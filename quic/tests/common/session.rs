//! The life of a mixed pair, whoever the other engine is.

use super::net::{Net, Node, Note};
use super::own::client_addr;

/// How a life went, where it may fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// The handshake did not complete.
    NotConnected,
    /// The connection closed with a reason before all had arrived.
    Closed,
    /// Everything arrived, once and in order.
    Arrived,
}

/// What every pair must manage: a handshake, echoes, a datagram each way, key updates, a close. In any
/// weather all arrives once and in order, or the connection closes with a reason.
pub fn session<C: Node, S: Node>(net: &mut Net<C, S>, own_is_client: bool, calm: bool) -> Life {
    let up = net.run_until(30_000_000, |n| n.connected());
    if !up {
        assert!(
            net.closed().is_some() || !calm,
            "neither connected nor closed"
        );
        return Life::NotConnected;
    }
    let id = net.client.open(net.now, false).expect("a stream");
    let ok = net.echo(id, 100, false, 60_000_000);
    assert!(
        ok || !calm && net.closed().is_some(),
        "first echo: {:?}",
        net.closed()
    );
    net.perhaps_rebind(client_addr());
    net.client.update_keys(net.now);
    let ok = ok && net.echo(id, 30_000, false, 300_000_000);
    assert!(
        ok || !calm && net.closed().is_some(),
        "echo after a key update: {:?}",
        net.closed()
    );
    net.run_for(3_000_000);
    if net.closed().is_none() {
        net.server.update_keys(net.now);
        net.perhaps_rebind(client_addr());
    }
    let ok = ok && net.echo(id, 20_000, true, 300_000_000);
    assert!(
        ok || !calm && net.closed().is_some(),
        "last echo: {:?}",
        net.closed()
    );
    if net.closed().is_none() {
        net.client.send_datagram(net.now, b"typing".to_vec());
        net.server.send_datagram(net.now, b"present".to_vec());
        net.run_for(2_000_000);
        if calm {
            assert!(
                net.client_notes
                    .contains(&Note::Datagram(b"present".to_vec()))
            );
            assert!(
                net.server_notes
                    .contains(&Note::Datagram(b"typing".to_vec()))
            );
        }
        net.run_for(10_000_000);
    }
    if net.closed().is_none() {
        // A PTO that was backed off in bad weather is long, and so is what is kept for three of them.
        let patience = if calm { 0 } else { 60_000_000 };
        let idle = net.run_until(patience, |n| match own_is_client {
            true => n.client.is_idle(),
            false => n.server.is_idle(),
        });
        let idle = idle || net.closed().is_some();
        assert!(idle, "memory returns to the idle size");
        net.client.close(net.now);
        net.run_for(20_000_000);
        let told = net
            .server_notes
            .iter()
            .any(|n| matches!(n, Note::Closed(_)));
        assert!(told || !calm, "the close arrived");
    }
    if ok { Life::Arrived } else { Life::Closed }
}
