//! How long a loop sleeps: until the first event while it is quiet, and for a moment at least while it
//! is busy.
//!
//! To wake a thread costs more than to serve a packet: on two cores some 10 us against 5. Heartbeats of a
//! million phones come one by one, evenly, and would wake a shard for each. So a shard that was woken soon
//! after it fell asleep lets the next events gather, which bounds its turns to two
//! thousand a second, and delays an event by no more than [`GATHER`]. A quiet shard answers at once.

use std::time::Duration;

/// How long events gather: about what a commit takes, and a hundredth of what a person notices.
pub(crate) const GATHER: Duration = Duration::from_micros(500);

/// So many events end the gathering: enough to share the cost of a turn.
const ENOUGH: usize = 32;

/// Longest sleep. Nothing depends on it; should a wake-up ever be lost, this bounds what that costs.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Shortest sleep: a deadline that has passed is not waited for at all.
const SLEEP_MIN: Duration = Duration::from_micros(1);

/// What a loop waits for: so many events, or so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sleep {
    pub(crate) events: usize,
    pub(crate) at_most: Duration,
}

/// Whether a loop is busy, told by its last sleep.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    busy: bool,
}

impl Pace {
    /// What to wait for, with so much time left until the next timer, if there is one.
    pub(crate) fn sleep(&self, left: Option<Duration>) -> Sleep {
        let left = left.unwrap_or(SLEEP_MAX).clamp(SLEEP_MIN, SLEEP_MAX);
        match self.busy {
            true => Sleep {
                events: ENOUGH,
                at_most: left.min(GATHER),
            },
            false => Sleep {
                events: 1,
                at_most: left,
            },
        }
    }

    /// The loop slept for so long, and something happened or not.
    pub(crate) fn slept(&mut self, slept: Duration, woken: bool) {
        // While busy every sleep is short; one in which nothing came ends it.
        self.busy = woken && (self.busy || slept < GATHER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(50);
    const LONG: Duration = Duration::from_millis(5);

    #[test]
    fn a_quiet_loop_wakes_for_the_first_event() {
        let mut pace = Pace::default();
        for _ in 0..3 {
            let sleep = pace.sleep(None);
            assert_eq!((sleep.events, sleep.at_most), (1, SLEEP_MAX));
            pace.slept(LONG, true);
        }
        assert_eq!(pace.sleep(Some(LONG)).at_most, LONG);
    }

    #[test]
    fn a_busy_loop_lets_events_gather_until_none_comes() {
        let mut pace = Pace::default();
        pace.slept(SHORT, true);
        for slept in [SHORT, GATHER, LONG] {
            let sleep = pace.sleep(None);
            assert_eq!((sleep.events, sleep.at_most), (ENOUGH, GATHER));
            pace.slept(slept, true);
        }
        pace.slept(GATHER, false);
        assert_eq!(pace.sleep(None).events, 1);
    }

    #[test]
    fn a_timer_is_never_late() {
        let mut pace = Pace::default();
        pace.slept(SHORT, true);
        assert_eq!(pace.sleep(Some(SHORT)).at_most, SHORT);
        assert_eq!(pace.sleep(Some(Duration::ZERO)).at_most, SLEEP_MIN);
    }

    /// A timer that ends a sleep is no sign of a busy loop.
    #[test]
    fn timers_alone_do_not_make_a_loop_busy() {
        let mut pace = Pace::default();
        pace.slept(SHORT, false);
        assert_eq!(pace.sleep(None).events, 1);
    }
}
