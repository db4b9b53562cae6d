//! The transaction of the embedded engine: writes that wait over what is committed.
//!
//! There is one committer, so transactions are serial and never conflict, and the stamp is known before
//! the commit. Several commands share a transaction; each begins at a savepoint, and one that is refused
//! takes back what it wrote.

use std::collections::btree_map::Entry;

use bytes::{Bytes, BytesMut};
use roadstead_proto::position::Stamp;

use crate::keys::is_hot;
use crate::recent::Recent;
use crate::txn::{
    KEY_BYTES_MAX, RangePage, RangeQuery, Read, Shared, TXN_BYTES_MAX, Txn, TxnError,
    VALUE_BYTES_MAX,
};

use super::small_key::SmallKey;
use super::sums::Sums;
use super::tables::Tables;
use super::write::{Write, Writes};

/// Values of small keys that are used often (`uv/`, acks, `rp/`, leases), written through: what it holds
/// is what is committed, absent keys included.
pub(crate) type Hot = Recent<SmallKey, Option<Bytes>>;

/// See the [module](self).
#[derive(Debug)]
pub struct BatchTxn<'a> {
    tables: &'a Tables,
    hot: Option<&'a mut Hot>,
    stamp: Stamp,
    writes: Writes,
    sums: Sums,
    /// What to put back, newest last, if the command under way is refused.
    undo: Vec<Undo>,
    bytes: usize,
    bytes_before: usize,
    error: Option<TxnError>,
    /// Hits and misses of the hot values.
    pub(crate) hot_reads: (u64, u64),
}

/// What was there before a command changed it.
#[derive(Debug)]
enum Undo {
    Write(SmallKey, Option<Write>),
    Sum(SmallKey, Option<u64>),
}

impl<'a> BatchTxn<'a> {
    /// A transaction that will commit under this stamp.
    pub(crate) fn new(tables: &'a Tables, hot: &'a mut Hot, stamp: Stamp) -> Self {
        Self {
            hot: Some(hot),
            stamp,
            ..Self::reading(tables)
        }
    }

    /// A transaction that will not commit.
    pub(crate) fn reading(tables: &'a Tables) -> Self {
        Self {
            tables,
            hot: None,
            stamp: [0; 10],
            writes: Writes::new(),
            sums: Sums::default(),
            undo: Vec::new(),
            bytes: 0,
            bytes_before: 0,
            error: None,
            hot_reads: (0, 0),
        }
    }

    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The writes so far.
    pub(crate) fn writes(&self) -> &Writes {
        &self.writes
    }

    /// The writes, sums among them.
    pub(crate) fn into_writes(mut self) -> Writes {
        self.write_sums();
        self.writes
    }

    /// Turns sums into the numbers that they make. One whose number can not be read begins at 0.
    fn write_sums(&mut self) {
        for (key, sum) in self.sums.take() {
            let before = self.read_before_sums(&key).unwrap_or_default();
            self.writes.insert(key, Write::Set(added(before, sum)));
        }
    }

    /// The same of those in a range that is to be read.
    fn settle_sums(&mut self, from: &[u8], to: &[u8]) -> Result<(), TxnError> {
        for key in self.sums.within(from, to) {
            if let Some(number) = self.read(&key)? {
                self.write(&key, Write::Set(number));
            }
        }
        Ok(())
    }

    /// Whatever was to be added to a key is overtaken.
    fn drop_sum(&mut self, key: &[u8]) {
        if let Some((key, sum)) = self.sums.remove(key) {
            self.undo.push(Undo::Sum(key, Some(sum)));
        }
    }

    fn write(&mut self, key: &[u8], write: Write) {
        let length = write.len();
        self.bytes += key.len() + length;
        if key.len() > KEY_BYTES_MAX || length > VALUE_BYTES_MAX || self.bytes > TXN_BYTES_MAX {
            self.error = Some(TxnError::TooLarge);
            return;
        }
        self.drop_sum(key);
        match self.writes.entry(SmallKey::from(key)) {
            Entry::Vacant(entry) => {
                self.undo.push(Undo::Write(entry.key().clone(), None));
                entry.insert(write);
            }
            Entry::Occupied(mut entry) => {
                let before = entry.insert(write);
                self.undo
                    .push(Undo::Write(entry.key().clone(), Some(before)));
            }
        }
    }

