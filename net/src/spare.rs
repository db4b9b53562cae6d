//! Whether a loop has time to spare: one that hardly slept of late has none, and what one session gets is then
//! taken from the others (T21).

use std::time::{Duration, Instant};

/// Time is looked at in windows of this length: those of a session's quota.
const WINDOW: Duration = Duration::from_millis(roadstead_quic::limits::QUOTA_WINDOW_MS);

/// A loop that slept for less than this part of a window is behind.
const SPARE_PART: u32 = 20;

/// How much a loop sleeps.
#[derive(Debug)]
pub(crate) struct Spare {
    window: Instant,
    slept: Duration,
    none: bool,
}

impl Spare {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            window: now,
            slept: Duration::ZERO,
            none: false,
        }
    }

    /// The loop was in the kernel for so long with nothing to do.
    pub(crate) fn slept(&mut self, slept: Duration) {
        self.slept += slept;
    }

    /// Whether there was no time to spare in the last window that is over.
    pub(crate) fn is_none(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.window);
        if elapsed >= WINDOW {
            let none = self.slept * SPARE_PART < elapsed;
            *self = Self {
                none,
                ..Self::new(now)
            };
        }
        self.none
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of 1 ms, of which the loop sleeps a part; whether it is behind after each.
    fn turns(spare: &mut Spare, now: &mut Instant, count: u32, slept: Duration) -> Vec<bool> {
        let mut turn = |_| {
            *now += Duration::from_millis(1);
            spare.slept(slept);
            spare.is_none(*now)
        };
        (0..count).map(&mut turn).collect()
    }

    #[test]
    fn tf8_t21_a_loop_that_does_not_sleep_is_behind() {
        let mut now = Instant::now();
        let mut spare = Spare::new(now);
        assert!(
            turns(&mut spare, &mut now, 100, Duration::from_micros(60))
                .iter()
                .all(|b| !b)
        );
        let busy = turns(&mut spare, &mut now, 30, Duration::from_micros(40));
        assert!(
            !busy[0] && busy[20..].iter().all(|b| *b),
            "known when a window is over"
        );
        let idle = turns(&mut spare, &mut now, 30, Duration::from_micros(500));
        assert!(
            idle[20..].iter().all(|b| !b),
            "and over when it sleeps again"
        );
        // One long turn is a window.
        now += Duration::from_millis(80);
        assert!(spare.is_none(now));
        // One long sleep too.
        now += Duration::from_secs(1);
        spare.slept(Duration::from_secs(1));
        assert!(!spare.is_none(now));
    }
}
