//! `loadgen hostile`: honest users write to each other while others attack the server.

use anyhow::{Result, ensure};

use super::{Scene, Shape, exchange};
use crate::cli::Hostile;
use crate::hostile::ROUND_USERS;
use crate::plan::{Exchange, Step, Who};

/// The attackers' addresses are not those of load generators, whose sessions nobody counts.
const LIMITED: &str = "[limits]\nunlimited = [\"127.0.0.1/32\"]\n";

/// A server waits for a Hello for 10 s: in less nobody is refused who sends half of one.
const SECONDS_MIN: f64 = 12.0;

pub(super) fn scene(hostile: &Hostile) -> Result<Scene> {
    let load = &hostile.remote.load;
    ensure!(
        load.devices == 1 && load.agents.is_empty(),
        "hostile is for one machine and one device of each user"
    );
    let messages = exchange(load, Who::Anyone, 200.0, 30.0);
    ensure!(
        hostile.attacks.half_frames == 0 || messages.duration >= super::from_seconds(SECONDS_MIN),
        "half a Hello is refused after 10 s: --duration {SECONDS_MIN} at least, or --half-frames 0"
    );
    let sessions = load.sessions.unwrap_or(200);
    let first = load.users_from + u64::from(sessions);
    let attacked = |round: u32| Exchange {
        victim: Some(first + u64::from(round) * ROUND_USERS),
        ..messages.clone()
    };
    let steps = match hostile.pairs {
        None => vec![Step::Exchange(attacked(0))],
        // The second of a pair is not always the same: what grows with time would look like harm.
        Some(pairs) => (0..pairs)
            .flat_map(|round| {
                let pair = [messages.clone(), attacked(round)];
                let [a, b] = pair;
                let pair = if round % 2 == 0 { [a, b] } else { [b, a] };
                pair.map(Step::Exchange)
            })
            .collect(),
    };
    let mut scene = Scene::new(
        Shape::new("hostile", sessions, steps),
        &hostile.remote.server,
        load,
    );
    let own = &mut scene.server.own;
    if !own
        .edge_options
        .iter()
        .any(|option| option.starts_with("--config"))
    {
        own.config = Some(LIMITED);
    }
    scene.campaign = Some((
        hostile.attacks.clone(),
        super::from_seconds(hostile.late_after),
    ));
    Ok(scene)
}
