//! Roadstead's QUIC engine against other implementations (T16). See README.md.

#[path = "../../quic/tests/common/mod.rs"]
mod common;

#[cfg(feature = "quiche")]
mod clock;
mod identity;
mod matrix;
#[cfg(feature = "quiche")]
mod pairs;
mod peers;
mod report;
mod sansio;
mod scenario;
mod script;
mod tap;
mod udp;

use std::{io::Write, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};

use crate::{identity::Identity, matrix::Outcome, scenario::Feature};

const USAGE: &str = "\
cargo run -- [--peer NAME] [--feature NAME] [--seeds N]

Runs every peer and every feature, then N seeds (default 2000) of quiche in bad weather in each role,
and writes docs/INTEROP.md. With --peer or --feature it runs only that and writes nothing; --seeds 0
leaves the weather out.";

#[derive(Debug)]
struct Arguments {
    peer: Option<String>,
    feature: Option<String>,
    seeds: u64,
}

fn arguments() -> Result<Option<Arguments>> {
    let mut parsed = Arguments {
        peer: None,
        feature: None,
        seeds: 2_000,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--help" {
            return Ok(None);
        }
        let value = arguments
            .next()
            .with_context(|| format!("{argument} without a value"))?;
        match &*argument {
            "--peer" => parsed.peer = Some(value),
            "--feature" => parsed.feature = Some(value),
            "--seeds" => parsed.seeds = value.parse()?,
            _ => bail!("{argument} is unknown\n{USAGE}"),
        }
    }
    Ok(Some(parsed))
}

#[cfg(feature = "quiche")]
fn weathered(seeds: u64, out: &mut impl Write) -> Result<Vec<report::Weathered>> {
    match seeds {
        0 => Ok(Vec::new()),
        seeds => pairs::run(seeds, out),
    }
}

#[cfg(not(feature = "quiche"))]
fn weathered(_: u64, out: &mut impl Write) -> Result<Vec<report::Weathered>> {
    writeln!(out, "quiche is not built in: no seeds")?;
    Ok(Vec::new())
}

fn main() -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let Some(arguments) = arguments()? else {
        writeln!(out, "{USAGE}")?;
        return Ok(ExitCode::SUCCESS);
    };
    let features: Vec<Feature> = Feature::ALL
        .into_iter()
        .filter(|f| {
            arguments
                .feature
                .as_ref()
                .is_none_or(|name| f.name() == name)
        })
        .collect();
    let identity = Identity::new()?;
    let (peers, skipped) = peers::all();
    skipped
        .iter()
        .try_for_each(|text| writeln!(out, "{text}"))?;
    let mut columns = Vec::new();
    for peer in peers {
        if arguments
            .peer
            .as_ref()
            .is_none_or(|name| peer.name() == name)
        {
            columns.push(matrix::column(&*peer, &features, &identity, &mut out)?);
        }
    }
    let pairs = weathered(arguments.seeds, &mut out)?;
    let all_peers = cfg!(feature = "quiche") && cfg!(feature = "s2n");
    let complete = all_peers && arguments.peer.is_none() && arguments.feature.is_none();
    if complete {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/INTEROP.md");
        std::fs::write(&path, report::document(&columns, &skipped, &pairs))?;
    }
    let cells = columns
        .iter()
        .flat_map(|c| &c.cells)
        .flat_map(|(_, cells)| cells);
    let count = |wanted: fn(&Outcome) -> bool| cells.clone().filter(|cell| wanted(cell)).count();
    let failed = count(|cell| matches!(cell, Outcome::Fail(_)));
    let seeds: usize = pairs.iter().map(|pair| pair.failed.len()).sum();
    writeln!(
        out,
        "{} pass, {failed} fail, {} not offered; {seeds} seeds fail",
        count(|cell| *cell == Outcome::Pass),
        count(|cell| matches!(cell, Outcome::NotOffered(_))),
    )?;
    Ok(match failed + seeds {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
