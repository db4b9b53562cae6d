//! How long messages take through the server, to sessions that wait for them.

/// Upper bounds double from 1 ms to 32.8 s; one more bucket takes the rest.
const BOUNDS: usize = 16;

/// Counts of durations in buckets that double.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latencies {
    buckets: [u64; BOUNDS + 1],
    sum_ms: u64,
}

impl Latencies {
    /// Buckets, with that of what is above all bounds.
    pub const BUCKETS: usize = BOUNDS + 1;

    pub(super) fn record(&mut self, ms: u64) {
        // The bits of ms - 1: 1 ms and less in the first bucket, 2 in the second, 3 and 4 in the third.
        let bucket = u64::BITS - ms.saturating_sub(1).leading_zeros();
        let bucket = usize::try_from(bucket).unwrap_or(BOUNDS).min(BOUNDS);
        self.buckets[bucket] += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }

    /// How many fell into each bucket.
    #[must_use]
    pub fn counts(&self) -> [u64; Self::BUCKETS] {
        self.buckets
    }

    /// The upper bound of a bucket in ms, the last one's being none.
    #[must_use]
    pub fn bound_ms(bucket: usize) -> Option<u64> {
        (bucket < BOUNDS).then(|| 1 << bucket)
    }

    /// All of them together.
    #[must_use]
    pub fn sum_ms(&self) -> u64 {
        self.sum_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_has_its_bucket() {
        let mut latencies = Latencies::default();
        for ms in 0..70_000 {
            let before = latencies.counts();
            latencies.record(ms);
            let after = latencies.counts();
            let bucket = (0..Latencies::BUCKETS).find(|it| after[*it] != before[*it]);
            let bucket = bucket.expect("one grew");
            assert!(
                Latencies::bound_ms(bucket).is_none_or(|bound| ms <= bound),
                "{ms}"
            );
            let below = bucket.checked_sub(1).and_then(Latencies::bound_ms);
            assert!(below.is_none_or(|below| ms > below), "{ms}");
        }
        latencies.record(u64::MAX);
        assert_eq!(latencies.counts().iter().sum::<u64>(), 70_001);
        assert_eq!(latencies.sum_ms(), u64::MAX);
    }
}
