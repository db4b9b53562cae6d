//! Memory and CPU time of a process or thread.

use std::fs;
use std::time::Duration;

use super::bytes_of;

/// Ticks per second of /proc/PID/stat: fixed for user space on every architecture that matters.
const TICKS_PER_SECOND: u64 = 100;

/// A process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory.
    pub rss_bytes: u64,
    /// CPU time of all its threads, to 10 ms.
    pub cpu: Duration,
}

/// A thread at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThreadUsage {
    /// Time on a CPU.
    pub cpu: Duration,
    /// Time it was ready to run and had no CPU.
    pub waited: Duration,
}

/// Memory and CPU time of a process; `None` if there is none.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(Usage {
        rss_bytes: resident_bytes(pid)?,
        cpu: cpu(&stat)?,
    })
}

/// Resident memory of a process; `None` if there is none.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    bytes_of(&status, "VmRSS:")
}

/// The calling thread's CPU time; zero where the kernel does not account for it.
pub fn thread_usage() -> ThreadUsage {
    fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| schedstat(&text))
        .unwrap_or_default()
}

fn cpu(stat: &str) -> Option<Duration> {
    // The name in parentheses may hold anything; user and system time are the 12th and 13th after it.
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(
        (user + system) * (1_000 / TICKS_PER_SECOND),
    ))
}

fn schedstat(text: &str) -> Option<ThreadUsage> {
    let mut fields = text.split_whitespace();
    let mut next = || Some(Duration::from_nanos(fields.next()?.parse().ok()?));
    Some(ThreadUsage {
        cpu: next()?,
        waited: next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_status() {
        let status = "Name:\tx\nVmRSS:\t  123 kB\nThreads: 1\n";
        assert_eq!(bytes_of(status, "VmRSS:"), Some(123 * 1024));
        assert_eq!(bytes_of("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 9";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
    }

    #[test]
    fn this_process_has_memory_and_threads_have_time() {
        assert!(usage(std::process::id()).expect("it runs").rss_bytes > 100_000);
        assert_eq!(usage(u32::MAX), None);
        let (cpu, waited) = (Duration::from_micros(5), Duration::from_micros(7));
        assert_eq!(
            schedstat("5000 7000 3\n"),
            Some(ThreadUsage { cpu, waited })
        );
    }
}
