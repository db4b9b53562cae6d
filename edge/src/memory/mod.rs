//! The ceiling of this process's memory: above it new sessions are refused, before the kernel kills the
//! process and with it all those that are already in.
//!
//! What counts is memory that cannot be dropped (`RssAnon` and `RssShmem` of /proc/self/status); the page
//! cache can. It is read ten times a second, so between two readings it grows by what the handshakes of a
//! tenth of a second take: some megabytes a core.

pub(crate) mod account;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use roadstead_net::host;

/// How often memory is read.
const READ_EVERY: Duration = Duration::from_millis(100);

/// Share of what the host gives, in percent, when no ceiling is configured. The rest is for the kernel
/// (socket buffers, page tables, the store's page cache), half-open handshakes, and the time between two
/// readings.
pub(crate) const DEFAULT_PERCENT: u64 = 80;

/// Of this many parts of the ceiling, one must be free again before sessions are let in, so that the
/// door does not flap.
const REOPEN_PARTS: u64 = 32;

/// Shared between the thread that reads memory, the shards that ask, and the admin pages.
#[derive(Debug)]
pub(crate) struct Ceiling {
    bytes: u64,
    used: AtomicU64,
    reached: AtomicBool,
}

impl Ceiling {
    /// A ceiling of `mib`; 0 takes 80 % of what the host gives.
    pub(crate) fn configured(mib: u64) -> anyhow::Result<Self> {
        if mib > 0 {
            tracing::info!(mib, "memory ceiling, from the configuration");
            return Ok(Self::new(mib.saturating_mul(1 << 20)));
        }
        let limit = host::memory(Path::new("/"))
            .context("/proc/meminfo cannot be read: configure memory_max_mib")?;
        let bytes = limit.bytes / 100 * DEFAULT_PERCENT;
        let mib = bytes >> 20;
        tracing::info!(mib, of = limit.source, "memory ceiling, 80 % of the host's");
        Ok(Self::new(bytes))
    }

    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            bytes,
            used: AtomicU64::new(0),
            reached: AtomicBool::new(false),
        }
    }

    /// Whether new sessions are refused now.
    pub(crate) fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// The ceiling in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes in use at the last reading.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes a reading in.
    fn observe(&self, used: u64) {
        self.used.store(used, Ordering::Relaxed);
        let reached = if self.is_reached() {
            used > self.bytes - self.bytes / REOPEN_PARTS
        } else {
            used >= self.bytes
        };
        if self.reached.swap(reached, Ordering::Relaxed) == reached {
            return;
        }
        let (used_mib, ceiling_mib) = (used >> 20, self.bytes >> 20);
        if reached {
            tracing::warn!(
                used_mib,
                ceiling_mib,
                "memory ceiling: sessions are refused"
            );
        } else {
            tracing::info!(used_mib, ceiling_mib, "memory ceiling: sessions are let in");
        }
    }
}

/// Reads memory until the sender goes. The first reading is taken before this returns.
pub(crate) fn watch(ceiling: Arc<Ceiling>) -> anyhow::Result<mpsc::Sender<()>> {
    let (stop, stopped) = mpsc::channel::<()>();
    let read = || -> anyhow::Result<u64> {
        let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
        used_of(&status).context("/proc/self/status names no RssAnon")
    };
    ceiling.observe(read()?);
    let run = move || {
        while stopped.recv_timeout(READ_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
            match read() {
                Ok(used) => ceiling.observe(used),
                Err(error) => tracing::warn!(%error, "memory could not be read"),
            }
        }
    };
    std::thread::Builder::new()
        .name("memory".into())
        .spawn(run)
        .context("a thread")?;
    Ok(stop)
}

/// Memory that cannot be dropped, from the text of /proc/self/status (proc_pid_status(5)).
fn used_of(status: &str) -> Option<u64> {
    let anonymous = host::bytes_of(status, "RssAnon:")?;
    Some(anonymous + host::bytes_of(status, "RssShmem:").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_closes_at_the_ceiling_and_opens_below_it() {
        let ceiling = Ceiling::new(3_200);
        let mut states = Vec::new();
        for used in [3_199, 3_200, 3_101, 3_100, 3_199, 9_999] {
            ceiling.observe(used);
            states.push(ceiling.is_reached());
        }
        assert_eq!(states, [false, true, true, false, false, true]);
        assert_eq!((ceiling.used(), ceiling.bytes()), (9_999, 3_200));
    }

    #[test]
    fn what_the_kernel_can_drop_does_not_count() {
        let status = "VmRSS:\t 9000 kB\nRssAnon:\t 10 kB\nRssFile:\t 8000 kB\nRssShmem:\t 2 kB\n";
        assert_eq!(used_of(status), Some(12 * 1024));
        assert_eq!(used_of("VmRSS:\t 9000 kB\n"), None);
        let own = std::fs::read_to_string("/proc/self/status").expect("readable");
        assert!(used_of(&own).expect("this kernel says") > 0);
    }

    #[test]
    fn the_default_leaves_a_fifth_to_the_kernel() {
        let limit = host::memory(Path::new("/")).expect("readable");
        let ceiling = Ceiling::configured(0).expect("a ceiling");
        assert_eq!(ceiling.bytes(), limit.bytes / 100 * 80);
        assert_eq!(Ceiling::configured(7).expect("a ceiling").bytes(), 7 << 20);
    }
}
