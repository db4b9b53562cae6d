//! Who may begin a handshake (RFC 9000 7.2, 8.1, 14.1; T11), and the state it gets.

use super::Endpoint;
use crate::cid::reset_token;
use crate::coding::Writer;
use crate::connection::{Arrival, Cx, Flags, Handshake, Path, State, initial_level};
use crate::crypto::{Aead, KeyRef, Tls, protect};
use crate::error::Code;
use crate::event::Handle;
use crate::frame::{self, ty};
use crate::packet::{INITIAL_DATAGRAM_MIN, Packet, TAG_LEN, VERSION};
use crate::params::{Params, Side};
use crate::time::Time;
use crate::token::Verdict;

/// How long the first id of a client still finds its connection after the handshake.
const INITIAL_ID_LIFE_US: u64 = 3_000_000;

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// The first packet of a client (RFC 9000 7.2, 8.1, 14.1).
    pub(super) fn on_initial(
        &mut self,
        now: Time,
        path: Path,
        packet: &Packet,
        data: &mut [u8],
    ) -> Option<Handle> {
        // RFC 9000 14.1: smaller datagrams are discarded. RFC 9000 7.2: the id has 8 bytes.
        if data.len() < INITIAL_DATAGRAM_MIN || packet.dcid.len() < 8 {
            self.stats.dropped += 1;
            return None;
        }
        self.purge_initials(now);
        let token = &data[packet.token.0..packet.token.1];
        let verdict = match token {
            [] => Verdict::Unknown,
            token => self
                .tokens
                .check(&self.aead, now, path.remote, &packet.dcid, token),
        };
        match verdict {
            Verdict::Spent => {
                self.stats.tokens_refused += 1;
                self.refuse(path, packet, Code::INVALID_TOKEN);
                return None;
            }
            _ if self.budget.is_exceeded() => {
                self.refuse(path, packet, Code::CONNECTION_REFUSED);
                return None;
            }
            Verdict::Unknown
                if self.half_open >= self.config.retry_above || self.budget.is_tight() =>
            {
                self.send_retry(now, path, packet);
                return None;
            }
            _ if self.half_open >= self.config.half_open_max => {
                self.refuse(path, packet, Code::CONNECTION_REFUSED);
                return None;
            }
            _ => {}
        }
        self.accept(now, path, packet, verdict, data)
    }

    pub(super) fn purge_initials(&mut self, now: Time) {
        while let Some((_, id, remote)) = self
            .initials_order
            .front()
            .filter(|(at, ..)| *at <= now)
            .copied()
        {
            self.initials_order.pop_front();
            let Some(handle) = self.initials.get(&(id, remote)).copied() else {
                continue;
            };
            let waiting =
                self.is_live(handle) && self.slab[handle.index].state == State::ExpectFinished;
            if waiting {
                self.initials_order
                    .push_back((now + INITIAL_ID_LIFE_US, id, remote));
            } else {
                self.initials.remove(&(id, remote));
            }
        }
    }

    fn accept(
        &mut self,
        now: Time,
        path: Path,
        packet: &Packet,
        verdict: Verdict,
        data: &mut [u8],
    ) -> Option<Handle> {
        let index = self.slab.allocate()?;
        let (odcid, retry_scid) = match verdict {
            Verdict::Retried { odcid } => (odcid, Some(packet.dcid)),
            _ => (packet.dcid, None),
        };
        let (conn, mut cx) = parts!(self, now, index);
        let handle = cx.handle;
        let scid = cx.own_cid(0);
        let params = Params {
            original_destination_connection_id: Some(odcid),
            retry_source_connection_id: retry_scid,
            initial_source_connection_id: Some(scid),
            stateless_reset_token: Some(reset_token(cx.aead, cx.reset_key, &scid)),
            ..cx.transport.params(Side::Server)
        };
        let grease = cx.rng.next();
        let server = self.server.as_ref().expect("checked by the caller");
        let Ok(tls) = T::server(server, params.encode(Some(grease))) else {
            self.slab.release(index);
            return None;
        };
        let keys = initial_level(cx.aead, Side::Server, &packet.dcid);
        let timeout_us = u64::from(cx.transport.handshake_timeout_ms) * 1_000;
        let hs = Handshake::new(tls, keys, odcid, retry_scid, (now, timeout_us));
        conn.peer_cid = packet.scid;
        conn.start(&mut cx, Side::Server, path, hs);
        conn.flags.set(Flags::HALF_OPEN, true);
        conn.flags
            .set(Flags::VALIDATED, verdict != Verdict::Unknown);
        self.half_open += 1;
        let len = data.len() as u64;
        conn.handle_datagram(
            &mut cx,
            Arrival {
                path,
                sequence: None,
                len,
            },
            data,
        );
        if conn.is_untouched() {
            // Nothing in it was authentic: no state for a forgery.
            self.half_open -= 1;
            self.slab.release(index);
            self.stats.dropped += 1;
            return None;
        }
        self.stats.accepted += 1;
        self.initials.insert((packet.dcid, path.remote), handle);
        self.initials_order
            .push_back((now + INITIAL_ID_LIFE_US, packet.dcid, path.remote));
        self.settle(now, index, true);
        Some(handle)
    }

    /// Closes an attempt without keeping state (RFC 9000 5.2.2, 8.1.3).
    fn refuse(&mut self, path: Path, packet: &Packet, code: Code) {
        self.stats.refused += 1;
        let keys = initial_level(&self.aead, Side::Server, &packet.dcid);
        let mut buf = [0; 128];
        let mut w = Writer::new(&mut buf);
        w.u8(0xc0);
        w.u32(VERSION);
        for id in [&packet.scid, &packet.dcid] {
            w.u8(id.len().to_le_bytes()[0]);
            w.bytes(id.as_slice());
        }
        w.u8(0);
        let length_at = w.len();
        w.zeroes(2);
        let pn_offset = w.len();
        w.u8(0);
        frame::write_close(&mut w, ty::CONNECTION_CLOSE, code.0, 0, b"");
        let len = w.len() + TAG_LEN;
        w.varint2_at(length_at, len - pn_offset);
        let keys = KeyRef::of(keys.suite, &keys.local);
        protect(&self.aead, keys, &mut buf[..len], 0, pn_offset, 1);
        self.push_stateless(path, buf[..len].to_vec());
    }
}
