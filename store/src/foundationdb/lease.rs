//! The lease: taken when the store opens, renewed every 3 s, read by every commit (R24).
//!
//! The lease itself changes only when a node takes a number over or reserves message ids. A renewal is a
//! key beside it, under the stamp of its commit: so it makes no commit conflict, and whoever wants to
//! know whether a node lives compares versions of the store, never clocks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::keys::Keys;
use crate::records::node;
use crate::txn::Txn;

use super::admin::transact;
use super::engine::Engine;
use super::health::boot_ms;

/// How often the lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(3);

/// How soon a failed renewal is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Where a node's last renewal is noted: the version of the store's commit, then the expiry in versions
/// is a million a second later.
fn renewal_key(node: u16) -> Bytes {
    [&Keys::node(node)[..], b"r"].concat().into()
}

/// Renews the lease until it is lost.
pub(crate) async fn keep(engine: Arc<Engine>) {
    loop {
        let since = boot_ms();
        match renew(&engine).await {
            Ok(true) => {
                engine.board().renewed(since);
                tokio::time::sleep(RENEW_EVERY).await;
            }
            Ok(false) => {
                engine.fence();
                return;
            }
            Err(()) => {
                engine
                    .board()
                    .fail("the cluster does not answer, or has no quorum");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Whether the lease is still this process's.
async fn renew(engine: &Engine) -> Result<bool, ()> {
    let (number, incarnation) = engine.lease();
    let key = renewal_key(number);
    // One try, as long as a transaction may take: the keeper tells at once that it failed.
    let once = Instant::now();
    let renewed = transact(engine, once, async |_, txn| {
        let lease = node::load(txn, number).await?;
        let is_held = lease.incarnation == incarnation;
        if is_held {
            txn.set_versionstamped_value(&key, &[], 0, &[]);
        }
        Ok(is_held)
    });
    renewed.await.map_err(|error| {
        tracing::warn!(?error, "the lease was not renewed");
    })
}
