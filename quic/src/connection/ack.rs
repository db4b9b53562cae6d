//! Acknowledgements, loss detection and probe timeouts (RFC 9000 13.1, RFC 9002 6, 7.6, A).

use super::{Active, Connection, Cx, Flags};
use crate::crypto::{Aead, Tls};
use crate::error::{TransportError, broken, refuse};
use crate::event::Event;
use crate::frame::Ack;
use crate::limits::{ACK_AFTER, ACK_TIMER_SLACK_MS, KEPT_MAX, PTO_BACKED_OFF_MAX};
use crate::packet::Level;
use crate::recovery::{PACKET_THRESHOLD, PERSISTENT_PTOS};
use crate::space::{Sent, SentFrame};
use crate::time::{Time, low32};

/// Backoff is capped so that timers stay in range of the wheel.
const PTO_BACKOFF_MAX: u32 = 12;

pub(super) const LEVELS: [Level; 3] = [Level::Initial, Level::Handshake, Level::Data];

/// When the 1-RTT packets received are acknowledged (RFC 9000 13.2.1). Part of the active part: an idle
/// connection acknowledges at once, without a timer (T10).
#[derive(Debug, Default)]
pub(crate) struct DelayedAck {
    /// `None` is at once.
    pub(crate) due: Option<Time>,
    /// When the largest number arrived, for the delay that the ACK tells (RFC 9000 13.2.5).
    pub(super) arrived: Option<Time>,
}

impl DelayedAck {
    /// The timer ran out: what waited is due.
    pub(super) fn expire(&mut self, now: Time) {
        self.due = self.due.filter(|at| *at > now);
    }

    /// The delay of an ACK that leaves now, in the units of the frame (RFC 9000 19.3).
    pub(super) fn delay(&self, now: Time) -> u64 {
        self.arrived.map_or(0, |at| now.since(at)) >> ACK_DELAY_EXPONENT
    }
}

/// The default of RFC 9000 18.2, which the parameters leave in force.
const ACK_DELAY_EXPONENT: u32 = 3;

/// What an ACK newly acknowledged.
#[derive(Default)]
struct Newly {
    /// When the largest acknowledged packet was sent, if it was newly acknowledged.
    largest_sent: Option<Time>,
    eliciting: bool,
    any: bool,
}

impl<T> Connection<T> {
    /// The probe timeout of a level without backoff (RFC 9002 6.2.1).
    pub(crate) fn pto<A: Aead>(&self, cx: &Cx<'_, A>, level: Level) -> u64 {
        let delay = match level {
            Level::Data => u64::from(self.peer.max_ack_delay_ms) * 1_000,
            _ => 0,
        };
        self.rtt.pto(cx.initial_rtt()) + delay
    }

    /// How long what is over is kept, for what of it is still under way (RFC 9000 10.2, RFC 9001 6.5). The peer has a hand
    /// in the round trip, so there is a limit (T8).
    pub(super) fn three_ptos<A: Aead>(&self, cx: &Cx<'_, A>) -> u64 {
        (3 * self.pto(cx, Level::Data)).min(KEPT_MAX)
    }

    /// An ack-eliciting 1-RTT packet arrived: it is acknowledged with the next packet that leaves, and
    /// at the latest when `max_ack_delay` is nearly over. At once, if it is the second, if it came out
    /// of order, or before the handshake is confirmed (RFC 9000 13.2.1, 13.2.2); and without an active
    /// part (T10).
    pub(super) fn owe_ack<A: Aead>(&mut self, cx: &Cx<'_, A>, in_order: bool) {
        let owed = self.flags.has(Flags::ACK_PENDING);
        self.flags.set(Flags::ACK_PENDING, true);
        let confirmed = self.flags.has(Flags::CONFIRMED);
        let Some(active) = self.active.as_mut() else {
            return;
        };
        let delay_ms = cx
            .transport
            .max_ack_delay_ms
            .saturating_sub(ACK_TIMER_SLACK_MS);
        // The peer's keys were updated: until its packets of the new phase are acknowledged it may not
        // update again (RFC 9001 6.1).
        let new_phase = active.old_key.is_some();
        let waits = !owed && confirmed && in_order && !new_phase && delay_ms > 0;
        active.delayed_ack.due = waits.then(|| cx.now + u64::from(delay_ms) * 1_000);
    }

