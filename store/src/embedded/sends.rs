//! A [`Sends`] on its way through the committer.

use roadstead::ShardId;
use roadstead::store::{Completion, Grown, Outcome, RequestId, SendItem, Sends, Sent, StoreError};
use roadstead::time::Time;
use roadstead_proto::{DeviceId, UserId};

use crate::records::{RecordError, Scope, send};
use crate::txn::{TxnError, ready};

use super::batch::BatchTxn;

/// Sends of one device. They are evaluated in order; if a batch is full before the last, the rest waits
/// for the next batch and the answer with it. Nothing of the device is in two commits at once (R16).
#[derive(Debug)]
pub(crate) struct PendingSends {
    pub(crate) shard: ShardId,
    id: RequestId,
    pub(crate) sends: Sends,
    answers: Vec<Result<Sent, StoreError>>,
    grown: Vec<Grown>,
    /// Answers and growth that earlier commits made durable.
    kept: (usize, usize),
    /// A retryable failure fails all behind it (R16).
    failed: bool,
}

impl PendingSends {
    pub(crate) fn new(shard: ShardId, id: RequestId, sends: Sends) -> Self {
        Self {
            shard,
            id,
            answers: Vec::with_capacity(sends.items.len()),
            grown: Vec::new(),
            sends,
            kept: (0, 0),
            failed: false,
        }
    }

    /// Whether every item has its answer.
    pub(crate) fn is_done(&self) -> bool {
        self.answers.len() == self.sends.items.len()
    }

    /// Evaluates the next item.
    pub(crate) fn step(
        &mut self,
        scope: &mut Scope<'_>,
        txn: &mut BatchTxn<'_>,
        now: Time,
    ) -> Result<(), TxnError> {
        let item = &self.sends.items[self.answers.len()];
        let answer = if self.failed {
            Err(StoreError::EarlierSendFailed)
        } else if now > item.deadline {
            Err(StoreError::DeadlinePassed)
        } else {
            let sender = (self.sends.user, self.sends.device);
            evaluate(scope, txn, sender, item, &mut self.grown)?
        };
        self.failed |= answer.is_err_and(StoreError::is_retryable);
        self.answers.push(answer);
        Ok(())
    }

    /// What was answered so far is durable.
    pub(crate) fn keep(&mut self) {
        self.kept = (self.answers.len(), self.grown.len());
    }

    /// What was answered since the last commit is unknown, and the rest not tried.
    pub(crate) fn fail(&mut self) {
        self.answers.truncate(self.kept.0);
        self.grown.truncate(self.kept.1);
        let all = self.sends.items.len();
        self.answers.resize(all, Err(StoreError::Unavailable));
    }

    /// Which inboxes grew since the last commit.
    pub(crate) fn new_growth(&mut self) -> &mut [Grown] {
        &mut self.grown[self.kept.1..]
    }

    /// The answers since the last commit.
    pub(crate) fn new_answers(&self) -> &[Result<Sent, StoreError>] {
        &self.answers[self.kept.0..]
    }

    pub(crate) fn into_completion(self) -> Completion {
        Completion {
            id: self.id,
            outcome: Ok(Outcome::Sent {
                answers: self.answers,
                grown: self.grown,
            }),
        }
    }
}

/// Evaluates one item; if it is refused, nothing of it stays but an answer that is kept (R12).
fn evaluate(
    scope: &mut Scope<'_>,
    txn: &mut BatchTxn<'_>,
    sender: (UserId, DeviceId),
    item: &SendItem,
    grown: &mut Vec<Grown>,
) -> Result<Result<Sent, StoreError>, TxnError> {
    txn.savepoint();
    let sent = ready(send::send(scope, txn, sender, item));
    match (sent, txn.error()) {
        (Ok((answer, growth)), None) => {
            grown.extend(growth);
            Ok(answer)
        }
        (Err(RecordError::Refused(error)), _) => {
            txn.rollback();
            Ok(Err(error))
        }
        (Err(RecordError::Txn(error)), _) | (_, Some(error)) => Err(error),
    }
}
