//! The scenarios: from a command line to a report.

mod chat;
mod demo;
mod hold;
mod posts;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use roadstead_net::Transport;
use roadstead_proto::limits;

use crate::cli::{Cli, Command, Load, Server};
use crate::clock::{Micros, micros};
use crate::findings::{Findings, Kind};
use crate::plan::{Exchange, Plan, Who};
use crate::report::{self, Progress, Report};
use crate::rng::mix;
use crate::run;
use crate::target::Target;
use crate::token::TokenSigner;
use crate::topology::{DEVICES_MAX, Topology};
use crate::{out, payload};

/// The server's idle timeout is the shorter one and counts; this end only must not be in its way (T10).
const IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Carries out what the command line says.
pub(crate) fn run(cli: &Cli) -> Result<Report> {
    match &cli.command {
        Command::Hold(remote) => hold::run(remote),
        Command::Chat(remote) => chat::run(remote),
        Command::Demo(demo) => demo::run(demo),
    }
}

/// What a scenario decides; everything else comes from the command line.
struct Shape {
    name: &'static str,
    sessions: u32,
    rate: f64,
    duration: f64,
    offline_fraction: f64,
    /// Silent time before the exchange.
    hold: f64,
    who: Who,
    cuts_fail: bool,
    silence: bool,
}

/// Makes a run and reports it. `at_end` may add findings once the run is over.
fn run_shape(
    shape: &Shape,
    server: &Server,
    load: &Load,
    at_end: impl FnOnce(&mut Findings) -> Result<()>,
) -> Result<Report> {
    let plan = Arc::new(plan(shape, server, load)?);
    let mut target = Target::new(server.target_pid, server.admin);
    let mut progress = Progress::new(load.quiet, plan.topology.sessions());
    let mut raw = run::conduct(&plan, &mut target, &mut progress)?;
    progress.finish();
    at_end(&mut raw.findings)?;
    let report = Report::new(shape.name, &plan, load, &raw);
    if let Some(path) = &load.json {
        write_json(path, &report)?;
    }
    if !load.quiet {
        out::line(report::table(&report));
    }
    Ok(report)
}

fn write_json(path: &Path, report: &Report) -> Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    if path == Path::new("-") {
        out::line(json);
        return Ok(());
    }
    fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))
}

fn plan(shape: &Shape, server: &Server, load: &Load) -> Result<Plan> {
    let topology = topology(shape.sessions, load)?;
    ensure!(
        (payload::BYTES_MIN..=limits::PAYLOAD_BYTES_MAX).contains(&load.size),
        "--size must be {} to {}",
        payload::BYTES_MIN,
        limits::PAYLOAD_BYTES_MAX
    );
    let posts = posts::posts(&topology, load)?;
    let now_ms = now_ms()?;
    Ok(Plan {
        target: server.target,
        server_name: server.server_name.clone(),
        signer: signer(server)?,
        posts,
        roots: read(server.ca.as_deref(), server, "cert.pem", "--ca")?,
        transport: Transport {
            idle_timeout: IDLE_TIMEOUT,
            ..Transport::default()
        },
        target_engine: server.quic_engine,
        resumption: load.resumption,
        run: run_tag(now_ms, load.seed),
        counter_base: now_ms,
        ramp: load.ramp,
        hold: from_seconds(shape.hold),
        silence: shape.silence,
        exchange: Exchange {
            rate: shape.rate,
            arrivals: load.arrivals,
            duration: from_seconds(shape.duration),
            who: shape.who,
            size: load.size,
            read_fraction: load.read_fraction,
            offline_fraction: shape.offline_fraction,
        },
        drain_timeout: from_seconds(load.drain_timeout),
        heartbeat: load.heartbeat.map(from_seconds),
        cuts_fail: shape.cuts_fail,
        details_max: load.details,
        topology,
    })
}

fn topology(sessions: u32, load: &Load) -> Result<Topology> {
    ensure!(
        (1..=DEVICES_MAX).contains(&load.devices),
        "--devices must be 1 to {DEVICES_MAX}"
    );
    ensure!(
        load.circle >= 2,
        "--circle must be at least 2: nobody chats alone"
    );
    ensure!(
        load.users_from > 0,
        "--users-from must be at least 1: user 0 is nobody"
    );
    let users = sessions / load.devices;
    ensure!(
        users >= 2 && users * load.devices == sessions,
        "--sessions must be a multiple of --devices and make at least two users"
    );
    Ok(Topology {
        users_from: load.users_from,
        users,
        devices: load.devices,
        circle: load.circle,
        seed: load.seed,
    })
}

fn signer(server: &Server) -> Result<TokenSigner> {
    let key = read(
        server.token_key.as_deref(),
        server,
        "token-key.pem",
        "--token-key",
    )?;
    TokenSigner::from_pem(&key, &server.token_key_id)
}

/// Reads the file that an option names, or the one of that name in the data directory.
fn read(option: Option<&Path>, server: &Server, name: &str, flag: &str) -> Result<Vec<u8>> {
    let path: PathBuf = match (option, &server.data) {
        (Some(path), _) => path.into(),
        (None, Some(data)) => data.join(name),
        (None, None) => {
            anyhow::bail!("--data DIR (the edge's data directory) or {flag} FILE is needed")
        }
    };
    fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

fn run_tag(now_ms: u64, seed: u64) -> u32 {
    u32::try_from(mix(now_ms ^ mix(seed)) >> 32).expect("32 bits are left")
}

fn now_ms() -> Result<u64> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    Ok(micros(since) / 1_000)
}

fn from_seconds(seconds: f64) -> Micros {
    // A century is for ever, and far from what overflows a time.
    micros(Duration::from_secs_f64(seconds.min(3e9)))
}

/// An edge that did not end as it should.
fn edge_exit(findings: &mut Findings, what: impl std::fmt::Display) {
    findings.add(Kind::EdgeExit, what);
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn load(arguments: &[&str]) -> Load {
        let cli = Cli::parse_from(["loadgen", "chat"].iter().chain(arguments));
        match cli.command {
            Command::Chat(remote) => remote.load,
            _ => unreachable!("it was chat"),
        }
    }

    #[test]
    fn sessions_must_make_users() {
        assert!(topology(1, &load(&[])).is_err());
        assert!(topology(9, &load(&["--devices", "2"])).is_err());
        assert!(topology(8, &load(&["--devices", "5"])).is_err());
        assert!(topology(8, &load(&["--users-from", "0"])).is_err());
        let topology = topology(8, &load(&["--devices", "2", "--users-from", "7"])).expect("good");
        assert_eq!((topology.users, topology.users_from), (4, 7));
    }

    #[test]
    fn seconds_are_microseconds() {
        assert_eq!(from_seconds(1.5), 1_500_000);
        assert!(from_seconds(f64::MAX) > 1_000_000_000_000);
    }

    #[test]
    fn runs_have_tags_of_their_own() {
        assert_ne!(run_tag(1_000, 1), run_tag(1_001, 1));
        assert_ne!(run_tag(1_000, 1), run_tag(1_000, 2));
    }
}
