//! The seam: the same transactions on the engine in memory and on the embedded one, which is closed and
//! opened in between, give the same answers.

use std::cell::RefCell;
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use roadstead::Time;
use roadstead_proto::position::Stamp;
use roadstead_store::embedded::{EmbeddedConfig, EmbeddedLimits, SerialEngine};
use roadstead_store::memory::MemoryEngine;
use roadstead_store::txn::{
    Engine, Order, RangePage, RangeQuery, Read, Txn, TxnError, VALUE_BYTES_MAX, ready,
};

/// Transactions of one input, and operations of one transaction.
const TXNS_MAX: usize = 24;
const OPERATIONS_MAX: usize = 24;

/// Inputs after which the embedded engine starts anew: tombstones add up.
const INPUTS_PER_STORE: u32 = 4_096;

/// A key: what kind, and which.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct At {
    kind: u8,
    number: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    Get(At),
    Range {
        from: At,
        to: At,
        entries: u8,
        bytes: u8,
        reverse: bool,
    },
    Set(At, u8),
    /// Larger than a value may be.
    SetTooLarge(At),
    Clear(At),
    ClearRange(At, At),
    Add(u8, u64),
    StampedKey {
        prefix: u8,
        index: u8,
        suffix: u8,
    },
    StampedValue {
        key: u8,
        index: u8,
    },
    ClearStamped(u8),
}

#[derive(Arbitrary, Debug)]
struct Transaction {
    operations: Vec<Operation>,
    reopen: bool,
}

#[derive(Arbitrary, Debug)]
struct Plan {
    /// Whether every commit is written into the database at once.
    eager: bool,
    transactions: Vec<Transaction>,
}

/// The embedded engine in a folder of its own.
struct Embedded {
    engine: Option<SerialEngine>,
    config: EmbeddedConfig,
    inputs: u32,
    _folder: tempfile::TempDir,
}

impl Embedded {
    fn new(eager: bool) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.expect("a folder");
        let mut limits = EmbeddedLimits::default();
        if eager {
            limits.young_bytes_max = 1;
        }
        limits.block_cache_bytes = 1 << 20;
        let config = EmbeddedConfig {
            path: folder.path().into(),
            node: 0,
            placement_key: [7; 16],
            clock: Arc::new(|| Time::ZERO),
            limits,
        };
        let mut embedded = Self {
            engine: None,
            config,
            inputs: 0,
            _folder: folder,
        };
        embedded.reopen();
        embedded
    }

    fn reopen(&mut self) {
        self.engine = None;
        self.engine = Some(SerialEngine::open(&self.config).expect("it opens"));
    }
}

thread_local! {
    static EMBEDDED: RefCell<[Option<Embedded>; 2]> = const { RefCell::new([None, None]) };
}

/// A [`Plan`], as `arbitrary` reads it.
pub fn run(data: &[u8]) {
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    EMBEDDED.with_borrow_mut(|all| {
        let slot = &mut all[usize::from(plan.eager)];
        let mut embedded = slot.take().unwrap_or_else(|| Embedded::new(plan.eager));
        let mut pair = Pair {
            memory: MemoryEngine::new(),
            run: embedded.inputs,
            stamps: [Vec::new(), Vec::new()],
            stamped: [Vec::new(), Vec::new()],
        };
        let mut reopens = 2;
        for transaction in plan.transactions.into_iter().take(TXNS_MAX) {
            pair.transact(&embedded, &transaction.operations);
            if transaction.reopen && reopens > 0 {
                embedded.reopen();
                reopens -= 1;
            }
            pair.compare_all(&embedded);
        }
        pair.clean(&embedded);
        embedded.inputs += 1;
        // An engine that panicked is not put back.
        *slot = (embedded.inputs < INPUTS_PER_STORE).then_some(embedded);
    });
}

/// What a read found, without stamps.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Value(Option<Vec<u8>>),
    Page(Vec<(Vec<u8>, Vec<u8>)>, bool),
    Error(TxnError),
}

struct Pair {
    memory: MemoryEngine,
    run: u32,
    /// Of each commit.
    stamps: [Vec<Stamp>; 2],
    /// Stamped keys.
    stamped: [Vec<Vec<u8>>; 2],
}

