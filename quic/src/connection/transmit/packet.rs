//! One packet: header, frames, padding, seal, record (RFC 9000 17, RFC 9001 5, 6.6).

use super::super::{Connection, Cx, Flags, IDLE_PING_SIZE, IdlePing};
use super::FRAME_ROOM_MIN;
use crate::coding::Writer;
use crate::crypto::{Aead, KeyRef, Tls, protect};
use crate::error::{Code, TransportError};
use crate::limits::{KEY_RESERVE, NUMBER_RESERVE, SKIP_EVERY};
use crate::packet::{
    INITIAL_DATAGRAM_MIN, Level, PACKET_NUMBER_END, TAG_LEN, VERSION, pn_len, write_pn,
};
use crate::time::low32;

/// A packet whose header is written.
pub(in crate::connection) struct Head {
    pub(in crate::connection) pn: u64,
    pub(super) pn_len: usize,
    pub(super) pn_offset: usize,
    /// Where the two length bytes of a long header are.
    length_at: Option<usize>,
}

/// A finished packet.
pub(in crate::connection) struct Built {
    pub(in crate::connection) len: usize,
    pub(super) eliciting: bool,
    /// Counts as in flight: ack-eliciting or padded (RFC 9002 2).
    pub(super) in_flight: bool,
}

