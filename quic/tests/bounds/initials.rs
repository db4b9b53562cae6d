//! Initial packets (RFC 9000 14.1, 17.2.2).

use crate::common::rig::{Edit, Rig, ints};
use roadstead_quic::frame::ty;
use roadstead_quic::packet::{Level, Packet as Header};
use roadstead_quic::{CidFormat, Code, Side};

const PLAIN: Edit = |_, _| {};

/// Not only the first one of a connection.
#[test]
fn initials_in_small_datagrams_are_discarded_rfc9000_14_1() {
    let mut rig = Rig::start(CidFormat::Compact, PLAIN, PLAIN);
    rig.hello();
    let wrong = ints(&[ty::HANDSHAKE_DONE]);
    let full = rig.forge(Level::Initial, Side::Client, &wrong);
    let end = Header::parse(&full, 12).unwrap().end;
    assert!(end < 1_200);
    for len in [end, 1_199] {
        rig.deliver(Side::Client, full[..len].to_vec());
        assert_eq!(rig.closed_with(Side::Server), None, "{len} bytes");
    }
    rig.inject(Level::Initial, Side::Client, &wrong);
    assert_eq!(
        rig.closed_with(Side::Server),
        Some(Code::PROTOCOL_VIOLATION)
    );
}
