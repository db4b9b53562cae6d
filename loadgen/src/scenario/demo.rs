//! `loadgen demo`: the main job in one command, with an edge of its own.

use anyhow::Result;

use super::{Scene, Shape, exchange};
use crate::cli::{Demo, OwnEdge, Server};
use crate::plan::{Exchange, Step, Who};

pub(super) fn scene(demo: &Demo) -> Result<Scene> {
    let load = &demo.load;
    let messages = Exchange {
        offline_fraction: load.offline_fraction.unwrap_or(0.05),
        ..exchange(load, Who::Anyone, 2_000.0, 20.0)
    };
    let steps = vec![Step::Exchange(messages)];
    let shape = Shape::new("demo", load.sessions.unwrap_or(10_000), steps);
    Ok(Scene::new(shape, &server_of(&demo.own), load))
}

/// A server that this end starts.
pub(super) fn server_of(own: &OwnEdge) -> Server {
    Server {
        target: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        data: None,
        ca: None,
        token_key: None,
        token_key_id: "development".into(),
        server_name: "localhost".into(),
        admin: None,
        target_pid: None,
        start_edge: true,
        own: own.clone(),
        quic_engine: None,
    }
}
