//! One thread's io_uring: made with the flags that let the kernel do the least, filled entry by entry,
//! entered once per turn.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    thread,
    time::Duration,
};

use io_uring::{
    IoUring, cqueue, squeue,
    types::{CancelBuilder, SubmitArgs, Timespec},
};

use crate::{error::Error, pace::Sleep};

/// Entries that may be queued between two submits. Sends beyond it are submitted in more batches.
const SUBMISSIONS: u32 = 1024;

/// Completions that may wait. A full queue would end every multishot receive.
const COMPLETIONS: u32 = 8192;

/// The kernel gives back what an ended ring had pinned late, so a restart may find no memory at first.
const MEMORY_ATTEMPTS: u32 = 200;
const MEMORY_PAUSE: Duration = Duration::from_millis(10);

/// What the kernel says about one entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

impl Completion {
    /// Whether a multishot entry goes on.
    pub(crate) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// Which provided buffer holds the data.
    pub(crate) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// A ring, and the completions that were taken from it.
pub(crate) struct Ring {
    uring: IoUring,
    completed: Vec<Completion>,
}

impl Ring {
    /// Makes the ring. It must be used by the calling thread only.
    pub(crate) fn new() -> Result<Self, Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let built = IoUring::builder()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_coop_taskrun()
                .setup_taskrun_flag()
                .setup_submit_all()
                .setup_cqsize(COMPLETIONS)
                .build(SUBMISSIONS);
            match built {
                Ok(uring) => return Self::checked(uring),
                Err(error) if is(&error, libc::ENOMEM) && attempts < MEMORY_ATTEMPTS => {
                    thread::sleep(MEMORY_PAUSE);
                }
                Err(error) if is(&error, libc::ENOMEM) => {
                    return Err(Error::RingMemory {
                        attempts,
                        source: error,
                    });
                }
                Err(error) => return Err(explain(error, io_uring_disabled())),
            }
        }
    }

    fn checked(uring: IoUring) -> Result<Self, Error> {
        let params = uring.params();
        let needed = [
            (params.is_feature_nodrop(), "NODROP"),
            (params.is_feature_submit_stable(), "SUBMIT_STABLE"),
            (params.is_feature_ext_arg(), "EXT_ARG"),
            (params.is_feature_skip_cqe_on_success(), "CQE_SKIP"),
        ];
        for (there, what) in needed {
            if !there {
                let source = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
                return Err(Error::RingMissing { what, source });
            }
        }
        Ok(Self {
            uring,
            completed: Vec::with_capacity(256),
        })
    }

    /// The crate's own handle, to register things with.
    pub(crate) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.uring.submitter()
    }

    /// Queues an entry, after a submit if there is no room.
    ///
    /// # Safety
    ///
    /// Everything that the entry points to must stay as it is until the kernel has consumed it, that is
    /// until `submit` or `wait` returns, and for what the kernel uses later, until its completion.
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) -> Result<(), Error> {
        // SAFETY: passed on to the caller.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.submit()?;
        }
        Ok(())
    }

    /// Makes the kernel consume every queued entry, and takes completions if that needs room for them.
    pub(crate) fn submit(&mut self) -> Result<(), Error> {
        loop {
            let result = self.uring.submit();
            self.settle(result)?;
            if self.uring.submission().is_empty() {
                return Ok(());
            }
        }
    }

    /// Submits, then waits for so many completions, at most for a time.
    pub(crate) fn wait(&mut self, sleep: Sleep) -> Result<(), Error> {
        let spec = Timespec::from(sleep.at_most);
        let args = SubmitArgs::new().timespec(&spec);
        let result = self.uring.submitter().submit_with_args(sleep.events, &args);
        self.settle(result)?;
        if !self.uring.submission().is_empty() {
            self.submit()?;
        }
        Ok(())
    }

    /// Judges the result of an enter and takes what completed.
    fn settle(&mut self, result: io::Result<usize>) -> Result<(), Error> {
        let harmless = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
        match result {
            Err(source) if !harmless.iter().any(|code| is(&source, *code)) => {
                return Err(Error::System {
                    call: "io_uring_enter",
                    source,
                });
            }
            _ => {}
        }
        let taken = self.uring.completion().map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        });
        self.completed.extend(taken);
        Ok(())
    }

    /// Moves what completed to `into`, which must be empty, and keeps its room for the next batch.
    pub(crate) fn take_completed(&mut self, into: &mut Vec<Completion>) {
        std::mem::swap(&mut self.completed, into);
    }

    /// Whether completions wait to be taken.
    pub(crate) fn has_completed(&self) -> bool {
        !self.completed.is_empty()
    }

    /// Ends every entry that is still with the kernel, so that it writes to no buffer any more, and lets
    /// go of the registered sockets, so that their ports are free at once.
    pub(crate) fn quiesce(&mut self) {
        let limit = Timespec::new().sec(1);
        // Nothing to cancel is an error that does not matter, and so does any other one: the kernel
        // cancels again when the ring is closed.
        let _ = self
            .uring
            .submitter()
            .register_sync_cancel(Some(limit), CancelBuilder::any());
        let _ = self.uring.submitter().unregister_files();
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("fd", &self.as_raw_fd())
            .finish_non_exhaustive()
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }
}

