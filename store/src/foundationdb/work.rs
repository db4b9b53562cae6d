//! A command on its way through transactions: what it is, what was tried, what is durable.

use std::time::Instant;

use roadstead::ShardId;
use roadstead::store::{Command, Completion, Grown, Outcome, RequestId, Sends, Sent, StoreError};
use roadstead::time::Time;
use roadstead_proto::position::Stamp;
use roadstead_proto::{DeviceId, Position, UserId};

use crate::records::order::Order;
use crate::records::{self, Scope, attempt};
use crate::txn::TxnError;

use super::txn::FoundationTxn;

/// A command that waits for its commit.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) shard: ShardId,
    pub(crate) id: RequestId,
    pub(crate) command: Command,
    /// Of sends: what is durable already. The rest waits for the next transaction.
    answers: Vec<Result<Sent, StoreError>>,
    grown: Vec<Grown>,
    /// After this, a command other than a send is answered.
    give_up_at: Instant,
    /// It has a place in the queue.
    is_queued: bool,
    /// Conflicts that named it (R16).
    pub(crate) conflicts: u8,
    /// An attempt had an unknown outcome: it can not be called uncommitted any more (R15).
    is_unknown: bool,
    /// Inboxes that may have grown by such an attempt. If it was committed, the next one finds nothing to
    /// do, and these would never be notified.
    hints: Vec<(UserId, DeviceId)>,
}

/// What an attempt would answer, if it is committed.
#[derive(Debug)]
pub(crate) enum Trial {
    /// Of sends: the answers to some more of them.
    Sends(Vec<Result<Sent, StoreError>>, Vec<Grown>),
    /// Of any other command.
    Other(Result<Outcome, StoreError>),
}

/// What is left of a command after a commit.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Nothing but to say so.
    Answered(Completion),
    /// Sends that found no room.
    Unfinished(Work),
}

impl Work {
    pub(crate) fn new(
        shard: ShardId,
        id: RequestId,
        command: Command,
        give_up_at: Instant,
    ) -> Self {
        Self {
            shard,
            id,
            command,
            answers: Vec::new(),
            grown: Vec::new(),
            give_up_at,
            is_queued: true,
            conflicts: 0,
            is_unknown: false,
            hints: Vec::new(),
        }
    }

    /// Whose command it is. One user's commands are in one transaction at a time, so that those of one
    /// device keep their order (R16) and one user's records do not conflict with themselves.
    pub(crate) fn user(&self) -> UserId {
        match &self.command {
            Command::OpenDevice(open) => open.user,
            Command::Send(sends) => sends.user,
            Command::ReadInbox(read) => read.user,
            Command::Flush(flush) => flush.user,
            Command::MarkRead(mark) => mark.user,
            Command::CheckInbox(check) => check.user,
        }
    }

    /// It goes under way. Tells whether it had a place in the queue: one that was put off has none.
    pub(crate) fn leave_queue(&mut self) -> bool {
        std::mem::take(&mut self.is_queued)
    }

    /// How many places it takes in a batch.
    pub(crate) fn places(&self) -> usize {
        match &self.command {
            Command::Send(sends) => sends.items.len() - self.answers.len(),
            _ => 1,
        }
    }

