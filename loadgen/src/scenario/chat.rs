//! `loadgen chat`: users write to each other at a steady rate.

use anyhow::Result;

use super::{Shape, run_shape};
use crate::cli::Remote;
use crate::plan::Who;
use crate::report::Report;

pub(super) fn run(remote: &Remote) -> Result<Report> {
    let load = &remote.load;
    let shape = Shape {
        name: "chat",
        sessions: load.sessions.unwrap_or(1_000),
        rate: load.rate.unwrap_or(1_000.0),
        duration: load.duration.unwrap_or(30.0),
        offline_fraction: load.offline_fraction.unwrap_or(0.0),
        hold: 0.0,
        who: Who::Anyone,
        // A chat goes on across a restart of the edge: what counts is that nothing is missing.
        cuts_fail: false,
        silence: false,
    };
    run_shape(&shape, &remote.server, load, |_| Ok(()))
}
