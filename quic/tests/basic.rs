//! One connection in fair weather: handshake, streams, heartbeats, close.

mod common;

use common::net::{Net, Note, Weather};
use common::own::{FakeOwn, fake_client, fake_server, server_addr, steered};
use roadstead_quic::CidFormat;

fn pair(seed: u64, format: CidFormat) -> Net<FakeOwn, FakeOwn> {
    let client = fake_client(seed, format, |_, _| {});
    let server = fake_server(seed, |_, _| {});
    Net::new(seed, Weather::CALM, client, server, server_addr())
}

#[test]
fn handshake_echo_and_back_to_idle() {
    for format in [CidFormat::Empty, CidFormat::Compact, steered()] {
        let mut net = pair(1, format);
        net.establish();
        let id = net.client.open(net.now, false).expect("a stream");
        assert_eq!(id, 0);
        assert!(net.echo(id, 100, false, 5_000_000), "{:?}", net.closed());
        assert!(
            net.echo(id, 100_000, false, 60_000_000),
            "{:?}",
            net.closed()
        );
        net.run_for(5_000_000);
        assert!(
            net.client.is_idle() && net.server.is_idle(),
            "memory returns to the idle size"
        );
        assert_eq!(net.closed(), None);
    }
}

use common::net::Node as _;

#[test]
fn close_reaches_the_peer_and_frees_the_slot() {
    let mut net = pair(2, CidFormat::Empty);
    net.establish();
    net.run_for(1_000_000);
    net.client.close(net.now);
    net.run_for(30_000_000);
    assert!(
        net.server_notes
            .iter()
            .any(|n| matches!(n, Note::Closed(r) if r.contains("42")))
    );
    assert!(net.client.endpoint.is_empty() && net.server.endpoint.is_empty());
}
