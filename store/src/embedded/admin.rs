//! What the process itself asks of the committer: rare, and each a commit of its own.

use roadstead::Ended;
use roadstead::store::StoreError;

use crate::admin::{Admin, Answer, since_epoch, tell};
use crate::records::expiry::{self, Expired, minute_of};
use crate::records::minutes::{self, Stamped};
use crate::records::{RecordError, Scope, device, node, versions};
use crate::txn::{Shared, ready};

use super::batch::BatchTxn;
use super::committer::Committer;
use super::engine::{Begun, committed_end};
use super::work::Work;

impl Committer {
    /// Runs one command of the process.
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
                let device = (user, id);
                match self.transact(|scope, txn| ready(device::remove(scope, txn, device))) {
                    Ok(true) => {
                        self.shared.ends.tell(Ended::Device(user, id));
                        self.work.push_back(Work::Clean { device, answer });
                    }
                    removed => tell(&answer, removed),
                }
            }
            Some(Admin::SignOut(user, valid_after_s, answer)) => {
                let signed_out = self.transact(|scope, txn| {
                    ready(versions::sign_out(scope, txn, user, valid_after_s))
                });
                if signed_out.is_ok() {
                    let ended = Ended::Logins {
                        user,
                        valid_after_s,
                    };
                    self.shared.ends.tell(ended);
                }
                tell(&answer, signed_out);
            }
            Some(Admin::Expire(day_done, answer)) => self.begin_expiry(day_done, answer),
        }
    }

    /// Answers all commands of the process: the engine has failed, or is to stop.
    pub(super) fn refuse_admins(&mut self) {
        for admin in self.admins.drain(..) {
            admin.refuse();
        }
        self.refuse_work();
    }

    /// Gives up what goes on between commands: whoever wanted it asks again.
    pub(super) fn refuse_work(&mut self) {
        for work in self.work.drain(..) {
            work.refuse(StoreError::Unavailable);
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
                return Err(self.own_error(error));
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

    fn begin_expiry(&mut self, day_done: Option<u32>, answer: Answer<Expired>) {
        let is_expiry = |work: &Work| matches!(work, Work::Expire { .. });
        if self.work.iter().any(is_expiry) {
            // One at a time; the other will find what this one would.
            return tell(&answer, Ok(Expired::default()));
        }
        match self.transact(|scope, txn| ready(expiry::begin(scope, txn, day_done))) {
            Ok(progress) if progress.is_done() => tell(&answer, Ok(progress.result())),
            Ok(progress) => self.work.push_back(Work::Expire { progress, answer }),
            Err(error) => tell(&answer, Err(error)),
        }
    }
}
