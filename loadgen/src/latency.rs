//! Latencies in HDR histograms, corrected for coordinated omission and not.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::clock::Micros;

/// One hour: whatever takes longer is counted as this.
const MICROS_MAX: Micros = 3_600_000_000;

/// Of [`Latency::buckets`].
const BUCKETS_PER_DECADE: f64 = 10.0;

/// One latency, measured from two starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// From the time at which the message was meant to be sent: what a user would have felt.
    #[serde(with = "wire")]
    corrected: Histogram<u64>,
    /// From the time at which it was first written: blind to queueing in front of the generator.
    #[serde(with = "wire")]
    uncorrected: Histogram<u64>,
}

/// A histogram in the HdrHistogram V2 format, compressed, in hexadecimal.
mod wire {
    use std::fmt::Write;

    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(
        histogram: &Histogram<u64>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(histogram, &mut bytes)
            .map_err(S::Error::custom)?;
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        text.serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Histogram<u64>, D::Error> {
        let text = String::deserialize(from)?;
        let byte = |at: usize| {
            let digits = text.get(at..at + 2)?;
            u8::from_str_radix(digits, 16).ok()
        };
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
        let bytes = bytes.ok_or_else(|| D::Error::custom("no hexadecimal"))?;
        let mut read: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(D::Error::custom)?;
        // Whoever wrote it has the same bounds: then it can be added to others.
        let mut histogram = super::histogram();
        read.auto(true);
        histogram.add(&read).map_err(D::Error::custom)?;
        Ok(histogram)
    }
}

/// The percentiles of a report, in milliseconds. All 0 where nothing was measured; a report then has none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
#[serde(into = "Shown", from = "Shown")]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    pub(crate) count: u64,
}

/// Percentiles in a report.
#[derive(Debug, Serialize, Deserialize)]
struct Shown {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
    count: u64,
}

impl From<Percentiles> for Shown {
    fn from(of: Percentiles) -> Self {
        let shown = |ms| (of.count > 0).then_some(ms);
        Self {
            p50: shown(of.p50),
            p90: shown(of.p90),
            p99: shown(of.p99),
            p999: shown(of.p999),
            max: shown(of.max),
            count: of.count,
        }
    }
}

impl From<Shown> for Percentiles {
    fn from(shown: Shown) -> Self {
        Self {
            p50: shown.p50.unwrap_or(0.0),
            p90: shown.p90.unwrap_or(0.0),
            p99: shown.p99.unwrap_or(0.0),
            p999: shown.p999.unwrap_or(0.0),
            max: shown.max.unwrap_or(0.0),
            count: shown.count,
        }
    }
}

impl Percentiles {
    /// The worse of each, of both together.
    pub(crate) fn worse(&self, other: &Self) -> Self {
        Self {
            p50: self.p50.max(other.p50),
            p90: self.p90.max(other.p90),
            p99: self.p99.max(other.p99),
            p999: self.p999.max(other.p999),
            max: self.max.max(other.max),
            count: self.count + other.count,
        }
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self {
            corrected: histogram(),
            uncorrected: histogram(),
        }
    }

    /// Records an event of `now` that answers a message meant for `intended` and written at `written`.
    pub(crate) fn record(&mut self, intended: Micros, written: Micros, now: Micros) {
        record(&mut self.corrected, now.saturating_sub(intended));
        record(&mut self.uncorrected, now.saturating_sub(written));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        merge(&mut self.corrected, &other.corrected);
        merge(&mut self.uncorrected, &other.uncorrected);
    }

    pub(crate) fn corrected(&self) -> Percentiles {
        percentiles(&self.corrected)
    }

    pub(crate) fn uncorrected(&self) -> Percentiles {
        percentiles(&self.uncorrected)
    }

    /// How many were in each tenth of a decade: its upper end in milliseconds, and the count.
    pub(crate) fn buckets(&self) -> Vec<(f64, u64)> {
        let mut buckets: BTreeMap<i32, u64> = BTreeMap::new();
        for step in self.corrected.iter_recorded() {
            let place = milliseconds(step.value_iterated_to()).log10() * BUCKETS_PER_DECADE;
            #[allow(clippy::cast_possible_truncation, reason = "a small number")]
            let place = place.floor() as i32 + 1;
            *buckets.entry(place).or_default() += step.count_at_value();
        }
        let upper = |place: i32| 10f64.powf(f64::from(place) / BUCKETS_PER_DECADE);
        let all = buckets.into_iter();
        all.map(|(place, count)| (upper(place), count)).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.corrected.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.corrected.reset();
        self.uncorrected.reset();
    }
}

