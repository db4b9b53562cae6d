//! What the kernel says of a process or thread, read from /proc.

use std::fs;

use crate::clock::Micros;

/// Ticks per second of /proc/PID/stat: fixed for user space on every architecture that matters.
const TICKS_PER_SECOND: u64 = 100;

/// A process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) rss_bytes: u64,
    pub(crate) cpu: Micros,
}

/// A thread at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ThreadUsage {
    /// Time on a CPU.
    pub(crate) cpu: Micros,
    /// Time it was ready to run and had no CPU.
    pub(crate) waited: Micros,
}

/// Memory and CPU time of a process; `None` if there is none.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(Usage {
        rss_bytes: rss_bytes(&status)?,
        cpu: cpu(&stat)?,
    })
}

/// The calling thread's CPU time; zero where the kernel does not account for it.
pub(crate) fn thread_usage() -> ThreadUsage {
    fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| schedstat(&text))
        .unwrap_or_default()
}

fn rss_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn cpu(stat: &str) -> Option<Micros> {
    // The name in parentheses may hold anything; user and system time are the 12th and 13th after it.
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * (1_000_000 / TICKS_PER_SECOND))
}

fn schedstat(text: &str) -> Option<ThreadUsage> {
    let mut fields = text.split_whitespace();
    let cpu: u64 = fields.next()?.parse().ok()?;
    let waited: u64 = fields.next()?.parse().ok()?;
    Some(ThreadUsage {
        cpu: cpu / 1_000,
        waited: waited / 1_000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_status() {
        assert_eq!(
            rss_bytes("Name:\tx\nVmRSS:\t  123 kB\nThreads: 1\n"),
            Some(123 * 1024)
        );
        assert_eq!(rss_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 9";
        assert_eq!(cpu(stat), Some(2_000_000));
    }

    #[test]
    fn this_process_has_memory_and_threads_have_time() {
        assert!(usage(std::process::id()).expect("it runs").rss_bytes > 100_000);
        assert_eq!(usage(u32::MAX), None);
        assert_eq!(
            schedstat("5000 7000 3\n"),
            Some(ThreadUsage { cpu: 5, waited: 7 })
        );
    }
}
