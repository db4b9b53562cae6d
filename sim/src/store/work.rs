//! The engine below the records, as a transaction sees it.
//!
//! A transaction reads at one moment, because a step of the simulator evaluates it whole; what it read
//! and what it would write are kept apart from the image until the driver decides that it commits. So one
//! engine serves both drivers: the sole committer, which knows the stamp beforehand, and the many, where
//! the commit brings the stamp and what was read meanwhile by others decides whether there is one.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use roadstead_proto::position::Stamp;
use roadstead_store::txn::{
    KEY_BYTES_MAX, Order, RangePage, RangeQuery, Read, Shared, TXN_BYTES_MAX, Txn, TxnError,
    VALUE_BYTES_MAX,
};

use super::image::{Image, Op, Span, Stamped, Writes, first, number, only, successor};

/// What a transaction of its own sees in the place of the image.
#[derive(Debug, Clone)]
enum Own {
    Set(Bytes),
    Cleared,
    /// Written under a stamp that is not known yet.
    Unreadable,
}

/// Planted bugs of the engine. All off in an honest run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lies {
    /// Keys of this space are never found.
    pub hidden: Option<u8>,
    /// Reads of this space do not join the read set.
    pub unguarded: Option<u8>,
    /// Marks of suspension are not seen.
    pub unsuspended: bool,
    /// Keys of this space are never written.
    pub dropped: Option<u8>,
    /// Every key of this space, read in a range, answers with the value of the last one.
    pub newest: Option<u8>,
}

/// A transaction under way.
#[derive(Debug)]
pub struct Work<'a> {
    image: &'a Image,
    /// Known beforehand to a sole committer.
    stamp: Option<Stamp>,
    lies: Lies,
    own: BTreeMap<Bytes, Own>,
    /// What to put back if the command under way is refused.
    undo: Vec<(Bytes, Option<Own>)>,
    writes: Writes,
    writes_before: usize,
    bytes: usize,
    bytes_before: usize,
    reads: Vec<Span>,
    error: Option<TxnError>,
}

impl<'a> Work<'a> {
    /// A transaction over the image as it is now.
    #[must_use]
    pub fn new(image: &'a Image, stamp: Option<Stamp>, lies: Lies) -> Self {
        Self {
            image,
            stamp,
            lies,
            own: BTreeMap::new(),
            undo: Vec::new(),
            writes: Writes::default(),
            writes_before: 0,
            bytes: 0,
            bytes_before: 0,
            reads: Vec::new(),
            error: None,
        }
    }

    /// What it read serializably, and what it would write.
    #[must_use]
    pub fn finish(self) -> (Vec<Span>, Writes) {
        (self.reads, self.writes)
    }

    fn push(&mut self, op: Op) {
        let (key, value) = op.lengths();
        self.bytes += key + value;
        if key > KEY_BYTES_MAX || value > VALUE_BYTES_MAX || self.bytes > TXN_BYTES_MAX {
            self.error = Some(TxnError::TooLarge);
        }
        self.writes.0.push(op);
    }

    fn set_own(&mut self, key: Bytes, own: Own) {
        let before = self.own.insert(key.clone(), own);
        self.undo.push((key, before));
    }

    fn see(&self, key: &[u8]) -> Result<Option<Bytes>, TxnError> {
        match self.own.get(key) {
            Some(Own::Set(value)) => Ok(Some(value.clone())),
            Some(Own::Cleared) => Ok(None),
            Some(Own::Unreadable) => Err(TxnError::Unreadable),
            None => Ok(self.image.get(key).cloned()),
        }
    }

    /// All pairs of a range as this transaction sees them.
    fn see_range(&self, from: &[u8], to: &[u8]) -> Result<BTreeMap<Bytes, Bytes>, TxnError> {
        let clone = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        let mut pairs: BTreeMap<Bytes, Bytes> = self.image.range(from, to).map(clone).collect();
        if from >= to {
            return Ok(pairs);
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        for (key, own) in self.own.range::<[u8], _>(bounds) {
            match own {
                Own::Set(value) => {
                    pairs.insert(key.clone(), value.clone());
                }
                Own::Cleared => {
                    pairs.remove(key);
                }
                Own::Unreadable => return Err(TxnError::Unreadable),
            }
        }
        Ok(pairs)
    }

    /// Every key answers with the value of the last one of its space.
    fn shift_to_newest(&self, pairs: &mut [(Bytes, Bytes)]) {
        let tag = pairs.first().and_then(|(key, _)| first(key));
        let newest = tag.and_then(|tag| self.image.space(tag).next_back());
        if let Some((_, newest)) = newest {
            for (_, value) in pairs {
                *value = newest.clone();
            }
        }
    }

    fn guard(&mut self, read: Read, span: Span) {
        let unguarded = self.lies.unguarded.is_some() && self.lies.unguarded == first(&span.0);
        if read == Read::Serializable && !unguarded {
            self.reads.push(span);
        }
    }
}

/// Clears the marks of suspension in a list of devices: version, count, then id and flags of each.
fn without_suspension(value: &Bytes) -> Bytes {
    let mut bytes = value.to_vec();
    for flags in bytes.iter_mut().skip(1 + 8 + 1 + 4).step_by(5) {
        *flags = 0;
    }
    bytes.into()
}

impl Txn for Work<'_> {
    async fn get(&mut self, key: &[u8], read: Read) -> Result<Option<Bytes>, TxnError> {
        let key = Bytes::copy_from_slice(key);
        self.guard(read, only(&key));
        if self.lies.hidden.is_some() && self.lies.hidden == first(&key) {
            return Ok(None);
        }
        let value = self.see(&key)?;
        if self.lies.unsuspended && first(&key) == Some(b'u') {
            return Ok(value.as_ref().map(without_suspension));
        }
        Ok(value)
    }

