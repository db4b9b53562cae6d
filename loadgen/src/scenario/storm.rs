//! `loadgen storm`: all sessions are cut at once and come back, while a control group goes on.

use anyhow::Result;

use super::{Scene, Shape, from_seconds, sample};
use crate::cli::Storm;
use crate::plan::Step;

/// Seconds of silence before it.
const HOLD: f64 = 5.0;

pub(super) fn scene(storm: &Storm) -> Result<Scene> {
    let load = &storm.remote.load;
    let steps = vec![
        Step::Hold(from_seconds(load.duration.unwrap_or(HOLD))),
        Step::Storm {
            spread: storm.spread.map_or(0, from_seconds),
            control_rate: storm.control_rate,
            patience: from_seconds(storm.patience),
        },
        Step::Exchange(sample(load)),
    ];
    let shape = Shape {
        control: storm.control,
        ..Shape::new("storm", load.sessions.unwrap_or(10_000), steps)
    };
    Ok(Scene::new(shape, &storm.remote.server, load))
}