fn histogram() -> Histogram<u64> {
    // Three digits: 1 us of resolution up to 2 ms, then better than 0.1 %.
    Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are valid")
}

fn record(histogram: &mut Histogram<u64>, micros: Micros) {
    histogram.saturating_record(micros.clamp(1, MICROS_MAX));
}

fn merge(into: &mut Histogram<u64>, from: &Histogram<u64>) {
    into.add(from).expect("all histograms have the same bounds");
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    let at = |quantile| milliseconds(histogram.value_at_quantile(quantile));
    Percentiles {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: milliseconds(histogram.max()),
        count: histogram.len(),
    }
}

#[allow(clippy::cast_precision_loss, reason = "bounded by an hour")]
fn milliseconds(micros: Micros) -> f64 {
    micros as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= expected * 0.002
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latency = Latency::new();
        for ms in 1..=1_000u64 {
            latency.record(0, ms * 500, ms * 1_000);
        }
        let corrected = latency.corrected();
        assert!(close(corrected.p50, 500.0), "{corrected:?}");
        assert!(close(corrected.p99, 990.0));
        assert!(close(corrected.p999, 999.0));
        assert!(close(corrected.max, 1_000.0));
        assert_eq!(corrected.count, 1_000);
        assert!(close(latency.uncorrected().p50, 250.0));
    }

    #[test]
    fn a_stall_shows_in_the_corrected_latency_only() {
        let mut latency = Latency::new();
        // Meant for every ms, all written after a stall of one second, each answered within 1 ms.
        for ms in 0..1_000u64 {
            latency.record(ms * 1_000, 1_000_000, 1_000_900);
        }
        assert!(
            close(latency.corrected().p50, 500.9),
            "{:?}",
            latency.corrected()
        );
        assert!(close(latency.uncorrected().max, 0.9));
    }

    #[test]
    fn what_was_measured_elsewhere_counts_as_here() {
        let mut here = Latency::new();
        let mut there = Latency::new();
        for ms in 1..=500u64 {
            here.record(0, 0, ms * 1_000);
            there.record(0, ms * 100, (ms + 500) * 1_000);
        }
        let sent = serde_json::to_string(&there).expect("JSON");
        assert!(sent.len() < 20_000, "{} bytes", sent.len());
        let read: Latency = serde_json::from_str(&sent).expect("read back");
        assert_eq!(read.corrected(), there.corrected());
        assert_eq!(read.uncorrected(), there.uncorrected());
        here.merge(&read);
        assert_eq!(here.corrected().count, 1_000);
        assert!(close(here.corrected().p50, 500.0) && close(here.corrected().p99, 990.0));
        assert!(serde_json::from_str::<Latency>("{\"corrected\":\"zz\"}").is_err());
    }

    #[test]
    fn buckets_hold_what_is_below_their_end() {
        let mut latency = Latency::new();
        for ms in [1, 9, 11, 11] {
            latency.record(0, 0, ms * 1_000);
        }
        let buckets = latency.buckets();
        let counts: Vec<_> = buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [1, 1, 2], "{buckets:?}");
        assert!(close(buckets[1].0, 10.0) && close(buckets[2].0, 12.589));
    }

    #[test]
    fn merging_adds() {
        let (mut a, mut b) = (Latency::new(), Latency::new());
        a.record(0, 0, 10);
        b.record(0, 0, 1_000);
        a.merge(&b);
        assert_eq!(a.corrected().count, 2);
        assert!(close(a.corrected().max, 1.0));
        a.clear();
        assert!(a.is_empty());
        assert_eq!(a.corrected(), Percentiles::default());
    }

    #[test]
    fn out_of_range_saturates() {
        let mut latency = Latency::new();
        latency.record(10, 10, 0);
        latency.record(0, 0, u64::MAX);
        assert_eq!(latency.corrected().count, 2);
    }
}
