//! What the process itself asks of the committer: rare, and each a commit of its own.

use roadstead::store::StoreError;

use crate::admin::{Admin, Answer, since_epoch, tell};
use crate::records::expiry::{self, Progress, minute_of};
use crate::records::minutes::{self, Stamped};
use crate::records::{RecordError, Scope, device, node};
use crate::txn::{Shared, ready};

use super::batch::BatchTxn;
use super::committer::Committer;
use super::engine::{Begun, committed_end};

/// The expiry job under way.
#[derive(Debug)]
pub(crate) struct Expiry {
    progress: Progress,
    answer: Answer<u64>,
}

impl Committer {
    /// Runs one command of the process, and a step of the expiry job.
    pub(super) fn run_admins(&mut self) {
        if self.engine.is_none() {
            return;
        }
        match self.admins.pop_front() {
            None => {}
            Some(Admin::ReserveMessageIds(until, answer)) => {
                tell(&answer, self.reserve_ids(until));
            }
            Some(Admin::StampMinute(unix_ms, answer)) => {
                tell(&answer, self.stamp_minute(minute_of(unix_ms)));
            }
            Some(Admin::RemoveDevice(user, id, answer)) => {
                let removed =
                    self.transact(|scope, txn| ready(device::remove(scope, txn, (user, id))));
                tell(&answer, removed);
            }
            Some(Admin::Expire(answer)) => self.begin_expiry(answer),
        }
        if let Some(expiry) = self.expiry.take()
            && self.engine.is_some()
        {
            self.step_expiry(expiry);
        }
    }

    /// Answers all commands of the process: the engine has failed.
    pub(super) fn refuse_admins(&mut self) {
        for admin in self.admins.drain(..) {
            admin.refuse();
        }
        if let Some(expiry) = self.expiry.take() {
            tell(&expiry.answer, Err(StoreError::Unavailable));
        }
    }

    /// One transaction, committed alone.
    fn transact<R>(
        &mut self,
        run: impl FnOnce(&mut Scope<'_>, &mut BatchTxn<'_>) -> Result<R, RecordError>,
    ) -> Result<R, StoreError> {
        let engine = self.engine.as_mut().ok_or(StoreError::Unavailable)?;
        let Begun {
            tables,
            hot,
            stamp,
            keys,
            generation,
            knowledge,
        } = engine.begin();
        let mut txn = BatchTxn::new(&tables, hot, stamp);
        let mut scope = Scope {
            keys,
            generation,
            stamp,
            committed: committed_end(generation, &tables),
            next_index: 0,
            knowledge,
        };
        let result = run(&mut scope, &mut txn);
        let error = txn.error();
        let writes = txn.into_writes();
        drop(tables);
        let result = match (result, error) {
            (Ok(result), None) => result,
            (Err(RecordError::Refused(error)), _) => return Err(error),
            (Err(RecordError::Txn(error)), _) | (_, Some(error)) => {
                self.fail(&error.to_string());
                return Err(StoreError::Unavailable);
            }
        };
        match engine.commit(writes) {
            Ok(committed) => {
                if committed {
                    self.shared.counters.commit.commits.add(1);
                }
                Ok(result)
            }
            Err(error) => {
                self.fail(&error.to_string());
                Err(StoreError::Unavailable)
            }
        }
    }

    fn reserve_ids(&mut self, until_unix_ms: u64) -> Result<(u64, u64), StoreError> {
        let until = since_epoch(until_unix_ms);
        let holder = match &self.engine {
            Some(engine) => (engine.lease.0, engine.lease.1.incarnation),
            None => return Err(StoreError::Unavailable),
        };
        let reserved = self.transact(|_, txn| ready(node::reserve_ids(txn, holder, until)))?;
        if let Some(engine) = &mut self.engine {
            engine.lease.1.ids_below_ms = reserved.1;
        }
        Ok(reserved)
    }

    /// This node holds the only lease, so its clock is what most leases agree on, if it stays (R25).
    fn stamp_minute(&mut self, minute: u32) -> Result<bool, StoreError> {
        let agreed = self.doubt.confirms(minute);
        let stamped =
            self.transact(|scope, txn| ready(minutes::stamp(scope, txn, minute, agreed)))?;
        self.doubt.note(minute, stamped);
        Ok(stamped == Stamped::Yes)
    }

    fn begin_expiry(&mut self, answer: Answer<u64>) {
        if self.expiry.is_some() {
            // One at a time; the other will find what this one would.
            tell(&answer, Ok(0));
            return;
        }
        match self.transact(|scope, txn| ready(expiry::begin(scope, txn))) {
            Ok(progress) => self.expiry = Some(Expiry { progress, answer }),
            Err(error) => tell(&answer, Err(error)),
        }
    }

    fn step_expiry(&mut self, mut expiry: Expiry) {
        if expiry.progress.is_done() {
            self.shared
                .counters
                .commit
                .expired
                .add(expiry.progress.removed);
            tell(&expiry.answer, Ok(expiry.progress.removed));
            return;
        }
        let progress = expiry.progress;
        match self.transact(|scope, txn| ready(expiry::step(scope, txn, progress))) {
            Ok(progress) => {
                expiry.progress = progress;
                self.expiry = Some(expiry);
            }
            Err(error) => tell(&expiry.answer, Err(error)),
        }
    }
}
