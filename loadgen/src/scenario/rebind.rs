//! `loadgen rebind`: every source port changes, and the sessions stay.

use anyhow::Result;

use super::{Scene, Shape, from_seconds, sample};
use crate::cli::Rebind;
use crate::plan::Step;

/// Seconds of silence before it.
const HOLD: f64 = 5.0;

pub(super) fn scene(rebind: &Rebind) -> Result<Scene> {
    let load = &rebind.remote.load;
    let steps = vec![
        Step::Hold(from_seconds(load.duration.unwrap_or(HOLD))),
        Step::Rebind(from_seconds(rebind.over)),
        Step::Exchange(sample(load)),
    ];
    let shape = Shape {
        silence: true,
        ..Shape::new("rebind", load.sessions.unwrap_or(10_000), steps)
    };
    Ok(Scene::new(shape, &rebind.remote.server, load))
}
