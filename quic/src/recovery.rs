//! Round-trip time and congestion control (RFC 9002 5, 6.2, 7): arithmetic only. Which packets are
//! acknowledged or lost is decided in `connection/ack.rs`.

use crate::limits::{INITIAL_WINDOW_PACKETS, MINIMUM_WINDOW_PACKETS};
use crate::time::{Time, sat32};

/// Timer granularity (RFC 9002 6.1.2).
pub(crate) const GRANULARITY_US: u64 = 1_000;

/// Packets that may overtake before one counts as lost (RFC 9002 6.1.1).
pub(crate) const PACKET_THRESHOLD: u64 = 3;

/// Spans of PTO that make losses persistent congestion (RFC 9002 7.6.1).
pub(crate) const PERSISTENT_PTOS: u64 = 3;

/// The estimator of RFC 9002 5.3, in microseconds: twelve bytes of an idle connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    /// Zero before the first sample.
    smoothed: u32,
    variation: u32,
    min: u32,
}

impl Rtt {
    pub(crate) const NEW: Self = Self {
        smoothed: 0,
        variation: 0,
        min: u32::MAX,
    };

    pub(crate) fn has_sample(&self) -> bool {
        self.smoothed != 0
    }

    /// Takes a sample; `ack_delay` is already capped by the peer's maximum (RFC 9002 5.3).
    pub(crate) fn update(&mut self, latest_us: u64, ack_delay_us: u64) {
        let latest = sat32(latest_us.max(1));
        self.min = self.min.min(latest);
        if self.smoothed == 0 {
            self.smoothed = latest;
            self.variation = latest / 2;
            return;
        }
        let delay = sat32(ack_delay_us);
        let adjusted = match self.min.checked_add(delay) {
            Some(floor) if latest >= floor => latest - delay,
            _ => latest,
        };
        let apart = self.smoothed.abs_diff(adjusted);
        let blend = |old: u32, new: u32, weight: u64| {
            sat32((u64::from(old) * (weight - 1) + u64::from(new)) / weight)
        };
        self.variation = blend(self.variation, apart, 4);
        self.smoothed = blend(self.smoothed, adjusted, 8).max(1);
    }

    /// The smoothed time, or `initial` before the first sample.
    pub(crate) fn smoothed(&self, initial_us: u64) -> u64 {
        if self.has_sample() {
            u64::from(self.smoothed)
        } else {
            initial_us
        }
    }

    /// The probe timeout without backoff and without the peer's delay (RFC 9002 6.2.1).
    pub(crate) fn pto(&self, initial_us: u64) -> u64 {
        if !self.has_sample() {
            return initial_us + (4 * (initial_us / 2)).max(GRANULARITY_US);
        }
        u64::from(self.smoothed) + (4 * u64::from(self.variation)).max(GRANULARITY_US)
    }

    /// After how long an overtaken packet counts as lost (RFC 9002 6.1.2).
    pub(crate) fn loss_delay(&self, latest_us: u64, initial_us: u64) -> u64 {
        let longest = self.smoothed(initial_us).max(latest_us);
        (longest * 9 / 8).max(GRANULARITY_US)
    }

    /// After persistent congestion the next sample replaces the minimum (RFC 9002 5.2).
    pub(crate) fn forget_min(&mut self) {
        self.min = u32::MAX;
    }
}

/// NewReno (RFC 9002 7), the part that an idle connection keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) cwnd: u32,
    pub(crate) ssthresh: u32,
}

impl Window {
    pub(crate) fn new(payload: u16) -> Self {
        Self {
            cwnd: INITIAL_WINDOW_PACKETS * u32::from(payload),
            ssthresh: u32::MAX,
        }
    }
}

/// Congestion and loss state that exists only in flight.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) bytes_in_flight: u64,
    /// Losses of packets sent before this moment belong to the same event (RFC 9002 7.3.2).
    recovery_start: Option<Time>,
    /// Bytes acknowledged since the last step of congestion avoidance.
    credit: u32,
    pub(crate) latest_rtt: u64,
    /// When the first sample came: earlier losses are no persistent congestion (RFC 9002 7.6.2).
    pub(crate) first_sample: Option<Time>,
    /// Pacing: bytes that may leave at once, and when that was computed (RFC 9002 7.7).
    pub(crate) tokens: u64,
    pub(crate) tokens_at: Time,
    /// Pacing held a packet back until then.
    pub(crate) paced_until: Option<Time>,
}

impl Recovery {
    pub(crate) fn new(now: Time, burst: u64) -> Self {
        Self {
            bytes_in_flight: 0,
            recovery_start: None,
            credit: 0,
            latest_rtt: 0,
            first_sample: None,
            tokens: burst,
            tokens_at: now,
            paced_until: None,
        }
    }

