//! Waiting: jitter, back-off between connections, the budget of retries, heartbeats.
//!
//! When a server restarts, every client notices within seconds. What keeps their return from being a
//! stampede is that each waits a different, growing time (T1), and that retries spend a budget which
//! refills slowly (R26).

use std::time::{Duration, Instant};

/// A small generator for jitter. Not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Weyl sequence with a mixing step: enough to spread clients, and repeatable in tests.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        z ^ (z >> 32)
    }

    /// Somewhere in the upper half of `delay`.
    pub(crate) fn upper_half(&mut self, delay: Duration) -> Duration {
        let nanos = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        let half = nanos / 2;
        Duration::from_nanos(half + self.next() % (nanos - half).max(1))
    }
}

/// Delays that double from `min` to `max`.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        let min = min.max(Duration::from_millis(1));
        Self {
            min,
            max: max.max(min),
            failures: 0,
        }
    }

    /// The next delay, jittered.
    pub(crate) fn next(&mut self, jitter: &mut Jitter) -> Duration {
        self.next_up_to(self.max, jitter)
    }

    /// The same, where a delay above `max` would be too long this time.
    pub(crate) fn next_up_to(&mut self, max: Duration, jitter: &mut Jitter) -> Duration {
        let factor = 1u32 << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        jitter.upper_half(self.min.saturating_mul(factor).min(self.max).min(max))
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Rounds of retries that are allowed at once, and how fast they come back (R26).
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    left: u32,
    refilled_at: Option<Instant>,
}

impl Budget {
    /// Enough for a hiccup; far too little to matter to an overloaded server.
    pub(crate) const ROUNDS_MAX: u32 = 10;
    /// One round comes back in this time: the long-run rate of retries of a client.
    pub(crate) const REFILL: Duration = Duration::from_secs(5);

    pub(crate) fn new() -> Self {
        Self {
            left: Self::ROUNDS_MAX,
            refilled_at: None,
        }
    }

    /// Spends a round: when it may take place at the earliest.
    pub(crate) fn spend(&mut self, now: Instant) -> Instant {
        let since = *self.refilled_at.get_or_insert(now);
        let refills = now.saturating_duration_since(since).as_secs() / Self::REFILL.as_secs();
        if refills > 0 {
            let refills = u32::try_from(refills).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(refills).min(Self::ROUNDS_MAX);
            self.refilled_at = Some(now);
        }
        if self.left > 0 {
            self.left -= 1;
            return now;
        }
        // The next refill is spoken for.
        let at = self.refilled_at.map_or(now, |since| since + Self::REFILL);
        self.refilled_at = Some(at);
        at
    }
}

/// How often a silent session sends a PING (T10).
///
/// Starts at the floor, because a network address translator that forgets after 30 s is common and
/// nothing is known yet; then takes what the server asks for, halves it whenever a silent session was
/// lost, and grows back after many that were not.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat {
    interval: Duration,
    ceiling: Duration,
    known: bool,
    calm_sessions: u32,
}

impl Heartbeat {
    /// Below this a phone's radio never sleeps.
    pub(crate) const FLOOR: Duration = Duration::from_secs(30);
    /// Above this most translators have forgotten.
    pub(crate) const CEILING: Duration = Duration::from_secs(300);
    /// Sessions that must end for other reasons before a halved interval is trusted to grow.
    const CALM_SESSIONS: u32 = 4;

    pub(crate) fn new() -> Self {
        Self {
            interval: Self::FLOOR,
            ceiling: Self::CEILING,
            known: false,
            calm_sessions: 0,
        }
    }

    /// What the next connection uses.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// How long the next connection may be silent before it counts as dead.
    pub(crate) fn idle_timeout(&self) -> Duration {
        (3 * self.interval).max(Duration::from_secs(90))
    }

