//! Open-loop arrivals: when each message is meant to be sent, whatever became of those before it.

use crate::clock::Micros;
use crate::rng::Rng;

/// How the gaps between intended sends are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// Independent senders: exponential gaps.
    Poisson,
    /// Equal gaps.
    Constant,
}

/// The intended send times of one thread, in order.
#[derive(Debug)]
pub(crate) struct Schedule {
    arrivals: Arrivals,
    gap: f64,
    next: f64,
    until: Micros,
    remaining: u64,
    rng: Rng,
}

impl Schedule {
    /// `rate` sends a second from `from` to before `until`, and at most `count` of them.
    pub(crate) fn new(
        arrivals: Arrivals,
        rate: f64,
        from: Micros,
        until: Micros,
        count: u64,
        mut rng: Rng,
    ) -> Self {
        let gap = if rate > 0.0 {
            1e6 / rate
        } else {
            f64::INFINITY
        };
        // Threads start at different points of the gap, so that they do not send in step.
        let next = as_f64(from) + gap * rng.unit();
        Self {
            arrivals,
            gap,
            next,
            until,
            remaining: count,
            rng,
        }
    }

    /// A schedule without any send.
    pub(crate) fn empty() -> Self {
        Self::new(Arrivals::Constant, 0.0, 0, 0, 0, Rng::new(0))
    }

    /// The next intended time; `None` once the schedule is over.
    pub(crate) fn due(&self) -> Option<Micros> {
        let next = as_micros(self.next);
        (self.remaining > 0 && next < self.until).then_some(next)
    }

    /// Takes the next intended time if it has come.
    pub(crate) fn take(&mut self, now: Micros) -> Option<Micros> {
        let due = self.due().filter(|due| *due <= now)?;
        self.remaining -= 1;
        self.next += match self.arrivals {
            Arrivals::Constant => self.gap,
            // 1 - u is never 0, so the logarithm is finite.
            Arrivals::Poisson => -(1.0 - self.rng.unit()).ln() * self.gap,
        };
        Some(due)
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "microseconds of a run stay far below 2^52"
)]
fn as_f64(micros: Micros) -> f64 {
    micros as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times are positive; infinity saturates to 'never'"
)]
fn as_micros(time: f64) -> Micros {
    time as Micros
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut schedule: Schedule) -> Vec<Micros> {
        std::iter::from_fn(|| schedule.take(Micros::MAX)).collect()
    }

    fn schedule(arrivals: Arrivals, rate: f64) -> Schedule {
        Schedule::new(arrivals, rate, 1_000_000, 11_000_000, u64::MAX, Rng::new(5))
    }

    #[test]
    fn constant_arrivals_keep_their_gap() {
        let times = all(schedule(Arrivals::Constant, 1_000.0));
        assert_eq!(times.len(), 10_000);
        assert!(
            times
                .windows(2)
                .all(|pair| (999..=1_001).contains(&(pair[1] - pair[0])))
        );
        assert!(
            times
                .iter()
                .all(|time| (1_000_000..11_000_000).contains(time))
        );
    }

    #[test]
    fn poisson_arrivals_keep_their_rate_and_vary() {
        let times = all(schedule(Arrivals::Poisson, 1_000.0));
        assert!((9_700..10_300).contains(&times.len()), "{}", times.len());
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let short = gaps.iter().filter(|gap| **gap < 693).count();
        // The median of an exponential is ln 2 of its mean.
        assert!(short.abs_diff(gaps.len() / 2) < gaps.len() / 20);
    }

    #[test]
    fn a_late_caller_gets_the_times_it_missed() {
        let mut late = schedule(Arrivals::Constant, 100.0);
        assert_eq!(late.take(0), None);
        let first = late.take(1_500_000).expect("due");
        assert!(
            first < 1_010_001,
            "the intended time, not the time of asking"
        );
        assert!(late.take(1_500_000).expect("due") < 1_020_001);
    }

    #[test]
    fn a_count_ends_it() {
        let few = Schedule::new(Arrivals::Poisson, 10.0, 0, Micros::MAX, 3, Rng::new(1));
        assert_eq!(all(few).len(), 3);
        assert_eq!(Schedule::empty().due(), None);
    }
}