/// Kinds of keys. `u` and `d` are kept in memory by the embedded engine, `a` is not; `c` are numbers, `v`
/// values that hold a stamp, `s` keys that do.
const KINDS: [u8; 3] = [b'a', b'd', b'u'];
const NUMBER: u8 = b'c';
const STAMPED_VALUE: u8 = b'v';
const STAMPED_KEY: u8 = b's';

/// Bytes in front of a key's number: longer than a device's prefix, so that `d` counts as a record
/// beside the device.
const PREFIX: usize = 16;

impl Pair {
    fn key(&self, kind: u8, number: u8) -> Vec<u8> {
        let mut key = vec![kind];
        key.extend(self.run.to_be_bytes());
        key.resize(PREFIX, 0);
        key.push(number);
        key
    }

    fn at(&self, at: At) -> Vec<u8> {
        self.key(KINDS[usize::from(at.kind) % KINDS.len()], at.number % 24)
    }

    /// The ends of a range, which may lead over other kinds but not over the engine's own keys: these lie
    /// between the last kind and the others.
    fn between(&self, from: At, to: At) -> (Vec<u8>, Vec<u8>) {
        let is_last = |at: At| usize::from(at.kind) % KINDS.len() == KINDS.len() - 1;
        let kind = if is_last(from) == is_last(to) {
            to.kind
        } else {
            from.kind
        };
        let to = At { kind, ..to };
        (self.at(from), self.at(to))
    }

    fn transact(&mut self, embedded: &Embedded, operations: &[Operation]) {
        let operations = &operations[..operations.len().min(OPERATIONS_MAX)];
        let engine = embedded.engine.as_ref().expect("open");
        let (memory, in_memory) = ready(
            self.memory
                .transact(async |txn| self.perform(txn, 0, operations)),
        );
        let (on_disk, on_disk_commit) =
            ready(engine.transact(async |txn| self.perform(txn, 1, operations)));
        assert_eq!(in_memory.is_ok(), on_disk_commit.is_ok(), "{operations:?}");
        assert_eq!(in_memory.err(), on_disk_commit.err());
        if let (Ok(memory), Ok(disk)) = (in_memory, on_disk_commit) {
            for (side, stamp) in [memory, disk].into_iter().enumerate() {
                self.commit(side, stamp, operations);
            }
        }
        let normal = |side: usize, found: Vec<Raw>| -> Vec<Found> {
            found
                .into_iter()
                .map(|raw| self.normal(side, raw))
                .collect()
        };
        assert_eq!(normal(0, memory), normal(1, on_disk), "{operations:?}");
    }

    /// Notes the stamp of a transaction that used it: one that wrote nothing has none of its own.
    fn commit(&mut self, side: usize, stamp: Stamp, operations: &[Operation]) {
        let uses = |operation: &Operation| {
            matches!(
                operation,
                Operation::StampedKey { .. } | Operation::StampedValue { .. }
            )
        };
        if !operations.iter().any(uses) {
            return;
        }
        let grows = self.stamps[side].last().is_none_or(|last| *last < stamp);
        assert!(grows, "R1, R9: stamps grow");
        self.stamps[side].push(stamp);
        for operation in operations {
            if let Operation::StampedKey {
                prefix,
                index,
                suffix,
            } = operation
            {
                let mut key = self.key(STAMPED_KEY, prefix % 4);
                key.extend(stamp);
                key.extend([0, *index, *suffix]);
                self.stamped[side].push(key);
            }
        }
    }

