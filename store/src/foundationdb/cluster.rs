//! The cluster: its database handle, the prefix of the deployment in it, and fresh transactions.

use std::path::Path;
use std::time::Duration;

use ::foundationdb::directory::{Directory, DirectoryLayer};
use ::foundationdb::options::TransactionOption;
use ::foundationdb::{Database, FdbError, Transaction, TransactionCommitError};
use bytes::Bytes;

use super::error::FoundationError;

/// Under this name in the cluster's directory lie all deployments.
const ROOT: &str = "roadstead";

/// The layer that deployments are marked with, so that other software leaves them alone.
const LAYER: &[u8] = b"roadstead";

/// A transaction that takes longer is given up: R16 allows a batch 2 s from its read version.
pub(crate) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Tries to open the directory before the cluster counts as silent.
const OPEN_TRIES: u32 = 8;

/// A cluster, as one deployment sees it.
pub(crate) struct Cluster {
    database: Database,
    prefix: Bytes,
}

impl Cluster {
    /// Connects, and finds or makes the directory of the deployment.
    pub(crate) async fn open(file: Option<&Path>, deployment: &str) -> Result<Self, FoundationError> {
        let path = file.map(Path::to_str).map(Option::unwrap_or_default);
        if let Some(file) = file {
            // The library would wait for the file to appear; a typing error should be told at once.
            std::fs::File::open(file)
                .map_err(|error| FoundationError::ClusterFile(file.to_path_buf(), error))?;
        }
        let mut cluster = Self {
            database: Database::new(path)?,
            prefix: Bytes::new(),
        };
        cluster.prefix = cluster.open_directory(deployment).await?;
        Ok(cluster)
    }

    /// The directory layer gives every deployment a short prefix of its own, so that several share a
    /// cluster with each other and with other software.
    async fn open_directory(&self, deployment: &str) -> Result<Bytes, FoundationError> {
        let path = [ROOT.to_owned(), deployment.to_owned()];
        let mut trx = self.database.create_trx()?;
        for _ in 0..OPEN_TRIES {
            trx.set_option(TransactionOption::Timeout(timeout_ms()))?;
            let directory = DirectoryLayer::default();
            let opened = directory
                .create_or_open(&trx, &path, None, Some(LAYER))
                .await
                .map_err(|error| FoundationError::Directory(format!("{error:?}")));
            let failed = match (opened, ::foundationdb::Transaction::commit(trx).await) {
                (Ok(opened), Ok(_)) => {
                    let prefix = opened.bytes();
                    return prefix
                        .map(Bytes::copy_from_slice)
                        .map_err(|error| FoundationError::Directory(format!("{error:?}")));
                }
                (Err(error), Ok(_)) => return Err(error),
                (_, Err(failed)) => failed,
            };
            trx = match failed.on_error().await {
                Ok(trx) => trx,
                // Not for the library to retry, as a time-out: it has waited long enough.
                Err(_) => self.database.create_trx()?,
            };
        }
        Err(FoundationError::NoAnswer)
    }

    /// The deployment's prefix.
    pub(crate) fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// A fresh transaction.
    pub(crate) fn transaction(&self) -> Result<Transaction, FdbError> {
        let trx = self.database.create_trx()?;
        prepare(&trx)?;
        Ok(trx)
    }

    /// Waits as the library's rules say, and makes the transaction fresh again. One that the library
    /// would not retry is replaced.
    pub(crate) async fn back_off(&self, spent: Spent) -> Result<Transaction, FdbError> {
        let waited = match spent {
            Spent::Before(trx, error) => trx.on_error(error).await,
            Spent::Commit(error) => error.on_error().await,
        };
        match waited {
            Ok(trx) => {
                prepare(&trx)?;
                Ok(trx)
            }
            Err(_) => self.transaction(),
        }
    }
}

/// A transaction that failed, for the library to say how long to wait.
pub(crate) enum Spent {
    /// Before its commit.
    Before(Transaction, FdbError),
    /// In its commit.
    Commit(TransactionCommitError),
}

impl Spent {
    /// What the library said.
    pub(crate) fn cause(&self) -> FdbError {
        match self {
            Self::Before(_, error) => *error,
            Self::Commit(error) => **error,
        }
    }
}

fn timeout_ms() -> i32 {
    i32::try_from(TRANSACTION_TIMEOUT.as_millis()).unwrap_or(i32::MAX)
}

/// Options, which the library forgets with every reset.
fn prepare(trx: &Transaction) -> Result<(), FdbError> {
    trx.set_option(TransactionOption::Timeout(timeout_ms()))?;
    // What a transaction has written is known above, and merged there (see `txn`).
    trx.set_option(TransactionOption::ReadYourWritesDisable)?;
    trx.set_option(TransactionOption::ReportConflictingKeys)
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
