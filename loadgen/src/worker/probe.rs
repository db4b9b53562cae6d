//! Asks every session whether its connection lives.
//!
//! One lost connection may mean that the server forgot all of them. Who only listens would notice that at
//! its next heartbeat.

use super::sweep::Sweep;
use crate::clock::Micros;

/// A round asks every session of a thread within this time, or at this many per second if longer.
const ROUND_MIN: Micros = 2_000_000;
const PER_SECOND_MAX: u64 = 10_000;

/// See the [module](self).
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    round: Sweep,
    sessions: u32,
    /// Half of the time is without a round, however often one is wanted.
    not_before: Micros,
    /// Another round is wanted: the one under way may have asked some before what was noticed now.
    wanted: bool,
}

impl Probe {
    pub(super) fn new(sessions: u32) -> Self {
        Self {
            round: Sweep::none(),
            sessions,
            not_before: 0,
            wanted: false,
        }
    }

    /// Wants a round that begins from now on.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Begins a round, whatever was before.
    pub(super) fn begin(&mut self, now: Micros) {
        let time = self.round_time();
        self.round = Sweep::once(now, time, self.sessions);
        self.not_before = now + 2 * time;
        self.wanted = false;
    }

    /// Whether the last round has asked everyone.
    pub(super) fn is_over(&self) -> bool {
        self.round.is_over()
    }

    pub(super) fn due(&self) -> Option<Micros> {
        let next = self.wanted.then_some(self.not_before);
        self.round.due().or(next)
    }

    /// The next session to be asked, if its turn has come.
    pub(super) fn take(&mut self, now: Micros) -> Option<u32> {
        if self.wanted && self.round.is_over() && now >= self.not_before {
            self.begin(now);
        }
        self.round.take(now)
    }

    fn round_time(&self) -> Micros {
        let paced = u64::from(self.sessions) * 1_000_000 / PER_SECOND_MAX;
        paced.max(ROUND_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    fn asked_by(probe: &mut Probe, now: Micros) -> Vec<u32> {
        std::iter::from_fn(|| probe.take(now)).collect()
    }

    #[test]
    fn a_loss_during_or_right_after_a_round_brings_another_round() {
        let mut probe = Probe::new(4);
        assert_eq!((probe.due(), probe.take(SECOND)), (None, None));
        probe.want();
        assert_eq!(
            asked_by(&mut probe, SECOND),
            [0; 0],
            "its first turn is later"
        );
        assert_eq!(asked_by(&mut probe, 2 * SECOND), [0, 1]);
        // The server died now: 0 and 1 were asked too early.
        probe.want();
        assert_eq!(asked_by(&mut probe, 3 * SECOND), [2, 3]);
        assert!(probe.is_over());
        assert_eq!(probe.due(), Some(5 * SECOND), "after a pause");
        assert_eq!(asked_by(&mut probe, 5 * SECOND), [0; 0]);
        assert_eq!(asked_by(&mut probe, 7 * SECOND), [0, 1, 2, 3]);
        assert_eq!(probe.due(), None, "and no more than that");
    }

    #[test]
    fn a_round_of_many_takes_its_time() {
        let mut probe = Probe::new(100_000);
        probe.begin(0);
        assert_eq!(asked_by(&mut probe, SECOND).len(), 10_000);
    }
}
