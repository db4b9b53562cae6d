//! What a run measured, and how the parts of one become a whole.

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::control::Status;
use crate::findings::Findings;
use crate::hostile;
use crate::record::{self, Point};
use crate::search::Search;
use crate::target::Sample;
use crate::worker::Latencies;

/// What a run measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Raw {
    pub(crate) status: Status,
    pub(crate) latencies: Latencies,
    /// Of the control group of a storm, handshakes among them.
    pub(crate) control: Latencies,
    pub(crate) findings: Findings,
    pub(crate) started_unix_ms: u64,
    /// From the first connection to the last Welcome of the ramp.
    pub(crate) ramp: Micros,
    pub(crate) exchange: Micros,
    pub(crate) drain: Micros,
    pub(crate) drained: bool,
    pub(crate) server: ServerUse,
    pub(crate) generator: GeneratorUse,
    pub(crate) points: Vec<Point>,
    /// Of --find-max.
    pub(crate) search: Option<Search>,
    /// Of a run with attackers.
    pub(crate) hostile: Option<hostile::Table>,
    /// It was ended before its time, by a signal.
    pub(crate) interrupted: bool,
    /// Threads and sockets of this end.
    pub(crate) threads: u32,
    pub(crate) sockets: u32,
    /// Of a run on many machines, what each measured.
    #[serde(skip)]
    pub(crate) agents: Vec<AgentPart>,
}

/// One machine's part of a run.
#[derive(Debug, Clone)]
pub(crate) struct AgentPart {
    pub(crate) name: String,
    /// Sessions that it was to hold.
    pub(crate) sessions: u32,
    pub(crate) clock: AgentClock,
    /// By how much it began after the common instant, by its own clock, in microseconds.
    pub(crate) start_late_us: u64,
    pub(crate) raw: Raw,
}

/// A machine's clock beside the leader's, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AgentClock {
    /// What it shows less what the leader's shows.
    pub(crate) ahead_us: i64,
    /// That may be off by so much.
    pub(crate) error_us: u64,
}

/// What the server used.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct ServerUse {
    pub(crate) empty: Option<Sample>,
    /// With all sessions open and silent.
    pub(crate) held: Option<Sample>,
    pub(crate) exchange_began: Option<Sample>,
    pub(crate) exchange_ended: Option<Sample>,
    pub(crate) last: Option<Sample>,
    pub(crate) sessions_held: u32,
    pub(crate) restarts: u32,
}

/// What this end used.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct GeneratorUse {
    pub(crate) rss_bytes: u64,
    pub(crate) rss_bytes_empty: u64,
    /// With all sessions open and silent.
    pub(crate) rss_bytes_held: u64,
    pub(crate) cpu: Micros,
    /// Waiting for a CPU, all threads.
    pub(crate) waited: Micros,
    /// CPU of the busiest thread in the exchange, as a share of its time.
    pub(crate) busiest: f64,
}

impl Raw {
    /// This part of a run and another one, which ran at the same time on another machine.
    pub(crate) fn merged(mut self, other: &Self) -> Self {
        self.latencies.merge(&other.latencies);
        self.control.merge(&other.control);
        self.findings.merge(&other.findings);
        self.status.add(&other.status);
        self.points = record::side_by_side(&self.points, &other.points);
        self.server = self.server.merged(&other.server);
        let (own, their) = (&mut self.generator, &other.generator);
        own.rss_bytes += their.rss_bytes;
        own.rss_bytes_empty += their.rss_bytes_empty;
        own.rss_bytes_held += their.rss_bytes_held;
        own.cpu += their.cpu;
        own.waited += their.waited;
        own.busiest = own.busiest.max(their.busiest);
        Self {
            started_unix_ms: self.started_unix_ms.min(other.started_unix_ms),
            ramp: self.ramp.max(other.ramp),
            exchange: self.exchange.max(other.exchange),
            drain: self.drain.max(other.drain),
            drained: self.drained && other.drained,
            threads: self.threads + other.threads,
            sockets: self.sockets + other.sockets,
            // Each part searches for itself: there is no one rate.
            search: None,
            ..self
        }
    }
}

impl ServerUse {
    /// One server, seen from two ends: by whoever runs beside it.
    fn merged(self, other: &Self) -> Self {
        Self {
            empty: self.empty.or(other.empty),
            held: self.held.or(other.held),
            exchange_began: self.exchange_began.or(other.exchange_began),
            exchange_ended: self.exchange_ended.or(other.exchange_ended),
            last: self.last.or(other.last),
            sessions_held: self.sessions_held + other.sessions_held,
            restarts: self.restarts.max(other.restarts),
        }
    }
}
