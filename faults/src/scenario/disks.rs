//! Disks that fill, turn read-only, or fail.

use std::time::Duration;

use anyhow::{Result, ensure};

use roadstead_faulty_disk::{EIO, EROFS, FailingDisk, SmallDisk};

use super::{Bench, Stage};
use crate::edge::Setup;
use crate::report::End;

/// How long a disk stays broken once the server has noticed.
const BROKEN: Duration = Duration::from_secs(2);

pub(super) fn full(bench: &Bench) -> Result<End> {
    let scratch = tempfile::tempdir()?;
    let data = scratch.path().join("data");
    let Some(disk) = SmallDisk::mount(&data, 64)? else {
        return Ok(End::Skip("mounting is not allowed here".into()));
    };
    let stage = Stage::with(bench, scratch, Some(disk.path()), Setup::default())?;
    // Somebody else's file takes all the room there is.
    let ballast = disk.path().join("ballast");
    let _ = std::fs::File::create(&ballast)
        .and_then(|mut file| std::io::copy(&mut std::io::repeat(7), &mut file).map(drop));
    stage.edge.becomes_ready(503)?;
    std::thread::sleep(BROKEN);
    std::fs::remove_file(&ballast)?;
    disk.remount("size=512m")?;
    stage.edge.becomes_ready(200)?;
    let account = stage.verify()?;
    Ok(End::Pass(format!("red, then green; {}", account.words())))
}

pub(super) fn read_only(bench: &Bench) -> Result<End> {
    let scratch = tempfile::tempdir()?;
    let data = scratch.path().join("data");
    let Some(disk) = SmallDisk::mount(&data, 512)? else {
        return Ok(End::Skip("mounting is not allowed here".into()));
    };
    let Some(failing) = FailingDisk::build(scratch.path())? else {
        return Ok(End::Skip("no rustc to compile a failing disk with".into()));
    };
    let setup = Setup {
        environment: failing.environment(disk.path()),
        ..Setup::default()
    };
    let mut stage = Stage::with(bench, scratch, Some(disk.path()), setup)?;
    // Under the server: the kernel remounts no file system with files open for writing, but it turns one
    // read-only after an error. From then on every write is refused like this.
    failing.fail("write sync open", EROFS)?;
    stage.edge.becomes_ready(503)?;
    std::thread::sleep(BROKEN);
    failing.mend()?;
    stage.edge.becomes_ready(200)?;
    // At its start.
    stage.edge.kill()?;
    disk.remount("ro")?;
    let said = stage.edge.refuses_to_start()?;
    ensure!(
        said.to_lowercase().contains("read-only"),
        "it does not say why: {said}"
    );
    disk.remount("rw")?;
    stage.edge.restart()?;
    let account = stage.verify()?;
    Ok(End::Pass(format!(
        "red, then green; refused to start; {}",
        account.words()
    )))
}

pub(super) fn failed_sync(bench: &Bench) -> Result<End> {
    failing(bench, "sync")
}

pub(super) fn failed_write(bench: &Bench) -> Result<End> {
    failing(bench, "write open")
}

fn failing(bench: &Bench, calls: &str) -> Result<End> {
    let scratch = tempfile::tempdir()?;
    let Some(failing) = FailingDisk::build(scratch.path())? else {
        return Ok(End::Skip("no rustc to compile a failing disk with".into()));
    };
    // The whole folder: the server's log is on the disk that fails, as it often is.
    let setup = Setup {
        environment: failing.environment(scratch.path()),
        ..Setup::default()
    };
    let stage = Stage::with(bench, scratch, None, setup)?;
    let mut failures = 0;
    for _ in 0..(bench.seconds / 8).max(1) {
        stage.edge.store_fails(|| failing.fail(calls, EIO))?;
        std::thread::sleep(BROKEN / 2);
        failing.mend()?;
        stage.edge.becomes_ready(200)?;
        failures += 1;
    }
    let account = stage.verify()?;
    Ok(End::Pass(format!(
        "failed {failures} times, then ready; {}",
        account.words()
    )))
}
