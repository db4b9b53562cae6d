//! From idle to active and back: the active part comes with work and goes when it drains (T7, T18).

use super::{Active, Connection, Cx, Flags, Handshake, IDLE_PING_SIZE, OwnIds, Path, State};
use crate::crypto::Aead;
use crate::limits;
use crate::params::Side;
use crate::recovery::Window;
use crate::time::{Time, low32};

impl<T> Connection<T> {
    /// A connection that starts its handshake.
    pub(crate) fn start<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        side: Side,
        path: Path,
        hs: Handshake<T>,
    ) {
        let transport = cx.transport;
        self.state = State::ExpectFinished;
        self.flags = Flags::default();
        self.flags.set(Flags::CLIENT, side.is_client());
        self.set_path(path);
        self.own = OwnIds {
            active: [Some(0), None],
            next: 1,
        };
        self.window = Window::new(transport.payload_max);
        self.stream_window = transport.stream_window;
        self.connection_window = transport.connection_window;
        self.flow.rx_max = u64::from(transport.connection_window);
        self.counts.rx_limit = [transport.streams_bidi, transport.streams_uni];
        *cx.activity = low32(cx.now.as_millis());
        let burst = self.burst(cx);
        let mut active = Active::new(cx.now, &self.stream0, 0, 0, cx.rng, burst);
        active.hs = Some(Box::new(hs));
        self.active = Some(Box::new(active));
    }

    fn burst<A: Aead>(&self, cx: &Cx<'_, A>) -> u64 {
        limits::BURST_PACKETS * u64::from(cx.transport.payload_max)
    }

    /// The active part, made when there is none. An unacknowledged PING of the idle time becomes an
    /// ordinary record.
    pub(crate) fn thaw<A: Aead>(&mut self, cx: &mut Cx<'_, A>) -> &mut Active<T> {
        if self.active.is_none() {
            let burst = self.burst(cx);
            let consumed = self.flow.consumed;
            let active = Active::new(cx.now, &self.stream0, self.pn.next, consumed, cx.rng, burst);
            let mut active = Box::new(active);
            if self.flags.take(Flags::PING_SENT) {
                let pn = self.ping_pn();
                let sent = self.ping_time(cx.now);
                active.data.record(pn, sent, IDLE_PING_SIZE, true);
                active.rec.bytes_in_flight += IDLE_PING_SIZE as u64;
            }
            active.data.probes = u8::from(self.flags.take(Flags::PROBE));
            self.active = Some(active);
        }
        self.active.as_mut().expect("made above")
    }

    /// Drops the active part when nothing is left in it. A connection that is closing keeps it. False if what
    /// it counted does not come out: an invariant is broken (T15).
    pub(crate) fn freeze(&mut self) -> bool {
        if self.state != State::Open || !self.flags.has(Flags::CONFIRMED) {
            return true;
        }
        let Some(active) = &self.active else {
            return true;
        };
        // An acknowledgement that waits for company needs its timer, which an idle connection has not.
        if self.flags.has(Flags::ACK_PENDING) || !active.is_quiescent(&self.stream0) {
            return true;
        }
        // Quiescent means that nothing is in flight and all is read.
        let sound = active.rec.bytes_in_flight == 0 && active.rx_sum == self.flow.consumed;
        if sound {
            self.active = None;
        }
        sound
    }

    /// The number of the idle PING: its low bits, and the high bits of the next number.
    pub(crate) fn ping_pn(&self) -> u64 {
        let behind = low32(self.pn.next).wrapping_sub(self.ping.pn);
        self.pn.next - u64::from(behind)
    }

    pub(crate) fn ping_time(&self, now: Time) -> Time {
        let age_ms = low32(now.as_millis()).wrapping_sub(self.ping.sent_ms);
        Time::from_millis(now.as_millis().saturating_sub(u64::from(age_ms)))
    }
}
