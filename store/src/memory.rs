//! An engine in memory with the semantics of FoundationDB: for tests and the simulator.
//!
//! Transactions run side by side on versions of the data, conflict by what they read, and learn their
//! stamp from the commit. What it can not do either: read what was written under one's own stamp. Faults
//! are put in by hand, so that a simulator decides when a commit's result is unknown.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use roadstead_proto::position::Stamp;

use crate::conformance::ConcurrentEngine;
use crate::txn::{
    Engine, KEY_BYTES_MAX, Order, RangePage, RangeQuery, Read, TXN_BYTES_MAX, Txn, TxnError,
    VALUE_BYTES_MAX,
};

/// Commits that a transaction may be behind: older ones are [`TxnError::TooOld`].
const VERSIONS_KEPT: u64 = 1_024;

/// The engine; clones share the data.
#[derive(Debug, Clone, Default)]
pub struct MemoryEngine(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// The values of a key by the version that wrote them; `None` where it was cleared.
    data: BTreeMap<Bytes, Vec<(u64, Option<Bytes>)>>,
    /// What the last commits wrote.
    written: VecDeque<(u64, Vec<Span>)>,
    faults: VecDeque<Fault>,
}

/// What is to go wrong with a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not happen, and the answer says that this is unknown.
    LostBefore,
    /// It happens, and the answer says that this is unknown.
    LostAfter,
    /// It does not happen, for this reason.
    Refused(TxnError),
}

/// A range of keys, the end not included.
type Span = (Bytes, Bytes);

/// A transaction of a [`MemoryEngine`].
#[derive(Debug)]
pub struct MemoryTxn {
    engine: MemoryEngine,
    version: u64,
    reads: Vec<Span>,
    operations: Vec<Operation>,
    bytes: usize,
    too_large: bool,
}

#[derive(Debug, Clone)]
enum Operation {
    Set(Bytes, Bytes),
    ClearRange(Bytes, Bytes),
    Add(Bytes, u64),
    /// Prefix, index and suffix of the key; the value.
    StampedKey((Bytes, u16, Bytes), Bytes),
    /// The key; prefix, index and suffix of the value.
    StampedValue(Bytes, (Bytes, u16, Bytes)),
}

impl MemoryEngine {
    /// An engine that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a transaction at the version of now.
    #[must_use]
    pub fn begin(&self) -> MemoryTxn {
        MemoryTxn {
            engine: self.clone(),
            version: self.state().version,
            reads: Vec::new(),
            operations: Vec::new(),
            bytes: 0,
            too_large: false,
        }
    }

    /// Lets something go wrong with the next commit that has no fault yet.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push_back(fault);
    }

    /// The stamp of the last commit.
    #[must_use]
    pub fn last_stamp(&self) -> Stamp {
        stamp_of(self.state().version)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp_of(version: u64) -> Stamp {
    let mut stamp = [0; 10];
    stamp[..8].copy_from_slice(&version.to_be_bytes());
    stamp
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn after(key: &[u8]) -> Bytes {
    let mut after = BytesMut::from(key);
    after.extend_from_slice(&[0]);
    after.freeze()
}

fn joined((prefix, index, suffix): &(Bytes, u16, Bytes), stamp: &Stamp) -> Bytes {
    let parts = [&prefix[..], stamp, &index.to_be_bytes(), suffix];
    Bytes::from(parts.concat())
}

fn meets(a: &Span, b: &Span) -> bool {
    a.0 < b.1 && b.0 < a.1
}

impl State {
    fn is_kept(&self, version: u64) -> bool {
        version + VERSIONS_KEPT >= self.version
    }

    fn at(&self, key: &[u8], version: u64) -> Option<Bytes> {
        let values = self.data.get(key)?;
        let (_, value) = values.iter().rev().find(|(of, _)| *of <= version)?;
        value.clone()
    }

    fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        let oldest = self.version.saturating_sub(VERSIONS_KEPT);
        let values = self.data.entry(key).or_default();
        values.retain(|(version, _)| *version != self.version);
        values.push((self.version, value));
        let seen = values.partition_point(|(version, _)| *version <= oldest);
        values.drain(..seen.saturating_sub(1));
    }

    fn check(&self, txn: &MemoryTxn) -> Result<(), TxnError> {
        if txn.too_large {
            return Err(TxnError::TooLarge);
        }
        if !self.is_kept(txn.version) {
            return Err(TxnError::TooOld);
        }
        let later = self.written.iter().filter(|(of, _)| *of > txn.version);
        let mut written = later.flat_map(|(_, spans)| spans);
        match written.any(|span| txn.reads.iter().any(|read| meets(span, read))) {
            true => Err(TxnError::Conflict),
            false => Ok(()),
        }
    }

    fn apply(&mut self, operations: &[Operation]) -> Stamp {
        self.version += 1;
        let stamp = stamp_of(self.version);
        let spans = operations
            .iter()
            .map(|operation| self.apply_one(operation, &stamp));
        let spans = spans.collect();
        self.written.push_back((self.version, spans));
        while self.written.len() as u64 > VERSIONS_KEPT {
            self.written.pop_front();
        }
        stamp
    }

    fn apply_one(&mut self, operation: &Operation, stamp: &Stamp) -> Span {
        let (key, value) = match operation {
            Operation::Set(key, value) => (key.clone(), value.clone()),
            Operation::Add(key, delta) => {
                let sum = number(self.at(key, self.version).as_deref()).wrapping_add(*delta);
                (key.clone(), copy(&sum.to_le_bytes()))
            }
            Operation::StampedKey(key, value) => (joined(key, stamp), value.clone()),
            Operation::StampedValue(key, value) => (key.clone(), joined(value, stamp)),
            Operation::ClearRange(from, to) => {
                let keys = self.data.range(from.clone()..to.clone());
                let keys: Vec<Bytes> = keys.map(|(key, _)| key.clone()).collect();
                for key in keys {
                    self.put(key, None);
                }
                return (from.clone(), to.clone());
            }
        };
        self.put(key.clone(), Some(value));
        (key.clone(), after(&key))
    }
}

/// The number that an atomic addition adds to: shorter values are extended by zeros.
fn number(value: Option<&[u8]>) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(value.unwrap_or_default()) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
}

