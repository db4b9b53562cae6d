//! Peers who take and give nothing back.

use std::time::Duration;

use anyhow::{Result, ensure};
use roadstead_hostile::HalfOpen;
use rustix::process::Signal;

use super::{Bench, Stage};
use crate::edge::{FLOOD_FROM, Setup};
use crate::load::Load;
use crate::report::End;
use crate::slow::SlowReaders;

/// Handshakes begun per second; the limits of the configuration are reached in a second or two.
const HANDSHAKES_PER_SECOND: u32 = 1_000;

/// Devices that read nothing.
const SLOW_READERS: u64 = 12;

/// How much the server may grow by all of it, above what the load alone takes.
const GROWTH_MAX: u64 = 192 << 20;

pub(super) fn half_open(bench: &Bench) -> Result<End> {
    let config = "[sessions]\nretry_above_half_open = 200\n";
    let setup = Setup {
        config: config.into(),
        ..Setup::default()
    };
    let stage = Stage::with(bench, tempfile::tempdir()?, None, setup)?;
    let before = stage.edge.resident()?;
    let flood = HalfOpen::start(FLOOD_FROM, stage.edge.listen, HANDSHAKES_PER_SECOND)?;
    std::thread::sleep(Duration::from_secs(bench.seconds / 3));
    // Newcomers get in all the same: a second load begins in the middle of the flood.
    let newcomers = Load {
        users_from: 500_000,
        sessions: 60,
        ..Load::chat((bench.seconds / 3).max(2))
    };
    let newcomers = newcomers.start(bench, &stage.edge, stage.scratch.path())?;
    let came = newcomers.verify()?;
    let retries = stage.edge.metric("roadstead_net_retries_sent_total")?;
    let grown = stage.edge.resident()?.saturating_sub(before);
    let sent = flood.begun();
    drop(flood);
    ensure!(retries > 0, "{sent} handshakes begun and no Retry sent");
    ensure!(
        grown < GROWTH_MAX,
        "{sent} half-open handshakes took {grown} bytes"
    );
    let account = stage.verify()?;
    Ok(End::Pass(format!(
        "{sent} begun, {retries} retries, {} MiB more; {}; newcomers: {}",
        grown >> 20,
        account.words(),
        came.words()
    )))
}

pub(super) fn slow_readers(bench: &Bench) -> Result<End> {
    let setup = Setup {
        config: "[sessions]\nslow_consumer_s = 4\n".into(),
        ..Setup::default()
    };
    let stage = Stage::with(bench, tempfile::tempdir()?, None, setup)?;
    let before = stage.edge.resident()?;
    let other = Load {
        users_from: 500_000,
        ..Load::chat(bench.seconds)
    };
    let other = other.start(bench, &stage.edge, stage.scratch.path())?;
    let slow = SlowReaders::start(&stage.edge, SLOW_READERS)?;
    stage
        .edge
        .metric_reaches("roadstead_sends_committed_total", 1_000)?;
    other.signal(Signal::STOP)?;
    std::thread::sleep(Duration::from_secs(5));
    other.signal(Signal::CONT)?;
    stage.edge.closed_with("SLOW_CONSUMER", SLOW_READERS)?;
    let grown = stage.edge.resident()?.saturating_sub(before);
    slow.catch_up()?;
    ensure!(grown < GROWTH_MAX, "slow readers took {grown} bytes");
    let stood = other.verify()?;
    let account = stage.verify()?;
    Ok(End::Pass(format!(
        "{SLOW_READERS} closed, {} MiB more; {}; the one that stood still: {}",
        grown >> 20,
        account.words(),
        stood.words()
    )))
}
