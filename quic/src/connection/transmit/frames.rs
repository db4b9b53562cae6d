//! What goes into a packet (RFC 9000 12.4, 13): acknowledgements, control frames, CRYPTO, datagrams.

use super::super::{Active, Connection, Cx, DIRS, Flags, Path};
use super::FRAME_ROOM_MIN;
use crate::coding::{Writer, varint_len};
use crate::crypto::{Aead, Tls};
use crate::frame::{self, ty};
use crate::packet::Level;
use crate::space::{SentFrame, SentSpace};
use crate::streams::credit;
use crate::time::Time;

/// What was put into a packet.
#[derive(Default)]
pub(super) struct Wrote {
    pub(super) eliciting: bool,
    /// The datagram is to have full size (RFC 9000 8.2.1, 8.2.2).
    pub(super) expand: bool,
}

impl<T: Tls> Connection<T> {
    pub(super) fn write_early_frames(
        &mut self,
        level: Level,
        w: &mut Writer<'_>,
        may_send: bool,
    ) -> Wrote {
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

    pub(super) fn write_data_frames<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        w: &mut Writer<'_>,
        may_send: bool,
        full: bool,
    ) -> Wrote {
        let mut wrote = Wrote::default();
        let path = self.path();
        let datagram_max = self.datagram_max(cx.transport);
        let mut probes = 0;
        // Before the acknowledgement, whose ranges would take all that a new path allows (three times the
        // 33 bytes of a PING): without a challenge the path is given up, and with it the peer (T18).
        if let Some(active) = self.active.as_mut() {
            active.write_path_frames(w, path, full, may_send, &mut wrote);
        }
        self.write_data_ack(cx.now, w);
        if let Some(active) = self.active.as_mut() {
            probes = active.data.probes;
            if may_send || probes > 0 {
                let before = w.len();
                self.write_control(cx, w);
                let active = self.active.as_mut().expect("still there");
                write_crypto(&mut active.data, w);
                active.write_datagrams(w, datagram_max);
                self.write_streams(w);
                self.write_blocked(w);
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

    /// An ACK that is owed rides on every packet.
    fn write_data_ack(&mut self, now: Time, w: &mut Writer<'_>) {
        if !self.flags.has(Flags::ACK_PENDING) {
            return;
        }
        let ack = self.active.as_mut().map(|a| &mut a.delayed_ack);
        let delay = ack.as_ref().map_or(0, |ack| ack.delay(now));
        if frame::write_ack(w, delay, self.pn.ranges()) {
            self.flags.set(Flags::ACK_PENDING, false);
            self.unacknowledged = 0;
            ack.into_iter().for_each(|ack| ack.due = None);
        }
    }

    /// What the peer's limits hold back, unless they were raised meanwhile (RFC 9000 4.1, 4.6).
    fn write_blocked(&mut self, w: &mut Writer<'_>) {
        let active = self.active.as_mut().expect("checked by the caller");
        let (pending, data) = (&mut active.pending, &mut active.data);
        if pending.data_blocked && w.room() >= 9 {
            pending.data_blocked = false;
            if self.flow.tx_sent == self.flow.tx_max {
                frame::write_ints(w, ty::DATA_BLOCKED, &[self.flow.tx_max]);
                data.note(SentFrame::DataBlocked);
            }
        }
        for dir in DIRS {
            let d = dir as usize;
            if pending.streams_blocked[d] && w.room() >= 9 {
                pending.streams_blocked[d] = false;
                let max = self.counts.tx_limit[d];
                if self.counts.tx_opened[d] >= max {
                    frame::write_ints(w, ty::STREAMS_BLOCKED_BIDI + dir as u64, &[max.into()]);
                    data.note(SentFrame::StreamsBlocked(dir));
                }
            }
        }
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
            // Credit never falls (T15).
            let max = credit(self.flow.consumed, self.connection_window);
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
}

/// CRYPTO frames of a level.
fn write_crypto(space: &mut SentSpace, w: &mut Writer<'_>) -> bool {
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
    pub(in crate::connection) fn has_frames(&self) -> bool {
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

    /// DATAGRAM frames (RFC 9221 5); they are never sent again. One above `max` was taken when the path
    /// carried more, and is lost.
    fn write_datagrams(&mut self, w: &mut Writer<'_>, max: usize) {
        while let Some(data) = self.datagrams.front() {
            if data.len() > max {
                self.datagram_bytes -= data.len();
                self.datagrams.pop_front();
                continue;
            }
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
