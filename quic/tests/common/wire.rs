//! What the packets on the wire say: opened with the secrets of the fake handshake.

use roadstead_quic::Side;
use roadstead_quic::crypto::{DirectionKeys, KeyRef, Suite, open, unmask};
use roadstead_quic::frame::{Frame, Frames};
use roadstead_quic::packet::{Kind, Packet as Header};

use super::fake::{FakeAead, SECRETS};
use super::net::Packet;

/// The frames of the 1-RTT packets of `from` under the first generation of AES-128 keys, as text,
/// without padding.
pub fn frames(from: Side, packets: &[Packet], cid_len: usize) -> Vec<String> {
    let mut out = Vec::new();
    for (_, payload) in opened(from, packets, cid_len) {
        let mut frames = Frames::new(&payload).unwrap();
        while let Some((_, frame)) = frames.next_frame().unwrap() {
            if frame != Frame::Padding {
                out.push(format!("{frame:?}"));
            }
        }
    }
    out
}

/// Their numbers, which are still small enough to be on the wire whole.
pub fn numbers(from: Side, packets: &[Packet], cid_len: usize) -> Vec<u64> {
    let opened = opened(from, packets, cid_len);
    opened.into_iter().map(|(pn, _)| pn).collect()
}

fn opened(from: Side, packets: &[Packet], cid_len: usize) -> Vec<(u64, Vec<u8>)> {
    let secret = SECRETS.with_borrow(|s| s["traffic"][from as usize]);
    let keys = DirectionKeys::derive(&FakeAead, Suite::Aes128Gcm, &secret);
    let keys = KeyRef::of(Suite::Aes128Gcm, &keys);
    let mut out = Vec::new();
    for packet in packets {
        let mut data = packet.data.clone();
        let header = Header::parse(&data, cid_len).unwrap();
        if header.kind != Kind::OneRtt {
            continue;
        }
        let at = header.pn_offset;
        let (len, pn) = unmask(&FakeAead, keys.suite, keys.hp, &mut data, at);
        let (start, end) = open(&FakeAead, keys, &mut data, pn, at + len).expect("authentic");
        out.push((pn, data[start..end].to_vec()));
    }
    out
}
