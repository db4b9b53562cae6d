//! Limits that a run must keep, written as `deliver.p99_ms<100`: a metric, a comparison, a number.
//!
//! The metrics are the numbers of the report by their path in it, such as `sessions.lost` or
//! `target.bytes_per_session`. Latencies go without their group: `ack.p50_ms`, and
//! `ack.uncorrected.p50_ms` for those that are blind to queueing in this end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde_json::Value;

/// A limit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Assertion {
    metric: String,
    comparison: Comparison,
    number: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    LessOrEqual,
    GreaterOrEqual,
    Equal,
    NotEqual,
    Less,
    Greater,
}

/// The longer signs first, so that `<=` is not read as `<`.
const SIGNS: [(&str, Comparison); 6] = [
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

/// Numbers by name.
pub(crate) type Metrics = BTreeMap<String, f64>;

impl Assertion {
    /// Whether it is on one of these metrics.
    pub(crate) fn is_on(&self, metrics: &BTreeSet<String>) -> bool {
        metrics.contains(&self.metric)
    }

    /// An error unless there is such a metric.
    pub(crate) fn check_name(&self, known: &BTreeSet<String>) -> Result<()> {
        if self.is_on(known) {
            return Ok(());
        }
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        bail!(
            "there is no metric {:?}; there are: {}",
            self.metric,
            known.join(", ")
        );
    }

    /// What was measured; `None` if nothing was.
    pub(crate) fn value(&self, metrics: &Metrics) -> Option<f64> {
        metrics.get(&self.metric).copied()
    }

    /// Whether a value keeps the limit.
    pub(crate) fn holds(&self, value: f64) -> bool {
        self.comparison.holds(value.total_cmp(&self.number))
    }
}

impl Comparison {
    fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::LessOrEqual => ordering.is_le(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::Greater => ordering.is_gt(),
        }
    }

    fn sign(self) -> &'static str {
        let mut signs = SIGNS.iter();
        let found = signs.find(|(_, comparison)| *comparison == self);
        found.map_or("", |(sign, _)| sign)
    }
}

impl FromStr for Assertion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?} is no limit: METRIC OP NUMBER, as in deliver.p99_ms<100");
        let at = text.find(['<', '>', '=', '!']).ok_or_else(wanted)?;
        let (metric, rest) = text.split_at(at);
        let mut signs = SIGNS.iter();
        let (sign, comparison) = signs
            .find(|(sign, _)| rest.starts_with(sign))
            .ok_or_else(wanted)?;
        let number = rest[sign.len()..].trim().parse::<f64>();
        let number = number.ok().filter(|number| number.is_finite());
        let metric = metric.trim().to_owned();
        match number {
            Some(number) if !metric.is_empty() => Ok(Self {
                metric,
                comparison: *comparison,
                number,
            }),
            _ => Err(wanted()),
        }
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}{}",
            self.metric,
            self.comparison.sign(),
            self.number
        )
    }
}

/// What was measured, from a report's JSON. A latency that nothing was measured of is not among it: a
/// limit on it must not hold by accident.
pub(crate) fn metrics(report: &Value) -> Metrics {
    let mut all = Metrics::new();
    collect(report, "", &mut |name, value| {
        if let Some(value) = value {
            all.insert(name, value);
        }
    });
    all
}

/// The names of all metrics that a report can have.
pub(crate) fn names(report: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    collect(report, "", &mut |name, _| {
        all.insert(name);
    });
    all
}

fn collect(value: &Value, path: &str, take: &mut impl FnMut(String, Option<f64>)) {
    match value {
        Value::Object(fields) => {
            let prefix = match path {
                "" => String::new(),
                path => format!("{path}."),
            };
            for (name, value) in fields {
                match name.as_str() {
                    // What is asked for is no result, and lists have no names.
                    "options" | "series" | "findings" | "histograms" | "limits" | "closes" => {}
                    "latency_ms" => collect_latencies(value, &prefix, "", take),
                    "latency_uncorrected_ms" => {
                        collect_latencies(value, &prefix, ".uncorrected", take);
                    }
                    name => collect(value, &format!("{prefix}{name}"), take),
                }
            }
        }
        Value::Number(number) => take(path.to_owned(), number.as_f64()),
        Value::Bool(fact) => take(path.to_owned(), Some(f64::from(u8::from(*fact)))),
        // Not known in this run.
        Value::Null => take(path.to_owned(), None),
        Value::String(_) | Value::Array(_) => {}
    }
}

