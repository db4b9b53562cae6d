//! Whoever can send a datagram: Initials of no handshake that is meant to be finished.

use std::net::SocketAddr;

use roadstead_quic::Time;
use roadstead_quic::coding::Writer;
use roadstead_quic::crypto::{KeyRef, Suite, initial_keys, protect};
use roadstead_quic::frame::ty;
use roadstead_quic::packet::{ConnectionId, Kind, Packet as Header};

use super::fake::FakeAead;
use super::net::{Node, Packet};
use super::own::{FakeOwn, server_addr};
use super::rig::ints;

/// One piece of a ClientHello that announces 4 KB.
pub fn first_piece() -> Vec<u8> {
    [ints(&[ty::CRYPTO, 0, 4]), vec![1, 0, 16, 0]].concat()
}

/// A full-sized datagram with one authentic Initial.
pub fn initial(dcid: &ConnectionId, token: &[u8], pn: u32, frames: &[u8]) -> Vec<u8> {
    let mut buf = vec![0; 1_200];
    let mut w = Writer::new(&mut buf);
    w.u8(0xc3);
    w.u32(1);
    for id in [dcid.as_slice(), &[9; 8]] {
        w.u8(u8::try_from(id.len()).expect("short"));
        w.bytes(id);
    }
    w.varint(token.len() as u64);
    w.bytes(token);
    let length_at = w.len();
    w.zeroes(2);
    let pn_offset = w.len();
    w.u32(pn);
    w.bytes(frames);
    w.varint2_at(length_at, 1_200 - pn_offset);
    let keys = initial_keys(&FakeAead, dcid).0;
    let key = KeyRef::of(Suite::Aes128Gcm, &keys);
    protect(&FakeAead, key, &mut buf, pn.into(), pn_offset, 4);
    buf
}

/// An id that is another one for each number.
pub fn id(number: u64) -> ConnectionId {
    let bytes = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    ConnectionId::new(&bytes).expect("8 bytes")
}

/// Hands the server a datagram and returns what it answers to the sender.
pub fn ask(server: &mut FakeOwn, now: Time, from: SocketAddr, data: Vec<u8>) -> Vec<Vec<u8>> {
    let to = server_addr();
    server.receive(now, Packet { from, to, data });
    let mut out = Vec::new();
    server.transmit(now, &mut out);
    server.notes(now);
    server.endpoint.check_invariants();
    let to_sender = out.into_iter().filter(|p| p.to == from);
    to_sender.map(|p| p.data).collect()
}

/// The id and the token of a Retry among the answers.
pub fn retry(answers: &[Vec<u8>]) -> Option<(ConnectionId, Vec<u8>)> {
    answers.iter().find_map(|data| {
        let header = Header::parse(data, 0).ok()?;
        let token = data[header.pn_offset..data.len() - 16].to_vec();
        (header.kind == Kind::Retry).then_some((header.scid, token))
    })
}

/// Begins a handshake with one piece of a hello, and proves the address if that is asked for. Whether the
/// address was proven, and the answers to the last datagram.
pub fn begin(
    server: &mut FakeOwn,
    now: Time,
    from: SocketAddr,
    number: u64,
) -> (bool, Vec<Vec<u8>>) {
    let answers = ask(
        server,
        now,
        from,
        initial(&id(number), &[], 0, &first_piece()),
    );
    let Some((dcid, token)) = retry(&answers) else {
        return (false, answers);
    };
    let answers = ask(server, now, from, initial(&dcid, &token, 1, &first_piece()));
    (true, answers)
}
