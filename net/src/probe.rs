//! What this host offers, asked without serving anything: for a check before the server starts.

use std::mem;

use io_uring::{Probe, opcode};

use crate::{error::Error, ring::Ring};

/// The operations that the loops use, by name and code.
const OPERATIONS: [(&str, u8); 6] = [
    ("RECVMSG", opcode::RecvMsgMulti::CODE),
    ("SEND", opcode::Send::CODE),
    ("SENDMSG", opcode::SendMsg::CODE),
    ("POLL_ADD", opcode::PollAdd::CODE),
    ("MSG_RING", opcode::MsgRingData::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
];

/// Makes a ring as every shard does and returns the operations that this kernel lacks.
pub fn ring() -> Result<Vec<&'static str>, Error> {
    let ring = Ring::new()?;
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|source| Error::System {
            call: "io_uring_register(PROBE)",
            source,
        })?;
    let lacking = OPERATIONS
        .iter()
        .filter(|(_, code)| !probe.is_supported(*code));
    Ok(lacking.map(|(name, _)| *name).collect())
}

/// Whether something keeps the system's clock in step with others (adjtimex(2)). `None` if the kernel does
/// not tell.
pub fn clock_is_synchronized() -> Option<bool> {
    // SAFETY: an all-zero timex asks for the state and changes nothing.
    let mut state: libc::timex = unsafe { mem::zeroed() };
    // SAFETY: the struct lives through the call; needed because std has no adjtimex.
    match unsafe { libc::adjtimex(&raw mut state) } {
        -1 => None,
        answer => Some(answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_runs_the_loops_lacks_nothing() {
        assert_eq!(ring().expect("io_uring"), Vec::<&str>::new());
    }

    #[test]
    fn the_clock_has_a_state() {
        assert!(clock_is_synchronized().is_some());
    }
}
