//! Building datagrams (RFC 9000 12.2, 13, 14): packets are written and sealed in the caller's
//! arena, with nothing allocated in steady state.

use super::ack::LEVELS;
use super::{Active, Connection, Cx, Flags, IDLE_PING_SIZE, IdlePing, Path, State};
use crate::coding::{Writer, varint_len};
use crate::crypto::{Aead, KeyRef, Tls, protect};
use crate::error::{Code, TransportError};
use crate::frame::{self, ty};
use crate::limits::{SENT_RECORDS_MAX, SKIP_EVERY, STREAMS_PER_PACKET_MAX};
use crate::packet::{INITIAL_DATAGRAM_MIN, Level, TAG_LEN, VERSION, pn_len, write_pn};
use crate::space::SentFrame;
use crate::streams::{RecvState, SendState};
use crate::time::low32;

/// Less room than this starts no further packet in a datagram.
const PACKET_ROOM_MIN: usize = 96;

/// Less room than this starts no STREAM, CRYPTO or DATAGRAM frame.
const FRAME_ROOM_MIN: usize = 32;

/// A packet whose header is written.
struct Head {
    pn: u64,
    pn_len: usize,
    pn_offset: usize,
    /// Where the two length bytes of a long header are.
    length_at: Option<usize>,
}

/// A finished packet.
struct Built {
    len: usize,
    eliciting: bool,
    /// Counts as in flight: ack-eliciting or padded (RFC 9002 2).
    in_flight: bool,
}

impl<T: Tls> Connection<T> {
    /// The largest datagram for this peer (T12).
    pub(super) fn payload_max<A: Aead>(&self, cx: &Cx<'_, A>) -> u16 {
        cx.transport
            .payload_max
            .min(self.peer.payload_max)
            .max(1_200)
    }

