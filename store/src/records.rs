//! What the commands of a shard mean in keys and values: written once, for every engine.
//!
//! Each function runs one command inside a transaction that the engine opened and will commit; several
//! commands may share it (R16). What a command answers may hold positions of the commit under way: they
//! bear the scope's stamp, which an engine that learns it only at the commit replaces by [`resolve`].

pub mod attempt;
mod codec;
pub mod command;
pub mod device;
pub mod expiry;
pub mod flush;
pub mod held;
pub mod inbox;
mod knowledge;
pub mod meta;
pub mod minutes;
pub mod node;
pub mod order;
pub mod pending;
pub mod read_mark;
pub mod receipts;
pub mod send;
pub mod versions;

use bytes::Bytes;
use roadstead::store::{EntryBody, Grown, Outcome, StoreError};
use roadstead_proto::position::Stamp;
use roadstead_proto::{DeviceId, Position, UserId};
use thiserror::Error;

use crate::keys::{Keys, entry_position};
use crate::txn::{Read, STAMP_INCOMPLETE, Txn, TxnError};

pub use knowledge::Knowledge;

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum RecordError {
    /// The command is refused; the transaction is unharmed but for writes of this command.
    #[error("refused: {0:?}")]
    Refused(StoreError),
    /// The transaction is of no use any more.
    #[error(transparent)]
    Txn(TxnError),
}

impl From<TxnError> for RecordError {
    /// A record in a damaged part of the database is as unreadable as one that is damaged itself.
    fn from(error: TxnError) -> Self {
        match error {
            TxnError::Damaged => Self::Refused(StoreError::Corrupt),
            error => Self::Txn(error),
        }
    }
}

impl From<StoreError> for RecordError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

/// What the commands of one transaction share.
#[derive(Debug)]
pub struct Scope<'a> {
    /// Builds keys.
    pub keys: &'a Keys,
    /// The store's generation (R3).
    pub generation: u32,
    /// The stamp of this commit, or [`STAMP_INCOMPLETE`].
    pub stamp: Stamp,
    /// Everything up to here is committed and visible.
    pub committed: Position,
    /// The place in the batch of the next logical message (R1).
    pub next_index: u16,
    /// What the engine knows because it alone commits.
    pub knowledge: &'a mut Knowledge,
}

impl Scope<'_> {
    /// The place in the batch of one more logical message.
    ///
    /// # Errors
    /// [`TxnError::TooLarge`] if the batch has no place left.
    pub fn take_index(&mut self) -> Result<u16, TxnError> {
        // The last index stays free: it is the end of a commit, [`Position::end_of`].
        if self.next_index == u16::MAX {
            return Err(TxnError::TooLarge);
        }
        let index = self.next_index;
        self.next_index += 1;
        Ok(index)
    }

    /// The position of a logical message of this commit.
    #[must_use]
    pub fn position(&self, index: u16) -> Position {
        Position::new(self.generation, self.stamp, index)
    }

    /// Appends an entry to an inbox, blindly (R14), and notes that expiry has to visit it (R25): the one
    /// door by which entries of every kind come in.
    pub(crate) async fn append<T: Txn>(
        &mut self,
        txn: &mut T,
        (user, device): Device,
        index: u16,
        value: Bytes,
    ) -> Result<(), RecordError> {
        let prefix = self.keys.entry_prefix(user, device, self.generation);
        txn.set_versionstamped_key(&prefix, index, &[], value);
        expiry::note(self, txn, (user, device)).await
    }

    /// The news that an inbox grew by an entry of this commit.
    pub(crate) fn grown(&self, (user, device): Device, index: u16, body: EntryBody) -> Grown {
        Grown {
            user,
            device,
            previous: None,
            cursor: self.position(index),
            entry: Some(body),
        }
    }

    /// Whether a position is one that this store has given out and not one of another generation.
    ///
    /// # Errors
    /// [`StoreError::CursorInvalid`] if it lies beyond everything committed.
    pub(crate) fn check_given_out(&self, position: Position) -> Result<bool, RecordError> {
        if position.generation() != self.generation {
            return Ok(false);
        }
        self.is_of_the_past(position)
    }

    /// Whether a position that a session vouches for lies in this store: entries that were imported have
    /// kept the positions of their own, earlier generation, and are acknowledged and read by them.
    ///
    /// # Errors
    /// [`StoreError::CursorInvalid`] if it lies beyond everything committed.
    pub(crate) fn is_of_the_past(&self, position: Position) -> Result<bool, RecordError> {
        if position.generation() > self.generation {
            return Ok(false);
        }
        if position > self.committed {
            return Err(StoreError::CursorInvalid.into());
        }
        Ok(true)
    }
}

/// A device of a user.
pub(crate) type Device = (UserId, DeviceId);

/// Reads and decodes a record.
pub(crate) async fn read<T: Txn, R>(
    txn: &mut T,
    key: &[u8],
    read: Read,
    decode: impl FnOnce(&[u8]) -> Option<R>,
) -> Result<Option<R>, RecordError> {
    match txn.get(key, read).await? {
        None => Ok(None),
        Some(value) => Ok(Some(decode(&value).ok_or(StoreError::Corrupt)?)),
    }
}

/// The position of an entry's key.
pub(crate) fn position_of(key: &[u8]) -> Result<Position, RecordError> {
    entry_position(key).ok_or(RecordError::Refused(StoreError::Corrupt))
}

/// Puts the stamp of a commit in the place of [`STAMP_INCOMPLETE`] in the answer to a command.
pub fn resolve(outcome: &mut Outcome, stamp: Stamp) {
    match outcome {
        Outcome::Sent { answers, grown } => {
            for sent in answers.iter_mut().flatten() {
                resolve_position(&mut sent.position, stamp);
            }
            resolve_grown(grown, stamp);
        }
        Outcome::Flushed { grown, .. }
        | Outcome::MarkedRead { grown }
        | Outcome::InboxChecked { grown, .. } => resolve_grown(grown, stamp),
        Outcome::DeviceOpened(_) | Outcome::Inbox(_) => {}
    }
}

fn resolve_grown(grown: &mut [Grown], stamp: Stamp) {
    for grown in grown {
        resolve_position(&mut grown.cursor, stamp);
    }
}

fn resolve_position(position: &mut Position, stamp: Stamp) {
    if position.stamp() == STAMP_INCOMPLETE {
        *position = Position::new(position.generation(), stamp, position.index());
    }
}