    fn read(&mut self, key: &[u8]) -> Result<Option<Bytes>, TxnError> {
        let before = self.read_before_sums(key)?;
        Ok(match self.sums.get(key) {
            None => before,
            Some(sum) => Some(added(before, sum)),
        })
    }

    fn read_before_sums(&mut self, key: &[u8]) -> Result<Option<Bytes>, TxnError> {
        if let Some(write) = self.writes.get(key) {
            return Ok(write.value().cloned());
        }
        let Some(hot) = self.hot.as_mut().filter(|_| is_hot(key)) else {
            return self.tables.get(key).map_err(unreadable);
        };
        if let Some(value) = hot.get(key) {
            self.hot_reads.0 += 1;
            return Ok(value.clone());
        }
        self.hot_reads.1 += 1;
        let value = self.tables.get(key).map_err(unreadable)?;
        hot.insert(SmallKey::from(key), value.clone());
        Ok(value)
    }

    fn read_range(&mut self, query: &RangeQuery<'_>) -> Result<RangePage, TxnError> {
        self.settle_sums(query.from, query.to)?;
        let mut page = RangePage::default();
        let mut bytes = 0;
        for pair in self.tables.range(query, Some(&self.writes)) {
            if page.pairs.len() >= query.entries_max || bytes > query.bytes_max {
                page.more = true;
                break;
            }
            let (key, value) = pair.map_err(unreadable)?;
            bytes += value.len();
            page.pairs.push((key, value));
        }
        Ok(page)
    }
}

/// Joins a prefix, a stamp, an index and a suffix.
pub(crate) fn stamped(prefix: &[u8], stamp: &Stamp, index: u16, suffix: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(prefix.len() + 12 + suffix.len());
    bytes.extend_from_slice(prefix);
    bytes.extend_from_slice(stamp);
    bytes.extend_from_slice(&index.to_be_bytes());
    bytes.extend_from_slice(suffix);
    bytes.freeze()
}

/// A read that failed: what is damaged stays so, and concerns who asks for it alone; everything else may be
/// the host's matter, and over soon.
#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn unreadable(error: fjall::Error) -> TxnError {
    use fjall::{Error, LsmError};
    tracing::error!(?error, "the database cannot be read");
    let is_damage = match &error {
        Error::Io(error) | Error::Storage(LsmError::Io(error)) => is_damage(error),
        Error::Storage(error) => !matches!(error, LsmError::Unrecoverable),
        Error::Decompress(_) | Error::InvalidTag(_) => true,
        _ => false,
    };
    if is_damage {
        TxnError::Damaged
    } else {
        TxnError::Unavailable
    }
}

fn is_damage(error: &std::io::Error) -> bool {
    // EIO: the medium has lost the block.
    error.raw_os_error() == Some(5)
        || matches!(
            error.kind(),
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
        )
}

impl Txn for BatchTxn<'_> {
    async fn get(&mut self, key: &[u8], _: Read) -> Result<Option<Bytes>, TxnError> {
        self.read(key)
    }

    async fn range(&mut self, query: RangeQuery<'_>) -> Result<RangePage, TxnError> {
        self.read_range(&query)
    }

    fn set(&mut self, key: &[u8], value: Bytes) {
        self.write(key, Write::Set(value));
    }

    fn clear(&mut self, key: &[u8]) {
        self.write(key, Write::Clear);
    }

    fn clear_once(&mut self, key: &[u8]) {
        self.write(key, Write::ClearOnce);
    }

    fn clear_range(&mut self, from: &[u8], to: &[u8]) {
        match self.read_range(&RangeQuery::all(from, to)) {
            Ok(page) => {
                for (key, _) in page.pairs {
                    self.clear(&key);
                }
            }
            Err(error) => self.error = Some(error),
        }
    }

    fn clear_range_known(&mut self, _: &[u8], _: &[u8], keys: &[Bytes]) {
        for key in keys {
            self.clear_once(key);
        }
    }

    fn set_versionstamped_key(&mut self, prefix: &[u8], index: u16, suffix: &[u8], value: Bytes) {
        let key = stamped(prefix, &self.stamp, index, suffix);
        self.set(&key, value);
    }

    fn set_versionstamped_value(&mut self, key: &[u8], prefix: &[u8], index: u16, suffix: &[u8]) {
        let value = stamped(prefix, &self.stamp, index, suffix);
        self.set(key, value);
    }

    fn atomic_add(&mut self, key: &[u8], delta: u64) {
        let before = self.sums.get(key);
        if before.is_none()
            && let Some(write) = self.writes.get(key)
        {
            let sum = added(write.value().cloned(), delta);
            return self.set(key, sum);
        }
        self.bytes += key.len() + size_of::<u64>();
        let key = SmallKey::from(key);
        self.undo.push(Undo::Sum(key.clone(), before));
        self.sums
            .insert(key, before.unwrap_or(0).wrapping_add(delta));
    }

    /// Transactions of this engine are committed by its committer, [`super::engine`].
    async fn commit(self) -> Result<Stamp, TxnError> {
        Err(self.error.unwrap_or(TxnError::Busy))
    }
}

