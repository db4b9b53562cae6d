//! The fields of a report. Their names are a promise: other programs read them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Verdict;
use crate::cli::{Load, QuicEngine};
use crate::findings::Kind;
use crate::hostile;
use crate::latency::Percentiles;
use crate::plan::Step;
use crate::record::Point;
use crate::search::Search;

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
    /// Of a run with attackers.
    pub(crate) hostile: Option<hostile::Table>,
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
    /// Of a run on many machines, each by itself, in the order of the command line.
    pub(crate) agents: Vec<Agent>,
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
    /// Refused because their chat took nothing for a while, and sent again under other numbers.
    pub(crate) chat_refusals: u64,
    /// To a user whose inbox attackers fill, and of these taken back in the end.
    pub(crate) outside: u64,
    pub(crate) given_up: u64,
    /// Seen again after a Resync, and recognised.
    pub(crate) repeats_filtered: u64,
    /// Of earlier runs, or of other clients.
    pub(crate) foreign: u64,
    pub(crate) gaps: u64,
    /// Delivered later than the run allows.
    pub(crate) late: u64,
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
    /// Of a run on many machines, who found how many.
    pub(crate) by_agent: BTreeMap<String, u64>,
}

/// One machine of many.
#[derive(Debug, Serialize)]
pub(crate) struct Agent {
    /// As on the command line.
    pub(crate) name: String,
    /// What its clock shows less what the leader's shows, and by how much that may be off.
    pub(crate) clock_ahead_ms: f64,
    pub(crate) clock_error_ms: f64,
    /// By how much it began after the common instant, by its own clock.
    pub(crate) start_late_ms: f64,
    pub(crate) sessions: Sessions,
    pub(crate) handshakes_per_s: f64,
    pub(crate) messages: Messages,
    /// Messages over the time of the exchanges.
    pub(crate) sent_per_s: f64,
    pub(crate) generator: Generator,
    pub(crate) threads: u32,
    pub(crate) sockets: u32,
    /// What it found, of all kinds together.
    pub(crate) findings: u64,
    /// The course of its part.
    pub(crate) series: Vec<Point>,
}

/// The options as they were resolved; sessions, sockets and threads are reported elsewhere.
#[derive(Debug, Serialize)]
pub(crate) struct Options {
    /// Times in microseconds.
    pub(crate) steps: Vec<Step>,
    #[serde(flatten)]
    pub(crate) given: Load,
}