    /// Whether an ACK is to be built before another packet is taken (T20).
    pub(crate) fn must_acknowledge(&self) -> bool {
        self.flags.has(Flags::ACK_PENDING) && self.unacknowledged >= ACK_AFTER
    }

    /// Whether an ACK is to leave now, alone if need be.
    pub(super) fn ack_is_due(&self, now: Time) -> bool {
        let due = self.active.as_ref().and_then(|a| a.delayed_ack.due);
        self.must_acknowledge()
            || self.flags.has(Flags::ACK_PENDING) && due.is_none_or(|at| at <= now)
    }

    /// The peer spoke: what it has not acknowledged is probed without the back-off, which was for a network that
    /// takes nothing (T21). Once for each probe timeout, or a flood of PINGs were a flood of probes.
    pub(super) fn on_heard(&mut self) {
        let confirmed = self.flags.has(Flags::CONFIRMED);
        if let Some(active) = self
            .active
            .as_mut()
            .filter(|_| confirmed && self.pto_count > 0)
        {
            active.heard = true;
        }
    }

    fn backed_off<A: Aead>(&self, cx: &Cx<'_, A>, level: Level) -> u64 {
        let pto = self.pto(cx, level);
        if self.active.as_ref().is_some_and(|active| active.heard) {
            return pto;
        }
        let backed_off = pto << u32::from(self.pto_count).min(PTO_BACKOFF_MAX);
        // A handshake has a limit of its own, and no session to keep.
        match self.flags.has(Flags::CONFIRMED) {
            true => backed_off.min(PTO_BACKED_OFF_MAX.max(pto)),
            false => backed_off,
        }
    }

    /// When an idle connection repeats its unacknowledged PING.
    pub(super) fn idle_ping_deadline<A: Aead>(&self, cx: &Cx<'_, A>) -> Time {
        self.ping_time(cx.now) + self.backed_off(cx, Level::Data)
    }

    pub(super) fn on_idle_ping_timeout<A: Aead>(&mut self, cx: &mut Cx<'_, A>) {
        if self.flags.has(Flags::PING_SENT) && self.idle_ping_deadline(cx) <= cx.now {
            // The old number is forgotten: an acknowledgement of the new one is as good.
            self.pto_count = self.pto_count.saturating_add(1);
            self.flags.set(Flags::PING_SENT, false);
            self.flags.set(Flags::PROBE, true);
        }
    }

    /// True while this side must assume that the server is blocked by its amplification limit
    /// (RFC 9002 6.2.2.1).
    fn peer_may_be_blocked(&self) -> bool {
        self.flags.has(Flags::CLIENT)
            && !self.flags.has(Flags::CONFIRMED)
            && self
                .active
                .as_ref()
                .and_then(|a| a.hs.as_ref())
                .is_some_and(|hs| !hs.handshake_acked)
    }

    /// When loss detection needs attention (RFC 9002 A.8).
    pub(crate) fn recovery_deadline<A: Aead>(&self, cx: &Cx<'_, A>) -> Option<Time> {
        self.loss_time()
            .map(|(t, _)| t)
            .or_else(|| self.pto_deadline(cx).map(|(t, _)| t))
    }

    fn spaces(active: &Active<T>) -> impl Iterator<Item = (Level, &crate::space::SentSpace)> {
        let early = active.hs.iter().flat_map(|hs| {
            [Level::Initial, Level::Handshake]
                .into_iter()
                .filter_map(move |l| Some((l, &hs.spaces[l as usize].as_ref()?.sent)))
        });
        early.chain(std::iter::once((Level::Data, &active.data)))
    }

