//! What the process itself asks: rare, and each a transaction of its own.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use roadstead::Ended;
use roadstead::store::StoreError;

use roadstead_proto::UserId;

use crate::admin::{Admin, since_epoch, tell};
use crate::records::expiry::{self, Budget, Expired, minute_of};
use crate::records::minutes::{self, Stamped};
use crate::records::{Device, RecordError, Scope, device, node, versions};
use crate::txn::{Shared, TxnError};

use super::engine::Engine;
use super::error::retry_later;
use super::lease;
use super::trx::Spent;
use super::txn::FoundationTxn;

/// What is remembered from one command to the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// An expiry job is under way.
    expiring: Rc<Cell<bool>>,
}

/// Runs one command.
pub(crate) async fn run(engine: Arc<Engine>, state: State, admin: Admin) {
    if !engine.may_answer() {
        return admin.refuse();
    }
    match admin {
        Admin::ReserveMessageIds(until, answer) => {
            tell(&answer, reserve_ids(&engine, until).await);
        }
        Admin::StampMinute(unix_ms, answer) => {
            tell(&answer, stamp_minute(&engine, minute_of(unix_ms)).await);
        }
        Admin::Expire(day_done, answer) => {
            tell(&answer, expire(&engine, &state, day_done).await);
        }
        Admin::RemoveDevice(user, id, answer) => {
            tell(&answer, remove_device(&engine, (user, id)).await);
        }
        Admin::SignOut(user, valid_after_s, answer) => {
            tell(&answer, sign_out(&engine, user, valid_after_s).await);
        }
    }
}

fn give_up_at(engine: &Engine) -> Instant {
    Instant::now() + engine.limits().patience
}

async fn reserve_ids(engine: &Engine, until_unix_ms: u64) -> Result<(u64, u64), StoreError> {
    let until = since_epoch(until_unix_ms);
    // After an unknown outcome this reserves another block: the first is never used, which is no harm.
    transact(engine, give_up_at(engine), async |_, txn| {
        node::reserve_ids(txn, engine.lease(), until).await
    })
    .await
}

/// A jump of the clock is refused until most leases agree (R25): every node tells its minute with its
/// next renewal, so one that is alone agrees with itself when it is asked again.
async fn stamp_minute(engine: &Engine, minute: u32) -> Result<bool, StoreError> {
    let stamped = transact(engine, give_up_at(engine), async |scope, txn| {
        let agreed = lease::most_agree(txn, minute).await?;
        minutes::stamp(scope, txn, minute, agreed).await
    });
    let stamped = stamped.await;
    engine.tell_minute(minute);
    engine.learn_newest_minute(stamped.ok().map(|stamped| match stamped {
        Stamped::Yes => minute,
        Stamped::Refused { last } => last,
    }));
    Ok(stamped? == Stamped::Yes)
}

/// What the device has left is cleaned away in pieces; a failure on the way leaves that to the expiry.
async fn remove_device(engine: &Engine, device: Device) -> Result<bool, StoreError> {
    let removed = transact(engine, give_up_at(engine), async |scope, txn| {
        device::remove(scope, txn, device).await
    });
    let removed = removed.await?;
    if removed {
        engine.ends().tell(Ended::Device(device.0, device.1));
    }
    let mut more = removed;
    while more {
        let cleaned = transact(engine, give_up_at(engine), async |scope, txn| {
            device::clean(scope, txn, device).await
        });
        more = cleaned.await?;
    }
    Ok(removed)
}

/// After an unknown outcome the second try may find it done: whoever is to hear of it does all the same.
async fn sign_out(engine: &Engine, user: UserId, valid_after_s: u64) -> Result<bool, StoreError> {
    let signed_out = transact(engine, give_up_at(engine), async |scope, txn| {
        versions::sign_out(scope, txn, user, valid_after_s).await
    });
    let signed_out = signed_out.await?;
    engine.ends().tell(Ended::Logins {
        user,
        valid_after_s,
    });
    Ok(signed_out)
}

/// One at a time; a second one would find what the first does.
async fn expire(
    engine: &Engine,
    state: &State,
    day_done: Option<u32>,
) -> Result<Expired, StoreError> {
    if state.expiring.replace(true) {
        return Ok(Expired::default());
    }
    let expired = remove_old(engine, day_done).await;
    state.expiring.set(false);
    expired
}

async fn remove_old(engine: &Engine, day_done: Option<u32>) -> Result<Expired, StoreError> {
    let begun = transact(engine, give_up_at(engine), async |scope, txn| {
        expiry::begin(scope, txn, day_done).await
    });
    let mut progress = begun.await?;
    while !progress.is_done() {
        let step = transact(engine, give_up_at(engine), async |scope, txn| {
            expiry::step(scope, txn, progress, Budget::OF_A_TRANSACTION).await
        });
        progress = step.await?;
    }
    engine.counters().expired.add_u64(progress.removed);
    Ok(progress.result())
}

/// Runs a transaction alone, again after conflicts and unknown outcomes, until it is committed. At least
/// once, and not after `give_up_at`. Everything that is run so can be run twice.
pub(crate) async fn transact<R>(
    engine: &Engine,
    give_up_at: Instant,
    mut run: impl AsyncFnMut(&mut Scope<'_>, &mut FoundationTxn) -> Result<R, RecordError>,
) -> Result<R, StoreError> {
    let mut trx = None;
    loop {
        let spent = match engine.snapshot(trx.take()).await {
            Err(spent) => spent,
            Ok(snapshot) => match attempt(engine, Rc::new(snapshot), &mut run).await {
                Ok(result) => return result,
                Err(spent) => spent,
            },
        };
        if Instant::now() >= give_up_at {
            return Err(StoreError::Unavailable);
        }
        trx = engine.cluster().back_off(spent).await.ok();
    }
}

async fn attempt<R>(
    engine: &Engine,
    snapshot: Rc<super::snapshot::Snapshot>,
    run: &mut impl AsyncFnMut(&mut Scope<'_>, &mut FoundationTxn) -> Result<R, RecordError>,
) -> Result<Result<R, StoreError>, Spent> {
    let mut knowledge = engine.knowledge(2);
    let mut scope = engine.scope(snapshot.stamp(), &mut knowledge);
    let mut txn = FoundationTxn::new(snapshot.clone());
    let result = match lease::is_held(engine, &mut txn).await {
        Ok(true) => run(&mut scope, &mut txn).await,
        Ok(false) => {
            engine.fence();
            return Ok(Err(StoreError::Unavailable));
        }
        Err(error) => Err(error.into()),
    };
    let result = match (result, txn.error()) {
        (Ok(result), None) => result,
        (Err(RecordError::Refused(error)), _) => return Ok(Err(error)),
        (Err(RecordError::Txn(TxnError::TooLarge)), _) | (_, Some(_)) => {
            return Ok(Err(StoreError::Corrupt));
        }
        (Err(RecordError::Txn(_)), None) => {
            drop(txn);
            let cause = snapshot.failure().unwrap_or_else(retry_later);
            let snapshot = Rc::into_inner(snapshot).expect("nobody else reads it");
            return Err(Spent::Before(snapshot.into_trx(), cause));
        }
    };
    drop(snapshot);
    if txn.ops().is_empty() {
        return Ok(Ok(result));
    }
    match txn.commit_or().await {
        Ok(_) => Ok(Ok(result)),
        Err(failed) => Err(failed.spent),
    }
}
