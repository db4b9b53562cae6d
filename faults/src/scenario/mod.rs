//! One fault per file: broken, mended, and every message accounted for.

mod descriptors;
mod disks;
mod floods;
mod memory;
mod packets;
mod process;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::edge::{Edge, Setup};
use crate::load::{Account, Load, Running};
use crate::report::End;

/// A scenario by its name.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) run: fn(&Bench) -> Result<End>,
}

/// Every one, in the order in which they run.
pub(crate) const ALL: [Scenario; 11] = [
    Scenario {
        name: "kill-loop",
        what: "kill -9 and start again, over and over, in the middle of the load (R8, R12, R15)",
        run: process::kill_loop,
    },
    Scenario {
        name: "freeze",
        what: "SIGSTOP for seconds, SIGCONT: late is not lost",
        run: process::freeze,
    },
    Scenario {
        name: "full-disk",
        what: "the disk fills and gets room again (R10)",
        run: disks::full,
    },
    Scenario {
        name: "read-only-disk",
        what: "the file system turns read-only under the server, and at its start",
        run: disks::read_only,
    },
    Scenario {
        name: "failed-sync",
        what: "fsync answers EIO: nothing is served until the engine was reopened (R10)",
        run: disks::failed_sync,
    },
    Scenario {
        name: "failed-write",
        what: "write and open answer EIO for a while",
        run: disks::failed_write,
    },
    Scenario {
        name: "descriptors",
        what: "no descriptor is left, then some are",
        run: descriptors::run,
    },
    Scenario {
        name: "memory",
        what: "more sessions than memory: the ceiling refuses, or the kernel kills and it starts again",
        run: memory::run,
    },
    Scenario {
        name: "packet-loss",
        what: "5, 20 and 100 of 100 packets are lost (nftables in a namespace of its own)",
        run: packets::run,
    },
    Scenario {
        name: "half-open-flood",
        what: "thousands of handshakes begun and never finished (T11)",
        run: floods::half_open,
    },
    Scenario {
        name: "slow-readers",
        what: "devices that read nothing, and a load generator that stands still for seconds (T8, R26)",
        run: floods::slow_readers,
    },
];

/// Where the programs are and how much load there is.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) binaries: PathBuf,
    pub(crate) seconds: u64,
    pub(crate) quic_engine: String,
}

impl Bench {
    pub(crate) fn new(binaries: Option<PathBuf>, seconds: u64, quic_engine: &str) -> Result<Self> {
        let beside = || std::env::current_exe().map(|this| this.with_file_name(""));
        let bench = Self {
            binaries: binaries.map_or_else(beside, Ok)?,
            seconds: seconds.max(5),
            quic_engine: quic_engine.into(),
        };
        for name in ["roadstead", "loadgen"] {
            let path = bench.binary(name);
            ensure!(
                path.exists(),
                "{} is missing: `cargo xtask faults` builds it",
                path.display()
            );
        }
        Ok(bench)
    }

    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }
}

/// A server under load, with files of its own.
struct Stage {
    edge: Edge,
    load: Running,
    scratch: tempfile::TempDir,
}

impl Stage {
    /// On a fresh folder, with everything as it is by default.
    fn new(bench: &Bench) -> Result<Self> {
        Self::with(bench, tempfile::tempdir()?, None, Setup::default())
    }

    fn with(
        bench: &Bench,
        scratch: tempfile::TempDir,
        data: Option<&Path>,
        setup: Setup,
    ) -> Result<Self> {
        let data = data.map_or_else(|| scratch.path().join("data"), Path::to_owned);
        std::fs::create_dir_all(&data)?;
        let edge = Edge::start(bench, scratch.path(), &data, setup)?;
        let load = Load::chat(bench.seconds).start(bench, &edge, scratch.path())?;
        edge.metric_reaches("roadstead_sends_committed_total", 50)?;
        Ok(Self {
            edge,
            load,
            scratch,
        })
    }

    /// The load's account, which must be complete, and the server's orderly end.
    fn verify(self) -> Result<Account> {
        let account = self.load.verify();
        // A server that has ended explains everything that the load complains of.
        self.edge.lives()?;
        let account = account?;
        self.edge.finish()?;
        drop(self.scratch);
        Ok(account)
    }
}
