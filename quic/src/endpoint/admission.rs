//! Who may begin a handshake (RFC 9000 7.2, 8.1, 14.1; T11), and the state it gets.

use super::Endpoint;
use crate::blocks::Block;
use crate::cid::reset_token;
use crate::coding::Writer;
use crate::connection::{Arrival, Cx, Flags, Handshake, Path, State, initial_level, open_initial};
use crate::crypto::{Aead, KeyRef, Tls, protect};
use crate::error::{CloseReason, Code};
use crate::event::Handle;
use crate::frame::{self, ty};
use crate::limits::{HALF_OPEN_BLOCK_MAX, HALF_OPEN_PARTS};
use crate::packet::{INITIAL_DATAGRAM_MIN, Packet, TAG_LEN, VERSION};
use crate::params::{Params, Side};
use crate::time::Time;
use crate::token::Verdict;

/// How long the first id of a client still finds its connection after the handshake.
const INITIAL_ID_LIFE_US: u64 = 3_000_000;

/// Where a newcomer's handshake may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Room {
    Free,
    /// In the place of the handshake in this slot.
    Of(u32),
    None,
}

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
        let verdict = match &data[packet.token.0..packet.token.1] {
            [] => Verdict::Unknown,
            token => {
                let tokens = &self.tokens;
                tokens.check(&self.aead, now, path.remote, &packet.dcid, token)
            }
        };
        let block = self.config.blocks.of(path.remote.ip());
        match verdict {
            Verdict::Spent => {
                self.refuse_token(now, path, packet);
                return None;
            }
            _ if self.budget.is_exceeded() => {
                self.stats.no_room += 1;
                return None;
            }
            Verdict::Unknown if self.wants_proof(block) => {
                self.send_retry(now, path, packet);
                return None;
            }
            _ => {}
        }
        self.accept(now, path, packet, verdict, block, data)
    }

    /// Whether a newcomer of a block has to prove its address first (RFC 9000 8.1.2).
    fn wants_proof(&self, block: Option<Block>) -> bool {
        self.half_open.len() >= self.config.retry_above
            || self.budget.is_tight()
            || block.is_some_and(|block| self.half_open.held_by(block) >= self.block_max())
    }

    /// Handshakes that one block may have under way.
    fn block_max(&self) -> usize {
        let part = (self.config.half_open_max / HALF_OPEN_PARTS).max(1);
        part.min(HALF_OPEN_BLOCK_MAX)
    }

    /// Finds room for a newcomer. Where there is none, it may take that of another: of its own block, if that
    /// holds all that one may, or of the block that holds most. Of one that holds more than it would, at once;
    /// else only what is old, as among equals the next packet of a young one is on its way. Who has proven
    /// nothing takes no room of others, or anybody could by writing addresses on packets.
    fn room_for(&self, now: Time, block: Option<Block>, proven: bool) -> Room {
        let held = block.map_or(0, |block| self.half_open.held_by(block));
        let first = match block {
            Some(block) if held >= self.block_max() => self.half_open.first_of(block),
            _ if self.half_open.len() >= self.config.half_open_max => {
                self.half_open.first_of_largest()
            }
            _ => return Room::Free,
        };
        match first.filter(|_| proven) {
            Some(first) if first.held > held + 1 || first.is_old(now) => Room::Of(first.index),
            _ => Room::None,
        }
    }

    /// Gives up a handshake, without a word: its client may be at its end, or be none.
    fn displace(&mut self, now: Time, index: u32) {
        let (conn, mut cx) = parts!(self, now, index);
        let remote = conn.path().remote;
        if let Some(hs) = conn.active.as_ref().and_then(|a| a.hs.as_ref()) {
            let first_id = hs.retry_scid.unwrap_or(hs.odcid);
            self.initials.remove(&(first_id, remote));
        }
        conn.vanish(&mut cx, CloseReason::Displaced);
        self.stats.displaced += 1;
        self.settle(now, index, false);
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

    /// Begins a handshake. In the order of what each step costs: the packet is opened, room is found, its
    /// token is used up, and only then there is TLS.
    fn accept(
        &mut self,
        now: Time,
        path: Path,
        packet: &Packet,
        verdict: Verdict,
        block: Option<Block>,
        data: &mut [u8],
    ) -> Option<Handle> {
        let keys = initial_level(&self.aead, Side::Server, &packet.dcid);
        let Some(opened) = open_initial(&self.aead, &keys, packet, &mut data[..packet.end]) else {
            self.stats.dropped += 1;
            return None;
        };
        let proven = verdict != Verdict::Unknown;
        let room = self.room_for(now, block, proven);
        if room == Room::None {
            self.stats.no_room += 1;
            return None;
        }
        // First the new slot, then the old one: events of one call must not speak of a slot that it reused.
        let index = self.slab.allocate()?;
        if let Room::Of(other) = room {
            self.displace(now, other);
        }
        let (odcid, retry_scid) = match verdict {
            Verdict::Retried { odcid, .. } => (odcid, Some(packet.dcid)),
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
        let after = |ms: u32| now + u64::from(ms) * 1_000;
        let (hello, whole) = (
            after(cx.transport.hello_timeout_ms),
            after(cx.transport.handshake_timeout_ms),
        );
        let hs = Handshake::new(tls, keys, odcid, retry_scid, (hello, whole));
        conn.peer_cid = packet.scid;
        conn.start(&mut cx, Side::Server, path, hs);
        conn.flags.set(Flags::HALF_OPEN, true);
        conn.flags.set(Flags::VALIDATED, proven);
        let arrival = Arrival {
            path,
            sequence: None,
            len: data.len() as u64,
        };
        conn.handle_first(&mut cx, arrival, packet, &opened, data);
        self.half_open.insert(now, index, block, proven);
        if let Verdict::Retried { tag, .. } = verdict {
            self.stats.proven += 1;
            self.stats.tokens_forgotten += self.tokens.use_up(now, tag);
        }
        self.stats.accepted += 1;
        self.initials.insert((packet.dcid, path.remote), handle);
        self.initials_order
            .push_back((now + INITIAL_ID_LIFE_US, packet.dcid, path.remote));
        self.settle(now, index, true);
        Some(handle)
    }

    /// A Retry token that is stale, used, or of another address. The client takes no second one, so it is told
    /// (RFC 9000 8.1.3), as far as an allowance goes: each answer costs the keys of an Initial, and who asks for
    /// it has proven nothing.
    fn refuse_token(&mut self, now: Time, path: Path, packet: &Packet) {
        self.stats.tokens_refused += 1;
        if self.refusals.take(now) {
            self.refuse(path, packet, Code::INVALID_TOKEN);
        }
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