    /// Builds the next datagram at the start of `buf`, which has room for the largest. `None` when
    /// there is nothing to send now.
    pub(crate) fn poll_datagram<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        buf: &mut [u8],
    ) -> Option<(usize, Path)> {
        match self.state {
            State::Closing => return self.build_close(cx, buf),
            State::ExpectFinished | State::Open => {}
            State::Vacant | State::Draining | State::Drained => return None,
        }
        if self.active.is_some() {
            self.refill_pacing(cx);
        }
        let may_send = self.may_send(cx);
        if let Some(probe) = self.build_path_probe(cx, buf, may_send) {
            return Some(probe);
        }
        let len = self.build_main(cx, buf, may_send)?;
        self.debit_path(len as u64);
        Some((len, self.path()))
    }

    fn refill_pacing<A: Aead>(&mut self, cx: &Cx<'_, A>) {
        let burst = crate::limits::BURST_PACKETS * u64::from(cx.transport.payload_max);
        let srtt = self.rtt.smoothed(cx.initial_rtt());
        let cwnd = self.window.cwnd;
        if let Some(active) = self.active.as_mut() {
            active.rec.paced_until = None;
            active.rec.refill(cx.now, cwnd, srtt, burst);
        }
    }

    /// Whether congestion control and pacing permit a full packet.
    fn may_send<A: Aead>(&mut self, cx: &Cx<'_, A>) -> bool {
        let payload = u64::from(self.payload_max(cx));
        let srtt = self.rtt.smoothed(cx.initial_rtt());
        let cwnd = self.window.cwnd;
        let paced = cx.transport.pacing && self.rtt.has_sample();
        let Some(active) = self.active.as_mut() else {
            return true;
        };
        if active.rec.bytes_in_flight + payload > u64::from(cwnd)
            || active.data.sent.len() >= SENT_RECORDS_MAX
        {
            return false;
        }
        if paced && active.rec.tokens < payload {
            active.rec.paced_until = Some(active.rec.ready_at(payload, cwnd, srtt));
            return false;
        }
        true
    }

    fn wants(&self, level: Level, may_send: bool) -> bool {
        if level == Level::Data {
            return self.wants_data(may_send);
        }
        let Some(hs) = self.active.as_ref().and_then(|a| a.hs.as_ref()) else {
            return false;
        };
        let Some(space) = hs.spaces[level as usize].as_ref() else {
            return false;
        };
        let crypto = may_send && space.sent.crypto_tx.wants(u64::MAX);
        space.ack_pending || space.sent.probes > 0 || crypto
    }

    fn wants_data(&self, may_send: bool) -> bool {
        if self.keys.is_none() || self.state != State::Open {
            return false;
        }
        let flags = Flags::ACK_PENDING | Flags::PING_WANTED | Flags::PROBE;
        if self.flags.has(flags) {
            return true;
        }
        let Some(active) = self.active.as_ref() else {
            return false;
        };
        active.data.probes > 0
            || (may_send && active.has_frames())
            || active.path.as_ref().is_some_and(|p| p.send)
    }

    fn build_main<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        buf: &mut [u8],
        may_send: bool,
    ) -> Option<usize> {
        let mut limit = usize::from(self.payload_max(cx)).min(buf.len());
        let wanted = LEVELS.map(|l| self.wants(l, may_send));
        if wanted == [false; 3] {
            return None;
        }
        if let Some(budget) = self.amplification_budget() {
            let budget = usize::try_from(budget).unwrap_or(usize::MAX);
            // RFC 9000 8.1, 14.1: datagrams with Initials are full-sized or wait.
            if budget < PACKET_ROOM_MIN / 2 || (wanted[0] && budget < INITIAL_DATAGRAM_MIN) {
                return None;
            }
            limit = limit.min(budget);
        }
        let mut at = 0;
        let mut initial = false;
        for (i, level) in LEVELS.into_iter().enumerate() {
            if !wanted[i] || limit - at < PACKET_ROOM_MIN / 2 {
                continue;
            }
            let last = !wanted[i + 1..].contains(&true);
            let pads = initial || level == Level::Initial;
            let pad_to = if pads && last {
                INITIAL_DATAGRAM_MIN.saturating_sub(at)
            } else {
                0
            };
            let built = self.build_packet(cx, level, &mut buf[at..limit], pad_to, may_send);
            initial |= level == Level::Initial && built > 0;
            at += built;
        }
        if initial && at < INITIAL_DATAGRAM_MIN && limit >= INITIAL_DATAGRAM_MIN {
            // The packet that was to carry the padding turned out to be empty. Bytes after the last
            // packet are no packet and are ignored (RFC 9000 12.2).
            buf[at..INITIAL_DATAGRAM_MIN].fill(0);
            at = INITIAL_DATAGRAM_MIN;
        }
        (at > 0).then_some(at)
    }

    /// Builds one packet; returns its length, or zero when there was nothing to put in.
    fn build_packet<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        level: Level,
        buf: &mut [u8],
        pad_to: usize,
        may_send: bool,
    ) -> usize {
        if level == Level::Data && !self.prepare_keys(cx) {
            return 0;
        }
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
    fn write_head<A: Aead>(
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
    fn finish_packet<A: Aead>(
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
    fn on_packet_sent<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        level: Level,
        pn: u64,
        built: &Built,
    ) {
        self.pns(level).expect("a level with keys").next = pn + 1;
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

    /// Updates keys that are worn (RFC 9001 6.6). False when nothing may be sent with them.
    fn prepare_keys<A: Aead>(&mut self, cx: &mut Cx<'_, A>) -> bool {
        if self.keys.is_none() {
            return false;
        }
        let sent = self.pn.next - self.phases.local_first;
        let limit = self.keys.suite().confidentiality_limit();
        if sent >= cx.transport.key_update_after.min(limit - limit / 4) && self.may_update_keys() {
            self.rotate_local(cx);
        } else if sent >= limit {
            let error = TransportError::new(Code::AEAD_LIMIT_REACHED, "too many packets sent");
            self.vanish(cx, super::local_error(error));
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

    fn write_early_frames(&mut self, level: Level, w: &mut Writer<'_>, may_send: bool) -> Wrote {
        let mut wrote = Wrote::default();
        let active = self.active.as_mut().expect("a handshake is under way");
        let space = active.early(level).expect("a level with keys");
        if space.ack_pending && frame::write_ack(w, 0, space.pn.ranges()) {
            space.ack_pending = false;
        }
        if may_send || space.sent.probes > 0 {
            wrote.eliciting |= write_crypto(&mut space.sent, w);
        }
        if space.sent.probes > 0 && !wrote.eliciting && w.room() > 0 {
            w.varint(ty::PING);
            wrote.eliciting = true;
        }
        if wrote.eliciting {
            space.sent.probes = space.sent.probes.saturating_sub(1);
        }
        wrote
    }

    fn write_data_frames<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        w: &mut Writer<'_>,
        may_send: bool,
        full: bool,
    ) -> Wrote {
        let mut wrote = Wrote::default();
        if self.flags.has(Flags::ACK_PENDING) && frame::write_ack(w, 0, self.pn.ranges()) {
            self.flags.set(Flags::ACK_PENDING, false);
        }
        let path = self.path();
        let mut probes = 0;
        if let Some(active) = self.active.as_mut() {
            probes = active.data.probes;
            active.write_path_frames(w, path, full, may_send, &mut wrote);
            if may_send || probes > 0 {
                let before = w.len();
                self.write_control(cx, w);
                let active = self.active.as_mut().expect("still there");
                write_crypto(&mut active.data, w);
                active.write_datagrams(w);
                self.write_streams(w);
                wrote.eliciting |= w.len() > before;
            }
        }
        let ping = self.flags.has(Flags::PING_WANTED | Flags::PROBE) || probes > 0;
        if ping && !wrote.eliciting && w.room() > 0 {
            w.varint(ty::PING);
            wrote.eliciting = true;
        }
        if wrote.eliciting {
            self.flags.set(Flags::PING_WANTED | Flags::PROBE, false);
            if let Some(active) = self.active.as_mut() {
                active.data.probes = active.data.probes.saturating_sub(1);
            }
        }
        wrote
    }

    /// Control frames owed. What does not fit stays owed.
    fn write_control<A: Aead>(&mut self, cx: &mut Cx<'_, A>, w: &mut Writer<'_>) {
        let remote = self.path().remote;
        let side = self.side();
        let active = self.active.as_mut().expect("checked by the caller");
        let (pending, data) = (&mut active.pending, &mut active.data);
        if pending.handshake_done && w.room() >= 1 {
            pending.handshake_done = false;
            w.varint(ty::HANDSHAKE_DONE);
            data.note(SentFrame::HandshakeDone);
        }
        while let Some(sequence) = pending.new_cids.last().copied().filter(|_| w.room() >= 56) {
            pending.new_cids.pop();
            let id = cx.own_cid(sequence);
            frame::write_ints(w, ty::NEW_CONNECTION_ID, &[u64::from(sequence), 0]);
            w.u8(id.len().to_le_bytes()[0]);
            w.bytes(id.as_slice());
            w.bytes(&crate::cid::reset_token(cx.aead, cx.reset_key, &id));
            data.note(SentFrame::NewCid(sequence));
        }
        while let Some(sequence) = pending
            .retire_cids
            .last()
            .copied()
            .filter(|_| w.room() >= 9)
        {
            pending.retire_cids.pop();
            frame::write_ints(w, ty::RETIRE_CONNECTION_ID, &[u64::from(sequence)]);
            data.note(SentFrame::RetireCid(sequence));
        }
        if pending.max_data && w.room() >= 9 {
            pending.max_data = false;
            let max = self.flow.consumed + u64::from(self.connection_window);
            // Credit never falls (T15).
            self.flow.rx_max = self.flow.rx_max.max(max);
            frame::write_ints(w, ty::MAX_DATA, &[self.flow.rx_max]);
            data.note(SentFrame::MaxData);
        }
        for dir in Self::streams_owed(pending) {
            if w.room() >= 9 {
                pending.max_streams[dir as usize] = false;
                let max = u64::from(self.counts.rx_limit[dir as usize]);
                frame::write_ints(w, ty::MAX_STREAMS_BIDI + dir as u64, &[max]);
                data.note(SentFrame::MaxStreams(dir));
            }
        }
        if pending.new_token && side == crate::params::Side::Server && w.room() >= 64 {
            pending.new_token = false;
            let token = cx.tokens.fresh(cx.aead, cx.now, remote, cx.rng.next());
            frame::write_ints(w, ty::NEW_TOKEN, &[token.len() as u64]);
            w.bytes(&token);
            data.note(SentFrame::NewToken);
        }
    }

    /// Frames of streams, in turn.
    fn write_streams(&mut self, w: &mut Writer<'_>) {
        let mut visits = STREAMS_PER_PACKET_MAX;
        while visits > 0 && w.room() >= FRAME_ROOM_MIN {
            visits -= 1;
            let active = self.active.as_mut().expect("checked by the caller");
            let Some(id) = active.queue.pop_front() else {
                break;
            };
            if let Some((_, buf)) = Self::stream_parts(&mut self.stream0, active, id) {
                buf.queued = false;
                self.write_stream(id, w);
                self.requeue(id);
            }
        }
    }

    /// Queues a stream again when it could send more now.
    fn requeue(&mut self, id: u64) {
        let active = self.active.as_mut().expect("checked by the caller");
        let Some((state, buf)) = Self::stream_parts(&mut self.stream0, active, id) else {
            return;
        };
        if buf.wants(state, Self::send_limit(&self.flow, state, buf)) {
            buf.queued = true;
            active.queue.push_back(id);
        }
    }

    fn write_stream(&mut self, id: u64, w: &mut Writer<'_>) {
        let active = self.active.as_mut().expect("checked by the caller");
        let Active {
            data,
            streams,
            buf0,
            ..
        } = &mut **active;
        let (state, buf) = match id {
            0 => (&mut self.stream0, buf0),
            _ => match streams.get_mut(&id) {
                Some(stream) => {
                    let stream = &mut **stream;
                    (&mut stream.state, &mut stream.buf)
                }
                None => return,
            },
        };
        if buf.send_reset && w.room() >= 25 {
            buf.send_reset = false;
            frame::write_ints(w, ty::RESET_STREAM, &[id, buf.reset_code, state.written]);
            data.note(SentFrame::ResetStream(id));
        }
        if buf.send_stop && w.room() >= 17 {
            buf.send_stop = false;
            frame::write_ints(w, ty::STOP_SENDING, &[id, buf.stop_code]);
            data.note(SentFrame::StopSending(id));
        }
        if buf.send_max && w.room() >= 17 {
            buf.send_max = false;
            // Credit never falls (T15).
            state.rx_max = state.rx_max.max(state.read + u64::from(self.stream_window));
            if state.recv == RecvState::Open {
                frame::write_ints(w, ty::MAX_STREAM_DATA, &[id, state.rx_max]);
                data.note(SentFrame::MaxStreamData(id));
            }
        }
        if !matches!(state.send, SendState::Open | SendState::Finished) {
            return;
        }
        loop {
            let head = 1 + varint_len(id) + varint_len(buf.tx.end()) + 2;
            let Some(room) = w.room().checked_sub(head + 1) else {
                return;
            };
            let (limit, sent) = (Self::send_limit(&self.flow, state, buf), buf.tx.sent());
            let (offset, len) = match buf.tx.take(room, limit) {
                Some(piece) => piece,
                None if state.send == SendState::Finished
                    && !buf.fin_sent
                    && buf.tx.sent() == buf.tx.end() =>
                {
                    (buf.tx.end(), 0)
                }
                None => return,
            };
            let end = offset + len as u64;
            self.flow.tx_sent += end.saturating_sub(sent);
            let fin = state.send == SendState::Finished && end == buf.tx.end();
            buf.fin_sent |= fin;
            let kind = ty::STREAM | 0x02 | u64::from(offset > 0) << 2 | u64::from(fin);
            w.varint(kind);
            w.varint(id);
            if offset > 0 {
                w.varint(offset);
            }
            w.varint(len as u64);
            buf.tx.copy(offset, w.lend(len));
            let len = u16::try_from(len).expect("a frame is inside a packet");
            data.note(SentFrame::Stream {
                id,
                offset,
                len,
                fin,
            });
            if fin && !buf.tx.has_lost() {
                return;
            }
        }
    }

    /// Packets for other paths than the current one: a PATH_RESPONSE to where its challenge came
    /// from (RFC 9000 8.2.2), a PATH_CHALLENGE to the previous path (9.3.3).
    fn build_path_probe<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        buf: &mut [u8],
        may_send: bool,
    ) -> Option<(usize, Path)> {
        if self.state != State::Open || self.keys.is_none() || !may_send {
            return None;
        }
        let current = self.path();
        let active = self.active.as_mut()?;
        let (to, kind, data, cap) = if let Some((data, path, received)) = active
            .pending
            .path_response
            .take_if(|(_, path, _)| *path != current)
        {
            let cap = received.saturating_mul(crate::limits::AMPLIFICATION);
            (
                path,
                ty::PATH_RESPONSE,
                data,
                usize::try_from(cap).unwrap_or(usize::MAX),
            )
        } else {
            let path = active.path.as_mut().filter(|p| p.send_prev)?;
            path.send_prev = false;
            (
                path.prev,
                ty::PATH_CHALLENGE,
                path.prev_challenge,
                usize::MAX,
            )
        };
        if !self.prepare_keys(cx) {
            return None;
        }
        let limit = usize::from(self.payload_max(cx)).min(cap).min(buf.len());
        if limit < PACKET_ROOM_MIN / 2 {
            return None;
        }
        let mut w = Writer::new(&mut buf[..limit - TAG_LEN]);
        let head = self.write_head(cx, Level::Data, &mut w)?;
        w.varint(kind);
        w.bytes(&data);
        let end = w.len();
        let pad = INITIAL_DATAGRAM_MIN.min(limit);
        let built = self.finish_packet(cx, Level::Data, &mut buf[..limit], &head, end, pad, true);
        self.on_packet_sent(cx, Level::Data, head.pn, &built);
        Some((built.len, to))
    }

    /// CONNECTION_CLOSE at every level the peer may have keys for (RFC 9000 10.2.3).
    fn build_close<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        buf: &mut [u8],
    ) -> Option<(usize, Path)> {
        let validated = self.flags.has(Flags::VALIDATED | Flags::CLIENT);
        let limit = usize::from(self.payload_max(cx)).min(buf.len());
        let close = self.active.as_mut()?.close.as_mut()?;
        let to = close.send.take()?;
        if !close.may_send(limit, validated) {
            return None;
        }
        let mut at = 0;
        for level in LEVELS {
            if limit - at >= PACKET_ROOM_MIN {
                at += self.build_close_packet(cx, level, &mut buf[at..limit]);
            }
        }
        self.active.as_mut()?.close.as_mut()?.sent += at as u64;
        (at > 0).then_some((at, to))
    }

    fn build_close_packet<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        level: Level,
        buf: &mut [u8],
    ) -> usize {
        let hs = self.active.as_ref().and_then(|a| a.hs.as_ref());
        let usable = match level {
            // A server must not assume that a client in its handshake has 1-RTT keys.
            Level::Data => !self.keys.is_none() && (hs.is_none() || self.flags.has(Flags::CLIENT)),
            early => hs.is_some_and(|hs| hs.spaces[early as usize].is_some()),
        };
        if !usable {
            return 0;
        }
        let close = self
            .active
            .as_ref()
            .and_then(|a| a.close.as_ref())
            .expect("closing");
        let (kind, code, frame) = match (close.frame, level) {
            (Some(frame), _) => (ty::CONNECTION_CLOSE, close.code, frame),
            (None, Level::Data) => (ty::APPLICATION_CLOSE, close.code, 0),
            // RFC 9000 10.2.3: an application's code is not shown before the handshake is done.
            (None, _) => (ty::CONNECTION_CLOSE, Code::APPLICATION_ERROR.0, 0),
        };
        let reason = close.reason.clone();
        let room = buf.len() - TAG_LEN;
        let mut w = Writer::new(&mut buf[..room]);
        let Some(head) = self.write_head(cx, level, &mut w) else {
            return 0;
        };
        frame::write_close(&mut w, kind, code, frame, &reason);
        let end = w.len();
        // A client's Initials are full-sized always (RFC 9000 14.1); a close fits one datagram.
        let pad = match level {
            Level::Initial if self.flags.has(Flags::CLIENT) => INITIAL_DATAGRAM_MIN,
            _ => 0,
        };
        let built = self.finish_packet(cx, level, buf, &head, end, pad, false);
        self.pns(level).expect("a level with keys").next += 1;
        built.len
    }
}