    /// The server's wish, from Welcome. No beat may be slower than this.
    pub(crate) fn welcomed(&mut self, interval: Duration) {
        self.ceiling = interval.clamp(Self::FLOOR, Self::CEILING);
        if !self.known {
            self.interval = self.ceiling;
            self.known = true;
        }
        self.interval = self.interval.min(self.ceiling);
    }

    /// A session ended; `silent` if nobody answered any more.
    pub(crate) fn ended(&mut self, silent: bool) {
        if silent {
            self.interval = (self.interval / 2).max(Self::FLOOR);
            self.calm_sessions = 0;
            return;
        }
        self.calm_sessions += 1;
        if self.calm_sessions >= Self::CALM_SESSIONS {
            self.interval = (self.interval * 2).min(self.ceiling);
            self.calm_sessions = 0;
        }
    }

    /// Another network: nothing is known about it.
    pub(crate) fn network_changed(&mut self) {
        *self = Self {
            interval: Self::FLOOR,
            known: false,
            ..self.clone()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn t1_delays_double_differ_and_end() {
        let mut delays = Vec::new();
        for seed in 0..2 {
            let mut jitter = Jitter::new(seed);
            let mut backoff = Backoff::new(SECOND, 8 * SECOND);
            delays.push(
                (0..6)
                    .map(|_| backoff.next(&mut jitter))
                    .collect::<Vec<_>>(),
            );
        }
        assert_ne!(delays[0], delays[1], "two clients wait differently");
        for (failures, delay) in delays[0].iter().enumerate() {
            let full = (SECOND * (1 << failures)).min(8 * SECOND);
            assert!(*delay >= full / 2 && *delay < full, "{failures}: {delay:?}");
        }
    }

    #[test]
    fn a_good_session_forgives_failures() {
        let mut jitter = Jitter::new(1);
        let mut backoff = Backoff::new(SECOND, 64 * SECOND);
        for _ in 0..5 {
            backoff.next(&mut jitter);
        }
        backoff.reset();
        assert!(backoff.next(&mut jitter) < SECOND);
    }

    #[test]
    fn r26_the_budget_runs_out_and_comes_back() {
        let start = Instant::now();
        let mut budget = Budget::new();
        for _ in 0..Budget::ROUNDS_MAX {
            assert_eq!(budget.spend(start), start);
        }
        assert_eq!(budget.spend(start), start + Budget::REFILL);
        assert_eq!(budget.spend(start), start + 2 * Budget::REFILL);
        let later = start + 4 * Budget::REFILL;
        assert_eq!(budget.spend(later), later);
        assert_eq!(budget.spend(later), later);
        assert!(budget.spend(later) > later);
    }

    #[test]
    fn t10_heartbeats_follow_the_server_and_halve_after_silence() {
        let mut heartbeat = Heartbeat::new();
        assert_eq!(heartbeat.interval(), 30 * SECOND);
        heartbeat.welcomed(120 * SECOND);
        assert_eq!(heartbeat.interval(), 120 * SECOND);
        assert_eq!(heartbeat.idle_timeout(), 360 * SECOND);
        heartbeat.ended(true);
        assert_eq!(heartbeat.interval(), 60 * SECOND);
        heartbeat.welcomed(120 * SECOND);
        assert_eq!(heartbeat.interval(), 60 * SECOND, "the lesson is kept");
        heartbeat.ended(true);
        heartbeat.ended(true);
        assert_eq!(heartbeat.interval(), 30 * SECOND, "never below the floor");
        assert_eq!(heartbeat.idle_timeout(), 90 * SECOND);
    }

    #[test]
    fn t10_a_halved_interval_grows_back_after_calm_sessions() {
        let mut heartbeat = Heartbeat::new();
        heartbeat.welcomed(200 * SECOND);
        heartbeat.ended(true);
        for _ in 0..Heartbeat::CALM_SESSIONS {
            heartbeat.ended(false);
        }
        assert_eq!(heartbeat.interval(), 200 * SECOND);
        heartbeat.network_changed();
        assert_eq!(heartbeat.interval(), 30 * SECOND);
    }
}
