//! The report of a run: what the JSON holds, the table shows and the exit code says.

mod chart;
mod files;
mod html;
mod progress;
mod schema;
mod screen;
mod sums;
mod table;

use serde::Serialize;

use crate::assertion::{self, Assertion};
use crate::cli::{Load, QuicEngine};
use crate::clock::seconds;
use crate::hostile;
use crate::interrupt;
use crate::latency::Latency;
use crate::plan::Plan;
use crate::run::Raw;
use crate::search::Measured;
use schema::{Control, Histograms, Limit, Options, QuicEngines, Stages};
use sums::each;

pub(crate) use files::{check as check_files, takes_standard_output, write};
pub(crate) use progress::Progress;
pub(crate) use schema::Report;
pub(crate) use table::{table, verdict};

/// A generator that begins more than this share of its sends late measured itself.
const LATE_SHARE_MAX: f64 = 0.01;

/// The same for one whose thread was busy for more than [`BUSY_SHARE`] of the time.
const LATE_SHARE_MAX_BUSY: f64 = 0.001;
const BUSY_SHARE: f64 = 0.85;

/// Whether everything sent arrived as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Pass,
    Fail,
    /// Nothing can be said of what was not waited for.
    Interrupted,
}

impl Verdict {
    /// The code of the process.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 2,
            Self::Interrupted => interrupt::EXIT_CODE,
        }
    }
}

impl Report {
    pub(crate) fn new(scenario: &str, plan: &Plan, load: &Load, raw: &Raw) -> Self {
        let mut report = Self::without_limits(scenario, plan, load, raw);
        match &report.find_max {
            // Most were tried rate by rate, and some rates had to fail.
            Some(search) => {
                if search.rate.is_none() {
                    report.verdict = Verdict::Fail;
                }
                let tried = Measured::known();
                let whole = load.assert.iter();
                let whole = whole.filter(|limit| !limit.is_on(&tried));
                report.limits = limits(whole, &report);
            }
            None => report.limits = limits(load.assert.iter(), &report),
        }
        if !report.limits.iter().all(|limit| limit.kept) {
            report.verdict = Verdict::Fail;
        }
        if raw.interrupted {
            report.verdict = Verdict::Interrupted;
        }
        report
    }

    /// An error if a limit speaks of something that no report has.
    pub(crate) fn check_limits(plan: &Plan, load: &Load) -> anyhow::Result<()> {
        let raw = Raw {
            hostile: plan.campaign.as_ref().map(|_| hostile::Table::default()),
            ..Raw::default()
        };
        let empty = Self::without_limits("", plan, load, &raw);
        let known = assertion::names(&serde_json::to_value(&empty)?);
        load.assert
            .iter()
            .try_for_each(|limit| limit.check_name(&known))
    }

    fn without_limits(scenario: &str, plan: &Plan, load: &Load, raw: &Raw) -> Self {
        let generator = sums::generator(raw);
        Self {
            verdict: judge(plan, raw),
            bottleneck: generator.saturated.then_some("generator"),
            limits: Vec::new(),
            find_max: raw.search.clone(),
            hostile: raw.hostile.clone(),
            scenario: scenario.into(),
            version: env!("CARGO_PKG_VERSION"),
            started_unix_ms: raw.started_unix_ms,
            sessions: sums::sessions(plan.topology.sessions(), raw),
            handshakes_per_s: sums::per_second(f64::from(raw.status.established), raw.ramp),
            handshakes: sums::handshakes(raw),
            messages: sums::messages(raw),
            receipts: sums::receipts(raw),
            latency_ms: sums::latencies(&raw.latencies, Latency::corrected),
            latency_uncorrected_ms: sums::latencies(&raw.latencies, Latency::uncorrected),
            control: Control {
                sessions: plan.topology.sessions() - plan.sessions_at_large(),
                latency_ms: sums::latencies(&raw.control, Latency::corrected),
                latency_uncorrected_ms: sums::latencies(&raw.control, Latency::uncorrected),
            },
            target: sums::target(plan, raw),
            generator,
            agents: raw.agents.iter().map(sums::agent).collect(),
            stages_s: Stages {
                ramp: seconds(raw.ramp),
                exchange: seconds(raw.exchange),
                drain: seconds(raw.drain),
            },
            findings: sums::findings(&raw.findings),
            quic_engines: QuicEngines {
                generator: [QuicEngine::Quinn, QuicEngine::Lean]
                    .map(|engine| (engine.name(), plan.sessions_of(engine)))
                    .into_iter()
                    .filter(|(_, sessions)| *sessions > 0)
                    .collect(),
                target: plan.target_engine,
            },
            sockets: raw.sockets,
            threads: raw.threads,
            series: raw.points.clone(),
            histograms: Histograms {
                ack: raw.latencies.ack.buckets(),
                deliver: raw.latencies.deliver.buckets(),
                come_back: raw.latencies.come_back.buckets(),
            },
            options: Options {
                steps: plan.steps.clone(),
                given: load.clone(),
            },
        }
    }
}

fn limits<'a>(wanted: impl Iterator<Item = &'a Assertion>, report: &Report) -> Vec<Limit> {
    let json = serde_json::to_value(report).unwrap_or_default();
    let metrics = assertion::metrics(&json);
    let check = |wanted: &Assertion| {
        let value = wanted.value(&metrics);
        Limit {
            limit: wanted.to_string(),
            value,
            // Nothing measured is no limit kept.
            kept: value.is_some_and(|value| wanted.holds(value)),
        }
    };
    wanted.map(check).collect()
}

/// Pass means that nothing was found and that there was something to find it in.
fn judge(plan: &Plan, raw: &Raw) -> Verdict {
    let everyone = raw.status.established == plan.topology.sessions();
    let tally = &raw.status.tally;
    let complete = tally.sent > 0 && tally.delivered == tally.to_deliver && raw.drained;
    match raw.findings.is_empty() && everyone && complete {
        true => Verdict::Pass,
        false => Verdict::Fail,
    }
}

pub(crate) fn is_saturated(late: u64, sent: u64, busiest: f64) -> bool {
    let share = each(late, sent.max(1));
    share > LATE_SHARE_MAX || (busiest > BUSY_SHARE && share > LATE_SHARE_MAX_BUSY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_that_falls_behind_says_so() {
        assert!(!is_saturated(0, 10_000, 0.99));
        assert!(!is_saturated(50, 10_000, 0.5));
        assert!(is_saturated(50, 10_000, 0.9));
        assert!(is_saturated(101, 10_000, 0.1));
        assert!(!is_saturated(0, 0, 1.0));
    }

    #[test]
    fn verdicts_are_exit_codes() {
        assert_eq!(Verdict::Pass.exit_code(), 0);
        assert_eq!(Verdict::Fail.exit_code(), 2);
        assert_eq!(Verdict::Interrupted.exit_code(), 130);
        assert_eq!(
            serde_json::to_string(&Verdict::Fail).expect("json"),
            "\"fail\""
        );
    }
}
