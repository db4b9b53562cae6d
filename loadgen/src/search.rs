//! The search for the highest rate that keeps given limits.
//!
//! The rate grows by half until a trial fails, then the gap between the best that passed and the least
//! that failed is halved until it is small. Which trial comes next depends on nothing but the trials
//! before.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::assertion::{self, Assertion};
use crate::latency::Percentiles;

/// How much higher the next trial is while all have passed.
const GROWTH: f64 = 1.5;

/// A gap of this share of the rate is small enough.
const GAP: f64 = 0.05;

/// However the trials end, there are no more.
const TRIALS_MAX: usize = 24;

/// A search under way, and what it found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Search {
    /// The highest rate that kept the limits: messages per second.
    pub(crate) rate: Option<f64>,
    /// What the lowest rate that failed broke; `generator` if this end could not send as fast.
    pub(crate) limited_by: Option<String>,
    /// The server is not the reason that the search ended.
    pub(crate) generator_limited: bool,
    pub(crate) trials: Vec<Trial>,
}

/// One rate, tried for a while.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) rate: f64,
    /// The first limit that it broke; none if it kept all.
    pub(crate) broke: Option<String>,
    pub(crate) ack_ms: Percentiles,
    pub(crate) deliver_ms: Percentiles,
}

/// What a trial that this end could not make broke.
pub(crate) const GENERATOR: &str = "generator";

/// What is measured of each trial, under the names of the report.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Measured {
    pub(crate) latency_ms: Latencies,
    pub(crate) latency_uncorrected_ms: Latencies,
    pub(crate) generator: Generator,
    pub(crate) sessions: Sessions,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Latencies {
    pub(crate) ack: Percentiles,
    pub(crate) deliver: Percentiles,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Generator {
    pub(crate) late_sends: u64,
    pub(crate) busiest_thread: f64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Sessions {
    pub(crate) disconnected: u64,
}

impl Measured {
    /// The limits that a trial can keep or break. All others are for the whole run.
    pub(crate) fn known() -> BTreeSet<String> {
        assertion::names(&Self::default().as_json())
    }

    /// The first of the limits that this trial did not keep. What was not measured keeps none.
    pub(crate) fn breaks(&self, limits: &[Assertion]) -> Option<String> {
        let (known, metrics) = (Self::known(), assertion::metrics(&self.as_json()));
        let mut limits = limits.iter().filter(|limit| limit.is_on(&known));
        let kept = |limit: &Assertion| {
            let value = limit.value(&metrics);
            value.is_some_and(|value| limit.holds(value))
        };
        limits.find(|limit| !kept(limit)).map(ToString::to_string)
    }

    fn as_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("numbers by name are JSON")
    }
}

impl Search {
    /// The rate to try next, if there is one: `start` first.
    pub(crate) fn next(&self, start: f64) -> Option<f64> {
        let (passed, failed) = (self.best(), self.least_failed().map(|trial| trial.rate));
        if self.trials.len() >= TRIALS_MAX {
            return None;
        }
        match (passed, failed) {
            (None, None) => Some(start),
            (Some(passed), None) => Some(passed * GROWTH),
            // Not even the lowest so far: look below, until there is hardly anything.
            (None, Some(failed)) => Some(failed / 2.0).filter(|rate| *rate >= 1.0),
            (Some(passed), Some(failed)) => {
                let gap = failed - passed;
                (gap > GAP * failed).then_some(passed + gap / 2.0)
            }
        }
    }

    /// Takes a trial's result.
    pub(crate) fn add(&mut self, trial: Trial) {
        self.trials.push(trial);
        self.rate = self.best();
        self.limited_by = self.least_failed().and_then(|trial| trial.broke.clone());
        self.generator_limited = self.limited_by.as_deref() == Some(GENERATOR);
    }

    /// A rate above one that failed counts for nothing, even if it passed by luck.
    fn best(&self) -> Option<f64> {
        let bound = self
            .least_failed()
            .map_or(f64::INFINITY, |trial| trial.rate);
        let passed = self.trials.iter().filter(|trial| trial.broke.is_none());
        let rates = passed.map(|trial| trial.rate).filter(|rate| *rate < bound);
        rates.reduce(f64::max)
    }

    fn least_failed(&self) -> Option<&Trial> {
        let failed = self.trials.iter().filter(|trial| trial.broke.is_some());
        failed.min_by(|a, b| a.rate.total_cmp(&b.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches for a limit that a server would have.
    fn search(limit: f64, start: f64, why: &str) -> Search {
        let mut search = Search::default();
        while let Some(rate) = search.next(start) {
            search.add(Trial {
                rate,
                broke: (rate > limit).then(|| why.into()),
                ack_ms: Percentiles::default(),
                deliver_ms: Percentiles::default(),
            });
        }
        search
    }

    #[test]
    fn the_highest_rate_is_found_from_below_and_from_above() {
        for (limit, start) in [(30_000.0, 1_000.0), (30_000.0, 29_000.0), (500.0, 8_000.0)] {
            let search = search(limit, start, "ack.p99_ms<5");
            let rate = search.rate.expect("found");
            assert!(rate <= limit && rate > limit * 0.93, "{rate} of {limit}");
            assert_eq!(search.limited_by.as_deref(), Some("ack.p99_ms<5"));
            assert!(!search.generator_limited && search.trials.len() < 16);
        }
    }

    #[test]
    fn a_server_that_keeps_no_rate_has_none() {
        let search = search(0.0, 100.0, "sessions.lost==0");
        assert_eq!(search.rate, None);
        assert!(search.trials.len() < 10);
    }

    #[test]
    fn a_generator_that_is_too_slow_says_so() {
        assert!(search(700.0, 100.0, GENERATOR).generator_limited);
    }

    #[test]
    fn a_trial_keeps_only_what_was_measured_and_is_not_asked_for_the_rest() {
        let mut trial = Measured::default();
        let limits = ["sessions.lost==0", "deliver.p99_ms<100"].map(|text| text.parse());
        let limits = limits.map(|limit| limit.expect("a limit"));
        assert_eq!(trial.breaks(&limits).as_deref(), Some("deliver.p99_ms<100"));
        trial.latency_ms.deliver = Percentiles {
            p99: 3.0,
            count: 9,
            ..Percentiles::default()
        };
        assert_eq!(trial.breaks(&limits), None);
        trial.latency_ms.deliver.p99 = 200.0;
        assert!(trial.breaks(&limits).is_some());
    }

    #[test]
    fn a_server_without_end_ends_the_search() {
        assert_eq!(search(f64::INFINITY, 1.0, "x").trials.len(), TRIALS_MAX);
    }
}
