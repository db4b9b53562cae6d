//! What is durable, and what transactions do to it. [`work`](super::work) is the transaction.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::{Bytes, BytesMut};
use roadstead_proto::position::Stamp;
use roadstead_store::keys::Keys;

/// Everything that a power cut leaves.
#[derive(Debug, Default, Clone)]
pub struct Image {
    pairs: BTreeMap<Bytes, Bytes>,
}

/// A piece of the keys, `from..to`.
pub type Span = (Bytes, Bytes);

/// One write, as the commit carries it out.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Set(Bytes, Bytes),
    Clear(Bytes),
    ClearRange(Bytes, Bytes),
    Add(Bytes, u64),
    StampedKey(Stamped, Bytes),
    StampedValue(Bytes, Stamped),
}

impl Op {
    /// Bytes of key and value.
    pub(super) fn lengths(&self) -> (usize, usize) {
        match self {
            Self::Set(key, value) => (key.len(), value.len()),
            Self::Clear(key) => (key.len(), 0),
            Self::ClearRange(from, to) => (from.len().max(to.len()), 0),
            Self::Add(key, _) => (key.len(), 8),
            Self::StampedKey(key, value) => (key.len(), value.len()),
            Self::StampedValue(key, value) => (key.len(), value.len()),
        }
    }
}

/// Bytes with a stamp in their middle.
#[derive(Debug, Clone)]
pub(super) struct Stamped {
    prefix: Bytes,
    index: u16,
    suffix: Bytes,
}

impl Stamped {
    pub(super) fn new(prefix: &[u8], index: u16, suffix: &[u8]) -> Self {
        Self {
            prefix: Bytes::copy_from_slice(prefix),
            index,
            suffix: Bytes::copy_from_slice(suffix),
        }
    }

    fn len(&self) -> usize {
        self.prefix.len() + 12 + self.suffix.len()
    }

    pub(super) fn with(&self, stamp: &Stamp) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.len());
        bytes.extend_from_slice(&self.prefix);
        bytes.extend_from_slice(stamp);
        bytes.extend_from_slice(&self.index.to_be_bytes());
        bytes.extend_from_slice(&self.suffix);
        bytes.freeze()
    }
}

/// What a transaction would do.
#[derive(Debug, Clone, Default)]
pub struct Writes(pub(super) Vec<Op>);

impl Writes {
    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more key.
    pub fn set(&mut self, key: Bytes, value: Bytes) {
        self.0.push(Op::Set(key, value));
    }
}

impl Image {
    /// Carries out what was written, and tells which keys.
    pub fn apply(&mut self, writes: &Writes, stamp: &Stamp) -> Vec<Span> {
        writes
            .0
            .iter()
            .map(|op| self.apply_one(op, stamp))
            .collect()
    }

    /// Leaves out what belongs to an engine alone, as an import does: the ceiling of its stamps, and the
    /// minutes but the newest.
    pub fn forget_engine(&mut self) {
        self.pairs.remove(&Keys::stamp_ceiling()[..]);
        let mut minutes: Vec<Bytes> = self.space(b't').map(|(key, _)| key.clone()).collect();
        minutes.pop();
        for key in minutes {
            self.pairs.remove(&key);
        }
    }

    /// The keys of a space that these writes will take away.
    #[must_use]
    pub fn taken(&self, writes: &Writes, tag: u8) -> Vec<Bytes> {
        let mut taken = Vec::new();
        for op in &writes.0 {
            match op {
                Op::Clear(key) => taken.extend(self.pairs.get_key_value(key).map(|(key, _)| key)),
                Op::ClearRange(from, to) => taken.extend(self.range(from, to).map(|(key, _)| key)),
                _ => {}
            }
        }
        let in_space = taken.into_iter().filter(|key| first(key) == Some(tag));
        in_space.cloned().collect()
    }

    /// Goes back to an older image, but for the leases, which only grow (R24).
    pub fn restore(&mut self, older: &Self) {
        let leases: Vec<_> = self
            .space(b'n')
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        self.pairs.clone_from(&older.pairs);
        self.pairs.extend(leases);
    }

    fn apply_one(&mut self, op: &Op, stamp: &Stamp) -> Span {
        match op {
            Op::Set(key, value) => self.put(key.clone(), value.clone()),
            Op::StampedKey(key, value) => self.put(key.with(stamp), value.clone()),
            Op::StampedValue(key, value) => self.put(key.clone(), value.with(stamp)),
            Op::Clear(key) => {
                self.pairs.remove(key);
                only(key)
            }
            Op::ClearRange(from, to) => {
                let gone = self.range(from, to).map(|(key, _)| key.clone());
                for key in gone.collect::<Vec<_>>() {
                    self.pairs.remove(&key);
                }
                (from.clone(), to.clone())
            }
            Op::Add(key, delta) => {
                let sum = number(self.pairs.get(key)).wrapping_add(*delta);
                self.put(key.clone(), Bytes::copy_from_slice(&sum.to_le_bytes()))
            }
        }
    }

    fn put(&mut self, key: Bytes, value: Bytes) -> Span {
        let span = only(&key);
        self.pairs.insert(key, value);
        span
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.pairs.get(key)
    }

    /// The pairs in `from..to`.
    pub fn range(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Bytes)> {
        let from = if from < to { from } else { to };
        self.pairs
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
    }

    /// The pairs of a key space.
    pub fn space(&self, tag: u8) -> impl DoubleEndedIterator<Item = (&Bytes, &Bytes)> {
        self.range(&[tag], &[tag + 1])
            .collect::<Vec<_>>()
            .into_iter()
    }
}

/// The span that holds one key.
pub(super) fn only(key: &Bytes) -> Span {
    (key.clone(), successor(key))
}

pub(super) fn successor(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

pub(super) fn number(value: Option<&Bytes>) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(value.into_iter().flatten()) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
}

pub(super) fn first(key: &[u8]) -> Option<u8> {
    key.first().copied()
}
