//! One batch of commands of a shard, from the read version to the answers (R14 to R16).
//!
//! 1. Take the read version and read the lease: a node that was taken over commits nothing (R24).
//! 2. Rehearse: run all commands at once against the snapshot and throw their writes away, so that what
//!    they read is fetched together and not one after the other.
//! 3. Run them in order above the snapshot, which by now needs no cluster. What finds no room waits.
//! 4. Commit. After a conflict the commands that the library names are put off and the rest goes on, all
//!    at a fresh read version; after an unknown outcome everything is run again, and `k/` tells what was
//!    committed (R15).

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use roadstead::store::{Command, StoreError};
use roadstead_proto::Position;
use roadstead_proto::position::Stamp;

use crate::records::{Knowledge, Scope};
use crate::txn::{STAMP_INCOMPLETE, TxnError};

use super::engine::Engine;
use super::lease;
use super::snapshot::Snapshot;
use super::trx::{Failed, Span, Spent, Trx};
use super::txn::FoundationTxn;
use super::work::{Kept, Trial, Work};

/// No command joins a batch whose read version is older: half of what R16 allows.
const AGE_MAX: Duration = Duration::from_secs(1);

/// Facts that one batch remembers.
const KNOWN_MAX: usize = 8_192;

/// A command that was run, and the part of the read set that is its own.
struct Tried {
    work: Work,
    trial: Trial,
    reads: std::ops::Range<usize>,
}

/// What was run, and what found no room.
struct Ran {
    txn: FoundationTxn,
    tried: Vec<Tried>,
    left: Vec<Work>,
}

