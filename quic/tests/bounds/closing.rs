//! How a connection ends (RFC 9000 10.2).

use crate::common::fake::FakeAead;
use crate::common::net::{Net, Node as _, Weather};
use crate::common::own::{FakeOwn, fake_client, fake_server, server_addr};
use roadstead_quic::crypto::{KeyRef, Suite, initial_keys, open, unmask};
use roadstead_quic::frame::{Frame, Frames};
use roadstead_quic::packet::Packet as Header;
use roadstead_quic::{CidFormat, Code, Time};

/// RFC 9000 10.2.3: what an application has to say is not shown in packets that anybody can open.
#[test]
fn an_application_is_not_quoted_in_the_handshake_rfc9000_10_2_3() {
    let mut client: FakeOwn = fake_client(31, CidFormat::Compact, |_, _| {});
    let now = Time::from_millis(1_000);
    let mut out = Vec::new();
    client.transmit(now, &mut out);
    let odcid = Header::parse(&out[0].data, 8).unwrap().dcid;
    let handle = client.h();
    client
        .endpoint
        .close_with_reason(now, handle, 7, b"a private matter");
    out.clear();
    client.transmit(now, &mut out);
    let mut data = out[0].data.clone();
    let header = Header::parse(&data, 8).unwrap();
    let (keys, _) = initial_keys(&FakeAead, &odcid);
    let keys = KeyRef::of(Suite::Aes128Gcm, &keys);
    let data = &mut data[..header.end];
    let (len, pn) = unmask(&FakeAead, keys.suite, keys.hp, data, header.pn_offset);
    let payload = open(&FakeAead, keys, data, pn, header.pn_offset + len).unwrap();
    let mut frames = Frames::new(&data[payload.0..payload.1]).unwrap();
    let (_, frame) = frames.next_frame().unwrap().unwrap();
    let Frame::ConnectionClose { code, reason, .. } = frame else {
        panic!("{frame:?}")
    };
    assert_eq!((Code(code), reason), (Code::APPLICATION_ERROR, &b""[..]));
}

/// Acknowledgements that come later and later, by just under the idle timeout: the round trip of a peer that wants it so.
fn late(seed: u64) -> Net<FakeOwn, FakeOwn> {
    let client = fake_client(seed, CidFormat::Compact, |c, _| {
        c.transport.idle_timeout_ms = 120_000
    });
    let server = fake_server(seed, |c, _| c.transport.idle_timeout_ms = 120_000);
    let mut net = Net::new(seed, Weather::CALM, client, server, server_addr());
    net.establish();
    assert_eq!(net.client.open(net.now, false), Some(0));
    net.weather.delay = 20_000_000;
    for _ in 0..3 {
        let (now, text) = (net.now, b"late");
        assert_eq!(net.client.write(now, 0, text), 4);
        net.run_for(60_000_000);
        let now = net.now;
        assert_eq!(net.server.write(now, 0, text), 4);
        net.run_for(60_000_000);
    }
    assert!(net.closed().is_none(), "it is slow, and alive");
    net
}

/// T-F13: a connection that was closed stayed for three probe timeouts of hours.
#[test]
fn tf13_t8_what_is_closed_is_kept_for_ten_seconds_at_most() {
    let mut net = late(41);
    let now = net.now;
    net.client.close(now);
    net.run_for(10_000_000);
    assert_eq!(net.client.endpoint.len(), 0, "it has closed");
    net.run_for(20_000_000);
    assert_eq!(net.server.endpoint.len(), 0, "it has drained");
}

/// And one that fell silent outlived its idle timeout by as much.
#[test]
fn tf13_t8_a_dead_connection_outlives_its_timeout_by_a_minute_at_most() {
    let mut net = late(42);
    net.weather.loss = 100;
    // What is under way still arrives.
    net.run_for(20_000_000);
    net.run_for(180_000_000);
    assert_eq!(
        (net.client.endpoint.len(), net.server.endpoint.len()),
        (0, 0)
    );
}
