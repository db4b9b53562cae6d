//! `loadgen drain`: an edge of its own ends by SIGTERM, sends every session away, and is started again.

use anyhow::Result;

use super::demo::server_of;
use super::{Scene, Shape, from_seconds, sample};
use crate::cli::Drain;
use crate::plan::Step;

/// Seconds of silence before it.
const HOLD: f64 = 5.0;

pub(super) fn scene(drain: &Drain) -> Result<Scene> {
    let load = &drain.demo.load;
    let steps = vec![
        Step::Hold(from_seconds(load.duration.unwrap_or(HOLD))),
        Step::Restart {
            patience: from_seconds(drain.patience),
        },
        Step::Exchange(sample(load)),
    ];
    let shape = Shape::new("drain", load.sessions.unwrap_or(10_000), steps);
    Ok(Scene::new(shape, &server_of(&drain.demo.own), load))
}
