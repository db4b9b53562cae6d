//! Opening: connect, find the deployment, learn what the store was born with, take the lease.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use roadstead_proto::position::Stamp;

use crate::conformance;
use crate::embedded::Sink;
use crate::records::held::Count;
use crate::records::meta::{self, Meta};
use crate::records::{RecordError, node};
use crate::txn::{self, Txn, TxnError};

use super::admin::transact;
use super::cluster::{Cluster, TRANSACTION_TIMEOUT};
use super::config::FoundationConfig;
use super::engine::Engine;
use super::error::FoundationError;
use super::health::{Board, boot_ms};
use super::lease;
use super::network::Network;
use super::snapshot::Snapshot;
use super::txn::FoundationTxn;

/// Tries to take the lease before the cluster counts as silent: with the time-out of a transaction, a
/// quarter of a minute.
const TRIES: u32 = 8;

/// Opens everything but the workers.
pub(crate) fn open(config: FoundationConfig, sink: Sink) -> Result<Engine, FoundationError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let file = config.cluster_file.as_deref();
        let cluster = Cluster::open(file, &config.deployment, TRANSACTION_TIMEOUT).await?;
        open_in(cluster, config, sink).await
    })
}

/// How long a count of all inboxes may take: a billion entries at some tens of thousands a second.
const COUNT_PATIENCE: Duration = Duration::from_secs(12 * 3_600);

/// Opens everything but the workers in a cluster that is connected.
pub(crate) async fn open_in(
    cluster: Cluster,
    config: FoundationConfig,
    sink: Sink,
) -> Result<Engine, FoundationError> {
    let (meta, incarnation, since_ms) = take_lease(&cluster, &config).await?;
    let board = Board::new(since_ms);
    let engine = Engine::new(config, cluster, meta, incarnation, board, sink);
    count_inboxes(&engine).await?;
    Ok(engine)
}

/// What inboxes hold is counted once in the life of a store that was written by a version without counters, or
/// imported, before anything else is done with it.
async fn count_inboxes(engine: &Engine) -> Result<(), RecordError> {
    let patience = Instant::now() + COUNT_PATIENCE;
    let begun = transact(engine, patience, async |_, txn| Count::begin(txn).await);
    let mut count = begun.await?;
    while !count.is_done() {
        let step = transact(engine, patience, async |scope, txn| {
            count.clone().step(scope, txn).await
        });
        count = step.await?;
    }
    Ok(())
}

/// Takes over the number of this node: whoever held it before can commit no more (R24).
async fn take_lease(
    cluster: &Cluster,
    config: &FoundationConfig,
) -> Result<(Meta, u64, u64), FoundationError> {
    let proposed = Meta {
        generation: 1,
        placement_key: config.placement_key,
    };
    for _ in 0..TRIES {
        let since_ms = boot_ms();
        let mut txn = match begin(cluster).await {
            Ok(txn) => txn,
            Err(error) => {
                tracing::warn!(%error, "the cluster does not answer yet");
                continue;
            }
        };
        match take(&mut txn, proposed, config.node).await {
            Err(RecordError::Txn(_)) => continue,
            Err(error) => return Err(error.into()),
            Ok((meta, incarnation)) => {
                // After an unknown outcome the number is taken once more.
                if txn.commit().await.is_ok() {
                    return Ok((meta, incarnation, since_ms));
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(FoundationError::NoAnswer)
}

async fn take(
    txn: &mut FoundationTxn,
    proposed: Meta,
    number: u16,
) -> Result<(Meta, u64), RecordError> {
    let meta = meta::load_or_init(txn, proposed).await?;
    let lease = node::take(txn, number).await?;
    Ok((meta, lease.incarnation))
}

/// A transaction at a fresh read version.
async fn begin(cluster: &Cluster) -> Result<FoundationTxn, TxnError> {
    let unavailable = |_| TxnError::Unavailable;
    let trx = cluster.transaction().map_err(unavailable)?;
    let snapshot = Snapshot::of(trx).await;
    let snapshot = snapshot.map_err(|_| TxnError::Unavailable)?;
    Ok(FoundationTxn::new(Rc::new(snapshot)))
}

/// The seam itself, without lease and records: for tests of the engine and for moving a store.
#[derive(Debug)]
pub struct Raw(Cluster);

impl Raw {
    /// Connects to the cluster and finds or makes the directory of the deployment.
    ///
    /// # Errors
    /// If the cluster does not answer.
    pub async fn open(
        _network: &Network,
        cluster_file: Option<&Path>,
        deployment: &str,
        timeout: Duration,
    ) -> Result<Self, FoundationError> {
        Ok(Self(
            Cluster::open(cluster_file, deployment, timeout).await?,
        ))
    }

    #[cfg(test)]
    pub(crate) fn of(cluster: Cluster) -> Self {
        Self(cluster)
    }

    /// Whether a server holds a lease of this deployment: one that was renewed a short while ago, by the
    /// store's own versions (R24).
    ///
    /// # Errors
    /// If the leases can not be read.
    pub async fn is_served(&self) -> Result<bool, TxnError> {
        let mut txn = begin(&self.0).await?;
        Ok(!lease::alive(&mut txn).await?.is_empty())
    }
}

impl txn::Engine for Raw {
    type Txn<'a> = FoundationTxn;

    async fn transact<R>(
        &self,
        body: impl AsyncFnOnce(&mut FoundationTxn) -> R,
    ) -> (R, Result<Stamp, TxnError>) {
        let mut txn = loop {
            match begin(&self.0).await {
                Ok(txn) => break txn,
                Err(error) => tracing::warn!(%error, "waiting for the cluster"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let result = body(&mut txn).await;
        (result, txn.commit().await)
    }
}

impl conformance::ConcurrentEngine for Raw {
    type Open = FoundationTxn;

    async fn begin(&self) -> Result<FoundationTxn, TxnError> {
        begin(&self.0).await
    }
}
