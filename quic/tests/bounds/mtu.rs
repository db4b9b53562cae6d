//! Path MTU discovery and black holes (RFC 9000 14.3, RFC 8899).

use crate::common::net::{Net, Node as _, Weather};
use crate::common::own::{FakeOwn, fake_client, fake_server, server_addr};
use roadstead_quic::CidFormat;

fn pair(mtu: usize) -> Net<FakeOwn, FakeOwn> {
    let client = fake_client(21, CidFormat::Compact, |c, _| {
        c.transport.datagram_frame_max = 1_500;
        c.transport.stream_window = 64 << 10;
        c.transport.connection_window = 64 << 10;
    });
    let server = fake_server(21, |c, _| {
        c.transport.datagram_frame_max = 1_500;
        c.transport.stream_window = 64 << 10;
        c.transport.connection_window = 64 << 10;
    });
    let weather = Weather {
        mtu,
        ..Weather::CALM
    };
    let mut net = Net::new(21, weather, client, server, server_addr());
    net.establish();
    net
}

/// The UDP payload that the client uses, from what it leaves for a datagram frame.
fn payload(net: &Net<FakeOwn, FakeOwn>) -> usize {
    let handle = net.client.h();
    let frame = net.client.endpoint.datagram_max(handle).unwrap();
    frame + 1 + 12 + 4 + 16 + 3
}

#[test]
fn bulk_finds_what_the_path_carries_rfc8899() {
    for mtu in [1_200, 1_210, 1_280, 1_399, 1_452, 1_500] {
        let mut net = pair(mtu);
        let id = net.client.open(net.now, false).unwrap();
        assert_eq!(payload(&net), 1_200);
        assert!(
            net.echo(id, 1_500_000, false, 120_000_000),
            "{:?}",
            net.closed()
        );
        let (found, best) = (payload(&net), mtu.min(1_452));
        assert!(found <= best, "{found} of {best}");
        assert!(found + 16 > best, "{found} of {best}");
        net.run_for(5_000_000);
        assert!(net.client.is_idle() && net.server.is_idle());
        assert_eq!(
            payload(&net),
            found,
            "an idle connection keeps what was found"
        );
        assert_eq!(net.closed(), None);
    }
}

/// RFC 9000 14.4: probes that are lost cost no window. On a path without any other loss, a search in
/// vain takes hardly longer than none.
#[test]
fn lost_probes_are_no_congestion_rfc9000_14_4() {
    let time = |mtu| {
        let mut net = pair(mtu);
        let id = net.client.open(net.now, false).unwrap();
        let begun = net.now;
        assert!(net.echo(id, 1_000_000, false, 120_000_000));
        net.now.since(begun)
    };
    let (narrow, wide) = (time(1_200), time(1_500));
    assert!(narrow < wide * 3 / 2, "{narrow} and {wide} us");
}

#[test]
fn chat_never_searches() {
    let mut net = pair(1_500);
    let id = net.client.open(net.now, false).unwrap();
    for _ in 0..200 {
        assert!(net.echo(id, 100, false, 5_000_000));
        net.run_for(1_000_000);
    }
    assert_eq!(payload(&net), 1_200);
}

/// RFC 8899 4.3: the path becomes narrower in the middle of a transfer, or while nobody looks.
#[test]
fn a_black_hole_is_noticed_rfc8899_4_3() {
    for idle in [false, true] {
        let mut net = pair(1_500);
        let id = net.client.open(net.now, false).unwrap();
        assert!(net.echo(id, 300_000, false, 60_000_000));
        assert_eq!(payload(&net), 1_452);
        if idle {
            net.run_for(5_000_000);
            assert!(net.client.is_idle());
        }
        net.weather.mtu = 1_250;
        let begun = net.now;
        assert!(
            net.echo(id, 300_000, false, 60_000_000),
            "{:?}",
            net.closed()
        );
        assert!(
            net.now.since(begun) < 20_000_000,
            "{}",
            net.now.since(begun)
        );
        assert!(payload(&net) <= 1_250, "{}", payload(&net));
        assert_eq!(net.closed(), None);
    }
}

/// RFC 9000 14.2: what was found belongs to the path it was found on.
#[test]
fn another_path_begins_at_the_base_rfc9000_14_2() {
    let mut net = pair(1_500);
    let id = net.client.open(net.now, false).unwrap();
    assert!(net.echo(id, 300_000, false, 60_000_000));
    assert_eq!(payload(&net), 1_452);
    net.run_for(5_000_000);
    net.client
        .addresses
        .push(crate::common::own::address(3, 7_777));
    let handle = net.client.h();
    net.client.endpoint.migrate(net.now, handle, 1).unwrap();
    assert_eq!(payload(&net), 1_200);
    net.run_for(5_000_000);
    assert_eq!(net.closed(), None);
}
