//! Peers times features times directions.

use std::io::Write;

use anyhow::Result;

use crate::{
    identity::Identity,
    peers::{Implementation, Roadstead},
    scenario::Feature,
    script::Role,
};

/// What became of a cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Everything that the feature asserts was observed.
    Pass,
    /// It was not.
    Fail(String),
    /// The peer does not offer it, and why.
    NotOffered(&'static str),
}

/// One peer's part of the matrix.
#[derive(Debug)]
pub struct Column {
    /// The peer's name.
    pub name: &'static str,
    /// The peer's version.
    pub version: String,
    /// For each feature: with Roadstead as client, and as server.
    pub cells: Vec<(Feature, [Outcome; 2])>,
}

/// Runs all of a peer's cells and says how each went.
pub fn column(
    peer: &dyn Implementation,
    features: &[Feature],
    identity: &Identity,
    out: &mut impl Write,
) -> Result<Column> {
    let mut cells = Vec::new();
    for feature in features {
        let mut run = |own| -> Result<Outcome> {
            let outcome = cell(peer, *feature, own, identity);
            let direction = match own {
                Role::Client => format!("Roadstead -> {}", peer.name()),
                Role::Server => format!("{} -> Roadstead", peer.name()),
            };
            let text = match &outcome {
                Outcome::Pass => "pass".to_owned(),
                Outcome::Fail(why) => format!("FAIL: {why}"),
                Outcome::NotOffered(why) => format!("not offered: {why}"),
            };
            writeln!(out, "{direction}, {}: {text}", feature.name())?;
            Ok(outcome)
        };
        cells.push((*feature, [run(Role::Client)?, run(Role::Server)?]));
    }
    Ok(Column {
        name: peer.name(),
        version: peer.version(),
        cells,
    })
}

fn cell(peer: &dyn Implementation, feature: Feature, own: Role, identity: &Identity) -> Outcome {
    let (client, server): (&dyn Implementation, &dyn Implementation) = match own {
        Role::Client => (&Roadstead, peer),
        Role::Server => (peer, &Roadstead),
    };
    let peers_role = match own {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    };
    for (who, role) in [(peer, peers_role), (&Roadstead, own)] {
        if let Some(why) = who.lacks(feature, role) {
            return Outcome::NotOffered(why);
        }
    }
    match feature.run(client, server, own, identity) {
        Ok(()) => Outcome::Pass,
        Err(error) => Outcome::Fail(format!("{error:#}")),
    }
}
