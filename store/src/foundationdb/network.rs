//! The client library's network thread: one per process, started once, stopped before the process ends.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

use ::foundationdb::api::{FdbApiBuilder, NetworkRunner, NetworkStop};

use super::error::FoundationError;

/// The running network thread. Drop it after every store that uses it, and before the process ends.
pub struct Network {
    stop: Option<NetworkStop>,
    thread: Option<JoinHandle<()>>,
}

/// The client library can be started once in the life of a process, and not again after it was stopped.
static STARTED: AtomicBool = AtomicBool::new(false);

impl Network {
    /// Selects the version of the API, before any other call, and starts the thread.
    ///
    /// # Errors
    /// [`FoundationError::NetworkTwice`] if it was started before in this process;
    /// [`FoundationError::Client`] if the library installed is older than the API.
    pub fn start() -> Result<Self, FoundationError> {
        if STARTED.swap(true, SeqCst) {
            return Err(FoundationError::NetworkTwice);
        }
        let (runner, started) = FdbApiBuilder::default().build()?.build()?;
        let thread = std::thread::Builder::new()
            .name("fdb network".into())
            .spawn(move || run(runner))?;
        Ok(Self {
            stop: Some(started.wait()),
            thread: Some(thread),
        })
    }

    /// Stops the thread and waits for its end, as dropping does.
    pub fn stop(self) {
        drop(self);
    }
}

#[allow(
    unsafe_code,
    reason = "the library asks for a promise that no type can keep"
)]
fn run(runner: NetworkRunner) {
    // SAFETY: the network must be stopped before the process ends. `Network` stops it when it is
    // dropped, its owner drops it before it returns from `main`, and a panic aborts the process, which
    // the library allows.
    if let Err(error) = unsafe { runner.run() } {
        tracing::error!(%error, "the network thread of the FoundationDB client failed");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.stop.take().map(NetworkStop::stop) {
            tracing::error!(%error, "the FoundationDB client could not be stopped");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the network thread of the FoundationDB client panicked");
        }
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}
