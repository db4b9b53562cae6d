//! The process is killed, or stands still.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::{Bench, Stage};
use crate::report::End;

/// Sends committed by a life before it is killed: enough to be in the middle of things.
const SENDS_PER_LIFE: u64 = 100;

/// How long the process stands still: longer than a probe timeout, shorter than the idle timeout.
const FREEZE: Duration = Duration::from_secs(4);

pub(super) fn kill_loop(bench: &Bench) -> Result<End> {
    let mut stage = Stage::new(bench)?;
    let mut kills = 0;
    while stage.load.is_running()? {
        let committed = stage.edge.metric("roadstead_sends_committed_total")?;
        if committed >= SENDS_PER_LIFE {
            stage.edge.kill()?;
            stage.edge.restart()?;
            kills += 1;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(kills > 0, "it was never killed");
    let account = stage.verify()?;
    ensure!(
        account.number("sessions", "reconnected") > 0,
        "nobody came back"
    );
    Ok(End::Pass(format!("{kills} kills; {}", account.words())))
}

pub(super) fn freeze(bench: &Bench) -> Result<End> {
    let stage = Stage::new(bench)?;
    let mut freezes = 0;
    // At least one, and as many as leave the load some time to run.
    for _ in 0..(bench.seconds / (3 * FREEZE.as_secs())).max(1) {
        stage.edge.signal(Signal::STOP)?;
        std::thread::sleep(FREEZE);
        stage.edge.signal(Signal::CONT)?;
        freezes += 1;
        std::thread::sleep(FREEZE / 2);
    }
    let account = stage.verify()?;
    Ok(End::Pass(format!(
        "{freezes} of {FREEZE:?}; {}",
        account.words()
    )))
}
