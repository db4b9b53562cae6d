//! The transaction: a snapshot, and above it the writes that wait for the commit.
//!
//! Several commands share a transaction (R16). Each begins at a savepoint, and one that is refused takes
//! back what it wrote; the library has no such thing, so writes reach it only when the commit is made.
//! Until then they lie in a [`Ledger`], which reads look through. A value under the stamp of this very
//! commit is not known yet: reading it is [`TxnError::Unreadable`], and the command that asked waits for
//! the next transaction. A key under it sorts behind everything that the snapshot shows of its prefix,
//! and is not read.

use std::rc::Rc;

use bytes::Bytes;
use roadstead_proto::position::Stamp;

use crate::txn::{
    KEY_BYTES_MAX, RangePage, RangeQuery, Read, Shared, TXN_BYTES_MAX, Txn, TxnError,
    VALUE_BYTES_MAX,
};

use super::ledger::{Known, Ledger, Op};
use super::snapshot::{Snapshot, is_reverse, next_piece, successor};
use super::trx::{Failed, Piece, Span};

/// See the [module](self).
#[derive(Debug)]
pub struct FoundationTxn {
    snapshot: Rc<Snapshot>,
    ledger: Ledger,
    /// The read set, in the order in which it was read.
    reads: Vec<Span>,
    error: Option<TxnError>,
}

impl FoundationTxn {
    /// A transaction that has neither read nor written.
    pub(crate) fn new(snapshot: Rc<Snapshot>) -> Self {
        Self {
            snapshot,
            ledger: Ledger::default(),
            reads: Vec::new(),
            error: None,
        }
    }

    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> usize {
        self.ledger.bytes()
    }

    /// How many reads are in the read set so far.
    pub(crate) fn reads_len(&self) -> usize {
        self.reads.len()
    }

    /// The read set from a point on.
    pub(crate) fn reads_from(&self, start: usize) -> &[Span] {
        &self.reads[start..]
    }

    /// What waits to be written.
    pub(crate) fn ops(&self) -> &[Op] {
        self.ledger.ops()
    }

    /// Drops writes that need not be made.
    pub(crate) fn retain_ops(&mut self, keep: impl FnMut(&Op) -> bool) {
        self.ledger.retain(keep);
    }

    /// The snapshot that it reads.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn note_read(&mut self, from: &[u8], to: Bytes, read: Read) {
        if read == Read::Serializable {
            self.reads.push((Bytes::copy_from_slice(from), to));
        }
    }

    fn write(&mut self, op: Op) {
        let (key, value) = op.lengths();
        let bytes = self.ledger.bytes() + key + value;
        if key > KEY_BYTES_MAX || value > VALUE_BYTES_MAX || bytes > TXN_BYTES_MAX {
            self.error = Some(TxnError::TooLarge);
            return;
        }
        self.ledger.push(op);
    }

    /// Commits. All other users of the snapshot must be gone.
    pub(crate) async fn commit_or(self) -> Result<Stamp, Failed> {
        let snapshot = Rc::into_inner(self.snapshot).expect("rehearsals end before the commit");
        snapshot
            .into_trx()
            .commit(self.reads, self.ledger.ops())
            .await
    }
}

/// What follows the stamp.
fn after(index: u16, suffix: &[u8]) -> Bytes {
    [&index.to_be_bytes()[..], suffix].concat().into()
}

impl Txn for FoundationTxn {
    async fn get(&mut self, key: &[u8], read: Read) -> Result<Option<Bytes>, TxnError> {
        self.note_read(key, successor(key), read);
        match self.ledger.known(key) {
            Known::Value(value) => Ok(value),
            Known::Added(delta) => {
                let below = self.snapshot.get(key).await?;
                Ok(Some(Ledger::sum(below.as_deref(), delta)))
            }
            Known::Unreadable => Err(TxnError::Unreadable),
            Known::Nothing => self.snapshot.get(key).await,
        }
    }

