//! `loadgen demo`: the main job in one command, with an edge of its own.

use anyhow::Result;

use super::{Shape, edge_exit, run_shape};
use crate::cli::{Demo, Server};
use crate::edge::Edge;
use crate::out;
use crate::plan::Who;
use crate::report::Report;

pub(super) fn run(demo: &Demo) -> Result<Report> {
    let load = &demo.load;
    let edge = Edge::start(demo.edge.as_deref(), demo.shards, load.quic_engine)?;
    if !load.quiet {
        out::note(format_args!("edge {} at {}", edge.pid(), edge.listen()));
    }
    let server = Server {
        target: edge.listen(),
        data: Some(edge.data().into()),
        ca: None,
        token_key: None,
        token_key_id: "development".into(),
        server_name: "localhost".into(),
        admin: Some(edge.admin()),
        target_pid: Some(edge.pid()),
        quic_engine: Some(load.quic_engine),
    };
    let shape = Shape {
        name: "demo",
        sessions: load.sessions.unwrap_or(10_000),
        rate: load.rate.unwrap_or(2_000.0),
        duration: load.duration.unwrap_or(20.0),
        offline_fraction: load.offline_fraction.unwrap_or(0.05),
        hold: 0.0,
        who: Who::Anyone,
        cuts_fail: !load.allow_reconnects,
        silence: false,
    };
    run_shape(&shape, &server, load, |findings| {
        if let Err(error) = edge.stop() {
            edge_exit(findings, format_args!("{error:#}"));
        }
        Ok(())
    })
}