fn is(error: &io::Error, code: i32) -> bool {
    error.raw_os_error() == Some(code)
}

/// The value of the sysctl, if the kernel has it (6.6 and newer).
fn io_uring_disabled() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok()
}

/// Says which switch is in the way when io_uring_setup fails.
fn explain(source: io::Error, disabled: Option<u8>) -> Error {
    let reason = match (source.raw_os_error(), disabled) {
        (Some(libc::EPERM), Some(2)) => "kernel.io_uring_disabled is 2".to_owned(),
        (Some(libc::EPERM), Some(1)) => {
            "kernel.io_uring_disabled is 1 and this process is not in kernel.io_uring_group"
                .to_owned()
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "a seccomp filter or a security module refuses io_uring_setup".to_owned()
        }
        (Some(libc::ENOSYS), Some(_)) => {
            "the kernel has io_uring, and a seccomp filter hides io_uring_setup".to_owned()
        }
        (Some(libc::ENOSYS), None) => {
            return Error::RingMissing {
                what: "all (or a seccomp filter hides it)",
                source,
            };
        }
        (Some(libc::EINVAL), _) => {
            return Error::RingMissing {
                what: "SINGLE_ISSUER and DEFER_TASKRUN",
                source,
            };
        }
        _ => {
            return Error::System {
                call: "io_uring_setup",
                source,
            };
        }
    };
    Error::RingForbidden { reason, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(code: i32, disabled: Option<u8>) -> String {
        explain(io::Error::from_raw_os_error(code), disabled).to_string()
    }

    #[test]
    fn an_error_names_the_switch() {
        assert!(explained(libc::EPERM, Some(2)).contains("kernel.io_uring_disabled is 2"));
        assert!(explained(libc::EPERM, Some(1)).contains("kernel.io_uring_group"));
        for (code, disabled) in [
            (libc::EPERM, Some(0)),
            (libc::EACCES, None),
            (libc::ENOSYS, Some(0)),
        ] {
            let text = explained(code, disabled);
            assert!(text.contains("seccomp"), "{text}");
            assert!(text.contains("sysctl kernel.io_uring_disabled=0"), "{text}");
        }
        assert!(explained(libc::ENOSYS, None).contains("lacks all"));
        assert!(explained(libc::EINVAL, Some(0)).contains("DEFER_TASKRUN"));
    }

    /// Forbids io_uring_setup to the calling thread, as the default profile of a container does.
    fn forbid_io_uring(answer: i32) {
        let load = u16::try_from(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS).unwrap();
        let equal = u16::try_from(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K).unwrap();
        let give = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap();
        let number = u32::try_from(libc::SYS_io_uring_setup).unwrap();
        let errno = libc::SECCOMP_RET_ERRNO | u32::try_from(answer).unwrap();
        let mut filter = [
            libc::sock_filter {
                code: load,
                jt: 0,
                jf: 0,
                k: 0,
            },
            libc::sock_filter {
                code: equal,
                jt: 0,
                jf: 1,
                k: number,
            },
            libc::sock_filter {
                code: give,
                jt: 0,
                jf: 0,
                k: errno,
            },
            libc::sock_filter {
                code: give,
                jt: 0,
                jf: 0,
                k: libc::SECCOMP_RET_ALLOW,
            },
        ];
        let program = libc::sock_fprog {
            len: 4,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: both calls concern this thread only; the program lives through the second.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let mode = libc::SECCOMP_MODE_FILTER;
            assert_eq!(
                libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program),
                0
            );
        }
    }

    #[test]
    fn a_seccomp_filter_is_told_as_one() {
        for answer in [libc::EPERM, libc::ENOSYS] {
            let error = thread::spawn(move || {
                forbid_io_uring(answer);
                Ring::new().map(drop).unwrap_err()
            })
            .join()
            .unwrap();
            let text = error.to_string();
            assert!(matches!(error, Error::RingForbidden { .. }), "{text}");
            assert!(
                text.contains("seccomp") && text.contains("kernel.io_uring_disabled"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_wait_ends_at_its_timeout() {
        let mut ring = Ring::new().unwrap();
        let at_most = Duration::from_millis(1);
        for events in [1, 32] {
            ring.wait(Sleep { events, at_most }).unwrap();
            assert!(!ring.has_completed());
        }
    }
}
