//! Building datagrams (RFC 9000 12.2, 13, 14): packets are written and sealed in the caller's
//! arena, with nothing allocated in steady state.

mod close;
mod frames;
mod packet;
mod probe;
mod streams;

use super::ack::LEVELS;
use super::{Connection, Cx, Flags, Path, State};
use crate::crypto::{Aead, Tls};
use crate::limits::SENT_RECORDS_MAX;
use crate::packet::{INITIAL_DATAGRAM_MIN, Level};
use crate::time::Time;

/// Less room than this starts no further packet in a datagram.
const PACKET_ROOM_MIN: usize = 96;

/// Less room than this starts no STREAM, CRYPTO or DATAGRAM frame.
const FRAME_ROOM_MIN: usize = 32;

impl<T: Tls> Connection<T> {
    /// The largest datagram for this peer (T12).
    pub(super) fn payload_max<A: Aead>(&self, cx: &Cx<'_, A>) -> u16 {
        self.payload(cx.transport)
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
        if !self.keep_keys_fresh(cx) {
            return self.build_close(cx, buf);
        }
        if self.active.is_some() {
            self.refill_pacing(cx);
        }
        let may_send = self.may_send(cx);
        if let Some(probe) = self.build_path_probe(cx, buf, may_send) {
            return Some(probe);
        }
        let probe = match may_send {
            true => self.build_mtu_probe(cx, buf),
            false => None,
        };
        let len = match probe {
            Some(len) => len,
            None => self.build_main(cx, buf, may_send)?,
        };
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

    fn wants(&self, now: Time, level: Level, may_send: bool) -> bool {
        if level == Level::Data {
            return self.wants_data(now, may_send);
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

    fn wants_data(&self, now: Time, may_send: bool) -> bool {
        if self.keys.is_none() || self.state != State::Open {
            return false;
        }
        if self.flags.has(Flags::PING_WANTED | Flags::PROBE) || self.ack_is_due(now) {
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
        let wanted = LEVELS.map(|l| self.wants(cx.now, l, may_send));
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
}