impl MemoryTxn {
    fn push(&mut self, key: usize, value: usize, operation: Operation) {
        self.bytes += key + value;
        if key > KEY_BYTES_MAX || value > VALUE_BYTES_MAX || self.bytes > TXN_BYTES_MAX {
            self.too_large = true;
            return;
        }
        self.operations.push(operation);
    }

    fn note(&mut self, from: Bytes, to: Bytes, read: Read) {
        if read == Read::Serializable {
            self.reads.push((from, to));
        }
    }

    /// What it would read may be gone.
    fn check_age(&self) -> Result<(), TxnError> {
        match self.engine.state().is_kept(self.version) {
            true => Ok(()),
            false => Err(TxnError::TooOld),
        }
    }

    /// Own writes on top of what was committed at the read version.
    fn own(&self, key: &[u8], committed: Option<Bytes>) -> Result<Option<Bytes>, TxnError> {
        let mut value = committed;
        for operation in &self.operations {
            match operation {
                Operation::Set(of, new) if of == key => value = Some(new.clone()),
                Operation::Add(of, delta) if of == key => {
                    let sum = number(value.as_deref()).wrapping_add(*delta);
                    value = Some(copy(&sum.to_le_bytes()));
                }
                Operation::ClearRange(from, to) if from <= key && key < &to[..] => value = None,
                Operation::StampedValue(of, _) if of == key => return Err(TxnError::Unreadable),
                _ => {}
            }
        }
        Ok(value)
    }

    /// Whether a key under the stamp to come may lie in a range.
    fn has_stamped(&self, span: &Span) -> bool {
        self.operations.iter().any(|operation| match operation {
            Operation::StampedKey((prefix, _, _), _) => {
                let from = copy(prefix);
                let mut to = BytesMut::from(&prefix[..]);
                to.extend_from_slice(&[0xff; 13]);
                meets(&(from, to.freeze()), span)
            }
            _ => false,
        })
    }

    /// All keys that may lie in a range, in the order asked for.
    fn candidates(&self, query: &RangeQuery<'_>) -> Vec<Bytes> {
        let state = self.engine.state();
        let span = copy(query.from)..copy(query.to);
        let mut keys: Vec<Bytes> = state.data.range(span).map(|(key, _)| key.clone()).collect();
        drop(state);
        keys.extend(
            self.operations
                .iter()
                .filter_map(|operation| match operation {
                    Operation::Set(key, _)
                    | Operation::Add(key, _)
                    | Operation::StampedValue(key, _) => {
                        (query.from <= &key[..] && &key[..] < query.to).then(|| key.clone())
                    }
                    Operation::ClearRange(..) | Operation::StampedKey(..) => None,
                }),
        );
        keys.sort();
        keys.dedup();
        if query.order == Order::Reverse {
            keys.reverse();
        }
        keys
    }

