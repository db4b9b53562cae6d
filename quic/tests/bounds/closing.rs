//! How a connection ends (RFC 9000 10.2).

use crate::common::fake::FakeAead;
use crate::common::net::Node as _;
use crate::common::own::{FakeOwn, fake_client};
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