    fn loss_time(&self) -> Option<(Time, Level)> {
        let active = self.active.as_ref()?;
        Self::spaces(active)
            .filter_map(|(l, s)| Some((s.loss_time?, l)))
            .min_by_key(|(t, _)| *t)
    }

    fn pto_deadline<A: Aead>(&self, cx: &Cx<'_, A>) -> Option<(Time, Level)> {
        let active = self.active.as_ref()?;
        if self.amplification_budget() == Some(0) {
            // RFC 9002 6.2.2.1: a blocked server waits for the client.
            return None;
        }
        let in_flight = Self::spaces(active).any(|(_, s)| s.eliciting_in_flight > 0);
        if !in_flight {
            if !self.peer_may_be_blocked() {
                return None;
            }
            let hs = active.hs.as_ref().expect("a handshake is under way");
            let level = if hs.spaces[1].is_some() {
                Level::Handshake
            } else {
                Level::Initial
            };
            // Counted from the last thing that happened: this side's last flight is unknown to be
            // lost, so the clock starts with the last activity.
            let age = low32(cx.now.as_millis()).wrapping_sub(*cx.activity);
            let last = Time::from_millis(cx.now.as_millis().saturating_sub(u64::from(age)));
            return Some((last + self.backed_off(cx, level), level));
        }
        let confirmed = self.flags.has(Flags::CONFIRMED);
        Self::spaces(active)
            .filter(|(l, s)| s.eliciting_in_flight > 0 && (*l != Level::Data || confirmed))
            .map(|(l, s)| (s.last_eliciting + self.backed_off(cx, l), l))
            .min_by_key(|(t, _)| *t)
    }
}

