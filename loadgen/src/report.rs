//! The report of a run: what the JSON holds, the table shows and the exit code says.

mod chart;
mod files;
mod html;
mod progress;
mod screen;
mod table;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::assertion::{self, Assertion};
use crate::cli::{Load, QuicEngine};
use crate::clock::{Micros, seconds};
use crate::findings::{Findings, Kind};
use crate::latency::{Latency, Percentiles};
use crate::plan::{Plan, Step};
use crate::record::Point;
use crate::run::{GeneratorUse, Raw, ServerUse};
use crate::search::{Measured, Search};
use crate::worker;

pub(crate) use files::{check as check_files, takes_standard_output, write};
pub(crate) use progress::{Moment, Progress};
pub(crate) use table::table;

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
}

/// A whole run. Field names are a promise: other programs read them.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    /// What limited the run, if it was this end: then latencies say nothing about the server.
    pub(crate) bottleneck: Option<&'static str>,
    /// Of --assert.
    pub(crate) limits: Vec<Limit>,
    /// Of --find-max, which tries its limits at each rate.
    pub(crate) find_max: Option<Search>,
    pub(crate) scenario: String,
    pub(crate) version: &'static str,
    pub(crate) started_unix_ms: u64,
    pub(crate) sessions: Sessions,
    pub(crate) handshakes_per_s: f64,
    pub(crate) handshakes: Handshakes,
    pub(crate) messages: Messages,
    pub(crate) receipts: Receipts,
    /// From the time at which each message was meant to be sent.
    pub(crate) latency_ms: Latencies,
    /// From the time at which it was first written.
    pub(crate) latency_uncorrected_ms: Latencies,
    /// What a control group saw while the others were cut.
    pub(crate) control: Control,
    pub(crate) target: Target,
    pub(crate) generator: Generator,
    pub(crate) stages_s: Stages,
    pub(crate) findings: Vec<Finding>,
    pub(crate) quic_engines: QuicEngines,
    pub(crate) sockets: u32,
    pub(crate) threads: u32,
    pub(crate) options: Options,
    /// The course of the run.
    pub(crate) series: Vec<Point>,
    pub(crate) histograms: Histograms,
}