fn collect_latencies(
    groups: &Value,
    prefix: &str,
    infix: &str,
    take: &mut impl FnMut(String, Option<f64>),
) {
    for (name, percentiles) in groups.as_object().into_iter().flatten() {
        let measured = percentiles["count"].as_u64() != Some(0);
        for (percentile, value) in percentiles.as_object().into_iter().flatten() {
            let name = match percentile.as_str() {
                "count" => format!("{prefix}{name}{infix}.count"),
                percentile => format!("{prefix}{name}{infix}.{percentile}_ms"),
            };
            let known = measured || percentile == "count";
            take(name, value.as_f64().filter(|_| known));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn assertion(text: &str) -> Assertion {
        text.parse().expect("a limit")
    }

    fn report() -> Value {
        json!({
            "verdict": "pass",
            "sessions": {"lost": 0, "established": 10, "closes": {"x": 1}},
            "target": {"bytes_per_session": null, "cpu_s": 1.5},
            "generator": {"saturated": true},
            "latency_ms": {"deliver": {"p99": 42.0, "count": 7}, "ack": {"p99": 0.0, "count": 0}},
            "latency_uncorrected_ms": {"deliver": {"p99": 41.0, "count": 7}},
            "control": {"latency_ms": {"ack": {"p99": 3.0, "count": 1}}},
            "series": [{"at_s": 1}],
            "options": {"rate": 5},
        })
    }

    #[test]
    fn metrics_have_the_names_of_the_report() {
        let measured: Vec<_> = metrics(&report()).into_keys().collect();
        let wanted = [
            "ack.count",
            "control.ack.count",
            "control.ack.p99_ms",
            "deliver.count",
            "deliver.p99_ms",
            "deliver.uncorrected.count",
            "deliver.uncorrected.p99_ms",
            "generator.saturated",
            "sessions.established",
            "sessions.lost",
            "target.cpu_s",
        ];
        assert_eq!(measured, wanted);
        let known = names(&report());
        assert!(known.contains("ack.p99_ms") && known.contains("target.bytes_per_session"));
        assert_eq!(known.len(), wanted.len() + 2);
    }

    #[test]
    fn every_comparison_holds_where_it_should() {
        let metrics = metrics(&report());
        for (text, holds) in [
            ("deliver.p99_ms<42", false),
            ("deliver.p99_ms<=42", true),
            ("deliver.p99_ms < 42.5", true),
            ("deliver.p99_ms>41.9", true),
            ("deliver.p99_ms>=43", false),
            ("sessions.lost==0", true),
            ("sessions.lost!=0", false),
            ("generator.saturated==0", false),
        ] {
            let limit = assertion(text);
            let value = limit.value(&metrics).expect("measured");
            assert_eq!(limit.holds(value), holds, "{text}");
        }
    }

    #[test]
    fn what_was_not_measured_has_no_value() {
        let metrics = metrics(&report());
        assert_eq!(assertion("ack.p99_ms<1").value(&metrics), None);
        assert_eq!(
            assertion("target.bytes_per_session<1").value(&metrics),
            None
        );
    }

    #[test]
    fn an_unknown_metric_is_an_error_that_names_the_known_ones() {
        let error = assertion("deliver.p98_ms<1").check_name(&names(&report()));
        let text = error.expect_err("unknown").to_string();
        assert!(
            text.contains("deliver.p99_ms") && text.contains("p98"),
            "{text}"
        );
        assert!(
            assertion("ack.p99_ms<1")
                .check_name(&names(&report()))
                .is_ok()
        );
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for bad in ["", "a", "a<", "<1", "a=1", "a<b", "a<inf", "a!1"] {
            assert!(bad.parse::<Assertion>().is_err(), "{bad}");
        }
        assert_eq!(assertion(" a.b >= 2 ").to_string(), "a.b>=2");
    }
}
