//! Latencies in buckets that double: one writer, any reader.

use std::time::Duration;

use roadstead::Latencies;

use super::Number;

/// Upper bounds double from 64 us to 16.8 s; one more bucket takes the rest.
const BUCKETS: usize = 19;
const FIRST_MICROS: u64 = 64;

/// A histogram of durations.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Number; BUCKETS + 1],
    sum_micros: Number,
}

impl Histogram {
    pub(crate) fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (0..BUCKETS).find(|bucket| micros <= FIRST_MICROS << bucket);
        self.buckets[bucket.unwrap_or(BUCKETS)].add(1);
        self.sum_micros.add(micros.min(u64::from(u32::MAX)));
    }

    /// Upper bound in seconds and count up to it, for each bucket.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.buckets
            .iter()
            .enumerate()
            .scan(0, |total, (bucket, count)| {
                *total += count.get();
                let bound = match bucket {
                    BUCKETS => f64::INFINITY,
                    bucket => Duration::from_micros(FIRST_MICROS << bucket).as_secs_f64(),
                };
                Some((bound, *total))
            })
    }

    pub(super) fn sum_seconds(&self) -> f64 {
        Duration::from_micros(self.sum_micros.get()).as_secs_f64()
    }
}

/// A histogram that a shard keeps, as it was published last.
#[derive(Debug)]
pub(super) struct Published {
    buckets: [Number; Latencies::BUCKETS],
    sum_ms: Number,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Number::default()),
            sum_ms: Number::default(),
        }
    }
}

impl Published {
    pub(super) fn publish(&self, latencies: &Latencies) {
        for (published, count) in self.buckets.iter().zip(latencies.counts()) {
            published.set(count);
        }
        self.sum_ms.set(latencies.sum_ms());
    }

    /// As [`Histogram::cumulative`].
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let buckets = self.buckets.iter().enumerate();
        buckets.scan(0, |total, (bucket, count)| {
            *total += count.get();
            let bound = Latencies::bound_ms(bucket).map(Duration::from_millis);
            let bound = bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64());
            Some((bound, *total))
        })
    }

    pub(super) fn sum_seconds(&self) -> f64 {
        Duration::from_millis(self.sum_ms.get()).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_has_its_bucket() {
        let histogram = Histogram::default();
        for micros in [0, 64, 65, 1_000_000, u64::MAX] {
            histogram.record(Duration::from_micros(micros));
        }
        let cumulative: Vec<(f64, u64)> = histogram.cumulative().collect();
        assert_eq!(cumulative[0], (0.000_064, 2));
        assert_eq!(cumulative[1].1, 3);
        assert_eq!(cumulative.last(), Some(&(f64::INFINITY, 5)));
    }
}
