//! What the measurements share: the machine they ran on, CPU clocks, medians.
//!
//! The measurements themselves are in `benches/`; `README.md` lists the commands.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "printing numbers is what these programs are for"
)]

use std::time::Duration;

use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};

/// Says where the numbers that follow come from.
pub fn print_machine() {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown CPU", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = rustix::system::uname();
    println!(
        "machine: {model}, {cores} cores, {} {}",
        kernel.sysname().to_string_lossy(),
        kernel.release().to_string_lossy()
    );
}

/// CPU time of the calling thread, user and system: the clock that `getrusage(RUSAGE_THREAD)` rounds.
#[must_use]
pub fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("CPU time is not negative"),
        u32::try_from(time.tv_nsec).expect("below 10^9"),
    )
}

/// Keeps the calling thread on a core, if there is such a core and it is allowed.
pub fn pin_to_core(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        println!("not pinned to core {core}: {error}");
    }
}

/// The median, the lowest and the highest of some values.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.last().expect("at least one value");
    (sorted[sorted.len() / 2], sorted[0], *last)
}

/// The first argument that is a number: cargo passes `--bench` among them.
#[must_use]
pub fn number_argument(default: u32) -> u32 {
    std::env::args()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(default)
}

/// Nanoseconds of a duration for each of `count` things.
#[must_use]
pub fn nanoseconds_each(time: Duration, count: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(count)
}
