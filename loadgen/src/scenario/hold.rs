//! `loadgen hold`: silent sessions with heartbeats, and proof at the end that each can be reached.

use anyhow::Result;

use super::{Scene, Shape, from_seconds, sample};
use crate::cli::Remote;
use crate::plan::Step;

pub(super) fn scene(remote: &Remote) -> Result<Scene> {
    let load = &remote.load;
    let steps = vec![
        Step::Hold(from_seconds(load.duration.unwrap_or(30.0))),
        Step::Exchange(sample(load)),
    ];
    let shape = Shape {
        silence: true,
        ..Shape::new("hold", load.sessions.unwrap_or(10_000), steps)
    };
    Ok(Scene::new(shape, &remote.server, load))
}