impl Shared for BatchTxn<'_> {
    fn savepoint(&mut self) {
        self.undo.clear();
        self.bytes_before = self.bytes;
    }

    fn rollback(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Write(key, Some(write)) => drop(self.writes.insert(key, write)),
                Undo::Write(key, None) => drop(self.writes.remove(&key)),
                Undo::Sum(key, Some(sum)) => self.sums.insert(key, sum),
                Undo::Sum(key, None) => drop(self.sums.remove(&key)),
            }
        }
        self.bytes = self.bytes_before;
        self.error = None;
    }

    fn error(&self) -> Option<TxnError> {
        self.error
    }
}

/// A number and what is added to it.
fn added(before: Option<Bytes>, sum: u64) -> Bytes {
    let number = number(before.as_deref()).wrapping_add(sum);
    Bytes::copy_from_slice(&number.to_le_bytes())
}

/// The number that an atomic addition adds to, as in FoundationDB: shorter values are extended by zeros.
pub(crate) fn number(value: Option<&[u8]>) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(value.unwrap_or_default()) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::disk::Disk;
    use super::*;
    use crate::embedded::EmbeddedLimits;
    use crate::txn::ready;

    fn get(txn: &mut BatchTxn<'_>, key: &[u8]) -> Option<u64> {
        let value = ready(txn.get(key, Read::Snapshot)).expect("reads");
        value.map(|value| number(Some(&value)))
    }

    #[test]
    fn sums_are_seen_taken_back_and_written_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(folder.path(), &EmbeddedLimits::default()).expect("opens");
        let tables = Tables::new(disk.view(), 0);
        let mut hot = Hot::new(16);
        let mut txn = BatchTxn::new(&tables, &mut hot, [1; 10]);
        for _ in 0..3 {
            txn.savepoint();
            txn.atomic_add(b"b", 5);
        }
        txn.savepoint();
        txn.atomic_add(b"b", 100);
        txn.atomic_add(b"c", 1);
        txn.rollback();
        assert_eq!((get(&mut txn, b"b"), get(&mut txn, b"c")), (Some(15), None));
        // A range that is read holds it, and a command that is refused after that takes back its own part.
        txn.savepoint();
        txn.atomic_add(b"b", 1);
        let page = ready(txn.range(RangeQuery::all(b"a", b"z"))).expect("reads");
        assert_eq!(number(Some(&page.pairs[0].1)), 16);
        txn.atomic_add(b"b", 1);
        assert_eq!(get(&mut txn, b"b"), Some(17));
        txn.rollback();
        assert_eq!(get(&mut txn, b"b"), Some(15));
        // What is set or cleared overtakes what was to be added.
        txn.savepoint();
        txn.atomic_add(b"d", 9);
        txn.set(b"d", Bytes::copy_from_slice(&2_u64.to_le_bytes()));
        txn.atomic_add(b"d", 1);
        txn.atomic_add(b"e", 9);
        txn.clear(b"e");
        let writes = txn.into_writes();
        let written = |key: &[u8]| writes.get(key).map(|write| write.value().cloned());
        assert_eq!(number(written(b"b").flatten().as_deref()), 15);
        assert_eq!(number(written(b"d").flatten().as_deref()), 3);
        assert_eq!(written(b"e"), Some(None), "cleared");
        assert_eq!(written(b"c"), None);
    }
}
