//! The seam between records and engines: an ordered map of bytes with transactions.
//!
//! It is cut to FoundationDB's measure, because that is the engine with the least freedom; the embedded
//! engine and the one in memory follow it.
//!
//! # Conflicts
//! A transaction sees the state of one moment, its read version, and its own earlier writes. It commits
//! as if it had run alone at the moment of its commit, or fails with [`TxnError::Conflict`] and leaves
//! nothing. It conflicts when a key or range that it read with [`Read::Serializable`] was written by a
//! transaction that committed after its read version. [`Read::Snapshot`] reads never conflict, and
//! writes alone never do: two blind writers of one key both commit, in some order. So the read set is
//! what a record states with every read (R14), and what it writes blindly heats nothing.
//!
//! # Versionstamps
//! The commit gives the transaction a stamp of ten bytes that is greater than that of every transaction
//! committed before (R1, R9). Keys and values may hold it although it is not known before the commit. A
//! transaction can not read what it wrote under its own stamp: an engine may answer such a read or fail
//! it with [`TxnError::Unreadable`], and records never ask.
//!
//! # Async
//! Reads and commits are futures, which FoundationDB needs. The futures of engines in this process are
//! ready at once; [`ready`] drives them without a runtime.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use roadstead_proto::position::Stamp;
use thiserror::Error;

/// Longest key that every engine takes, in bytes (FoundationDB's limit).
pub const KEY_BYTES_MAX: usize = 10_000;

/// Longest value that every engine takes, in bytes (FoundationDB's limit).
pub const VALUE_BYTES_MAX: usize = 100_000;

/// Keys and values written by one transaction that every engine takes, in bytes. FoundationDB refuses
/// 10 MB and advises against more than 1 MB; batches stay at half a MiB (R16), and this is the hard stop
/// for a single request that is larger than a batch.
pub const TXN_BYTES_MAX: usize = 9_000_000;

/// Stands for the stamp where an engine learns it only by the commit, as in FoundationDB's own keys.
pub const STAMP_INCOMPLETE: Stamp = [0xff; 10];

/// Why a transaction could not read or commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum TxnError {
    /// Something it read was written meanwhile. Nothing was committed; try again at a fresh version.
    #[error("a key that was read has been written by another transaction")]
    Conflict,
    /// It writes more than the engine takes. Nothing was committed; trying the same again is no use.
    #[error("the transaction, a key or a value is too large")]
    TooLarge,
    /// Its read version is too old. Nothing was committed; try again at a fresh version.
    #[error("the transaction took too long")]
    TooOld,
    /// It may have committed or not: rebuild it through `k/` at a fresh read version (R15).
    #[error("whether the transaction committed is unknown")]
    UnknownResult,
    /// It read what it had written under its own stamp.
    #[error("a key written under the stamp of this transaction cannot be read in it")]
    Unreadable,
    /// The engine runs one transaction at a time and has one.
    #[error("another transaction is open")]
    Busy,
    /// What holds the key can not be read, and will not be: a block of the database is damaged.
    #[error("a part of the database is damaged")]
    Damaged,
    /// The engine can not read or write now: I/O error, full disk, no quorum.
    #[error("the engine is unavailable")]
    Unavailable,
}

/// Whether a read belongs to the read set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Read {
    /// The commit fails if another transaction wrote this meanwhile.
    Serializable,
    /// Seen as of the read version, and free to change.
    Snapshot,
}

/// The direction of a range read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// From the first key on.
    Forward,
    /// From the last key back.
    Reverse,
}

/// What to read of the keys in `from..to`.
#[derive(Debug, Clone, Copy)]
pub struct RangeQuery<'a> {
    /// The first key.
    pub from: &'a [u8],
    /// Behind the last key.
    pub to: &'a [u8],
    /// Which end comes first.
    pub order: Order,
    /// At most so many pairs.
    pub entries_max: usize,
    /// Stop once the values read exceed this; a first pair is always read.
    pub bytes_max: usize,
    /// Whether the range read belongs to the read set.
    pub read: Read,
}