impl<T: Tls> Connection<T> {
    /// Builds one packet; returns its length, or zero when there was nothing to put in.
    pub(super) fn build_packet<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        level: Level,
        buf: &mut [u8],
        pad_to: usize,
        may_send: bool,
    ) -> usize {
        let full = buf.len() >= INITIAL_DATAGRAM_MIN;
        let room = buf.len() - TAG_LEN;
        let mut w = Writer::new(&mut buf[..room]);
        let Some(head) = self.write_head(cx, level, &mut w) else {
            return 0;
        };
        let start = w.len();
        let wrote = match level {
            Level::Data => self.write_data_frames(cx, &mut w, may_send, full),
            early => self.write_early_frames(early, &mut w, may_send),
        };
        let end = w.len();
        if end == start {
            return 0;
        }
        let pad_to = if wrote.expand && full {
            INITIAL_DATAGRAM_MIN.max(pad_to)
        } else {
            pad_to
        };
        let built = self.finish_packet(cx, level, buf, &head, end, pad_to, wrote.eliciting);
        self.on_packet_sent(cx, level, head.pn, &built);
        built.len
    }

    /// Writes the header up to the packet number (RFC 9000 17.2, 17.3.1).
    pub(in crate::connection) fn write_head<A: Aead>(
        &mut self,
        cx: &Cx<'_, A>,
        level: Level,
        w: &mut Writer<'_>,
    ) -> Option<Head> {
        let pns = self.pns(level)?;
        let pn = pns.next;
        let pn_len = pn_len(pn, pns.largest_acked());
        let pn_bits = (pn_len.to_le_bytes()[0] - 1) & 3;
        if level == Level::Data {
            let phase = u8::from(self.flags.has(Flags::LOCAL_PHASE)) << 2;
            if w.room() < 1 + self.peer_cid.len() + pn_len + FRAME_ROOM_MIN / 2 {
                return None;
            }
            w.u8(0x40 | phase | pn_bits);
            w.bytes(self.peer_cid.as_slice());
            let pn_offset = w.len();
            write_pn(w, pn, pn_len);
            return Some(Head {
                pn,
                pn_len,
                pn_offset,
                length_at: None,
            });
        }
        let scid = cx.own_cid(0);
        let hs = self.active.as_ref()?.hs.as_ref()?;
        let token: &[u8] = if level == Level::Initial {
            &hs.token
        } else {
            &[]
        };
        if w.room() < 64 + token.len() + FRAME_ROOM_MIN {
            return None;
        }
        let kind = if level == Level::Initial { 0 } else { 2 };
        w.u8(0xc0 | kind << 4 | pn_bits);
        w.u32(VERSION);
        for id in [&self.peer_cid, &scid] {
            w.u8(id.len().to_le_bytes()[0]);
            w.bytes(id.as_slice());
        }
        if level == Level::Initial {
            w.varint(token.len() as u64);
            w.bytes(token);
        }
        let length_at = w.len();
        w.zeroes(2);
        let pn_offset = w.len();
        write_pn(w, pn, pn_len);
        Some(Head {
            pn,
            pn_len,
            pn_offset,
            length_at: Some(length_at),
        })
    }

    /// Pads, fills in the length, seals. The frames end at `end`.
    #[allow(clippy::too_many_arguments, reason = "the parts of one packet")]
    pub(in crate::connection) fn finish_packet<A: Aead>(
        &mut self,
        cx: &Cx<'_, A>,
        level: Level,
        buf: &mut [u8],
        head: &Head,
        end: usize,
        pad_to: usize,
        eliciting: bool,
    ) -> Built {
        // RFC 9001 5.4.2: four bytes of packet number and payload before the sample.
        let least = (head.pn_offset + 4).max(end);
        let target = pad_to
            .saturating_sub(TAG_LEN)
            .min(buf.len() - TAG_LEN)
            .max(least);
        buf[end..target].fill(0);
        let len = target + TAG_LEN;
        if let Some(at) = head.length_at {
            Writer::new(buf).varint2_at(at, len - head.pn_offset);
        }
        let packet = &mut buf[..len];
        let keys = match level {
            Level::Data => self.keys.local().expect("checked before"),
            early => {
                let active = self.active.as_mut().expect("a handshake is under way");
                let keys = &active.early(early).expect("a level with keys").keys;
                KeyRef::of(keys.suite, &keys.local)
            }
        };
        protect(cx.aead, keys, packet, head.pn, head.pn_offset, head.pn_len);
        Built {
            len,
            eliciting,
            in_flight: eliciting || target > least,
        }
    }

    /// Notes a packet in its space; in an idle connection, in the connection itself (T10).
    pub(in crate::connection) fn on_packet_sent<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        level: Level,
        pn: u64,
        built: &Built,
    ) {
        self.pns(level).expect("a level with keys").next = pn + 1;
        if level == Level::Data {
            self.count_for_mtu(built.len);
        }
        if built.eliciting && !self.flags.has(Flags::SENT_SINCE) {
            // RFC 9000 10.1: the first such packet since the last arrival restarts the idle timer.
            self.flags.set(Flags::SENT_SINCE, true);
            *cx.activity = low32(cx.now.as_millis());
        }
        let confirmed = self.flags.has(Flags::CONFIRMED);
        let Some(active) = self.active.as_mut() else {
            if built.eliciting {
                self.flags.set(Flags::PING_SENT, true);
                self.ping = IdlePing {
                    pn: low32(pn),
                    sent_ms: low32(cx.now.as_millis()),
                };
                debug_assert!(built.len <= IDLE_PING_SIZE + 40);
            }
            return;
        };
        if built.in_flight {
            let size = built.len as u64;
            let space = active.space(level).expect("a level with keys");
            space.record(pn, cx.now, built.len, built.eliciting);
            active.rec.bytes_in_flight += size;
            active.rec.tokens = active.rec.tokens.saturating_sub(size);
        }
        // RFC 9000 21.4: now and then a number is left out.
        if level == Level::Data && confirmed && self.pn.next >= active.skip_at {
            active.skipped = Some(self.pn.next);
            self.pn.next += 1;
            active.skip_at = self.pn.next + 16 + cx.rng.below(SKIP_EVERY);
        }
        // RFC 9001 4.9.1: a client's first Handshake packet ends the Initial space.
        if level == Level::Handshake && self.flags.has(Flags::CLIENT) {
            self.discard_level(Level::Initial);
        }
    }

    /// Updates keys that are worn, or closes when that is not possible (RFC 9001 6.6). False when
    /// nothing but a close may be sent with them.
    pub(super) fn keep_keys_fresh<A: Aead>(&mut self, cx: &mut Cx<'_, A>) -> bool {
        // RFC 9000 12.3: while there still are numbers to say so with.
        if self.pn.next >= PACKET_NUMBER_END - NUMBER_RESERVE {
            let error = TransportError::new(Code::NO_ERROR, "the packet numbers are used up");
            self.close_with_error(cx, error);
            return false;
        }
        let sent = self.pn.next - self.phases.local_first;
        let suite = self.keys.suite().confidentiality_limit();
        let limit = suite.min(cx.transport.key_limits.confidentiality);
        if sent >= cx.transport.key_update_after.min(limit - limit / 4) && self.may_update_keys() {
            self.rotate_local(cx);
        } else if sent + KEY_RESERVE >= limit {
            let error = TransportError::new(Code::AEAD_LIMIT_REACHED, "too many packets sent");
            self.close_with_error(cx, error);
            return false;
        }
        true
    }

    /// RFC 9001 6.1: not before confirmation, nor before a packet of this phase was acknowledged,
    /// nor while the peer has not followed the last update.
    pub(crate) fn may_update_keys(&self) -> bool {
        self.flags.has(Flags::CONFIRMED)
            && self.flags.has(Flags::PHASE_ACKED)
            && self.flags.has(Flags::LOCAL_PHASE) == self.flags.has(Flags::REMOTE_PHASE)
    }
}
