//! A [`Sends`] on its way through commits, item by item (R12, R16, R26).

use roadstead::store::{Completion, Grown, Outcome, RequestId, SendItem, Sends, Sent, StoreError};
use roadstead::time::Time;
use roadstead_proto::position::Stamp;

use crate::txn::{Shared, TxnError};

use super::order::Order;
use super::{Scope, attempt, resolve};

/// Sends of one device. They are evaluated in order; if a batch is full before the last, the rest waits
/// for the next batch and the answer with it. Nothing of the device is in two commits at once (R16).
///
/// `O` is who asked, in the words of the driver.
#[derive(Debug, Clone)]
pub struct PendingSends<O> {
    /// Who asked.
    pub origin: O,
    id: RequestId,
    sends: Sends,
    answers: Vec<Result<Sent, StoreError>>,
    grown: Vec<Grown>,
    /// Answers and growth that earlier commits made durable.
    kept: (usize, usize),
    /// What those answered mean for those behind them (R16).
    pub order: Order,
    /// The same as of the last commit.
    order_before: Order,
}

impl<O> PendingSends<O> {
    /// Nothing evaluated yet.
    #[must_use]
    pub fn new(origin: O, id: RequestId, sends: Sends) -> Self {
        Self {
            origin,
            id,
            answers: Vec::with_capacity(sends.items.len()),
            grown: Vec::new(),
            sends,
            kept: (0, 0),
            order: Order::default(),
            order_before: Order::default(),
        }
    }

    /// What was asked.
    #[must_use]
    pub fn sends(&self) -> &Sends {
        &self.sends
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
    /// The transaction can not go on with this item, which is not evaluated.
    pub async fn step<T: Shared>(
        &mut self,
        scope: &mut Scope<'_>,
        txn: &mut T,
        now: Time,
    ) -> Result<(), TxnError> {
        let item = &self.sends.items[self.answers.len()];
        let answer = match self.order.next(item) {
            Err(error) => Err(error),
            Ok(_) if now > item.deadline => Err(StoreError::DeadlinePassed),
            Ok(item) => {
                let sender = (self.sends.user, self.sends.device);
                let limits = self.sends.limits;
                match attempt::send(scope, txn, sender, limits, &item).await? {
                    Ok((answer, growth)) => {
                        self.grown.extend(growth);
                        answer
                    }
                    Err(error) => Err(error),
                }
            }
        };
        self.order.note(item, &answer);
        self.answers.push(answer);
        Ok(())
    }

    /// The next item can not be evaluated: that is its answer.
    pub fn fail_next(&mut self, error: StoreError) {
        let item = &self.sends.items[self.answers.len()];
        let error = match error {
            StoreError::Corrupt => StoreError::RecordDamaged,
            error => error,
        };
        self.order.note(item, &Err(error));
        self.answers.push(Err(error));
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

    /// What was answered so far is durable.
    pub fn keep(&mut self) {
        self.kept = (self.answers.len(), self.grown.len());
        self.order_before = self.order.clone();
    }

    /// Forgets what was evaluated since the last commit.
    pub fn forget(&mut self) {
        self.answers.truncate(self.kept.0);
        self.grown.truncate(self.kept.1);
        self.order = self.order_before.clone();
    }

    /// What was evaluated since the last commit has an unknown outcome, and the rest is not tried.
    pub fn fail(&mut self) {
        self.forget();
        let all = self.sends.items.len();
        self.answers.resize(all, Err(StoreError::Unavailable));
    }

    /// The items that were answered since the last commit, and their answers.
    pub fn new_answers(&self) -> impl Iterator<Item = (&SendItem, &Result<Sent, StoreError>)> {
        self.sends.items.iter().zip(&self.answers).skip(self.kept.0)
    }

    /// Which inboxes grew since the last commit, to look at.
    #[must_use]
    pub fn growth(&self) -> &[Grown] {
        &self.grown[self.kept.1..]
    }

    /// Which inboxes grew since the last commit.
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

    /// The answer to the shard.
    #[must_use]
    pub fn into_completion(self) -> Completion {
        Completion {
            id: self.id,
            outcome: Ok(Outcome::Sent {
                answers: self.answers,
                grown: self.grown,
            }),
        }
    }
}
