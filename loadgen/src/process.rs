//! Memory and CPU time of processes and threads, in the units of a run.

use roadstead_net::host;
use serde::{Deserialize, Serialize};

use crate::clock::{Micros, micros};

/// A process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) rss_bytes: u64,
    pub(crate) cpu: Micros,
}

/// A thread at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadUsage {
    /// Time on a CPU.
    pub(crate) cpu: Micros,
    /// Time it was ready to run and had no CPU.
    pub(crate) waited: Micros,
}

/// Memory and CPU time of a process; `None` if there is none.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let usage = host::usage(pid)?;
    Some(Usage {
        rss_bytes: usage.rss_bytes,
        cpu: micros(usage.cpu),
    })
}

/// The calling thread's CPU time; zero where the kernel does not account for it.
pub(crate) fn thread_usage() -> ThreadUsage {
    let usage = host::thread_usage();
    ThreadUsage {
        cpu: micros(usage.cpu),
        waited: micros(usage.waited),
    }
}