    /// Runs it, or as many of its sends as there is room for.
    pub(crate) async fn run(
        &self,
        scope: &mut Scope<'_>,
        txn: &mut FoundationTxn,
        now: Time,
        has_room: impl Fn(&FoundationTxn, &Scope<'_>) -> bool,
    ) -> Result<Trial, TxnError> {
        match &self.command {
            Command::Send(sends) => self.run_sends(scope, txn, sends, now, has_room).await,
            command => {
                let done = attempt::command(scope, txn, command).await?;
                Ok(Trial::Other(done.map(|done| done.outcome)))
            }
        }
    }

    async fn run_sends(
        &self,
        scope: &mut Scope<'_>,
        txn: &mut FoundationTxn,
        sends: &Sends,
        now: Time,
        has_room: impl Fn(&FoundationTxn, &Scope<'_>) -> bool,
    ) -> Result<Trial, TxnError> {
        let sender = (sends.user, sends.device);
        let (mut answers, mut grown) = (Vec::new(), Vec::new());
        let mut order = Order::behind(&sends.items, &self.answers);
        for item in &sends.items[self.answers.len()..] {
            if !answers.is_empty() && !has_room(txn, scope) {
                break;
            }
            let answer = match order.next(item) {
                Err(error) => Err(error),
                Ok(_) if now > item.deadline => Err(self.too_late()),
                Ok(item) => match attempt::send(scope, txn, sender, sends.limits, &item).await {
                    Ok(answer) => answer.and_then(|(answer, news)| {
                        grown.extend(news);
                        answer
                    }),
                    // It needs what an earlier one wrote under the same stamp: in the next transaction.
                    Err(TxnError::Unreadable) if !answers.is_empty() => break,
                    Err(error) => return Err(error),
                },
            };
            order.note(item, &answer);
            answers.push(answer);
        }
        Ok(Trial::Sends(answers, grown))
    }

    /// Not committed, if that is known.
    fn too_late(&self) -> StoreError {
        if self.is_unknown {
            StoreError::Unavailable
        } else {
            StoreError::DeadlinePassed
        }
    }

    /// Whether every send that is left is past its deadline, or the patience with another command at its
    /// end.
    pub(crate) fn is_too_late(&self, now: Time) -> bool {
        match &self.command {
            Command::Send(sends) => {
                let left = &sends.items[self.answers.len()..];
                left.iter().all(|item| now > item.deadline)
            }
            _ => Instant::now() > self.give_up_at,
        }
    }

    /// The outcome of an attempt with this trial is unknown.
    pub(crate) fn note_unknown(&mut self, trial: Trial) {
        let grown = match trial {
            Trial::Sends(_, grown) => grown,
            Trial::Other(Ok(mut outcome)) => {
                growth(&mut outcome).map(std::mem::take).unwrap_or_default()
            }
            Trial::Other(Err(_)) => Vec::new(),
        };
        self.is_unknown = true;
        self.hints
            .extend(grown.iter().map(|grown| (grown.user, grown.device)));
        self.hints.sort_unstable();
        self.hints.dedup();
    }

    /// A trial is durable under this stamp. Gives the answer if nothing is left to do.
    pub(crate) fn keep(mut self, trial: Trial, stamp: Stamp, generation: u32) -> Kept {
        let mut outcome = match trial {
            Trial::Sends(answers, grown) => Ok(Outcome::Sent { answers, grown }),
            Trial::Other(outcome) => outcome,
        };
        if let Ok(outcome) = &mut outcome {
            records::resolve(outcome, stamp);
            if let Some(grown) = growth(outcome) {
                let hints = std::mem::take(&mut self.hints);
                hint(grown, &hints, Position::end_of(generation, stamp));
            }
        }
        self.conflicts = 0;
        if let Ok(Outcome::Sent { answers, grown }) = outcome {
            self.answers.extend(answers);
            self.grown.extend(grown);
            return self.finish_sends();
        }
        Kept::Answered(Completion {
            id: self.id,
            outcome,
        })
    }

    fn finish_sends(self) -> Kept {
        if self.places() > 0 {
            return Kept::Unfinished(self);
        }
        Kept::Answered(Completion {
            id: self.id,
            outcome: Ok(Outcome::Sent {
                answers: self.answers,
                grown: self.grown,
            }),
        })
    }

    /// Whether an attempt may have been committed that nobody knows of.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_unknown && !self.hints.is_empty()
    }

    /// Gives up. What is durable is told; the rest is retryable.
    pub(crate) fn give_up(mut self, error: StoreError) -> Completion {
        let Command::Send(sends) = &self.command else {
            return Completion {
                id: self.id,
                outcome: Err(error),
            };
        };
        let error = match error {
            StoreError::DeadlinePassed => self.too_late(),
            error => error,
        };
        let all = sends.items.len();
        if self.answers.len() < all {
            self.answers.push(Err(error));
            self.answers.resize(all, Err(StoreError::EarlierSendFailed));
        }
        Completion {
            id: self.id,
            outcome: Ok(Outcome::Sent {
                answers: self.answers,
                grown: self.grown,
            }),
        }
    }
}

/// Tells of inboxes that may have grown before, beside those that are known to have: a hint, whose
/// cursor is beyond everything that an unknown attempt can have committed.
fn hint(grown: &mut Vec<Grown>, hints: &[(UserId, DeviceId)], cursor: Position) {
    for (user, device) in hints {
        let is_told = |grown: &Grown| grown.user == *user && grown.device == *device;
        if !grown.iter().any(is_told) {
            grown.push(Grown {
                user: *user,
                device: *device,
                previous: None,
                cursor,
                entry: None,
            });
        }
    }
}

/// The growth that an outcome tells of, if it tells of any.
fn growth(outcome: &mut Outcome) -> Option<&mut Vec<Grown>> {
    match outcome {
        Outcome::Sent { grown, .. }
        | Outcome::Flushed { grown, .. }
        | Outcome::MarkedRead { grown }
        | Outcome::InboxChecked { grown, .. } => Some(grown),
        Outcome::DeviceOpened(_) | Outcome::Inbox(_) => None,
    }
}