/// What was put into a packet.
#[derive(Default)]
struct Wrote {
    eliciting: bool,
    /// The datagram is to have full size (RFC 9000 8.2.1, 8.2.2).
    expand: bool,
}

/// CRYPTO frames of a level.
fn write_crypto(space: &mut crate::space::SentSpace, w: &mut Writer<'_>) -> bool {
    let mut any = false;
    while w.room() >= FRAME_ROOM_MIN {
        let room = w.room() - 1 - varint_len(space.crypto_tx.end()) - 2;
        let Some((offset, len)) = space.crypto_tx.take(room, u64::MAX) else {
            break;
        };
        frame::write_ints(w, ty::CRYPTO, &[offset, len as u64]);
        space.crypto_tx.copy(offset, w.lend(len));
        let len = u16::try_from(len).expect("a frame is inside a packet");
        space.note(SentFrame::Crypto { offset, len });
        any = true;
    }
    any
}

impl<T> Active<T> {
    /// Whether there is a frame that congestion control governs.
    fn has_frames(&self) -> bool {
        !self.pending.is_empty()
            || self.data.crypto_tx.wants(u64::MAX)
            || !self.queue.is_empty()
            || !self.datagrams.is_empty()
    }

    /// PATH_RESPONSE and PATH_CHALLENGE for the current path.
    fn write_path_frames(
        &mut self,
        w: &mut Writer<'_>,
        current: Path,
        full: bool,
        may_send: bool,
        out: &mut Wrote,
    ) {
        // A response waits for the window as all else does: challenges without end must not fill
        // the records (quic-go CVE-2023-49295).
        if may_send
            && w.room() >= 9
            && let Some((data, ..)) = self
                .pending
                .path_response
                .take_if(|(_, p, _)| *p == current)
        {
            w.varint(ty::PATH_RESPONSE);
            w.bytes(&data);
            (out.eliciting, out.expand) = (true, true);
        }
        if let Some(path) = self.path.as_mut().filter(|p| p.send && w.room() >= 9) {
            path.send = false;
            path.padded = full;
            w.varint(ty::PATH_CHALLENGE);
            w.bytes(&path.challenge);
            (out.eliciting, out.expand) = (true, true);
        }
    }

    /// DATAGRAM frames (RFC 9221 5); they are never sent again.
    fn write_datagrams(&mut self, w: &mut Writer<'_>) {
        while let Some(data) = self.datagrams.front() {
            if w.room() < 1 + varint_len(data.len() as u64) + data.len() {
                break;
            }
            frame::write_ints(w, ty::DATAGRAM_LEN, &[data.len() as u64]);
            w.bytes(data);
            self.datagram_bytes -= data.len();
            self.datagrams.pop_front();
        }
    }
}
