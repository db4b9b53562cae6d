//! Ctrl-C and SIGTERM: a run that is interrupted tells what it knows. The second signal ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit code of an interrupted run (128 and the number of SIGINT).
pub(crate) const EXIT_CODE: u8 = 130;

/// A run was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

static CAUGHT: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on a first signal is noted.
pub(crate) fn catch() -> io::Result<()> {
    let caught = CAUGHT.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag down, and raises it.
        flag::register_conditional_shutdown(signal, EXIT_CODE.into(), caught.clone())?;
        flag::register(signal, caught.clone())?;
    }
    Ok(())
}

/// An error once there was a signal.
pub(crate) fn check() -> Result<(), Interrupted> {
    match CAUGHT
        .get()
        .is_some_and(|caught| caught.load(Ordering::Relaxed))
    {
        true => Err(Interrupted),
        false => Ok(()),
    }
}