/// A batch under way.
pub(crate) struct Batch<'a> {
    engine: &'a Engine,
    works: Vec<Work>,
    put_off: Vec<Work>,
    trx: Option<Trx>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(engine: &'a Engine, works: Vec<Work>) -> Self {
        Self {
            engine,
            works,
            put_off: Vec::new(),
            trx: None,
        }
    }

    /// Tries until every command is answered or put off; gives what was put off.
    pub(crate) async fn run(mut self) -> Vec<Work> {
        loop {
            self.drop_late();
            if self.works.is_empty() {
                return self.put_off;
            }
            self.engine.counters().attempts.add(1);
            if let Err(spent) = self.attempt().await {
                self.back_off(spent).await;
            }
        }
    }

    /// Drops commands that are past their deadline before they are tried (R26).
    fn drop_late(&mut self) {
        let now = self.engine.now();
        if !self.engine.may_answer() {
            self.give_up_all(StoreError::Unavailable);
        }
        let is_late = |work: &mut Work| work.is_too_late(now);
        for work in self.works.extract_if(.., is_late) {
            let error = self.engine.error_of_late(&work);
            self.engine.give_up(work, error);
        }
    }

    fn give_up_all(&mut self, error: StoreError) {
        for work in std::mem::take(&mut self.works) {
            self.engine.counters().unavailable.add(work.places());
            self.engine.give_up(work, error);
        }
    }

    async fn back_off(&mut self, spent: Spent) {
        match self.engine.cluster().back_off(spent).await {
            Ok(trx) => self.trx = Some(trx),
            Err(error) => {
                tracing::error!(%error, "no transaction can be made");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), Spent> {
        let began = Instant::now();
        let snapshot = Rc::new(self.engine.snapshot(self.trx.take()).await?);
        let mut txn = FoundationTxn::new(snapshot.clone());
        match lease::is_held(self.engine, &mut txn).await {
            Ok(true) => {}
            Ok(false) => {
                self.engine.fence();
                self.give_up_all(StoreError::Unavailable);
                return Ok(());
            }
            Err(error) => {
                drop(txn);
                return self.failed_read(snapshot, error);
            }
        }
        if self.works.len() > 1 {
            self.rehearse(&snapshot).await;
        }
        let ran = self.run_in_order(txn, began).await;
        self.engine.counters().fetched.add_u64(snapshot.fetched());
        match ran {
            Ok(ran) => {
                drop(snapshot);
                self.commit(ran, began).await
            }
            Err(error) => self.failed_read(snapshot, error),
        }
    }

    /// A read failed, so nothing was committed.
    fn failed_read(&self, snapshot: Rc<Snapshot>, error: TxnError) -> Result<(), Spent> {
        self.engine.counters().failures.add(1);
        tracing::debug!(%error, "a batch could not read");
        let snapshot = Rc::into_inner(snapshot).expect("rehearsals have ended");
        match snapshot.failure() {
            Some(cause) => Err(Spent::Before(snapshot.into_trx(), cause)),
            // It was no read: the records themselves can not go on. Without a pause the next try would
            // come at once.
            None => Err(Spent::Before(
                snapshot.into_trx(),
                super::error::retry_later(),
            )),
        }
    }

    async fn rehearse(&self, snapshot: &Rc<Snapshot>) {
        let now = self.engine.now();
        let rehearsals = self.works.iter().map(|work| async move {
            let mut txn = FoundationTxn::new(snapshot.clone());
            let mut knowledge = self.engine.knowledge(2);
            let mut scope = self.engine.scope(txn.snapshot().stamp(), &mut knowledge);
            // An error comes again when it counts.
            drop(work.run(&mut scope, &mut txn, now, |_, _| true).await);
        });
        join_all(rehearsals).await;
    }

    async fn run_in_order(
        &mut self,
        mut txn: FoundationTxn,
        began: Instant,
    ) -> Result<Ran, TxnError> {
        let now = self.engine.now();
        let bytes_max = self.engine.limits().batch_bytes_max;
        let fits = |txn: &FoundationTxn, scope: &Scope<'_>, bytes_max: usize| {
            txn.bytes() < bytes_max && scope.next_index < u16::MAX / 2 && began.elapsed() < AGE_MAX
        };
        let has_room = |txn: &FoundationTxn, scope: &Scope<'_>| fits(txn, scope, bytes_max);
        let mut knowledge = self.engine.knowledge(KNOWN_MAX);
        let mut scope = self.engine.scope(txn.snapshot().stamp(), &mut knowledge);
        let (mut tried, mut left) = (Vec::new(), Vec::new());
        let mut works = std::mem::take(&mut self.works).into_iter();
        let mut has_sends = false;
        while let Some(work) = works.next() {
            // What goes ahead of sends leaves them a part of the bytes, and room for one at least (R26).
            let is_send = matches!(work.command, Command::Send(_));
            let room = match is_send {
                true if !has_sends => usize::MAX,
                true => bytes_max,
                false => bytes_max / 4 * 3,
            };
            if !tried.is_empty() && !fits(&txn, &scope, room) {
                left.push(work);
                continue;
            }
            has_sends |= is_send;
            let start = txn.reads_len();
            match work.run(&mut scope, &mut txn, now, has_room).await {
                Ok(trial) => {
                    let reads = start..txn.reads_len();
                    tried.push(Tried { work, trial, reads });
                }
                // It asks for what an earlier one wrote under the stamp of this commit.
                Err(TxnError::Unreadable) => left.push(work),
                Err(TxnError::TooLarge) if tried.is_empty() => self.refuse(work),
                Err(TxnError::TooLarge) => left.push(work),
                Err(error) => {
                    self.works = tried.into_iter().map(|tried| tried.work).collect();
                    self.works.push(work);
                    self.works.extend(left);
                    self.works.extend(works);
                    return Err(error);
                }
            }
        }
        Ok(Ran { txn, tried, left })
    }

    /// Alone it is larger than any transaction: trying again is no use.
    fn refuse(&self, work: Work) {
        self.engine.counters().refused.add(1);
        self.engine.give_up(work, StoreError::Corrupt);
    }

    async fn commit(&mut self, ran: Ran, began: Instant) -> Result<(), Spent> {
        let Ran {
            mut txn,
            tried,
            left,
        } = ran;
        self.engine.counters().put_off.add(left.len());
        self.put_off.extend(left);
        let reads: Vec<Span> = txn.reads_from(0).to_vec();
        let noted = self.engine.drop_noted(&mut txn);
        let writes = (txn.ops().len(), txn.bytes());
        let committed = if txn.ops().is_empty() {
            Ok(txn.snapshot().stamp())
        } else {
            txn.commit_or().await
        };
        match committed {
            Ok(stamp) => {
                self.engine.note_commit(noted, writes, began);
                self.answer(tried, stamp);
                Ok(())
            }
            Err(failed) => Err(self.failed_commit(failed, tried, &reads)),
        }
    }

    fn answer(&mut self, tried: Vec<Tried>, stamp: Stamp) {
        let generation = self.engine.generation();
        let mut answers = Vec::with_capacity(tried.len());
        let Some(shard) = tried.first().map(|tried| tried.work.shard) else {
            return;
        };
        for tried in tried {
            self.engine.count(&tried.trial);
            match tried.work.keep(tried.trial, stamp, generation) {
                Kept::Answered(answer) => answers.push(answer),
                Kept::Unfinished(work) => self.put_off.push(work),
            }
        }
        self.engine.answer(shard, answers);
    }

    fn failed_commit(&mut self, failed: Failed, tried: Vec<Tried>, reads: &[Span]) -> Spent {
        let counters = self.engine.counters();
        match failed.error {
            TxnError::Conflict => {
                counters.conflicts.add(1);
                self.eject(tried, reads, &failed.conflicts);
            }
            TxnError::UnknownResult => {
                counters.unknown.add(1);
                for Tried {
                    mut work, trial, ..
                } in tried
                {
                    work.note_unknown(trial);
                    self.works.push(work);
                }
            }
            error => {
                counters.failures.add(1);
                tracing::debug!(%error, cause = %failed.spent.cause(), "a batch failed");
                self.works.extend(tried.into_iter().map(|tried| tried.work));
                if error == TxnError::TooLarge {
                    self.halve();
                }
            }
        }
        failed.spent
    }

    /// Puts off the commands whose reads were overtaken (R16). If the library names none of them, as when
    /// it was the lease, or does not say, half of them.
    fn eject(&mut self, tried: Vec<Tried>, reads: &[Span], conflicts: &[Span]) {
        let overlaps = |read: &Span, other: &Span| read.0 < other.1 && other.0 < read.1;
        let is_named = |tried: &Tried| {
            let own = &reads[tried.reads.clone()];
            own.iter()
                .any(|read| conflicts.iter().any(|other| overlaps(read, other)))
        };
        let (named, others): (Vec<_>, Vec<_>) = tried.into_iter().partition(is_named);
        let nobody = named.is_empty();
        self.works
            .extend(others.into_iter().map(|tried| tried.work));
        for Tried { mut work, .. } in named {
            work.conflicts = work.conflicts.saturating_add(1);
            self.put_off.push(work);
        }
        if nobody && conflicts.is_empty() {
            self.halve();
        }
        self.engine.counters().put_off.add(self.put_off.len());
    }

    fn halve(&mut self) {
        let half = self.works.len().div_ceil(2);
        self.put_off.extend(self.works.drain(half..));
    }
}

impl Engine {
    /// What the commands of a transaction share.
    pub(crate) fn scope<'a>(&'a self, stamp: Stamp, knowledge: &'a mut Knowledge) -> Scope<'a> {
        Scope {
            keys: self.keys(),
            generation: self.generation(),
            stamp: STAMP_INCOMPLETE,
            committed: Position::end_of(self.generation(), stamp),
            next_index: 0,
            knowledge,
        }
    }
}
