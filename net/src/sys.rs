//! Small system calls that the standard library has no safe form of.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use crate::error::Error;

/// Turns a C result into a Rust one.
pub(crate) fn check(call: &'static str, result: libc::c_int) -> Result<libc::c_int, Error> {
    match result {
        -1 => Err(Error::System {
            call,
            source: io::Error::last_os_error(),
        }),
        value => Ok(value),
    }
}

/// A counter that threads without a ring write to and a ring watches.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> Result<Self, Error> {
        // SAFETY: the call takes no pointers; needed because std has no eventfd.
        let fd = check("eventfd", unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
        // SAFETY: the descriptor was just made and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wakes whoever watches. Cannot fail short of 2^64 signals that nobody took.
    pub(crate) fn signal(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the buffer has the 8 bytes that the call reads.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Waits for a signal and takes all there are.
    #[cfg(test)]
    pub(crate) fn wait(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: the buffer has the 8 bytes that the call writes.
        let read = unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
        assert_eq!(read, 8, "{}", io::Error::last_os_error());
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Keeps the calling thread on one core.
pub(crate) fn pin_to_core(core: usize) -> Result<(), Error> {
    if core >= 8 * mem::size_of::<libc::cpu_set_t>() {
        return Err(Error::Config(format!("there is no core {core}")));
    }
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the core was checked to lie inside the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set lives through the call and its size is given; 0 means the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &raw const set) };
    check("sched_setaffinity", result).map(drop)
}
