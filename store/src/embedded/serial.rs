//! The embedded engine as a bare [`txn::Engine`]: for the conformance suite and tools, without a committer.

use std::sync::{Mutex, PoisonError};

use roadstead_proto::position::Stamp;

use crate::txn::{self, Shared, TxnError};

use super::batch::BatchTxn;
use super::config::EmbeddedConfig;
use super::engine::{Begun, Engine};
use super::error::OpenError;

/// The engine below an [`super::EmbeddedStore`], one transaction at a time.
#[derive(Debug)]
pub struct SerialEngine(Mutex<Engine>);

impl SerialEngine {
    /// Opens the store in a folder, or makes one there.
    ///
    /// # Errors
    /// [`OpenError::InUse`] if it is open already.
    pub fn open(config: &EmbeddedConfig) -> Result<Self, OpenError> {
        let engine = Engine::open(config).map_err(|error| error.at(&config.path))?;
        Ok(Self(Mutex::new(engine)))
    }
}

impl txn::Engine for SerialEngine {
    type Txn<'a> = BatchTxn<'a>;

    async fn transact<R>(
        &self,
        body: impl AsyncFnOnce(&mut BatchTxn<'_>) -> R,
    ) -> (R, Result<Stamp, TxnError>) {
        let mut engine = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Begun {
            tables, hot, stamp, ..
        } = engine.begin();
        let mut txn = BatchTxn::new(&tables, hot, stamp);
        // The futures of this engine are ready at once, so nothing else runs while the lock is held.
        let result = crate::txn::ready(body(&mut txn));
        if let Some(error) = txn.error() {
            return (result, Err(error));
        }
        let writes = txn.into_writes();
        drop(tables);
        let committed = match engine.commit(writes) {
            Ok(_) => Ok(stamp),
            Err(error) => {
                tracing::error!(%error, "the commit failed");
                Err(TxnError::UnknownResult)
            }
        };
        (result, committed)
    }
}
