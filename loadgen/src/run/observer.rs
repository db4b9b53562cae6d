//! How a run goes, for whoever watches it: a terminal, or the leader of many machines.

use anyhow::Result;

use crate::clock::Micros;
use crate::control::{Stage, Status};
use crate::latency::Latency;
use crate::process::Usage;
use crate::target::Sample;

/// A run at one moment. Counts are totals.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) now: Micros,
    pub(crate) stage: Stage,
    pub(crate) status: Status,
    pub(crate) server: Option<Sample>,
    /// This process; of a run on many machines all of them together.
    pub(crate) own: Option<Usage>,
    /// Latencies since the moment before.
    pub(crate) ack: &'a Latency,
    pub(crate) deliver: &'a Latency,
    /// The machines of a run on many, in the order of the command line.
    pub(crate) agents: &'a [AgentMoment],
}

/// One machine of many at its last sign of life.
#[derive(Debug, Clone)]
pub(crate) struct AgentMoment {
    pub(crate) name: String,
    /// Sessions that it is to hold, and threads that do it.
    pub(crate) sessions: u32,
    pub(crate) threads: u16,
    /// By its own clock of the run.
    pub(crate) now: Micros,
    pub(crate) stage: Stage,
    pub(crate) status: Status,
    pub(crate) own: Option<Usage>,
}

/// Is told of each moment.
pub(crate) trait Observer {
    /// Takes a moment, a few times a second. An error ends the run.
    fn observe(&mut self, moment: &Moment<'_>) -> Result<()>;

    /// Something to be read that is no number.
    fn remark(&mut self, text: &str);
}
