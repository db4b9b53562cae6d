//! Inbox reads: all that wait share a read version, and each is a range read of its own (R4, R5).

use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::join_all;
use roadstead::store::Completion;

use crate::records::Knowledge;
use crate::txn::TxnError;

use super::engine::Engine;
use super::error::retry_later;
use super::snapshot::Snapshot;
use super::trx::Spent;
use super::txn::FoundationTxn;
use super::work::{Kept, Trial, Work};

/// Reads until every one is answered. The read version is taken now, so after all that the shard knew
/// when it asked (R5).
pub(crate) async fn serve(engine: Arc<Engine>, mut reads: Vec<Work>) {
    let mut trx = None;
    loop {
        drop_late(&engine, &mut reads);
        if reads.is_empty() {
            return;
        }
        let spent = match engine.snapshot(trx.take()).await {
            Ok(snapshot) => serve_once(&engine, snapshot, &mut reads).await,
            Err(spent) => spent,
        };
        if reads.is_empty() {
            return;
        }
        trx = engine.cluster().back_off(spent).await.ok();
    }
}

fn drop_late(engine: &Engine, reads: &mut Vec<Work>) {
    let (now, may_answer) = (engine.now(), engine.may_answer());
    for work in reads.extract_if(.., |work| !may_answer || work.is_too_late(now)) {
        let error = engine.error_of_late(&work);
        engine.answer(work.shard, vec![work.give_up(error)]);
    }
}

/// Answers what can be read; leaves the rest.
async fn serve_once(engine: &Engine, snapshot: Snapshot, reads: &mut Vec<Work>) -> Spent {
    let snapshot = Rc::new(snapshot);
    let pages = join_all(reads.iter().map(|work| read(engine, &snapshot, work))).await;
    engine.counters().fetched.add_u64(snapshot.fetched());
    let (stamp, generation) = (snapshot.stamp(), engine.generation());
    let mut answers: Vec<Completion> = Vec::with_capacity(reads.len());
    let Some(shard) = reads.first().map(|work| work.shard) else {
        return spent(snapshot);
    };
    for (work, page) in std::mem::take(reads).into_iter().zip(pages) {
        match page {
            Ok(trial) => {
                engine.count(&trial);
                match work.keep(trial, stamp, generation) {
                    Kept::Answered(answer) => answers.push(answer),
                    Kept::Unfinished(work) => reads.push(work),
                }
            }
            Err(_) => reads.push(work),
        }
    }
    engine.answer(shard, answers);
    spent(snapshot)
}

async fn read(engine: &Engine, snapshot: &Rc<Snapshot>, work: &Work) -> Result<Trial, TxnError> {
    let mut txn = FoundationTxn::new(snapshot.clone());
    let mut knowledge = Knowledge::of_one_among_many(2);
    let mut scope = engine.scope(snapshot.stamp(), &mut knowledge);
    work.run(&mut scope, &mut txn, engine.now(), |_, _| true)
        .await
}

fn spent(snapshot: Rc<Snapshot>) -> Spent {
    let snapshot = Rc::into_inner(snapshot).expect("the reads have ended");
    let cause = snapshot.failure().unwrap_or_else(retry_later);
    Spent::Before(snapshot.into_trx(), cause)
}