impl<'a> RangeQuery<'a> {
    /// All keys in `from..to`, forward, serializable.
    #[must_use]
    pub fn all(from: &'a [u8], to: &'a [u8]) -> Self {
        Self {
            from,
            to,
            order: Order::Forward,
            entries_max: usize::MAX,
            bytes_max: usize::MAX,
            read: Read::Serializable,
        }
    }

    /// The same with at most `entries_max` pairs.
    #[must_use]
    pub fn limit(self, entries_max: usize) -> Self {
        Self {
            entries_max,
            ..self
        }
    }
}

/// A piece of a range.
#[derive(Debug, Clone, Default)]
pub struct RangePage {
    /// The pairs, in the order asked for.
    pub pairs: Vec<(Bytes, Bytes)>,
    /// A limit ended the page. To go on, start behind the last key (forward) or end at it (reverse).
    pub more: bool,
}

/// One transaction. See the [module](self) for what it promises.
pub trait Txn {
    /// The value of a key.
    fn get(
        &mut self,
        key: &[u8],
        read: Read,
    ) -> impl Future<Output = Result<Option<Bytes>, TxnError>>;

    /// The pairs of a range.
    fn range(&mut self, query: RangeQuery<'_>)
    -> impl Future<Output = Result<RangePage, TxnError>>;

    /// Writes a key.
    fn set(&mut self, key: &[u8], value: Bytes);

    /// Removes a key, if it is there.
    fn clear(&mut self, key: &[u8]);

    /// Removes all keys in `from..to`.
    fn clear_range(&mut self, from: &[u8], to: &[u8]);

    /// Removes all keys in `from..to`, which hold no other keys than `keys`, each written once in its
    /// life. An engine without a cheap range removal removes the keys; the others do as for any range.
    fn clear_range_known(&mut self, from: &[u8], to: &[u8], keys: &[Bytes]) {
        let _ = keys;
        self.clear_range(from, to);
    }

    /// Removes a key that is written once in its life, as stamped keys are.
    fn clear_once(&mut self, key: &[u8]) {
        self.clear(key);
    }

    /// Writes the key made of `prefix`, the stamp, `index` and `suffix`.
    fn set_versionstamped_key(&mut self, prefix: &[u8], index: u16, suffix: &[u8], value: Bytes);

    /// Writes `key` with the value made of `prefix`, the stamp, `index` and `suffix`.
    fn set_versionstamped_value(&mut self, key: &[u8], prefix: &[u8], index: u16, suffix: &[u8]);

    /// Adds to a little-endian number of 8 bytes without reading it; an absent key counts as 0. Wraps.
    fn atomic_add(&mut self, key: &[u8], delta: u64);

    /// Makes the writes durable and visible at once, and tells their stamp.
    fn commit(self) -> impl Future<Output = Result<Stamp, TxnError>>;
}

/// A transaction that several commands share: each begins at a savepoint, and one that is refused takes
/// back what it wrote.
pub trait Shared: Txn {
    /// Everything written so far stays, whatever comes of the next command.
    fn savepoint(&mut self);

    /// Takes back what was written since the savepoint.
    fn rollback(&mut self);

    /// What went wrong with a write since the savepoint.
    fn error(&self) -> Option<TxnError>;
}

/// An engine as whole transactions, one after the other: what moves a store and what checks an engine.
pub trait Engine {
    /// Its transactions.
    type Txn<'a>: Txn;

    /// Runs `body` in a transaction of its own and commits it.
    fn transact<R>(
        &self,
        body: impl AsyncFnOnce(&mut Self::Txn<'_>) -> R,
    ) -> impl Future<Output = (R, Result<Stamp, TxnError>)>;
}

/// Drives a future of an engine in this process, which is always ready.
///
/// # Panics
/// If the future is not ready: it belongs to an engine that needs a runtime.
pub fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("futures of an engine in this process are ready at once"),
    }
}
