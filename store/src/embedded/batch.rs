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
    /// What to put back, newest last, if the command under way is refused.
    undo: Vec<(SmallKey, Option<Write>)>,
    bytes: usize,
    bytes_before: usize,
    error: Option<TxnError>,
    /// Hits and misses of the hot values.
    pub(crate) hot_reads: (u64, u64),
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

    /// The writes.
    pub(crate) fn into_writes(self) -> Writes {
        self.writes
    }

    fn write(&mut self, key: &[u8], write: Write) {
        let length = write.len();
        self.bytes += key.len() + length;
        if key.len() > KEY_BYTES_MAX || length > VALUE_BYTES_MAX || self.bytes > TXN_BYTES_MAX {
            self.error = Some(TxnError::TooLarge);
            return;
        }
        match self.writes.entry(SmallKey::from(key)) {
            Entry::Vacant(entry) => {
                self.undo.push((entry.key().clone(), None));
                entry.insert(write);
            }
            Entry::Occupied(mut entry) => {
                let before = entry.insert(write);
                self.undo.push((entry.key().clone(), Some(before)));
            }
        }
    }

    fn read(&mut self, key: &[u8]) -> Result<Option<Bytes>, TxnError> {
        if let Some(write) = self.writes.get(key) {
            return Ok(write.value().cloned());
        }
        let Some(hot) = self.hot.as_mut().filter(|_| is_hot(key)) else {
            return self.tables.get(key).map_err(unavailable);
        };
        if let Some(value) = hot.get(key) {
            self.hot_reads.0 += 1;
            return Ok(value.clone());
        }
        self.hot_reads.1 += 1;
        let value = self.tables.get(key).map_err(unavailable)?;
        hot.insert(SmallKey::from(key), value.clone());
        Ok(value)
    }

    fn read_range(&self, query: &RangeQuery<'_>) -> Result<RangePage, TxnError> {
        let mut page = RangePage::default();
        let mut bytes = 0;
        for pair in self.tables.range(query, Some(&self.writes)) {
            if page.pairs.len() >= query.entries_max || bytes > query.bytes_max {
                page.more = true;
                break;
            }
            let (key, value) = pair.map_err(unavailable)?;
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

#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn unavailable(error: fjall::Error) -> TxnError {
    tracing::error!(?error, "the database cannot be read");
    TxnError::Unavailable
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
        let sum = match self.read(key) {
            Ok(value) => number(value.as_deref()).wrapping_add(delta),
            Err(error) => {
                self.error = Some(error);
                return;
            }
        };
        self.set(key, Bytes::copy_from_slice(&sum.to_le_bytes()));
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
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(write) => self.writes.insert(key, write),
                None => self.writes.remove(&key),
            };
        }
        self.bytes = self.bytes_before;
        self.error = None;
    }

    fn error(&self) -> Option<TxnError> {
        self.error
    }
}

/// The number that an atomic addition adds to, as in FoundationDB: shorter values are extended by zeros.
pub(crate) fn number(value: Option<&[u8]>) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(value.unwrap_or_default()) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
}
