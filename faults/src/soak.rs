//! Hours in minutes: faults over and over against one process, and memory that returns to its base.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use roadstead_faulty_disk::{EIO, FailingDisk};
use roadstead_hostile::HalfOpen;
use rustix::process::Signal;

use crate::edge::{Edge, FLOOD_FROM, Setup, until};
use crate::load::Load;
use crate::report::{End, say};
use crate::scenario::Bench;
use crate::slow::SlowReaders;

/// A round of load and faults.
const ROUND: Duration = Duration::from_secs(60);

/// Of all rounds, the first of so many parts are the base, and the last are held against it. Each part has
/// every fault in it if there are rounds enough.
const PARTS: usize = 3;

/// What a process may hold above its base when all is quiet again: the allocator's slack.
const SLACK: u64 = 16 << 20;

/// Short patience with devices that do not read, short heartbeats, and caches that are full after a round or
/// two: while they fill, memory grows and nothing leaks.
const CONFIG: &str = "[sessions]\nslow_consumer_s = 4\nheartbeat_s = 30\n\
    [store]\nblock_cache_mib = 2\ncached_keys = 4096\n";

/// One server for all of it: a fault that it does not survive fails the soak.
pub(crate) fn run(bench: &Bench, minutes: f64) -> Result<End> {
    let ends = Instant::now() + Duration::try_from_secs_f64(minutes * 60.0)?;
    let scratch = tempfile::tempdir()?;
    let data = scratch.path().join("data");
    std::fs::create_dir_all(&data)?;
    let disk = FailingDisk::build(scratch.path())?;
    let setup = Setup {
        config: CONFIG.into(),
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
        let account = load.verify();
        // A server that has ended explains everything that the load complains of.
        edge.lives()?;
        messages += account?.number("messages", "acknowledged");
        let level = quiet(&edge)?;
        say(&format!(
            "soak: round {round}, {messages} messages, {} MiB when quiet",
            level >> 20
        ));
        levels.push(level);
        if Instant::now() >= ends && levels.len() >= PARTS {
            break;
        }
    }
    let seen = returns(&levels)?;
    edge.finish()?;
    Ok(End::Pass(format!(
        "{} rounds, {messages} messages, {seen}",
        levels.len()
    )))
}

/// Memory has returned to its base; what it was, in words. Highest is held against highest: faults differ
/// in what they leave for a while.
fn returns(levels: &[u64]) -> Result<String> {
    let part = levels.len() / PARTS;
    let highest = |levels: &[u64]| levels.iter().copied().max().unwrap_or(0);
    let base = highest(&levels[..part]);
    let last = highest(&levels[levels.len() - part..]);
    let mib: Vec<u64> = levels.iter().map(|level| level >> 20).collect();
    let seen = format!(
        "memory when quiet: {} MiB in the first third, {} in the last",
        base >> 20,
        last >> 20
    );
    ensure!(last <= base + SLACK, "{seen}: {mib:?}");
    Ok(seen)
}

/// One fault in each round, in turn.
fn fault(round: u32, edge: &Edge, disk: Option<&FailingDisk>) -> Result<()> {
    match (round % 4, disk) {
        (0, Some(disk)) => {
            edge.store_fails(|| disk.fail("sync", EIO))?;
            disk.mend()?;
            edge.becomes_ready(200)
        }
        (1, _) => {
            edge.signal(Signal::STOP)?;
            std::thread::sleep(Duration::from_secs(4));
            edge.signal(Signal::CONT)
        }
        (2, _) => {
            let flood = HalfOpen::start(FLOOD_FROM, edge.listen, 500)?;
            std::thread::sleep(ROUND / 4);
            drop(flood);
            Ok(())
        }
        _ => {
            let slow = SlowReaders::start(edge, 6)?;
            std::thread::sleep(ROUND / 4);
            slow.catch_up()
        }
    }
}

/// Resident bytes once every session is gone, without what the store is about to write into its tables:
/// that comes and goes, and says of itself how much it is. The last sessions end by their idle timeout.
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
    let mut least = u64::MAX;
    let settled = Instant::now() + Duration::from_secs(5);
    until("five quiet seconds", || {
        least = least.min(edge.resident()?.saturating_sub(edge.young()?));
        Ok(Instant::now() >= settled)
    })?;
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_does_not_return_fails() {
        let mib = |levels: [u64; 6]| levels.map(|level| level << 20);
        assert!(returns(&mib([60, 70, 90, 90, 86, 60])).is_ok());
        assert!(returns(&mib([60, 70, 90, 60, 60, 87])).is_err());
    }
}