    fn read_range(&mut self, query: &RangeQuery<'_>) -> Result<RangePage, TxnError> {
        let mut page = RangePage::default();
        if query.from >= query.to {
            return Ok(page);
        }
        let whole = (copy(query.from), copy(query.to));
        if self.has_stamped(&whole) {
            return Err(TxnError::Unreadable);
        }
        let mut bytes = 0;
        for key in self.candidates(query) {
            let committed = self.engine.state().at(&key, self.version);
            let Some(value) = self.own(&key, committed)? else {
                continue;
            };
            if page.pairs.len() >= query.entries_max || bytes > query.bytes_max {
                page.more = true;
                break;
            }
            bytes += value.len();
            page.pairs.push((key, value));
        }
        // What was not reached was not read, and does not conflict.
        let span = match (page.more, page.pairs.last(), query.order) {
            (true, Some((last, _)), Order::Forward) => (whole.0, after(last)),
            (true, Some((last, _)), Order::Reverse) => (last.clone(), whole.1),
            _ => whole,
        };
        self.note(span.0, span.1, query.read);
        Ok(page)
    }
}

impl Txn for MemoryTxn {
    async fn get(&mut self, key: &[u8], read: Read) -> Result<Option<Bytes>, TxnError> {
        self.check_age()?;
        self.note(copy(key), after(key), read);
        let committed = self.engine.state().at(key, self.version);
        self.own(key, committed)
    }

    async fn range(&mut self, query: RangeQuery<'_>) -> Result<RangePage, TxnError> {
        self.check_age()?;
        self.read_range(&query)
    }

    fn set(&mut self, key: &[u8], value: Bytes) {
        let length = value.len();
        self.push(key.len(), length, Operation::Set(copy(key), value));
    }

    fn clear(&mut self, key: &[u8]) {
        let operation = Operation::ClearRange(copy(key), after(key));
        self.push(key.len(), 0, operation);
    }

    fn clear_range(&mut self, from: &[u8], to: &[u8]) {
        if from < to {
            let operation = Operation::ClearRange(copy(from), copy(to));
            self.push(from.len().max(to.len()), 0, operation);
        }
    }

    fn set_versionstamped_key(&mut self, prefix: &[u8], index: u16, suffix: &[u8], value: Bytes) {
        let (key, length) = ((copy(prefix), index, copy(suffix)), value.len());
        let key_length = prefix.len() + 12 + suffix.len();
        self.push(key_length, length, Operation::StampedKey(key, value));
    }

    fn set_versionstamped_value(&mut self, key: &[u8], prefix: &[u8], index: u16, suffix: &[u8]) {
        let value = (copy(prefix), index, copy(suffix));
        let length = prefix.len() + 12 + suffix.len();
        self.push(key.len(), length, Operation::StampedValue(copy(key), value));
    }

    fn atomic_add(&mut self, key: &[u8], delta: u64) {
        self.push(key.len(), 8, Operation::Add(copy(key), delta));
    }

    async fn commit(self) -> Result<Stamp, TxnError> {
        let mut state = self.engine.state();
        if self.operations.is_empty() && !self.too_large {
            return Ok(stamp_of(self.version));
        }
        match state.faults.pop_front() {
            Some(Fault::Refused(error)) => return Err(error),
            Some(Fault::LostBefore) => return Err(TxnError::UnknownResult),
            Some(Fault::LostAfter) => {
                state.check(&self)?;
                state.apply(&self.operations);
                return Err(TxnError::UnknownResult);
            }
            None => {}
        }
        state.check(&self)?;
        Ok(state.apply(&self.operations))
    }
}

impl Engine for MemoryEngine {
    type Txn<'a> = MemoryTxn;

    async fn transact<R>(
        &self,
        body: impl AsyncFnOnce(&mut MemoryTxn) -> R,
    ) -> (R, Result<Stamp, TxnError>) {
        let mut txn = self.begin();
        let result = body(&mut txn).await;
        (result, txn.commit().await)
    }
}

impl ConcurrentEngine for MemoryEngine {
    type Open = MemoryTxn;

    async fn begin(&self) -> Result<MemoryTxn, TxnError> {
        Ok(MemoryEngine::begin(self))
    }
}