impl<T: Tls> Connection<T> {
    /// An ACK frame (RFC 9000 13.1, 19.3).
    pub(super) fn on_ack<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        level: Level,
        ack: &Ack<'_>,
    ) -> Result<(), TransportError> {
        let Some(pns) = self.pns(level) else {
            return Ok(());
        };
        // RFC 9000 13.1: an acknowledgement of a packet that was not sent.
        if ack.largest >= pns.next {
            refuse!(
                PROTOCOL_VIOLATION,
                "acknowledged a packet that was never sent"
            );
        }
        pns.on_acked(ack.largest);
        if level == Level::Handshake
            && let Some(hs) = self.active.as_mut().and_then(|a| a.hs.as_mut())
        {
            hs.handshake_acked = true;
        }
        if level == Level::Data && ack.largest >= self.phases.local_first {
            self.flags.set(Flags::PHASE_ACKED, true);
        }
        if self.active.is_none() {
            self.on_ack_while_idle(cx, ack);
            return Ok(());
        }
        let newly = self.settle_ranges(cx, level, ack)?;
        if !newly.any {
            return Ok(());
        }
        if let Some(sent) = newly.largest_sent.filter(|_| newly.eliciting) {
            self.sample_rtt(cx, level, ack.delay, sent);
        }
        // RFC 9002 6.2.1: the backoff stays while the server may not have validated this address.
        if !self.peer_may_be_blocked() {
            self.pto_count = 0;
        }
        self.detect_losses(cx, level);
        Ok(())
    }

    /// Without an active part the only thing in flight can be one PING (T10).
    fn on_ack_while_idle<A: Aead>(&mut self, cx: &mut Cx<'_, A>, ack: &Ack<'_>) {
        if !self.flags.has(Flags::PING_SENT) {
            return;
        }
        let pn = self.ping_pn();
        if !ack.ranges().any(|(low, high)| (low..=high).contains(&pn)) {
            return;
        }
        self.flags.set(Flags::PING_SENT, false);
        self.pto_count = 0;
        if ack.largest == pn {
            let latest = cx.now.since(self.ping_time(cx.now));
            self.rtt.update(latest, self.peer_delay(ack.delay));
        }
        self.pong(cx);
    }

    fn pong<A: Aead>(&mut self, cx: &mut Cx<'_, A>) {
        if self.flags.take(Flags::PONG_WANTED) {
            cx.event(Event::Pong);
        }
    }

    /// The peer's delay in microseconds, capped by its promise (RFC 9002 5.3).
    fn peer_delay(&self, field: u64) -> u64 {
        let scaled = field.saturating_mul(1 << self.peer.ack_delay_exponent);
        scaled.min(u64::from(self.peer.max_ack_delay_ms) * 1_000)
    }

    fn sample_rtt<A: Aead>(&mut self, cx: &Cx<'_, A>, level: Level, delay: u64, sent: Time) {
        let latest = cx.now.since(sent);
        // RFC 9002 5.3: no delay in Initial packets; the peer's maximum binds after confirmation,
        // and before it this side is as strict.
        let delay = if level == Level::Data {
            self.peer_delay(delay)
        } else {
            0
        };
        self.rtt.update(latest, delay);
        let rec = &mut self.active.as_mut().expect("records exist").rec;
        rec.latest_rtt = latest;
        rec.first_sample.get_or_insert(cx.now);
    }

    fn settle_ranges<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        level: Level,
        ack: &Ack<'_>,
    ) -> Result<Newly, TransportError> {
        let mut newly = Newly::default();
        let active = self.active.as_mut().ok_or(broken("records exist"))?;
        // RFC 9000 21.4, T15: a number that was left out on purpose cannot have been received.
        if level == Level::Data
            && let Some(skipped) = active.skipped
            && ack
                .ranges()
                .any(|(low, high)| (low..=high).contains(&skipped))
        {
            refuse!(
                PROTOCOL_VIOLATION,
                "acknowledged a packet number that was skipped"
            );
        }
        let window = u64::from(self.window.cwnd);
        let limited = active.rec.bytes_in_flight * 2 >= window;
        for (low, high) in ack.ranges() {
            let Some(space) = self.active.as_mut().and_then(|a| a.space(level)) else {
                break;
            };
            let mut index = space.position(low);
            let end = space.position(high.saturating_add(1));
            while index < end {
                let Some(space) = self.active.as_mut().and_then(|a| a.space(level)) else {
                    break;
                };
                if let Some(record) = space.settle(index) {
                    newly.any = true;
                    newly.eliciting |= record.eliciting;
                    if record.pn == ack.largest {
                        newly.largest_sent = Some(record.time);
                    }
                    self.on_record_acked(cx, level, &record, limited);
                }
                index += 1;
            }
        }
        if let Some(space) = self.active.as_mut().and_then(|a| a.space(level)) {
            space.trim();
        }
        if newly.eliciting {
            self.pong(cx);
        }
        Ok(newly)
    }

    fn on_record_acked<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        level: Level,
        record: &Sent,
        limited: bool,
    ) {
        let payload = self.payload_max(cx);
        let active = self.active.as_mut().expect("the record's");
        active
            .rec
            .on_acked(&mut self.window, record.time, record.size, limited, payload);
        if level == Level::Data {
            self.on_big_acked(cx.transport, record);
        }
        for n in 0..record.frames {
            let active = self.active.as_mut().expect("the record's");
            let frame = active.space(level).expect("the record's").frame(record, n);
            self.on_frame_acked(cx, level, frame);
        }
    }

    fn on_frame_acked<A: Aead>(&mut self, cx: &mut Cx<'_, A>, level: Level, frame: SentFrame) {
        match frame {
            SentFrame::Crypto { offset, len } => {
                let active = self.active.as_mut().expect("records exist");
                let space = active.space(level).expect("the record's");
                space.crypto_tx.ack(offset, u64::from(len));
            }
            SentFrame::Stream {
                id,
                offset,
                len,
                fin,
            } => {
                self.on_stream_acked(cx, id, offset, u64::from(len), fin);
            }
            SentFrame::ResetStream(id) => self.on_reset_acked(id),
            SentFrame::MtuProbe(size) => self.on_mtu_probe_acked(size),
            _ => {}
        }
    }

    /// Declares losses in a space (RFC 9002 6.1).
    fn detect_losses<A: Aead>(&mut self, cx: &mut Cx<'_, A>, level: Level) {
        let largest = self.pns(level).and_then(|p| p.largest_acked());
        let Some(largest) = largest else { return };
        let (initial_rtt, pto) = (cx.initial_rtt(), self.pto(cx, Level::Data));
        let payload = self.payload_max(cx);
        let active = self.active.as_mut().expect("records exist");
        let delay = self.rtt.loss_delay(active.rec.latest_rtt, initial_rtt);
        let first_sample = active.rec.first_sample;
        let Some(space) = active.space(level) else {
            return;
        };
        space.loss_time = None;
        let (mut index, mut newest_lost) = (0, None);
        let mut span = LostSpan::default();
        while let Some(record) = self
            .active
            .as_mut()
            .and_then(|a| a.space(level))
            .and_then(|s| s.sent.get(index).copied().filter(|r| r.pn <= largest))
        {
            if record.gone {
                span.interrupt();
            } else if largest - record.pn >= PACKET_THRESHOLD || record.time + delay <= cx.now {
                match self.probed(level, &record) {
                    // RFC 9000 14.4: the loss of a probe is no congestion.
                    Some(size) => self.on_mtu_probe_lost(size),
                    None => {
                        newest_lost = newest_lost.max(Some(record.time));
                        if record.eliciting && first_sample.is_some_and(|t| record.time >= t) {
                            span.extend(record.time);
                        }
                        if level == Level::Data {
                            self.on_big_lost(cx.transport, &record);
                        }
                    }
                }
                self.lose(level, index);
            } else {
                let active = self.active.as_mut().expect("records exist");
                let space = active.space(level).expect("the record's");
                let at = record.time + delay;
                space.loss_time = Some(space.loss_time.map_or(at, |t| t.min(at)));
            }
            index += 1;
        }
        let active = self.active.as_mut().expect("records exist");
        if let Some(space) = active.space(level) {
            space.trim();
        }
        let Some(newest) = newest_lost else { return };
        active
            .rec
            .on_congestion(&mut self.window, cx.now, newest, payload);
        // RFC 9002 7.6: everything lost over a long time means that nothing gets through.
        if span.longest > PERSISTENT_PTOS * pto {
            active
                .rec
                .on_persistent_congestion(&mut self.window, payload);
            self.rtt.forget_min();
        }
    }

    /// Settles a record as lost and schedules its frames again.
    fn lose(&mut self, level: Level, index: usize) {
        let Some(active) = self.active.as_mut() else {
            return;
        };
        let Some(record) = active.space(level).and_then(|s| s.settle(index)) else {
            return;
        };
        active.rec.bytes_in_flight -= u64::from(record.size);
        self.resend(level, &record);
    }

    /// Schedules the frames of a packet again; they are not changed by being sent twice.
    fn resend(&mut self, level: Level, record: &Sent) {
        for n in 0..record.frames {
            let active = self.active.as_mut().expect("records exist");
            let space = active.space(level).expect("the record's");
            match space.frame(record, n) {
                SentFrame::Crypto { offset, len } => space.crypto_tx.lose(offset, u64::from(len)),
                SentFrame::Stream {
                    id,
                    offset,
                    len,
                    fin,
                } => {
                    self.on_stream_lost(id, offset, u64::from(len), fin);
                }
                SentFrame::ResetStream(id) => self.with_buf(id, |_, buf| buf.send_reset = true),
                SentFrame::StopSending(id) => self.with_buf(id, |state, buf| {
                    buf.send_stop = state.recv == crate::streams::RecvState::Open;
                }),
                SentFrame::MaxStreamData(id) => self.with_buf(id, |state, buf| {
                    buf.send_max = state.recv == crate::streams::RecvState::Open;
                }),
                SentFrame::MaxData => active.pending.max_data = true,
                SentFrame::MaxStreams(dir) => active.pending.max_streams[dir as usize] = true,
                SentFrame::DataBlocked => active.pending.data_blocked = true,
                SentFrame::StreamDataBlocked(id) => self.with_buf(id, |state, buf| {
                    buf.send_blocked = buf.is_blocked(state);
                }),
                SentFrame::StreamsBlocked(dir) => {
                    active.pending.streams_blocked[dir as usize] = true;
                }
                SentFrame::NewCid(sequence) => {
                    if self.own.is_active(sequence) && !active.pending.new_cids.contains(&sequence)
                    {
                        active.pending.new_cids.push(sequence);
                    }
                }
                SentFrame::RetireCid(sequence) => {
                    if !active.pending.retire_cids.contains(&sequence) {
                        active.pending.retire_cids.push(sequence);
                    }
                }
                SentFrame::HandshakeDone => active.pending.handshake_done = true,
                SentFrame::NewToken => active.pending.new_token = true,
                SentFrame::MtuProbe(_) => {}
            }
        }
    }

    /// The loss detection timer (RFC 9002 A.9).
    pub(super) fn on_recovery_timeout<A: Aead>(&mut self, cx: &mut Cx<'_, A>) {
        if let Some((at, level)) = self.loss_time() {
            if at <= cx.now {
                self.detect_losses(cx, level);
            }
            return;
        }
        let Some((at, level)) = self.pto_deadline(cx) else {
            return;
        };
        if at > cx.now {
            return;
        }
        self.pto_count = self.pto_count.saturating_add(1);
        self.suspect_mtu();
        let active = self.active.as_mut().expect("a deadline needs records");
        // One packet is an answer to a peer that spoke; two are for a network that loses one of them.
        let probes = match std::mem::take(&mut active.heard) {
            true => 1,
            false => 2,
        };
        let quiet = !Self::spaces(active).any(|(_, s)| s.eliciting_in_flight > 0);
        if quiet {
            // The client's probe against a deadlock starts the backoff anew from now.
            *cx.activity = low32(cx.now.as_millis());
        }
        // Handshake probes are for every level with something in flight: they share a datagram.
        for l in LEVELS {
            let active = self.active.as_mut().expect("as above");
            let Some(space) = active.space(l) else {
                continue;
            };
            if l == level || (space.eliciting_in_flight > 0 && l != Level::Data) {
                space.probes = probes;
                self.resend_oldest(l);
            }
        }
    }

    /// A probe carries what was longest in flight (RFC 9002 6.2.4), without declaring it lost.
    fn resend_oldest(&mut self, level: Level) {
        let active = self.active.as_mut().expect("a probe needs an active part");
        let Some(space) = active.space(level) else {
            return;
        };
        let oldest: Vec<Sent> = space
            .sent
            .iter()
            .filter(|s| !s.gone && s.eliciting)
            .take(2)
            .copied()
            .collect();
        for record in oldest {
            self.resend(level, &record);
        }
    }

    /// Forgets a level: its keys are gone (RFC 9001 4.9, RFC 9002 6.4).
    pub(super) fn discard_level(&mut self, level: Level) {
        let Some(active) = self.active.as_mut() else {
            return;
        };
        let Some(hs) = active.hs.as_mut() else { return };
        if let Some(space) = hs.spaces[level as usize].take() {
            active.rec.bytes_in_flight -= space.sent.bytes_in_flight();
            self.pto_count = 0;
        }
    }
}

/// The longest stretch of time over which every packet was lost (RFC 9002 7.6.2).
#[derive(Default)]
struct LostSpan {
    start: Option<Time>,
    longest: u64,
}

impl LostSpan {
    fn extend(&mut self, sent: Time) {
        let start = *self.start.get_or_insert(sent);
        self.longest = self.longest.max(sent.since(start));
    }

    fn interrupt(&mut self) {
        self.start = None;
    }
}
