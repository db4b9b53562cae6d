//! `loadgen fanout`: one send to many receivers, measured to the last of them.
//!
//! Each receiver gets the message in a chat of its own. Once the edge has groups the same sends go to one
//! chat, and the same number tells what that saves.

use anyhow::{Result, ensure};

use super::{Scene, Shape, exchange};
use crate::cli::Fanout;
use crate::plan::{Step, Who};

pub(super) fn scene(fanout: &Fanout) -> Result<Scene> {
    let load = &fanout.remote.load;
    ensure!(
        (1..=1_023).contains(&fanout.receivers),
        "--receivers must be 1 to 1023"
    );
    let messages = exchange(load, Who::Fanout(fanout.receivers), 20.0, 30.0);
    let steps = vec![Step::Exchange(messages)];
    let shape = Shape {
        circle: fanout.receivers + 1,
        ..Shape::new("fanout", load.sessions.unwrap_or(1_000), steps)
    };
    Ok(Scene::new(shape, &fanout.remote.server, load))
}
