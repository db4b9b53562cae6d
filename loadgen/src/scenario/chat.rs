//! `loadgen chat`: users write to each other at a steady rate.

use anyhow::Result;

use super::{Scene, Shape, exchange};
use crate::assertion::Assertion;
use crate::cli::{Load, Remote};
use crate::plan::{Step, Who};

pub(super) fn scene(remote: &Remote) -> Result<Scene> {
    let load = &remote.load;
    let messages = exchange(load, Who::Anyone, 1_000.0, 30.0);
    let steps = vec![match load.find_max {
        true => Step::FindMax {
            exchange: messages,
            limits: limits(load)?,
        },
        false => Step::Exchange(messages),
    }];
    let shape = Shape {
        // A chat goes on across a restart of the edge: what counts is that nothing is missing.
        cuts_fail: false,
        ..Shape::new("chat", load.sessions.unwrap_or(1_000), steps)
    };
    Ok(Scene::new(shape, &remote.server, load))
}

/// A message shall arrive within 100 ms: what users of a messenger notice.
fn limits(load: &Load) -> Result<Vec<Assertion>> {
    match load.assert.is_empty() {
        true => Ok(vec![
            "deliver.p99_ms<100".parse().map_err(anyhow::Error::msg)?,
        ]),
        false => Ok(load.assert.clone()),
    }
}
