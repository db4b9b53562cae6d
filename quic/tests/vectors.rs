//! The vectors of RFC 9001 A, through the seams, with aws-lc-rs.

mod common;

use common::real::AwsAead;
use roadstead_quic::crypto::{
    DirectionKeys, KeyRef, Suite, initial_keys, next_secret, open, protect, retry_tag, unmask,
};
use roadstead_quic::packet::{ConnectionId, Kind, Packet, pn_decode};

fn hex(s: &str) -> Vec<u8> {
    let digits: Vec<u8> = s.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap())
        .collect()
}

fn dcid() -> ConnectionId {
    ConnectionId::new(&hex("8394c8f03e515708")).unwrap()
}

#[test]
fn initial_keys_of_rfc9001_a1() {
    let (client, server) = initial_keys(&AwsAead, &dcid());
    assert_eq!(
        client.key[..16],
        hex("1f369613dd76d5467730efcbe3b1a22d")[..]
    );
    assert_eq!(client.iv[..], hex("fa044b2f42a3fd3b46fb255c")[..]);
    assert_eq!(client.hp[..16], hex("9f50449e04a0e810283a1e9933adedd2")[..]);
    assert_eq!(
        server.key[..16],
        hex("cf3a5331653c364c88f0f379b6067e37")[..]
    );
    assert_eq!(server.iv[..], hex("0ac1493ca1905853b0bba03e")[..]);
    assert_eq!(server.hp[..16], hex("c206b8d9b9f0f37644430b490eeaa314")[..]);
}

#[test]
fn client_initial_of_rfc9001_a2() {
    let (client, _) = initial_keys(&AwsAead, &dcid());
    let keys = KeyRef::of(Suite::Aes128Gcm, &client);
    let hello = hex(
        "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868
         04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578
         616d706c652e636f6dff01000100000a00080006001d00170018001000070005
         04616c706e000500050100000000003300260024001d00209370b2c9caa47fba
         baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400
         0d0010000e0403050306030203080408050806002d00020101001c0002400100
         3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000
         75300901100f088394c8f03e51570806048000ffff",
    );
    let mut packet = hex("c300000001088394c8f03e5157080000449e00000002");
    let header = packet.len();
    packet.extend_from_slice(&hello);
    packet.resize(header + 1_162 + 16, 0);
    protect(&AwsAead, keys, &mut packet, 2, header - 4, 4);
    assert_eq!(
        packet[..header],
        hex("c000000001088394c8f03e5157080000449e7b9aec34")[..]
    );
    assert_eq!(
        packet[header..header + 16],
        hex("d1b1c98dd7689fb8ec11d242b123dc9b")[..]
    );
    assert_eq!(
        packet[packet.len() - 16..],
        hex("e221af44860018ab0856972e194cd934")[..]
    );
    assert_eq!(packet.len(), 1_200);
    // And back.
    let parsed = Packet::parse(&packet, 0).unwrap();
    assert_eq!(
        (parsed.kind, parsed.dcid, parsed.end),
        (Kind::Initial, dcid(), 1_200)
    );
    let (len, bits) = unmask(&AwsAead, keys.suite, keys.hp, &mut packet, parsed.pn_offset);
    let pn = pn_decode(None, bits, len).unwrap();
    assert_eq!(pn, 2);
    let plain = open(&AwsAead, keys, &mut packet, pn, parsed.pn_offset + len).unwrap();
    assert_eq!(packet[plain.0..plain.0 + hello.len()], hello[..]);
}

#[test]
fn server_initial_of_rfc9001_a3() {
    let (_, server) = initial_keys(&AwsAead, &dcid());
    let keys = KeyRef::of(Suite::Aes128Gcm, &server);
    let mut packet = hex("c1000000010008f067a5502a4262b50040750001");
    let header = packet.len();
    packet.extend(hex(
        "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf739
         88cfc79825df566dc5430b9a045a1200130100002e00330024001d00209d3c94
         0d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00
         020304",
    ));
    packet.extend([0; 16]);
    protect(&AwsAead, keys, &mut packet, 1, header - 2, 2);
    assert_eq!(
        packet,
        hex(
            "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a
             5816b6394100f37a1c69797554780bb38cc5a99f5ede4cf73c3ec2493a1839b3
             dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84
             022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc4
             2158407dd074ee"
        )
    );
}

#[test]
fn retry_of_rfc9001_a4() {
    let packet = hex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba");
    let (body, tag) = packet.split_at(packet.len() - 16);
    assert_eq!(retry_tag(&AwsAead, &dcid(), body)[..], *tag);
    assert_eq!(Packet::parse(&packet, 0).unwrap().kind, Kind::Retry);
}

#[test]
fn chacha20_short_header_of_rfc9001_a5() {
    let suite = Suite::ChaCha20Poly1305;
    let secret = hex("9ac312a7f877468ebe69422748ad00a15443f18203a07d6060f688f30f21632b");
    let keys = DirectionKeys::derive(&AwsAead, suite, &secret);
    assert_eq!(
        keys.key[..],
        hex("c6d98ff3441c3fe1b2182094f69caa2ed4b716b65488960a7a984979fb23e1c8")[..]
    );
    assert_eq!(keys.iv[..], hex("e0459b3474bdd0e44a41c144")[..]);
    assert_eq!(
        keys.hp[..],
        hex("25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4")[..]
    );
    let mut next = [0; 32];
    next_secret(&AwsAead, suite, &secret, &mut next);
    assert_eq!(
        next[..],
        hex("1223504755036d556342ee9361d253421a826c9ecdf3c7148684b36b714881f9")[..]
    );
    let mut packet = hex("4200bff401");
    packet.extend([0; 16]);
    protect(
        &AwsAead,
        KeyRef::of(suite, &keys),
        &mut packet,
        654_360_564,
        1,
        3,
    );
    assert_eq!(packet, hex("4cfe4189655e5cd55c41f69080575d7999c25a5bfb"));
}
