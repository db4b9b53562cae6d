//! From a scenario and a command line to a plan: files are read, numbers are checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use roadstead_hostile::Access;
use roadstead_net::Transport;
use roadstead_proto::limits;

use super::{Given, Scene, Shape, from_seconds, posts};
use crate::cli::{Load, Server};
use crate::clock::micros;
use crate::hostile::Campaign;
use crate::payload;
use crate::plan::Plan;
use crate::rng::mix;
use crate::token::TokenSigner;
use crate::topology::{DEVICES_MAX, Topology};

/// The server's idle timeout is the shorter one and counts; this end only must not be in its way (T10).
const IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);

pub(super) fn plan(scene: &Scene, given: Given) -> Result<Plan> {
    let (shape, server, load) = (&scene.shape, &scene.server, &scene.load);
    let topology = topology(shape, load)?;
    ensure!(
        (payload::BYTES_MIN..=limits::PAYLOAD_BYTES_MAX).contains(&load.size),
        "--size must be {} to {}",
        payload::BYTES_MIN,
        limits::PAYLOAD_BYTES_MAX
    );
    let posts = posts::posts(&topology, load, shape.control)?;
    let now_ms = now_ms()?;
    let roots = match given.roots {
        Some(roots) => roots,
        None => read(server.ca.as_deref(), server, "cert.pem", "--ca")?,
    };
    Ok(Plan {
        target: server.target,
        server_name: server.server_name.clone(),
        signer: signer(server, given.token_key)?,
        posts,
        campaign: campaign(scene, &roots)?,
        roots,
        transport: Transport {
            idle_timeout: IDLE_TIMEOUT,
            ..Transport::default()
        },
        target_engine: server.quic_engine,
        resumption: load.resumption,
        run: run_tag(now_ms, load.seed),
        counter_base: now_ms,
        ramp: load.ramp.clone(),
        steps: shape.steps.clone(),
        silence: shape.silence,
        size: load.size,
        read_fraction: load.read_fraction,
        drain_timeout: from_seconds(load.drain_timeout),
        heartbeat: load.heartbeat.map(from_seconds),
        cuts_fail: shape.cuts_fail && !load.allow_reconnects,
        details_max: load.details,
        topology,
    })
}

fn campaign(scene: &Scene, roots: &[u8]) -> Result<Option<Campaign>> {
    let Some((attacks, late_after)) = &scene.campaign else {
        return Ok(None);
    };
    let server = &scene.server;
    let admin = server.admin;
    Ok(Some(Campaign {
        attacks: attacks.clone(),
        access: Access::new(server.target, &server.server_name, roots)?,
        admin: admin.context("the edge's counters say what was refused: --admin ADDR is needed")?,
        late_after: *late_after,
    }))
}

fn topology(shape: &Shape, load: &Load) -> Result<Topology> {
    let sessions = shape.sessions;
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
        circle: load.circle.max(shape.circle),
        seed: load.seed,
    })
}

fn signer(server: &Server, key: Option<Vec<u8>>) -> Result<TokenSigner> {
    let key = match key {
        Some(key) => key,
        None => token_key(server)?,
    };
    TokenSigner::from_pem(&key, &server.token_key_id)
}

pub(super) fn token_key(server: &Server) -> Result<Vec<u8>> {
    let option = server.token_key.as_deref();
    read(option, server, "token-key.pem", "--token-key")
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn topology_of(sessions: u32, arguments: &[&str]) -> Result<Topology> {
        let cli = Cli::parse_from(["loadgen", "chat"].iter().chain(arguments));
        topology(&Shape::new("test", sessions, vec![]), cli.command.load())
    }

    #[test]
    fn sessions_must_make_users() {
        assert!(topology_of(1, &[]).is_err());
        assert!(topology_of(9, &["--devices", "2"]).is_err());
        assert!(topology_of(8, &["--devices", "5"]).is_err());
        assert!(topology_of(8, &["--users-from", "0"]).is_err());
        let topology = topology_of(8, &["--devices", "2", "--users-from", "7"]).expect("good");
        assert_eq!((topology.users, topology.users_from), (4, 7));
    }

    #[test]
    fn runs_have_tags_of_their_own() {
        assert_ne!(run_tag(1_000, 1), run_tag(1_001, 1));
        assert_ne!(run_tag(1_000, 1), run_tag(1_000, 2));
    }
}
