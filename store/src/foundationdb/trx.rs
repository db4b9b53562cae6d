//! A transaction of the client library: what is read goes through it, and at the end what was read and
//! written is told to it and committed.

use ::foundationdb::future::FdbValues;
use ::foundationdb::options::{ConflictRangeType, MutationType, StreamingMode};
use ::foundationdb::{FdbError, KeySelector, RangeOption, Transaction, TransactionCommitError};
use bytes::{Bytes, BytesMut};
use roadstead_proto::position::Stamp;

use crate::txn::{RangePage, STAMP_INCOMPLETE, TxnError};

use super::error::of_commit;
#[cfg(test)]
use super::fake;
use super::ledger::Op;

/// A range of keys, without the deployment's prefix.
pub(crate) type Span = (Bytes, Bytes);

/// A piece of a range to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Piece {
    pub(crate) from: Bytes,
    pub(crate) to: Bytes,
    pub(crate) reverse: bool,
    pub(crate) entries_max: usize,
    pub(crate) bytes_max: usize,
}

/// See the [module](self).
pub(crate) enum Trx {
    /// Of the client library.
    Real(Transaction, Bytes),
    /// Of the cluster that tests make up.
    #[cfg(test)]
    Fake(fake::Trx),
}

/// A transaction that failed, for the library to say how long to wait.
pub(crate) enum Spent {
    /// Before its commit.
    Before(Trx, FdbError),
    /// In its commit.
    Commit(TransactionCommitError),
}

/// A commit that did not succeed, or may have.
pub(crate) struct Failed {
    /// What it means.
    pub(crate) error: TxnError,
    /// What of the read set was written by others; empty unless it is a conflict, and if the library
    /// does not say.
    pub(crate) conflicts: Vec<Span>,
    /// To back off with.
    pub(crate) spent: Spent,
}

impl Trx {
    pub(crate) async fn read_version(&self) -> Result<i64, FdbError> {
        match self {
            Self::Real(trx, _) => trx.get_read_version().await,
            #[cfg(test)]
            Self::Fake(trx) => trx.read_version().await,
        }
    }

    /// The value of a key. All reads are the library's snapshot reads.
    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, FdbError> {
        match self {
            Self::Real(trx, prefix) => {
                let value = trx.get(&full(prefix, key), true).await?;
                Ok(value.map(|value| Bytes::copy_from_slice(&value)))
            }
            #[cfg(test)]
            Self::Fake(trx) => trx.get(key).await,
        }
    }

    /// At most so many pairs of a range, or fewer with `more` set.
    pub(crate) async fn piece(&self, piece: &Piece) -> Result<RangePage, FdbError> {
        match self {
            Self::Real(trx, prefix) => fetch(trx, prefix, piece).await,
            #[cfg(test)]
            Self::Fake(trx) => trx.piece(piece).await,
        }
    }

    /// Commits what was read and written.
    pub(crate) async fn commit(self, reads: Vec<Span>, ops: &[Op]) -> Result<Stamp, Failed> {
        match self {
            Self::Real(trx, prefix) => commit(trx, prefix, reads, ops).await,
            #[cfg(test)]
            Self::Fake(trx) => trx.commit(&reads, ops).await,
        }
    }
}

impl Failed {
    /// A failure that the library reported.
    pub(crate) fn before(trx: Trx, cause: FdbError) -> Self {
        Self {
            error: of_commit(cause),
            conflicts: Vec::new(),
            spent: Spent::Before(trx, cause),
        }
    }
}

impl Spent {
    /// What the library said.
    pub(crate) fn cause(&self) -> FdbError {
        match self {
            Self::Before(_, error) => *error,
            Self::Commit(error) => **error,
        }
    }
}

/// A key of the deployment as the cluster knows it, with room for a stamp.
fn full(prefix: &[u8], key: &[u8]) -> BytesMut {
    let mut full = BytesMut::with_capacity(prefix.len() + key.len() + 16);
    full.extend_from_slice(prefix);
    full.extend_from_slice(key);
    full
}

