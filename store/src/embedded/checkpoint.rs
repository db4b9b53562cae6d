//! Checkpoints: what was set aside goes into the database, beside the commits.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::disk::Disk;
use super::error::Failure;
use super::write::Writes;

/// A checkpoint under way.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    thread: Option<JoinHandle<Result<(), fjall::Error>>>,
    logs: Vec<PathBuf>,
}

impl Checkpoint {
    /// Begins to write a run into the database, after which `logs` are of no use.
    pub(crate) fn begin(
        disk: Disk,
        frozen: Arc<Writes>,
        logs: Vec<PathBuf>,
    ) -> Result<Self, Failure> {
        let thread = std::thread::Builder::new()
            .name("store table".into())
            .spawn(move || disk.ingest(&frozen))?;
        Ok(Self {
            thread: Some(thread),
            logs,
        })
    }

    /// Whether [`Checkpoint::finish`] would not wait.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end; answers the logs that are of no use any more.
    pub(crate) fn finish(mut self) -> Result<Vec<PathBuf>, Failure> {
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(std::mem::take(&mut self.logs)),
            Some(Ok(Err(error))) => Err(error.into()),
            Some(Err(_)) => Err(Failure::Panicked),
        }
    }
}

impl Drop for Checkpoint {
    /// The database can be opened again only when nobody writes into it.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The engine is given up; the log has all that this would have written.
            let _ = thread.join();
        }
    }
}
