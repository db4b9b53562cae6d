//! Virtual time for libraries that read the clock themselves, as quiche does.
//!
//! The standard library asks `clock_gettime` of the C library. This program defines that symbol, so the
//! linker binds the call here: on a thread that froze its clock the answer is the frozen time, on all
//! others the kernel's.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

thread_local! {
    /// The frozen monotonic time.
    static FROZEN: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Stops this thread's monotonic clock at a time since its unknown epoch.
pub fn freeze(at: Duration) {
    FROZEN.set(Some(at));
}

/// Lets this thread's clock go on.
#[cfg(test)]
pub fn thaw() {
    FROZEN.set(None);
}

/// The `Instant` of a frozen time.
pub fn instant_at(at: Duration) -> Instant {
    let before = FROZEN.replace(Some(at));
    let instant = Instant::now();
    FROZEN.set(before);
    instant
}

/// The clock of this process.
///
/// # Safety
/// As that of the C library: `time` points to a `timespec` that may be written.
// SAFETY: the symbol replaces the C library's in this program, with the same signature and contract.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    match FROZEN.get().filter(|_| clock == libc::CLOCK_MONOTONIC) {
        Some(at) => {
            let frozen = libc::timespec {
                tv_sec: at.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                tv_nsec: at.subsec_nanos().into(),
            };
            // SAFETY: the caller's pointer is valid for a write.
            unsafe { time.write(frozen) };
            0
        }
        None => {
            // SAFETY: the kernel checks the pointer.
            let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
            libc::c_int::try_from(result).unwrap_or(-1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_clock_stands_and_a_thawed_one_goes_on() {
        let start = Duration::from_secs(1_000);
        let base = instant_at(start);
        freeze(start + Duration::from_millis(7));
        assert_eq!(Instant::now() - base, Duration::from_millis(7));
        assert_eq!(Instant::now() - base, Duration::from_millis(7));
        let other = std::thread::spawn(Instant::now).join().unwrap();
        assert_ne!(other - base, Duration::from_millis(7));
        thaw();
        assert_ne!(Instant::now() - base, Duration::from_millis(7));
    }
}