    async fn range(&mut self, query: RangeQuery<'_>) -> Result<RangePage, TxnError> {
        let pairs = self.see_range(query.from, query.to)?;
        let mut in_order: Vec<(Bytes, Bytes)> = pairs.into_iter().collect();
        if self.lies.newest.is_some() && self.lies.newest == first(query.from) {
            self.shift_to_newest(&mut in_order);
        }
        if query.order == Order::Reverse {
            in_order.reverse();
        }
        let (mut page, mut bytes) = (RangePage::default(), 0);
        for (key, value) in in_order {
            if page.pairs.len() >= query.entries_max || bytes > query.bytes_max {
                page.more = true;
                break;
            }
            bytes += value.len();
            page.pairs.push((key, value));
        }
        // Only what was looked at belongs to the read set.
        let (mut from, mut to) = (query.from.to_vec().into(), query.to.to_vec().into());
        if let Some((last, _)) = page.pairs.last().filter(|_| page.more) {
            match query.order {
                Order::Forward => to = successor(last),
                Order::Reverse => from = last.clone(),
            }
        }
        self.guard(query.read, (from, to));
        Ok(page)
    }

    fn set(&mut self, key: &[u8], value: Bytes) {
        if self.lies.dropped.is_some() && self.lies.dropped == first(key) {
            return;
        }
        let key = Bytes::copy_from_slice(key);
        self.set_own(key.clone(), Own::Set(value.clone()));
        self.push(Op::Set(key, value));
    }

    fn clear(&mut self, key: &[u8]) {
        let key = Bytes::copy_from_slice(key);
        self.set_own(key.clone(), Own::Cleared);
        self.push(Op::Clear(key));
    }

    fn clear_range(&mut self, from: &[u8], to: &[u8]) {
        match self.see_range(from, to) {
            Ok(pairs) => {
                for key in pairs.into_keys() {
                    self.set_own(key, Own::Cleared);
                }
            }
            Err(error) => self.error = Some(error),
        }
        let (from, to) = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to));
        self.push(Op::ClearRange(from, to));
    }

    /// Only these keys, as the embedded engine does: a range that holds others is found out.
    fn clear_range_known(&mut self, from: &[u8], to: &[u8], keys: &[Bytes]) {
        if self.stamp.is_none() {
            return self.clear_range(from, to);
        }
        for key in keys {
            self.clear_once(key);
        }
    }

    fn set_versionstamped_key(&mut self, prefix: &[u8], index: u16, suffix: &[u8], value: Bytes) {
        let key = Stamped::new(prefix, index, suffix);
        match self.stamp {
            Some(stamp) => self.set(&key.with(&stamp), value),
            None => self.push(Op::StampedKey(key, value)),
        }
    }

    fn set_versionstamped_value(&mut self, key: &[u8], prefix: &[u8], index: u16, suffix: &[u8]) {
        let value = Stamped::new(prefix, index, suffix);
        match self.stamp {
            Some(stamp) => self.set(key, value.with(&stamp)),
            None => {
                let key = Bytes::copy_from_slice(key);
                self.set_own(key.clone(), Own::Unreadable);
                self.push(Op::StampedValue(key, value));
            }
        }
    }

    fn atomic_add(&mut self, key: &[u8], delta: u64) {
        match self.see(key) {
            Ok(value) => {
                let sum = number(value.as_ref()).wrapping_add(delta);
                let sum = Bytes::copy_from_slice(&sum.to_le_bytes());
                let key = Bytes::copy_from_slice(key);
                self.set_own(key.clone(), Own::Set(sum));
                self.push(Op::Add(key, delta));
            }
            Err(error) => self.error = Some(error),
        }
    }

    /// Drivers commit, by [`Image::apply`].
    async fn commit(self) -> Result<Stamp, TxnError> {
        Err(self.error.unwrap_or(TxnError::Busy))
    }
}

impl Shared for Work<'_> {
    fn savepoint(&mut self) {
        self.undo.clear();
        self.writes_before = self.writes.0.len();
        self.bytes_before = self.bytes;
    }

    fn rollback(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(own) => self.own.insert(key, own),
                None => self.own.remove(&key),
            };
        }
        self.writes.0.truncate(self.writes_before);
        self.bytes = self.bytes_before;
        self.error = None;
    }

    fn error(&self) -> Option<TxnError> {
        self.error
    }
}