    /// An acknowledged packet opens the window, when the window was what limited sending.
    pub(crate) fn on_acked(
        &mut self,
        w: &mut Window,
        sent: Time,
        size: u16,
        limited: bool,
        payload: u16,
    ) {
        self.bytes_in_flight -= u64::from(size);
        if self.recovery_start.is_some_and(|start| sent <= start) || !limited {
            return;
        }
        if w.cwnd < w.ssthresh {
            w.cwnd = w.cwnd.saturating_add(u32::from(size));
            return;
        }
        self.credit = self.credit.saturating_add(u32::from(size));
        if self.credit >= w.cwnd {
            self.credit -= w.cwnd;
            w.cwnd = w.cwnd.saturating_add(u32::from(payload));
        }
    }

    /// A loss halves the window once per round trip (RFC 9002 7.3.2).
    pub(crate) fn on_congestion(&mut self, w: &mut Window, now: Time, sent: Time, payload: u16) {
        if self.recovery_start.is_some_and(|start| sent <= start) {
            return;
        }
        self.recovery_start = Some(now);
        self.credit = 0;
        w.ssthresh = (w.cwnd / 2).max(MINIMUM_WINDOW_PACKETS * u32::from(payload));
        w.cwnd = w.ssthresh;
    }

    pub(crate) fn on_persistent_congestion(&mut self, w: &mut Window, payload: u16) {
        w.cwnd = MINIMUM_WINDOW_PACKETS * u32::from(payload);
        self.recovery_start = None;
    }

    /// Refills the pacing budget: 5/4 of a window per round trip (RFC 9002 7.7).
    pub(crate) fn refill(&mut self, now: Time, cwnd: u32, srtt_us: u64, burst: u64) {
        let elapsed = now.since(self.tokens_at);
        let earned = u64::from(cwnd) * 5 * elapsed.min(1_000_000) / (4 * srtt_us.max(1));
        if earned > 0 || self.tokens >= burst {
            self.tokens = (self.tokens + earned).min(burst);
            self.tokens_at = now;
        }
    }

    /// When `bytes` will have been earned.
    pub(crate) fn ready_at(&self, bytes: u64, cwnd: u32, srtt_us: u64) -> Time {
        let missing = bytes.saturating_sub(self.tokens);
        self.tokens_at + (missing * 4 * srtt_us.max(1)).div_ceil(u64::from(cwnd) * 5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_sample_and_smoothing_rfc9002_5_3() {
        let mut rtt = Rtt::NEW;
        assert_eq!(rtt.pto(333_000), 999_000);
        rtt.update(100_000, 25_000);
        assert_eq!(
            (rtt.smoothed, rtt.variation, rtt.min),
            (100_000, 50_000, 100_000)
        );
        rtt.update(140_000, 20_000);
        // 120 ms after the peer's delay: 7/8 * 100 + 1/8 * 120.
        assert_eq!(rtt.smoothed, 102_500);
        assert_eq!(rtt.variation, (3 * 50_000 + 20_000) / 4);
        // A delay that would take the sample below the minimum is not subtracted.
        rtt.update(100_000, 25_000);
        assert_eq!(rtt.smoothed, (7 * 102_500 + 100_000) / 8);
    }

    #[test]
    fn one_reduction_per_round_trip_rfc9002_7_3_2() {
        let mut w = Window::new(1_200);
        let mut r = Recovery::new(Time::ZERO, 0);
        let at = Time::from_millis;
        r.on_congestion(&mut w, at(10), at(1), 1_200);
        assert_eq!((w.cwnd, w.ssthresh), (6_000, 6_000));
        r.on_congestion(&mut w, at(12), at(9), 1_200);
        assert_eq!(w.cwnd, 6_000);
        r.on_congestion(&mut w, at(30), at(20), 1_200);
        assert_eq!(w.cwnd, 3_000);
        r.on_congestion(&mut w, at(60), at(50), 1_200);
        assert_eq!(w.cwnd, 2_400, "not below two packets");
    }

    #[test]
    fn slow_start_then_one_packet_per_window_rfc9002_7_3() {
        let mut w = Window {
            cwnd: 12_000,
            ssthresh: 24_000,
        };
        let mut r = Recovery::new(Time::ZERO, 0);
        r.bytes_in_flight = 1 << 20;
        for _ in 0..10 {
            r.on_acked(&mut w, Time::ZERO, 1_200, true, 1_200);
        }
        assert_eq!(w.cwnd, 24_000);
        for _ in 0..20 {
            r.on_acked(&mut w, Time::ZERO, 1_200, true, 1_200);
        }
        assert_eq!(w.cwnd, 25_200);
        // A window that was not used does not grow (RFC 9002 7.8).
        r.on_acked(&mut w, Time::ZERO, 1_200, false, 1_200);
        assert_eq!(w.cwnd, 25_200);
    }
}
