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
    Database(fjall::Error),
    /// A thread could not be started.
    #[error("a thread of the store cannot be started: {0}")]
    Thread(#[from] std::io::Error),
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