    fn perform<T: Txn>(&self, txn: &mut T, side: usize, operations: &[Operation]) -> Vec<Raw> {
        let mut found = Vec::new();
        let mut stamped = false;
        for operation in operations {
            match *operation {
                // What was written under the own stamp can not be read by every engine.
                Operation::Get(_) | Operation::Range { .. } if stamped => {}
                Operation::Get(at) => {
                    found.push(Raw::Value(ready(txn.get(&self.at(at), Read::Serializable))));
                }
                Operation::Range {
                    from,
                    to,
                    entries,
                    bytes,
                    reverse,
                } => {
                    let (from, to) = self.between(from, to);
                    let query = RangeQuery {
                        order: if reverse {
                            Order::Reverse
                        } else {
                            Order::Forward
                        },
                        entries_max: 1 + usize::from(entries),
                        bytes_max: 4 * usize::from(bytes),
                        read: Read::Snapshot,
                        ..RangeQuery::all(&from, &to)
                    };
                    found.push(Raw::Page(ready(txn.range(query))));
                }
                Operation::Set(at, byte) => {
                    let value = Bytes::from(vec![byte; usize::from(byte % 40)]);
                    txn.set(&self.at(at), value);
                }
                Operation::SetTooLarge(at) => {
                    txn.set(&self.at(at), Bytes::from(vec![0; VALUE_BYTES_MAX + 1]));
                }
                Operation::Clear(at) => txn.clear(&self.at(at)),
                Operation::ClearRange(from, to) => {
                    let (from, to) = self.between(from, to);
                    txn.clear_range(&from, &to);
                }
                Operation::Add(key, delta) => {
                    txn.atomic_add(&self.key(NUMBER, key % 4), delta);
                }
                Operation::StampedKey {
                    prefix,
                    index,
                    suffix,
                } => {
                    stamped = true;
                    let prefix = self.key(STAMPED_KEY, prefix % 4);
                    let value = Bytes::copy_from_slice(&[suffix]);
                    txn.set_versionstamped_key(&prefix, index.into(), &[suffix], value);
                }
                Operation::StampedValue { key, index } => {
                    stamped = true;
                    let key = self.key(STAMPED_VALUE, key % 4);
                    txn.set_versionstamped_value(&key, b"p", index.into(), b"s");
                }
                Operation::ClearStamped(nth) => {
                    let keys = &self.stamped[side];
                    if let Some(key) = keys.get(usize::from(nth) % keys.len().max(1)) {
                        txn.clear_once(key);
                    }
                }
            }
        }
        found
    }

    /// Puts the number of its commit in the place of each stamp.
    fn normal(&self, side: usize, raw: Raw) -> Found {
        let pair = |(key, value): (Bytes, Bytes)| {
            let (mut key, mut value) = (key.to_vec(), value.to_vec());
            match key[0] {
                STAMPED_KEY => self.number(side, &mut key[PREFIX + 1..][..10]),
                STAMPED_VALUE => self.number(side, &mut value[1..11]),
                _ => {}
            }
            (key, value)
        };
        match raw {
            Raw::Value(Ok(value)) => Found::Value(value.map(|value| value.to_vec())),
            Raw::Page(Ok(page)) => {
                Found::Page(page.pairs.into_iter().map(pair).collect(), page.more)
            }
            Raw::Value(Err(error)) | Raw::Page(Err(error)) => Found::Error(error),
        }
    }

    fn number(&self, side: usize, stamp: &mut [u8]) {
        let number = self.stamps[side].iter().position(|of| of[..] == *stamp);
        let number = number.expect("a stamp of a commit") as u64;
        stamp.fill(0);
        stamp[..8].copy_from_slice(&number.to_be_bytes());
    }

    /// Everything of every kind, both ways.
    fn compare_all(&self, embedded: &Embedded) {
        let engine = embedded.engine.as_ref().expect("open");
        for kind in KINDS
            .into_iter()
            .chain([NUMBER, STAMPED_KEY, STAMPED_VALUE])
        {
            let (from, to) = (self.key(kind, 0), self.key(kind, u8::MAX));
            for order in [Order::Forward, Order::Reverse] {
                let query = RangeQuery {
                    order,
                    ..RangeQuery::all(&from, &to)
                };
                let memory = ready(self.memory.transact(async |txn| txn.range(query).await)).0;
                let disk = ready(engine.transact(async |txn| txn.range(query).await)).0;
                let [memory, disk] =
                    [(0, memory), (1, disk)].map(|(side, page)| self.normal(side, Raw::Page(page)));
                assert_eq!(memory, disk);
            }
        }
    }

    /// The next input finds nothing of this one.
    fn clean(&self, embedded: &Embedded) {
        let engine = embedded.engine.as_ref().expect("open");
        let body = async |txn: &mut roadstead_store::embedded::BatchTxn<'_>| {
            for kind in KINDS
                .into_iter()
                .chain([NUMBER, STAMPED_KEY, STAMPED_VALUE])
            {
                txn.clear_range(&self.key(kind, 0), &self.key(kind, u8::MAX));
            }
        };
        ready(engine.transact(body)).1.expect("commits");
    }
}

/// What a read found.
enum Raw {
    Value(Result<Option<Bytes>, TxnError>),
    Page(Result<RangePage, TxnError>),
}

/// Drawn bytes: short plans and long ones.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    crate::drawn(24, 600)
}