    async fn range(&mut self, query: RangeQuery<'_>) -> Result<RangePage, TxnError> {
        if query.from >= query.to {
            return Ok(RangePage::default());
        }
        // One more than asked for, to know whether there is more.
        let mut piece = Some(Piece {
            from: Bytes::copy_from_slice(query.from),
            to: Bytes::copy_from_slice(query.to),
            reverse: is_reverse(query.order),
            entries_max: query.entries_max.saturating_add(1),
            bytes_max: query.bytes_max.saturating_add(KEY_BYTES_MAX),
        });
        let mut pairs = Vec::new();
        while let Some(asked) = piece {
            let page = self.snapshot.piece(asked.clone()).await?;
            piece = next_piece(&asked, &page);
            let covered = match &piece {
                None => (asked.from, asked.to),
                Some(next) if asked.reverse => (next.to.clone(), asked.to),
                Some(next) => (asked.from, next.from.clone()),
            };
            pairs.extend(self.ledger.over(page.pairs, covered, asked.reverse)?);
            if is_enough(&pairs, &query) {
                break;
            }
        }
        let page = cut(pairs, &query, piece.is_some());
        self.note_page(&query, &page);
        Ok(page)
    }

    fn set(&mut self, key: &[u8], value: Bytes) {
        self.write(Op::Set(Bytes::copy_from_slice(key), value));
    }

    fn clear(&mut self, key: &[u8]) {
        self.write(Op::Clear(Bytes::copy_from_slice(key)));
    }

    fn clear_range(&mut self, from: &[u8], to: &[u8]) {
        if from < to {
            let bytes = Bytes::copy_from_slice;
            self.write(Op::ClearRange(bytes(from), bytes(to)));
        }
    }

    fn set_versionstamped_key(&mut self, prefix: &[u8], index: u16, suffix: &[u8], value: Bytes) {
        self.write(Op::SetStampedKey {
            before: Bytes::copy_from_slice(prefix),
            after: after(index, suffix),
            value,
        });
    }

    fn set_versionstamped_value(&mut self, key: &[u8], prefix: &[u8], index: u16, suffix: &[u8]) {
        self.write(Op::SetStampedValue {
            key: Bytes::copy_from_slice(key),
            before: Bytes::copy_from_slice(prefix),
            after: after(index, suffix),
        });
    }

    fn atomic_add(&mut self, key: &[u8], delta: u64) {
        self.write(Op::Add(Bytes::copy_from_slice(key), delta));
    }

    /// A transaction that wrote nothing commits as of its read version, without asking the cluster.
    async fn commit(self) -> Result<Stamp, TxnError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.ledger.ops().is_empty() {
            return Ok(self.snapshot.stamp());
        }
        self.commit_or().await.map_err(|failed| failed.error)
    }
}

impl Shared for FoundationTxn {
    fn savepoint(&mut self) {
        self.ledger.savepoint();
        self.error = None;
    }

    /// What was read stays in the read set: the refusal rests on it.
    fn rollback(&mut self) {
        self.ledger.rollback();
        self.error = None;
    }

    fn error(&self) -> Option<TxnError> {
        self.error
    }
}

impl FoundationTxn {
    /// Only what was returned belongs to the read set, as far as the last key of a page that has more.
    fn note_page(&mut self, query: &RangeQuery<'_>, page: &RangePage) {
        let last = page.pairs.last().filter(|_| page.more);
        let (from, to) = match last {
            None => (
                Bytes::copy_from_slice(query.from),
                Bytes::copy_from_slice(query.to),
            ),
            Some((last, _)) if is_reverse(query.order) => {
                (last.clone(), Bytes::copy_from_slice(query.to))
            }
            Some((last, _)) => (Bytes::copy_from_slice(query.from), successor(last)),
        };
        self.note_read(&from, to, query.read);
    }
}

fn is_enough(pairs: &[(Bytes, Bytes)], query: &RangeQuery<'_>) -> bool {
    let bytes: usize = pairs.iter().map(|(_, value)| value.len()).sum();
    pairs.len() > query.entries_max || bytes > query.bytes_max
}

/// The page within the limits of the query.
fn cut(pairs: Vec<(Bytes, Bytes)>, query: &RangeQuery<'_>, more_below: bool) -> RangePage {
    let mut page = RangePage::default();
    let mut bytes = 0;
    for pair in pairs {
        let first = page.pairs.is_empty();
        if !first && (page.pairs.len() >= query.entries_max || bytes > query.bytes_max) {
            page.more = true;
            return page;
        }
        bytes += pair.1.len();
        page.pairs.push(pair);
    }
    page.more = more_below;
    page
}
