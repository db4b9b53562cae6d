//! The sends of one device on their way through a driver, item by item (R12, R16, R26).

use roadstead::store::{Completion, Grown, Outcome, RequestId, Sends, Sent, StoreError};
use roadstead::time::Time;
use roadstead_proto::position::Stamp;
use roadstead_store::records::{RecordError, Scope, resolve, send};
use roadstead_store::txn::{TxnError, ready};

use super::image::Work;
use super::{Origin, Step, Tap};

/// See the [module](self).
#[derive(Debug)]
pub struct SendsWork {
    /// Who asked.
    pub origin: Origin,
    id: RequestId,
    sends: Sends,
    answers: Vec<Result<Sent, StoreError>>,
    grown: Vec<Grown>,
    /// Answers and growth that earlier commits made durable.
    kept: (usize, usize),
    /// A retryable failure fails all behind it (R16).
    failed: bool,
    failed_before: bool,
    /// The planted bug of R16: a failure stops nothing.
    goes_on: bool,
}

impl SendsWork {
    /// Nothing evaluated yet.
    #[must_use]
    pub fn new(origin: Origin, id: RequestId, sends: Sends, goes_on: bool) -> Self {
        Self {
            origin,
            id,
            sends,
            answers: Vec::new(),
            grown: Vec::new(),
            kept: (0, 0),
            failed: false,
            failed_before: false,
            goes_on,
        }
    }

    /// Whether every item has its answer.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.answers.len() == self.sends.items.len()
    }

    /// Whether anything was evaluated since the last commit.
    #[must_use]
    pub fn has_new(&self) -> bool {
        self.answers.len() > self.kept.0
    }

    /// Evaluates the next item.
    ///
    /// # Errors
    /// If the transaction is of no use any more.
    pub fn evaluate(
        &mut self,
        scope: &mut Scope<'_>,
        work: &mut Work<'_>,
        now: Time,
    ) -> Result<(), TxnError> {
        let item = &self.sends.items[self.answers.len()];
        let answer = if self.failed {
            Err(StoreError::EarlierSendFailed)
        } else if now > item.deadline {
            Err(StoreError::DeadlinePassed)
        } else {
            let sender = (self.sends.user, self.sends.device);
            work.savepoint();
            match (ready(send::send(scope, work, sender, item)), work.error()) {
                (_, Some(error)) | (Err(RecordError::Txn(error)), None) => return Err(error),
                (Ok((answer, grown)), None) => {
                    self.grown.extend(grown);
                    answer
                }
                (Err(RecordError::Refused(error)), None) => {
                    work.rollback();
                    Err(error)
                }
            }
        };
        self.failed |= !self.goes_on && answer.is_err_and(StoreError::is_retryable);
        self.answers.push(answer);
        Ok(())
    }

    /// The commit brought its stamp.
    pub fn resolve(&mut self, stamp: Stamp) {
        let mut outcome = Outcome::Sent {
            answers: std::mem::take(&mut self.answers),
            grown: std::mem::take(&mut self.grown),
        };
        resolve(&mut outcome, stamp);
        let Outcome::Sent { answers, grown } = outcome else {
            unreachable!("made above")
        };
        (self.answers, self.grown) = (answers, grown);
    }

    /// Tells what the commit made durable.
    pub fn tap(&self, step: &mut Step<'_>) {
        for (item, answer) in self.sends.items.iter().zip(&self.answers).skip(self.kept.0) {
            step.tap(Tap::Sent {
                user: self.sends.user,
                device: self.sends.device,
                item: item.clone(),
                answer: *answer,
            });
        }
    }

    /// What grew since the last commit.
    pub fn new_growth(&mut self) -> &mut [Grown] {
        &mut self.grown[self.kept.1..]
    }

    /// Takes back what grew since the last commit.
    pub fn take_new_growth(&mut self) -> Vec<Grown> {
        self.grown.split_off(self.kept.1)
    }

    /// Tells of growth that was learned of otherwise.
    pub fn add_growth(&mut self, grown: Vec<Grown>) {
        self.grown.extend(grown);
        self.kept.1 = self.grown.len();
    }

    /// What was answered so far is durable.
    pub fn keep(&mut self) {
        self.kept = (self.answers.len(), self.grown.len());
        self.failed_before = self.failed;
    }

    /// Forgets what was evaluated since the last commit.
    pub fn forget(&mut self) {
        self.answers.truncate(self.kept.0);
        self.grown.truncate(self.kept.1);
        self.failed = self.failed_before;
    }

    /// What was evaluated since the last commit has an unknown outcome, and the rest is not tried.
    pub fn fail(&mut self) {
        self.forget();
        self.answers
            .resize(self.sends.items.len(), Err(StoreError::Unavailable));
    }

    /// The answer to the shard.
    #[must_use]
    pub fn completion(&self) -> Completion {
        let outcome = Outcome::Sent {
            answers: self.answers.clone(),
            grown: self.grown.clone(),
        };
        Completion {
            id: self.id,
            outcome: Ok(outcome),
        }
    }
}
