//! Why a store can not be opened.

use std::path::PathBuf;

use thiserror::Error;

use crate::records::RecordError;

/// Why a store can not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store at {0} is in use by another process")]
    InUse(PathBuf),
    /// The database can not be opened.
    #[error("the database cannot be opened: {0}")]
    Database(#[source] fjall::Error),
    /// Its files can not be read or written, or a thread could not be started.
    #[error("the store cannot be opened: {0}")]
    Io(#[from] std::io::Error),
    /// It failed before it served.
    #[error("the store cannot be written: {0}")]
    Failed(#[from] Failure),
    /// What it holds can not be read.
    #[error("the store cannot be read: {0}")]
    Record(#[from] RecordError),
}

impl From<fjall::Error> for OpenError {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => Self::InUse(PathBuf::new()),
            error => Self::Database(error),
        }
    }
}

impl OpenError {
    /// Names the path of a store that is in use.
    pub(crate) fn at(self, path: &std::path::Path) -> Self {
        match self {
            Self::InUse(_) => Self::InUse(path.to_path_buf()),
            error => error,
        }
    }
}

/// Why an engine failed that was open.
#[derive(Debug, Error)]
pub enum Failure {
    /// The log cannot be written or synced.
    #[error("the log cannot be written: {0}")]
    Log(#[from] std::io::Error),
    /// The database cannot be written.
    #[error("the database cannot be written: {0}")]
    Database(#[from] fjall::Error),
    /// A thread that wrote into the database panicked.
    #[error("writing into the database panicked")]
    Panicked,
}
