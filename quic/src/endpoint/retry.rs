//! Retry (RFC 9000 8.1.2, 17.2.5; T11): an address proves itself before it costs a handshake.

use super::Endpoint;
use crate::cid::in_range;
use crate::coding::Writer;
use crate::connection::Path;
use crate::crypto::{Aead, Tls, retry_tag};
use crate::packet::{ConnectionId, Packet, VERSION};
use crate::time::{Time, low32};

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// Gives the ids of Retry packets prefixes of another shard, which re-steers new clients to it
    /// for free (T11).
    pub fn steer_retries(&mut self, first: u16, last: u16) {
        self.retry_range = (first, last.max(first));
    }

    /// Changes how many handshakes from unvalidated addresses may be under way before Retry is asked
    /// of new ones: an overload that only the caller sees (T11).
    pub fn set_retry_above(&mut self, handshakes: usize) {
        self.config.retry_above = handshakes;
    }

    /// Retry (RFC 9000 8.1.2, 17.2.5).
    pub(super) fn send_retry(&mut self, now: Time, path: Path, packet: &Packet) {
        let (first, last) = self.retry_range;
        let mut id: [u8; 12] = self.rng.bytes();
        let random = low32(self.rng.next());
        id[..2].copy_from_slice(&in_range(first, last, random));
        let scid = ConnectionId::new(&id).expect("12 bytes");
        let token = self
            .tokens
            .retry(&self.aead, now, path.remote, &packet.dcid, &scid);
        let mut buf = [0; 192];
        let mut w = Writer::new(&mut buf);
        w.u8(0xf0 | (random & 0x0f).to_le_bytes()[0]);
        w.u32(VERSION);
        for id in [&packet.scid, &scid] {
            w.u8(id.len().to_le_bytes()[0]);
            w.bytes(id.as_slice());
        }
        w.bytes(&token);
        let tag = retry_tag(&self.aead, &packet.dcid, w.written());
        w.bytes(&tag);
        let bytes = w.written().to_vec();
        self.stats.retries_sent += 1;
        self.push_stateless(path, bytes);
    }
}
