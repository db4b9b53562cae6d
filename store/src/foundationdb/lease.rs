//! The lease: taken when the store opens, renewed every 3 s, read by every commit (R24).
//!
//! The lease itself changes only when a node takes a number over or reserves message ids. A renewal is a
//! key beside it, under the stamp of its commit: so it makes no commit conflict, and whoever wants to
//! know whether a node lives compares versions of the store, never clocks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::embedded::Health;
use crate::keys::Keys;
use crate::records::minutes::MINUTES_AHEAD_MAX;
use crate::records::{RecordError, node};
use crate::txn::{RangeQuery, Read, Txn, TxnError};

use super::admin::transact;
use super::engine::Engine;
use super::health::{LEASE_EXPIRES_AFTER, boot_ms};
use super::txn::FoundationTxn;

/// How soon a failed renewal is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A commit of unknown outcome may arrive while its read version is kept: for five seconds, by the
/// cluster's count. After this it has arrived or is lost.
const LATE_MAX: Duration = Duration::from_secs(10);

/// The cluster counts a million versions a second.
const LEASE_VERSIONS: u64 = LEASE_EXPIRES_AFTER.as_secs() * 1_000_000;

/// Where a node's last renewal is noted: the stamp of its commit, then the minute by the node's clock.
fn renewal_key(node: u16) -> Bytes {
    [&Keys::node(node)[..], b"r"].concat().into()
}

/// The last sign of life of a node.
struct Renewal {
    version: u64,
    minute: u32,
}

impl Renewal {
    /// `None` for the lease itself, which lies beside it.
    fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        if key.len() != Keys::node(0).len() + 1 {
            return None;
        }
        let (version, rest) = value.split_first_chunk()?;
        let minute = rest.get(4..8)?.try_into().ok()?;
        Some(Self {
            version: u64::from_be_bytes(*version),
            minute: u32::from_be_bytes(minute),
        })
    }
}

/// Whether this process still holds its number; read into the read set (R24).
pub(crate) async fn is_held(engine: &Engine, txn: &mut FoundationTxn) -> Result<bool, TxnError> {
    let (number, incarnation) = engine.lease();
    match node::load(txn, number).await {
        Ok(lease) => Ok(lease.incarnation == incarnation),
        Err(RecordError::Txn(error)) => Err(error),
        Err(RecordError::Refused(_)) => Ok(false),
    }
}

/// The nodes whose leases have not expired, by versions of the store (R24). A lease of a clock that is
/// not known yet does not count.
pub(crate) async fn alive(txn: &mut FoundationTxn) -> Result<Vec<u32>, TxnError> {
    let now = txn.snapshot().version();
    let query = RangeQuery {
        read: Read::Snapshot,
        ..RangeQuery::all(b"n", b"o")
    };
    let page = txn.range(query).await?;
    let renewals = page.pairs.iter();
    let renewals = renewals.filter_map(|(key, value)| Renewal::decode(key, value));
    let alive = renewals.filter(|renewal| now.saturating_sub(renewal.version) < LEASE_VERSIONS);
    Ok(alive.map(|renewal| renewal.minute).collect())
}

/// Whether most nodes that live have a minute that leads to this one (R25).
pub(crate) async fn most_agree(txn: &mut FoundationTxn, minute: u32) -> Result<bool, TxnError> {
    let alive = alive(txn).await?;
    let agrees = |of: &&u32| (**of..=**of + MINUTES_AHEAD_MAX).contains(&minute);
    Ok(2 * alive.iter().filter(agrees).count() > alive.len())
}

/// Renews the lease until it is lost. After an outcome that stayed unknown, tells with the first renewal
/// that sessions have to read again, and once more when nothing can arrive late (R15).
pub(crate) async fn keep(engine: Arc<Engine>) {
    let mut again_at = None;
    loop {
        let since = boot_ms();
        match renew(&engine).await {
            Ok(()) => {
                engine.board().renewed(since);
                if engine.take_unsettled() {
                    engine.counters().unsettled.add(1);
                    again_at = Some(Instant::now() + LATE_MAX);
                } else if again_at.take_if(|at| Instant::now() >= *at).is_some() {
                    engine.counters().unsettled.add(1);
                }
                tokio::time::sleep(engine.limits().renew_every).await;
            }
            Err(()) if engine.board().health() == Health::Fenced => return,
            Err(()) => {
                engine
                    .board()
                    .fail("the cluster does not answer, or has no quorum");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Finds out on its way whether the lease is still this process's, as every transaction does.
async fn renew(engine: &Engine) -> Result<(), ()> {
    let key = renewal_key(engine.lease().0);
    let minute = engine.minute().to_be_bytes();
    // One try, as long as a transaction may take: the keeper tells at once that it failed.
    let once = Instant::now();
    let renewed = transact(engine, once, async |_, txn| {
        txn.set_versionstamped_value(&key, &[], 0, &minute);
        Ok(())
    });
    renewed.await.map_err(|error| {
        tracing::warn!(?error, "the lease was not renewed");
    })
}
