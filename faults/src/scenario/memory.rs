//! More sessions than there is memory for.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Bench, Stage};
use crate::edge::{PATIENCE, Setup};
use crate::load::Load;
use crate::report::End;

/// What the group may use, and the ceiling that the server is told to keep below it.
const GROUP_MIB: u64 = 96;
const CEILING_MIB: u64 = 48;

/// Sessions that do not fit: at 1.5 KiB each, their devices in the store included, they would take twice what
/// the ceiling leaves above a fresh server.
const SESSIONS: u32 = 40_000;

/// Where groups are (cgroup v2, then v1), and the file of their limit.
const GROUPS: [(&str, &str); 2] = [
    ("/sys/fs/cgroup", "memory.max"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
];

/// A group with a memory limit. Removed when dropped.
struct Group(PathBuf);

impl Group {
    /// `None` where none can be made.
    fn new() -> Option<Self> {
        GROUPS.into_iter().find_map(|(root, file)| {
            let path = PathBuf::from(root).join(format!("roadstead-faults-{}", std::process::id()));
            std::fs::create_dir(&path).ok()?;
            let group = Self(path);
            let limit = group.0.join(file);
            let is_there = limit.exists();
            (is_there && std::fs::write(limit, (GROUP_MIB << 20).to_string()).is_ok())
                .then_some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

pub(super) fn run(bench: &Bench) -> Result<End> {
    let Some(group) = Group::new() else {
        return Ok(End::Skip("no memory group can be made here".into()));
    };
    let has_ceiling = has_ceiling(bench)?;
    let config = match has_ceiling {
        true => format!("memory_max_mib = {CEILING_MIB}\n"),
        false => String::new(),
    };
    let setup = Setup {
        config,
        group: Some(group.0.join("cgroup.procs")),
        ..Setup::default()
    };
    let mut stage = Stage::with(bench, tempfile::tempdir()?, None, setup)?;
    let crowd = Load {
        scenario: "hold",
        sessions: SESSIONS,
        users_from: 1_000_000,
        ..Load::chat(bench.seconds)
    };
    let crowd = crowd.start(bench, &stage.edge, stage.scratch.path())?;
    let (mut kills, mut largest, mut refused) = (0, 0, 0);
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until && kills == 0 && refused == 0 {
        if stage.edge.ended()?.is_some() {
            kills += 1;
            stage.edge.restart()?;
        }
        largest = largest.max(stage.edge.resident().unwrap_or(0));
        let metric = stage.edge.metric("roadstead_refused_memory_total");
        refused = metric.unwrap_or(0);
        std::thread::sleep(Duration::from_millis(100));
    }
    // It goes without a word: its sessions end by their idle timeout.
    drop(crowd);
    let (mib, what) = (
        largest >> 20,
        if has_ceiling {
            "the ceiling"
        } else {
            "the kernel"
        },
    );
    if has_ceiling {
        ensure!(kills == 0, "killed {kills} times below its ceiling");
        ensure!(refused > 0, "nobody was refused at {mib} MiB");
    }
    let account = stage.verify()?;
    Ok(End::Pass(format!(
        "{what} held at {mib} MiB, {refused} refused, {kills} kills; {}",
        account.words()
    )))
}

/// Whether this server knows a memory ceiling.
fn has_ceiling(bench: &Bench) -> Result<bool> {
    let output = Command::new(bench.binary("roadstead"))
        .arg("config")
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("memory_max_mib"))
}
