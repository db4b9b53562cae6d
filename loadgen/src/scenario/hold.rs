//! `loadgen hold`: silent sessions with heartbeats, and proof at the end that each can be reached.

use anyhow::Result;

use super::{Shape, run_shape};
use crate::cli::Remote;
use crate::plan::Who;
use crate::report::Report;

pub(super) fn run(remote: &Remote) -> Result<Report> {
    let load = &remote.load;
    let shape = Shape {
        name: "hold",
        sessions: load.sessions.unwrap_or(10_000),
        rate: load.rate.unwrap_or_else(|| rate_of(load.sample)),
        // As long as the sample takes.
        duration: f64::MAX,
        offline_fraction: 0.0,
        hold: load.duration.unwrap_or(30.0),
        who: Who::Sample(load.sample),
        cuts_fail: !load.allow_reconnects,
        silence: true,
    };
    run_shape(&shape, &remote.server, load, |_| Ok(()))
}

/// A sample takes about a minute, and a small one a moment.
fn rate_of(sample: u32) -> f64 {
    (f64::from(sample) / 60.0).max(1_000.0)
}
