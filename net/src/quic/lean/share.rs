//! How much of a shard's time handshakes want (T11): past half of it, newcomers prove their address
//! first, whatever the number of half-open ones.

use std::time::{Duration, Instant};

/// Time is counted in windows of this length.
const WINDOW: Duration = Duration::from_millis(100);

/// The share of a window, in percent, past which Retry is asked.
const LIMIT_PERCENT: u32 = 50;

/// A window with fewer newcomers says nothing: the first handshakes after a pause are slow ones.
const NEWCOMERS_MIN: u32 = 64;

/// The demand for handshakes: what they take, and while Retry is asked, what those sent away would
/// have taken, so that a flood does not look over as soon as it is answered.
#[derive(Debug)]
pub(super) struct Share {
    window: Instant,
    spent: Duration,
    begun: u32,
    retried: u32,
    /// What one handshake took in the window that was too full; nothing while Retry is not asked.
    cost: Option<Duration>,
}

impl Share {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            window: now,
            spent: Duration::ZERO,
            begun: 0,
            retried: 0,
            cost: None,
        }
    }

    /// A packet of a handshake took `spent`; by it so many handshakes were begun or answered with a
    /// Retry.
    pub(super) fn note(&mut self, now: Instant, spent: Duration, begun: u32, retried: u32) {
        self.spent += spent;
        self.begun += begun;
        self.retried += retried;
        let elapsed = now.saturating_duration_since(self.window);
        if elapsed >= WINDOW {
            self.close_window(elapsed);
            *self = Self {
                cost: self.cost,
                ..Self::new(now)
            };
        }
    }

    fn close_window(&mut self, elapsed: Duration) {
        let sent_away = self.cost.unwrap_or_default() * self.retried;
        let wanted = (self.spent + sent_away) * 100 / LIMIT_PERCENT;
        let enough = self.begun + self.retried >= NEWCOMERS_MIN;
        let own = (self.begun > 0).then(|| self.spent / self.begun);
        self.cost = match wanted > elapsed && enough {
            true => self.cost.or(own),
            false => None,
        };
    }

    /// Handshakes want more than their share.
    pub(super) fn is_exceeded(&self, now: Instant) -> bool {
        // What was so a while ago says nothing of now.
        self.cost.is_some() && now.saturating_duration_since(self.window) < 2 * WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Duration = Duration::from_micros(200);

    /// So many newcomers a second for `millis`, each begun or sent away as the share says.
    fn storm(share: &mut Share, now: &mut Instant, per_second: u32, millis: u64) -> u32 {
        let step = Duration::from_secs(1) / per_second;
        let mut retried = 0;
        let end = *now + Duration::from_millis(millis);
        while *now < end {
            *now += step;
            if share.is_exceeded(*now) {
                share.note(*now, COST / 50, 0, 1);
                retried += 1;
            } else {
                share.note(*now, COST, 1, 0);
            }
        }
        retried
    }

    #[test]
    fn retry_is_asked_past_half_of_the_time_and_only_as_long_t11() {
        let mut now = Instant::now();
        let mut share = Share::new(now);
        // 2,000 a second of 200 us take 40 %.
        assert_eq!(storm(&mut share, &mut now, 2_000, 2_000), 0);
        // 4,000 a second would take 80 %: all are asked once that is known, and go on being asked.
        let retried = storm(&mut share, &mut now, 4_000, 2_000);
        assert!((7_000..8_000).contains(&retried), "{retried}");
        // The flood ends: a window later nobody is asked.
        storm(&mut share, &mut now, 1_000, 150);
        assert_eq!(storm(&mut share, &mut now, 1_000, 1_000), 0);
        // Nor after a pause, whatever was before it.
        storm(&mut share, &mut now, 4_000, 500);
        assert!(share.is_exceeded(now));
        assert!(!share.is_exceeded(now + Duration::from_secs(1)));
    }

    #[test]
    fn a_few_slow_handshakes_are_no_flood() {
        let start = Instant::now();
        let mut share = Share::new(start);
        for n in 1..=30 {
            let now = start + n * Duration::from_millis(10);
            share.note(now, Duration::from_millis(9), 1, 0);
            assert!(!share.is_exceeded(now));
        }
    }
}
