//! So many answers a second, for what anybody can ask for without a connection.

use crate::time::Time;

/// A rate with a burst.
#[derive(Debug)]
pub(super) struct Allowance {
    per_s: u64,
    burst: u64,
    left: u64,
    refilled: Time,
}

impl Allowance {
    /// So many a second, and so many at once after a pause, at most those of a second. None for zero.
    pub(super) fn new(per_s: u32, burst: u64, now: Time) -> Self {
        let per_s = u64::from(per_s);
        let burst = burst.min(per_s);
        Self {
            per_s,
            burst,
            left: burst,
            refilled: now,
        }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let earned = now.since(self.refilled).saturating_mul(self.per_s) / 1_000_000;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(self.burst);
            self.refilled = now;
        }
        let has = self.left > 0;
        self.left -= u64::from(has);
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_spent_and_refilled() {
        let at = Time::from_millis;
        let taken =
            |allowance: &mut Allowance, now| (0..1_000).filter(|_| allowance.take(now)).count();
        let mut allowance = Allowance::new(100, 50, at(0));
        assert_eq!(taken(&mut allowance, at(0)), 50);
        assert_eq!(taken(&mut allowance, at(100)), 10);
        assert_eq!(taken(&mut allowance, at(60_000)), 50);
        assert_eq!(taken(&mut allowance, Time::from_micros(u64::MAX)), 50);
        assert_eq!(taken(&mut Allowance::new(0, 50, at(0)), at(60_000)), 0);
    }
}