async fn fetch(trx: &Transaction, prefix: &[u8], piece: &Piece) -> Result<RangePage, FdbError> {
    let (from, to) = (full(prefix, &piece.from), full(prefix, &piece.to));
    let option = RangeOption {
        begin: KeySelector::first_greater_or_equal(&from[..]),
        end: KeySelector::first_greater_or_equal(&to[..]),
        // The library reads 0 and the largest number as no limit.
        limit: Some(piece.entries_max),
        target_bytes: piece.bytes_max,
        mode: StreamingMode::WantAll,
        reverse: piece.reverse,
        ..RangeOption::default()
    };
    let values = trx.get_range(&option, 1, true).await?;
    Ok(page(&values, prefix.len()))
}

fn page(values: &FdbValues, skip: usize) -> RangePage {
    let pairs = values.iter().map(|pair| {
        let key = Bytes::copy_from_slice(&pair.key()[skip..]);
        (key, Bytes::copy_from_slice(pair.value()))
    });
    RangePage {
        pairs: pairs.collect(),
        more: values.more(),
    }
}

async fn commit(
    trx: Transaction,
    prefix: Bytes,
    reads: Vec<Span>,
    ops: &[Op],
) -> Result<Stamp, Failed> {
    if let Err(cause) = tell(&trx, &prefix, reads, ops) {
        return Err(Failed::before(Trx::Real(trx, prefix), cause));
    }
    let stamp = trx.get_versionstamp();
    if let Err(error) = trx.commit().await {
        return Err(Failed {
            error: of_commit(*error),
            conflicts: conflicts(&error, prefix.len()).await,
            spent: Spent::Commit(error),
        });
    }
    let stamp = stamp
        .await
        .ok()
        .and_then(|stamp| Stamp::try_from(&*stamp).ok());
    Ok(stamp.expect("a commit that wrote has a stamp"))
}

/// What the library reports to have been written by others, without the deployment's prefix.
async fn conflicts(error: &TransactionCommitError, prefix: usize) -> Vec<Span> {
    let strip = |key: &[u8]| Bytes::copy_from_slice(key.get(prefix..).unwrap_or_default());
    let reported = error.conflicting_keys().await.unwrap_or_default();
    let spans = reported
        .iter()
        .map(|span| (strip(span.begin()), strip(span.end())));
    spans.collect()
}

/// Tells the library the read set, key by key, so that nothing else can conflict (R14), and the writes.
fn tell(
    trx: &Transaction,
    prefix: &[u8],
    mut reads: Vec<Span>,
    ops: &[Op],
) -> Result<(), FdbError> {
    reads.sort_unstable();
    reads.dedup();
    for (from, to) in &reads {
        let (from, to) = (full(prefix, from), full(prefix, to));
        trx.add_conflict_range(&from, &to, ConflictRangeType::Read)?;
    }
    for op in ops {
        tell_op(trx, prefix, op);
    }
    Ok(())
}

fn tell_op(trx: &Transaction, prefix: &[u8], op: &Op) {
    match op {
        Op::Set(key, value) => trx.set(&full(prefix, key), value),
        Op::Clear(key) => trx.clear(&full(prefix, key)),
        Op::ClearRange(from, to) => trx.clear_range(&full(prefix, from), &full(prefix, to)),
        Op::Add(key, delta) => {
            trx.atomic_op(&full(prefix, key), &delta.to_le_bytes(), MutationType::Add);
        }
        Op::SetStampedKey {
            before,
            after,
            value,
        } => {
            let key = stamped(full(prefix, before), after);
            trx.atomic_op(&key, value, MutationType::SetVersionstampedKey);
        }
        Op::SetStampedValue { key, before, after } => {
            let value = stamped(BytesMut::from(&before[..]), after);
            let key = full(prefix, key);
            trx.atomic_op(&key, &value, MutationType::SetVersionstampedValue);
        }
    }
}

/// Leaves room for the stamp, and says where it is, as the library wants to be told.
fn stamped(mut bytes: BytesMut, after: &[u8]) -> BytesMut {
    let at = u32::try_from(bytes.len()).expect("keys and values are short");
    bytes.extend_from_slice(&STAMP_INCOMPLETE);
    bytes.extend_from_slice(after);
    bytes.extend_from_slice(&at.to_le_bytes());
    bytes
}

impl std::fmt::Debug for Trx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trx").finish_non_exhaustive()
    }
}
