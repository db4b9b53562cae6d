//! Something done to every session in turn, spread evenly over an interval: heartbeats (T10), and the
//! [probe](super::probe) that finds out which connections a restarted server has forgotten.

use crate::clock::Micros;

/// A round through `count` sessions per `interval`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep {
    from: Micros,
    interval: Micros,
    count: u64,
    done: u64,
    /// `None` goes round for ever.
    until: Option<u64>,
}

impl Sweep {
    pub(crate) fn endless(from: Micros, interval: Micros, count: u32) -> Self {
        Self {
            from,
            interval: interval.max(1),
            count: count.into(),
            done: 0,
            until: None,
        }
    }

    pub(crate) fn once(from: Micros, interval: Micros, count: u32) -> Self {
        Self {
            until: Some(count.into()),
            ..Self::endless(from, interval, count)
        }
    }

    pub(crate) fn none() -> Self {
        Self::once(0, 1, 0)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| self.done >= until) || self.count == 0
    }

    /// When the next session's turn comes.
    pub(crate) fn due(&self) -> Option<Micros> {
        if self.is_over() {
            return None;
        }
        let share = u128::from(self.done + 1) * u128::from(self.interval) / u128::from(self.count);
        Some(
            self.from
                .saturating_add(u64::try_from(share).unwrap_or(u64::MAX)),
        )
    }

    /// The next session, if its turn has come.
    pub(crate) fn take(&mut self, now: Micros) -> Option<u32> {
        self.due().filter(|due| *due <= now)?;
        let session = self.done % self.count;
        self.done += 1;
        Some(u32::try_from(session).expect("below a 32-bit count"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_a_turn_per_interval_at_even_distances() {
        let mut sweep = Sweep::endless(1_000, 100, 4);
        let mut turns = Vec::new();
        for now in 1_000..=1_200 {
            while let Some(session) = sweep.take(now) {
                turns.push((now, session));
            }
        }
        let times: Vec<_> = turns.iter().map(|(at, _)| *at).collect();
        assert_eq!(
            times,
            [1_025, 1_050, 1_075, 1_100, 1_125, 1_150, 1_175, 1_200]
        );
        assert_eq!(
            turns.iter().map(|(_, s)| *s).collect::<Vec<_>>(),
            [0, 1, 2, 3, 0, 1, 2, 3]
        );
    }

    #[test]
    fn a_round_ends() {
        let mut sweep = Sweep::once(0, 10, 3);
        assert_eq!(std::iter::from_fn(|| sweep.take(1_000)).count(), 3);
        assert!(sweep.is_over() && sweep.due().is_none());
        assert!(Sweep::none().is_over());
    }
}
