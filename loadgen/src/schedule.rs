//! Open-loop arrivals: when each message is meant to be sent, whatever became of those before it.

use crate::clock::Micros;
use crate::profile::{Profile, to_micros};
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
    profile: Profile,
    from: Micros,
    /// Events of the profile that have come, the next one included; a fraction with Poisson arrivals.
    events: f64,
    next: Micros,
    until: Micros,
    remaining: u64,
    rng: Rng,
}

impl Schedule {
    /// Sends at the rates of `profile` from `from` to before `until`, and at most `count` of them.
    pub(crate) fn new(
        arrivals: Arrivals,
        profile: Profile,
        from: Micros,
        until: Micros,
        count: u64,
        mut rng: Rng,
    ) -> Self {
        // Threads start at different points of the first gap, so that they do not send in step.
        let events = rng.unit();
        let mut schedule = Self {
            arrivals,
            profile,
            from,
            events,
            next: 0,
            until,
            remaining: count,
            rng,
        };
        schedule.next = schedule.time_of_next();
        schedule
    }

    /// A schedule without any send.
    pub(crate) fn empty() -> Self {
        Self::new(
            Arrivals::Constant,
            Profile::constant(1.0),
            0,
            0,
            0,
            Rng::new(0),
        )
    }

    /// The next intended time; `None` once the schedule is over.
    pub(crate) fn due(&self) -> Option<Micros> {
        (self.remaining > 0 && self.next < self.until).then_some(self.next)
    }

    /// Takes the next intended time if it has come.
    pub(crate) fn take(&mut self, now: Micros) -> Option<Micros> {
        let due = self.due().filter(|due| *due <= now)?;
        self.remaining -= 1;
        self.events += match self.arrivals {
            Arrivals::Constant => 1.0,
            // 1 - u is never 0, so the logarithm is finite.
            Arrivals::Poisson => -(1.0 - self.rng.unit()).ln(),
        };
        self.next = self.time_of_next();
        Some(due)
    }

    fn time_of_next(&self) -> Micros {
        let since = to_micros(self.profile.time_of(self.events));
        self.from.saturating_add(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut schedule: Schedule) -> Vec<Micros> {
        std::iter::from_fn(|| schedule.take(Micros::MAX)).collect()
    }

    fn schedule(arrivals: Arrivals, rate: f64) -> Schedule {
        let profile = Profile::constant(rate);
        Schedule::new(
            arrivals,
            profile,
            1_000_000,
            11_000_000,
            u64::MAX,
            Rng::new(5),
        )
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
    fn rates_follow_their_profile() {
        let profile: Profile = "100@2s,1000@1s,50".parse().expect("a profile");
        for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
            let seconds = |from: u64| from * 1_000_000..(from + 1) * 1_000_000;
            let until = 4_000_000;
            let times = all(Schedule::new(
                arrivals,
                profile.clone(),
                0,
                until,
                u64::MAX,
                Rng::new(5),
            ));
            let count = |second| times.iter().filter(|t| seconds(second).contains(t)).count();
            let counts = [count(0), count(1), count(2), count(3)];
            assert!(
                counts[0].abs_diff(100) < 30 && counts[1].abs_diff(100) < 30,
                "{counts:?}"
            );
            assert!(counts[2].abs_diff(1_000) < 100, "{counts:?}");
            assert!(counts[3].abs_diff(50) < 20, "{counts:?}");
        }
    }

    #[test]
    fn a_count_ends_it() {
        let few = Schedule::new(
            Arrivals::Poisson,
            Profile::constant(10.0),
            0,
            Micros::MAX,
            3,
            Rng::new(1),
        );
        assert_eq!(all(few).len(), 3);
        assert_eq!(Schedule::empty().due(), None);
    }
}
