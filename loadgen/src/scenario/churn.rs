//! `loadgen churn`: sessions leave and join all the time while others write.

use anyhow::Result;

use super::{Scene, Shape, exchange};
use crate::cli::Churn;
use crate::plan::{Exchange, Step, Who};

pub(super) fn scene(churn: &Churn) -> Result<Scene> {
    let load = &churn.remote.load;
    let messages = Exchange {
        churn: churn.churn,
        ..exchange(load, Who::Anyone, 500.0, 60.0)
    };
    let steps = vec![Step::Exchange(messages)];
    let shape = Shape::new("churn", load.sessions.unwrap_or(10_000), steps);
    Ok(Scene::new(shape, &churn.remote.server, load))
}
