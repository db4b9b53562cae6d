//! The cluster: its database handle, the prefix of the deployment in it, and fresh transactions.

use std::path::Path;
use std::time::Duration;

use ::foundationdb::directory::{Directory, DirectoryError, DirectoryLayer};
use ::foundationdb::options::TransactionOption;
use ::foundationdb::{Database, FdbError, Transaction};
use bytes::Bytes;

use super::error::FoundationError;
#[cfg(test)]
use super::fake;
use super::trx::{Spent, Trx};

/// Under this name in the cluster's directory lie all deployments.
const ROOT: &str = "roadstead";

/// The layer that deployments are marked with, so that other software leaves them alone.
const LAYER: &[u8] = b"roadstead";

/// A transaction that takes longer is given up: R16 allows a batch 2 s from its read version.
pub(crate) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Tries to open the directory before the cluster counts as silent.
const OPEN_TRIES: u32 = 8;

/// A cluster, as one deployment sees it.
#[derive(Debug)]
pub(crate) enum Cluster {
    /// Behind the client library.
    Real(Real),
    /// Made up by a test.
    #[cfg(test)]
    Fake(fake::World),
}

/// A cluster behind the client library.
pub(crate) struct Real {
    database: Database,
    prefix: Bytes,
    timeout: Duration,
}

impl Cluster {
    /// Connects, and finds or makes the directory of the deployment.
    pub(crate) async fn open(
        file: Option<&Path>,
        deployment: &str,
        timeout: Duration,
    ) -> Result<Self, FoundationError> {
        let path = file.map(Path::to_str).map(Option::unwrap_or_default);
        if let Some(file) = file {
            // The library would wait for the file to appear; a typing error should be told at once.
            std::fs::File::open(file)
                .map_err(|error| FoundationError::ClusterFile(file.to_path_buf(), error))?;
        }
        let mut cluster = Real {
            database: Database::new(path)?,
            prefix: Bytes::new(),
            timeout,
        };
        cluster.prefix = cluster.open_directory(deployment).await?;
        Ok(Self::Real(cluster))
    }

    /// A fresh transaction.
    pub(crate) fn transaction(&self) -> Result<Trx, FdbError> {
        match self {
            Self::Real(cluster) => cluster.transaction(),
            #[cfg(test)]
            Self::Fake(world) => Ok(Trx::Fake(world.transaction())),
        }
    }

    /// Waits as the library's rules say, and makes the transaction fresh again. One that the library
    /// would not retry is replaced.
    pub(crate) async fn back_off(&self, spent: Spent) -> Result<Trx, FdbError> {
        match self {
            Self::Real(cluster) => cluster.back_off(spent).await,
            #[cfg(test)]
            Self::Fake(world) => Ok(Trx::Fake(world.back_off(&spent).await)),
        }
    }
}

impl Real {
    /// The directory layer gives every deployment a short prefix of its own, so that several share a
    /// cluster with each other and with other software.
    async fn open_directory(&self, deployment: &str) -> Result<Bytes, FoundationError> {
        let path = [ROOT.to_owned(), deployment.to_owned()];
        let mut trx = self.database.create_trx()?;
        for _ in 0..OPEN_TRIES {
            trx.set_option(TransactionOption::Timeout(self.timeout_ms()))?;
            let directory = DirectoryLayer::default();
            let opened = directory
                .create_or_open(&trx, &path, None, Some(LAYER))
                .await;
            let opened = opened.and_then(|opened| opened.bytes().map(Bytes::copy_from_slice));
            let failed = match trx.commit().await {
                Ok(_) => return opened.map_err(directory_error),
                Err(failed) => failed,
            };
            trx = match failed.on_error().await {
                Ok(trx) => trx,
                // Not for the library to retry, as a time-out: it has waited long enough.
                Err(_) => self.database.create_trx()?,
            };
        }
        Err(FoundationError::NoAnswer)
    }

    fn transaction(&self) -> Result<Trx, FdbError> {
        self.prepare(self.database.create_trx()?)
    }

    async fn back_off(&self, spent: Spent) -> Result<Trx, FdbError> {
        let waited = match spent {
            Spent::Before(Trx::Real(trx, _), error) => trx.on_error(error).await,
            Spent::Commit(error) => error.on_error().await,
            #[cfg(test)]
            Spent::Before(Trx::Fake(_), error) => Err(error),
        };
        match waited {
            Ok(trx) => self.prepare(trx),
            Err(_) => self.transaction(),
        }
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX)
    }

    /// Sets options, which the library forgets with every reset.
    fn prepare(&self, trx: Transaction) -> Result<Trx, FdbError> {
        trx.set_option(TransactionOption::Timeout(self.timeout_ms()))?;
        // What a transaction has written is known above, and merged there (see `txn`).
        trx.set_option(TransactionOption::ReadYourWritesDisable)?;
        trx.set_option(TransactionOption::ReportConflictingKeys)?;
        Ok(Trx::Real(trx, self.prefix.clone()))
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn directory_error(error: DirectoryError) -> FoundationError {
    FoundationError::Directory(format!("{error:?}"))
}

impl std::fmt::Debug for Real {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Real")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
