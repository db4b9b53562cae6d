//! Hours in minutes: faults over and over against one process, and memory that returns to its base.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use roadstead_faulty_disk::{EIO, FailingDisk};
use rustix::process::Signal;

use crate::edge::{Edge, Setup, until};
use crate::flood::Flood;
use crate::load::Load;
use crate::report::{End, say};
use crate::scenario::Bench;
use crate::slow::SlowReaders;

/// A round of load and faults.
const ROUND: Duration = Duration::from_secs(60);

/// Rounds before the base is taken: caches fill, pools grow to their working size.
const WARM_UP: u32 = 2;

/// What a process may hold above its base when all is quiet again: the allocator's slack.
const SLACK: u64 = 24 << 20;

/// One server for all of it: a fault that it does not survive fails the soak.
pub(crate) fn run(bench: &Bench, minutes: f64) -> Result<End> {
    let ends = Instant::now() + Duration::try_from_secs_f64(minutes * 60.0)?;
    let scratch = tempfile::tempdir()?;
    let data = scratch.path().join("data");
    std::fs::create_dir_all(&data)?;
    let disk = FailingDisk::build(scratch.path())?;
    let setup = Setup {
        config: "[sessions]\nslow_consumer_s = 4\nheartbeat_s = 30\n".into(),
        environment: disk
            .as_ref()
            .map(|disk| disk.environment(&data))
            .unwrap_or_default(),
        group: None,
    };
    let edge = Edge::start(bench, scratch.path(), &data, setup)?;
    let (mut messages, mut levels) = (0, Vec::new());
    for round in 1.. {
        let load = Load {
            seconds: ROUND.as_secs(),
            ..Load::chat(0)
        };
        let load = load.start(bench, &edge, scratch.path())?;
        edge.metric_reaches("roadstead_sends_committed_total", messages + 50)?;
        fault(round, &edge, disk.as_ref())?;
        messages += load.verify()?.number("messages", "acknowledged");
        let level = quiet(&edge)?;
        say(&format!(
            "soak: round {round}, {messages} messages, {} MiB when quiet",
            level >> 20
        ));
        levels.push(level);
        if Instant::now() >= ends && round > WARM_UP {
            break;
        }
    }
    let base = levels[..WARM_UP as usize]
        .iter()
        .max()
        .copied()
        .unwrap_or(0);
    let last = *levels.last().expect("a round was made");
    let (base_mib, last_mib) = (base >> 20, last >> 20);
    ensure!(
        last <= base + SLACK,
        "memory went from {base_mib} to {last_mib} MiB: {levels:?}"
    );
    let rounds = levels.len();
    edge.finish()?;
    Ok(End::Pass(format!(
        "{rounds} rounds, {messages} messages, memory {base_mib} MiB at first and {last_mib} at last"
    )))
}

/// One fault in each round, in turn.
fn fault(round: u32, edge: &Edge, disk: Option<&FailingDisk>) -> Result<()> {
    match (round % 4, disk) {
        (0, Some(disk)) => {
            disk.fail("sync", EIO)?;
            edge.store_fails()?;
            disk.mend()?;
            edge.becomes_ready(200)
        }
        (1, _) => {
            edge.signal(Signal::STOP)?;
            std::thread::sleep(Duration::from_secs(4));
            edge.signal(Signal::CONT)
        }
        (2, _) => {
            let flood = Flood::start(edge.listen, 500)?;
            std::thread::sleep(ROUND / 4);
            drop(flood);
            Ok(())
        }
        _ => {
            let slow = SlowReaders::start(edge, 6)?;
            std::thread::sleep(ROUND / 4);
            drop(slow);
            Ok(())
        }
    }
}

/// Resident bytes once every session is gone. The last end by their idle timeout.
fn quiet(edge: &Edge) -> Result<u64> {
    let began = Instant::now();
    while edge.metric("roadstead_sessions")? > 0 {
        ensure!(
            began.elapsed() < Duration::from_secs(150),
            "sessions do not end"
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    // Freed memory goes back to the system a moment later.
    let mut least = edge.resident()?;
    let settled = Instant::now() + Duration::from_secs(5);
    until("five quiet seconds", || {
        least = least.min(edge.resident()?);
        Ok(Instant::now() >= settled)
    })?;
    Ok(least)
}
