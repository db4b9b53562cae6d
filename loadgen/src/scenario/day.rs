//! `loadgen day`: the messages of a day, on top of sessions that are mostly silent.

use anyhow::Result;

use super::{Scene, Shape, exchange, from_seconds};
use crate::cli::Day;
use crate::plan::{Exchange, Step, Who};
use crate::profile::Profile;

const SECONDS_PER_DAY: f64 = 86_400.0;

pub(super) fn scene(day: &Day) -> Result<Scene> {
    let load = &day.remote.load;
    let sessions = load.sessions.unwrap_or(10_000);
    let users = f64::from(sessions) / f64::from(load.devices.max(1));
    let mean = users * day.active * day.messages_per_day / SECONDS_PER_DAY;
    let duration = load.duration.unwrap_or(240.0);
    let messages = Exchange {
        rate: load.rate.clone().unwrap_or(Profile::day(mean, duration)),
        think: from_seconds(day.think),
        ..exchange(load, Who::Talk, 0.0, duration)
    };
    let shape = Shape::new("day", sessions, vec![Step::Exchange(messages)]);
    Ok(Scene::new(shape, &day.remote.server, load))
}