/// T13: two ends of one engine could hide a shared fault.
#[derive(Debug, Serialize)]
pub(crate) struct QuicEngines {
    /// Of the generator's sessions, by engine.
    pub(crate) generator: BTreeMap<&'static str, u32>,
    /// Where this end started the server.
    pub(crate) target: Option<QuicEngine>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Sessions {
    pub(crate) target: u32,
    pub(crate) established: u32,
    /// Never established.
    pub(crate) failed: u64,
    /// Established, and not there at the end.
    pub(crate) lost: u64,
    /// Opened again after a connection was lost.
    pub(crate) reconnected: u64,
    /// Connections lost.
    pub(crate) disconnected: u64,
    pub(crate) goaways: u64,
    /// Cut by the scenario, without a close.
    pub(crate) cut: u64,
    /// Left and joined again because the scenario wanted it.
    pub(crate) churned: u64,
    /// Sockets that changed their port.
    pub(crate) rebinds: u64,
    pub(crate) heartbeats: u64,
    /// Why connections ended that this end did not want to end.
    pub(crate) closes: BTreeMap<String, u64>,
}

/// T13, T14: full and resumed handshakes, and logins, counted apart.
#[derive(Debug, Serialize)]
pub(crate) struct Handshakes {
    pub(crate) full: u64,
    pub(crate) resumed: u64,
    pub(crate) logins_with_token: u64,
    pub(crate) logins_with_resume_token: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Messages {
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    /// Deliveries, one per message and device.
    pub(crate) delivered: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) lost: u64,
    pub(crate) to_deliver: u64,
    pub(crate) unacknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) damaged: u64,
    pub(crate) misdelivered: u64,
    pub(crate) contradicted: u64,
    /// Refused for now and sent again.
    pub(crate) postponed: u64,
    /// Seen again after a Resync, and recognised.
    pub(crate) repeats_filtered: u64,
    /// Of earlier runs, or of other clients.
    pub(crate) foreign: u64,
    pub(crate) gaps: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Receipts {
    pub(crate) delivered: u64,
    pub(crate) read: u64,
    pub(crate) missing: u64,
    #[serde(rename = "false")]
    pub(crate) untrue: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Latencies {
    pub(crate) ack: Percentiles,
    pub(crate) deliver: Percentiles,
    /// What a message waited in this end before its first byte, for whatever reason.
    pub(crate) queue: Percentiles,
    /// Messages to users who were away.
    pub(crate) catch_up: Percentiles,
    /// To the end of the handshake, and to Welcome.
    pub(crate) handshake: Percentiles,
    pub(crate) login: Percentiles,
    /// From a cut, or from SIGTERM to the server, to the Welcome after it.
    pub(crate) come_back: Percentiles,
    /// From a send to several users to the last of its deliveries.
    pub(crate) fan_out: Percentiles,
}

/// A limit that the run had to keep.
#[derive(Debug, Serialize)]
pub(crate) struct Limit {
    pub(crate) limit: String,
    /// What was measured; none if nothing was.
    pub(crate) value: Option<f64>,
    pub(crate) kept: bool,
}

/// Latencies in tenths of a decade: the upper end in milliseconds, and the count.
#[derive(Debug, Serialize)]
pub(crate) struct Histograms {
    pub(crate) ack: Vec<(f64, u64)>,
    pub(crate) deliver: Vec<(f64, u64)>,
    pub(crate) come_back: Vec<(f64, u64)>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Control {
    pub(crate) sessions: u32,
    pub(crate) latency_ms: Latencies,
    pub(crate) latency_uncorrected_ms: Latencies,
}

#[derive(Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) pid: Option<u32>,
    /// With all sessions held.
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) bytes_per_session: Option<u64>,
    /// From before the ramp to the end.
    pub(crate) cpu_s: Option<f64>,
    pub(crate) rss_bytes_empty: Option<u64>,
    pub(crate) rss_bytes_end: Option<u64>,
    pub(crate) cpu_us_per_session: Option<f64>,
    pub(crate) cpu_us_per_message: Option<f64>,
    pub(crate) restarts: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Generator {
    pub(crate) rss_bytes: u64,
    /// With all sessions held, and what that is for each, beyond an empty generator.
    pub(crate) rss_bytes_held: u64,
    pub(crate) bytes_per_session: u64,
    pub(crate) cpu_s: f64,
    /// The generator, not the server, was the bottleneck: do not trust the latencies.
    pub(crate) saturated: bool,
    /// Sends begun more than 10 ms after their time by this end's own fault.
    pub(crate) late_sends: u64,
    pub(crate) latest_send_ms: f64,
    /// Sends left out because hardly anyone was there to make them.
    pub(crate) unsendable: u64,
    /// CPU of the busiest thread while messages were sent, as a share of its time.
    pub(crate) busiest_thread: f64,
    /// Time its threads were ready and had no CPU.
    pub(crate) waited_s: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Stages {
    pub(crate) ramp: f64,
    pub(crate) exchange: f64,
    pub(crate) drain: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    pub(crate) count: u64,
    pub(crate) details: Vec<String>,
}

/// The options as they were resolved; sessions, sockets and threads are reported elsewhere.
#[derive(Debug, Serialize)]
pub(crate) struct Options {
    /// Times in microseconds.
    pub(crate) steps: Vec<Step>,
    #[serde(flatten)]
    pub(crate) given: Load,
}

impl Verdict {
    /// The code of the process.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 2,
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
        report
    }

    /// An error if a limit speaks of something that no report has.
    pub(crate) fn check_limits(plan: &Plan, load: &Load) -> anyhow::Result<()> {
        let empty = Self::without_limits("", plan, load, &Raw::default());
        let known = assertion::names(&serde_json::to_value(&empty)?);
        load.assert
            .iter()
            .try_for_each(|limit| limit.check_name(&known))
    }

    fn without_limits(scenario: &str, plan: &Plan, load: &Load, raw: &Raw) -> Self {
        let generator = generator(&raw.generator, raw);
        Self {
            verdict: verdict(plan, raw),
            bottleneck: generator.saturated.then_some("generator"),
            limits: Vec::new(),
            find_max: raw.search.clone(),
            scenario: scenario.into(),
            version: env!("CARGO_PKG_VERSION"),
            started_unix_ms: raw.started_unix_ms,
            sessions: sessions(plan, raw),
            handshakes_per_s: per_second(f64::from(raw.status.established), raw.ramp),
            handshakes: handshakes(raw),
            messages: messages(raw),
            receipts: receipts(raw),
            latency_ms: latencies(&raw.latencies, Latency::corrected),
            latency_uncorrected_ms: latencies(&raw.latencies, Latency::uncorrected),
            control: Control {
                sessions: plan.topology.sessions() - plan.sessions_at_large(),
                latency_ms: latencies(&raw.control, Latency::corrected),
                latency_uncorrected_ms: latencies(&raw.control, Latency::uncorrected),
            },
            target: target(plan, raw),
            generator,
            stages_s: Stages {
                ramp: seconds(raw.ramp),
                exchange: seconds(raw.exchange),
                drain: seconds(raw.drain),
            },
            findings: findings(&raw.findings),
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
fn verdict(plan: &Plan, raw: &Raw) -> Verdict {
    let everyone = raw.status.established == plan.topology.sessions();
    let tally = &raw.status.tally;
    let complete = tally.sent > 0 && tally.delivered == tally.to_deliver && raw.drained;
    match raw.findings.is_empty() && everyone && complete {
        true => Verdict::Pass,
        false => Verdict::Fail,
    }
}

fn sessions(plan: &Plan, raw: &Raw) -> Sessions {
    let status = &raw.status;
    Sessions {
        target: plan.topology.sessions(),
        established: status.established,
        failed: u64::from(plan.topology.sessions() - status.established),
        lost: raw.findings.count(Kind::SessionLost),
        reconnected: status.reconnected,
        disconnected: status.disconnected,
        goaways: status.goaways,
        cut: status.cut,
        churned: status.churned,
        rebinds: status.rebinds,
        heartbeats: status.heartbeats,
        closes: status.closes.clone(),
    }
}

fn handshakes(raw: &Raw) -> Handshakes {
    Handshakes {
        full: raw.status.handshakes_full,
        resumed: raw.status.handshakes_resumed,
        logins_with_token: raw.status.logins_with_token,
        logins_with_resume_token: raw.status.logins_with_resume_token,
    }
}

fn messages(raw: &Raw) -> Messages {
    let tally = &raw.status.tally;
    let count = |kind| raw.findings.count(kind);
    Messages {
        sent: tally.sent,
        acknowledged: tally.acknowledged,
        delivered: tally.delivered,
        duplicated: count(Kind::Duplicated),
        reordered: count(Kind::Reordered),
        lost: count(Kind::Lost),
        to_deliver: tally.to_deliver,
        unacknowledged: count(Kind::Unacknowledged),
        refused: tally.refused,
        damaged: count(Kind::Damaged),
        misdelivered: count(Kind::Misdelivered),
        contradicted: count(Kind::Contradicted),
        postponed: raw.status.postponed,
        repeats_filtered: tally.repeats_filtered,
        foreign: tally.foreign,
        gaps: count(Kind::Gap),
    }
}

fn receipts(raw: &Raw) -> Receipts {
    Receipts {
        delivered: raw.status.tally.receipts_delivered,
        read: raw.status.tally.receipts_read,
        missing: raw.findings.count(Kind::ReceiptMissing),
        untrue: raw.findings.count(Kind::ReceiptFalse),
    }
}

fn latencies(raw: &worker::Latencies, of: impl Fn(&Latency) -> Percentiles) -> Latencies {
    Latencies {
        ack: of(&raw.ack),
        deliver: of(&raw.deliver),
        queue: of(&raw.queue),
        catch_up: of(&raw.catch_up),
        handshake: of(&raw.handshake),
        login: of(&raw.login),
        come_back: of(&raw.come_back),
        fan_out: of(&raw.fan_out),
    }
}

fn target(plan: &Plan, raw: &Raw) -> Target {
    let server = &raw.server;
    let empty = server.empty.map(|sample| sample.rss_bytes);
    let held = server.held.map(|sample| sample.rss_bytes);
    let cpu = |from: Option<crate::target::Sample>, to: Option<crate::target::Sample>| {
        Some(to?.cpu.saturating_sub(from?.cpu))
    };
    let last = server
        .last
        .or(server.exchange_ended)
        .or(server.held)
        .or(server.empty);
    let sessions = u64::from(server.sessions_held.max(1));
    Target {
        address: plan.target.to_string(),
        pid: last.map(|sample| sample.pid),
        rss_bytes: held,
        bytes_per_session: empty
            .zip(held)
            .map(|(empty, held)| held.saturating_sub(empty) / sessions),
        cpu_s: cpu(server.empty, last).map(seconds),
        rss_bytes_empty: empty,
        rss_bytes_end: server.last.map(|sample| sample.rss_bytes),
        cpu_us_per_session: cpu(server.empty, server.held).map(|cpu| each(cpu, sessions)),
        cpu_us_per_message: exchange_cpu(server)
            .filter(|_| raw.status.tally.sent > 0)
            .map(|cpu| each(cpu, raw.status.tally.sent)),
        restarts: server.restarts,
    }
}

/// CPU of the exchange and of what followed from it.
fn exchange_cpu(server: &ServerUse) -> Option<Micros> {
    let end = server.last.or(server.exchange_ended)?;
    Some(end.cpu.saturating_sub(server.exchange_began?.cpu))
}

fn generator(used: &GeneratorUse, raw: &Raw) -> Generator {
    Generator {
        rss_bytes: used.rss_bytes,
        rss_bytes_held: used.rss_bytes_held,
        bytes_per_session: used.rss_bytes_held.saturating_sub(used.rss_bytes_empty)
            / u64::from(raw.server.sessions_held.max(1)),
        cpu_s: seconds(used.cpu),
        saturated: is_saturated(raw.status.late_sends, raw.status.tally.sent, used.busiest),
        late_sends: raw.status.late_sends,
        latest_send_ms: seconds(raw.status.latest_send) * 1_000.0,
        unsendable: raw.status.unsendable,
        busiest_thread: used.busiest,
        waited_s: seconds(used.waited),
    }
}

pub(crate) fn is_saturated(late: u64, sent: u64, busiest: f64) -> bool {
    let share = each(late, sent.max(1));
    share > LATE_SHARE_MAX || (busiest > BUSY_SHARE && share > LATE_SHARE_MAX_BUSY)
}

fn findings(findings: &Findings) -> Vec<Finding> {
    findings
        .iter()
        .map(|(kind, count, details)| Finding {
            kind,
            count,
            details: details.to_vec(),
        })
        .collect()
}

fn per_second(count: f64, time: Micros) -> f64 {
    if time == 0 {
        0.0
    } else {
        count / seconds(time)
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a report needs no more than 52 bits"
)]
fn each(total: u64, count: u64) -> f64 {
    total as f64 / count as f64
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
        assert_eq!(
            serde_json::to_string(&Verdict::Fail).expect("json"),
            "\"fail\""
        );
    }

    #[test]
    fn rates_of_no_time_are_none() {
        assert!(per_second(5.0, 0).abs() < f64::EPSILON);
        assert!((per_second(5.0, 2_000_000) - 2.5).abs() < f64::EPSILON);
    }
}
