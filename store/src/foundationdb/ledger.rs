//! Writes that wait for their commit, and what a read finds when it looks through them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::txn::TxnError;

/// Bytes of a stamp.
const STAMP: usize = 10;

/// A write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// Put a value.
    Set(Bytes, Bytes),
    /// Remove a key.
    Clear(Bytes),
    /// Remove the keys of a range.
    ClearRange(Bytes, Bytes),
    /// Add to a number.
    Add(Bytes, u64),
    /// Put a value under a key that holds the stamp.
    SetStampedKey {
        /// In front of the stamp.
        before: Bytes,
        /// Behind it.
        after: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Put a value that holds the stamp under a key.
    SetStampedValue {
        /// The key.
        key: Bytes,
        /// In front of the stamp.
        before: Bytes,
        /// Behind it.
        after: Bytes,
    },
}

impl Op {
    /// Bytes of key and value.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        match self {
            Self::Set(key, value) => (key.len(), value.len()),
            Self::Clear(key) => (key.len(), 0),
            Self::ClearRange(from, to) => (from.len().max(to.len()), 0),
            Self::Add(key, _) => (key.len(), 8),
            Self::SetStampedKey {
                before,
                after,
                value,
            } => (before.len() + STAMP + after.len(), value.len()),
            Self::SetStampedValue { key, before, after } => {
                (key.len(), before.len() + STAMP + after.len())
            }
        }
    }
}

/// What waits for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pending {
    Value(Bytes),
    Cleared,
    Stamped,
    Added(u64),
}

/// What the ledger says of a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It has this value, or none.
    Value(Option<Bytes>),
    /// So much was added to what is committed.
    Added(u64),
    /// Its value bears the stamp of this commit.
    Unreadable,
    /// What is committed counts.
    Nothing,
}

/// What the last command may take back.
#[derive(Debug, Default)]
struct Savepoint {
    ops: usize,
    cleared: usize,
    bytes: usize,
    keys: Vec<(Bytes, Option<Pending>)>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    ops: Vec<Op>,
    keys: BTreeMap<Bytes, Pending>,
    cleared: Vec<(Bytes, Bytes)>,
    bytes: usize,
    savepoint: Savepoint,
}

impl Ledger {
    pub(crate) fn savepoint(&mut self) {
        self.savepoint = Savepoint {
            ops: self.ops.len(),
            cleared: self.cleared.len(),
            bytes: self.bytes,
            keys: Vec::new(),
        };
    }

    pub(crate) fn rollback(&mut self) {
        while let Some((key, before)) = self.savepoint.keys.pop() {
            match before {
                Some(pending) => self.keys.insert(key, pending),
                None => self.keys.remove(&key),
            };
        }
        self.ops.truncate(self.savepoint.ops);
        self.cleared.truncate(self.savepoint.cleared);
        self.bytes = self.savepoint.bytes;
    }

    pub(crate) fn ops(&self) -> &[Op] {
        &self.ops
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops writes that need not be made, after the last read.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&Op) -> bool) {
        self.ops.retain(keep);
        self.savepoint();
    }

    pub(crate) fn push(&mut self, op: Op) {
        let (key, value) = op.lengths();
        self.bytes += key + value;
        match &op {
            Op::Set(key, value) => self.pend(key.clone(), Pending::Value(value.clone())),
            Op::Clear(key) => self.pend(key.clone(), Pending::Cleared),
            Op::ClearRange(from, to) => self.clear_range(from.clone(), to.clone()),
            Op::Add(key, delta) => self.add(key.clone(), *delta),
            Op::SetStampedKey { .. } => {}
            Op::SetStampedValue { key, .. } => self.pend(key.clone(), Pending::Stamped),
        }
        self.ops.push(op);
    }

    fn pend(&mut self, key: Bytes, pending: Pending) {
        let before = self.keys.insert(key.clone(), pending);
        self.savepoint.keys.push((key, before));
    }

    fn clear_range(&mut self, from: Bytes, to: Bytes) {
        let within: Vec<Bytes> = self
            .keys
            .range(from.clone()..to.clone())
            .map(|(key, _)| key.clone())
            .collect();
        for key in within {
            self.pend(key, Pending::Cleared);
        }
        self.cleared.push((from, to));
    }

    fn add(&mut self, key: Bytes, delta: u64) {
        let pending = match self.known(&key) {
            Known::Value(value) => Pending::Value(Self::sum(value.as_deref(), delta)),
            Known::Added(before) => Pending::Added(before.wrapping_add(delta)),
            Known::Unreadable => Pending::Stamped,
            Known::Nothing => Pending::Added(delta),
        };
        self.pend(key, pending);
    }

    /// A number after an addition, as the cluster adds: what is absent or short is extended by zeros.
    pub(crate) fn sum(value: Option<&[u8]>, delta: u64) -> Bytes {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(value.unwrap_or_default()) {
            *to = *from;
        }
        let sum = u64::from_le_bytes(bytes).wrapping_add(delta);
        Bytes::copy_from_slice(&sum.to_le_bytes())
    }

    /// What is known of a key without reading it.
    pub(crate) fn known(&self, key: &[u8]) -> Known {
        match self.keys.get(key) {
            Some(Pending::Value(value)) => Known::Value(Some(value.clone())),
            Some(Pending::Cleared) => Known::Value(None),
            Some(Pending::Stamped) => Known::Unreadable,
            Some(Pending::Added(delta)) => Known::Added(*delta),
            None if self.is_cleared(key) => Known::Value(None),
            None => Known::Nothing,
        }
    }

    fn is_cleared(&self, key: &[u8]) -> bool {
        self.cleared
            .iter()
            .any(|(from, to)| &from[..] <= key && key < &to[..])
    }

    /// The pairs of a range, given those that are committed there, in the same order.
    pub(crate) fn over(
        &self,
        below: Vec<(Bytes, Bytes)>,
        (from, to): (Bytes, Bytes),
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, TxnError> {
        if from >= to || (self.keys.is_empty() && self.cleared.is_empty()) {
            return Ok(below);
        }
        let mut pairs: BTreeMap<Bytes, Bytes> = below
            .into_iter()
            .filter(|(key, _)| !self.is_cleared(key))
            .collect();
        for (key, pending) in self.keys.range(from..to) {
            let value = match pending {
                Pending::Value(value) => value.clone(),
                Pending::Added(delta) => Self::sum(pairs.get(key).map(|value| &value[..]), *delta),
                Pending::Stamped => return Err(TxnError::Unreadable),
                Pending::Cleared => {
                    pairs.remove(key);
                    continue;
                }
            };
            pairs.insert(key.clone(), value);
        }
        if reverse {
            return Ok(pairs.into_iter().rev().collect());
        }
        Ok(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn pairs(keys: &[&'static str]) -> Vec<(Bytes, Bytes)> {
        keys.iter()
            .map(|key| (bytes(key), bytes("below")))
            .collect()
    }

    fn keys(pairs: &[(Bytes, Bytes)]) -> Vec<&[u8]> {
        pairs.iter().map(|(key, _)| &key[..]).collect()
    }

    #[test]
    fn a_refused_command_leaves_nothing() {
        let mut ledger = Ledger::default();
        ledger.push(Op::Set(bytes("a"), bytes("1")));
        ledger.savepoint();
        let (ops, size) = (ledger.ops().to_vec(), ledger.bytes());
        ledger.push(Op::Set(bytes("a"), bytes("2")));
        ledger.push(Op::ClearRange(bytes("a"), bytes("z")));
        ledger.push(Op::Set(bytes("b"), bytes("3")));
        ledger.rollback();
        assert_eq!(ledger.ops(), ops);
        assert_eq!(ledger.bytes(), size);
        assert_eq!(ledger.known(b"a"), Known::Value(Some(bytes("1"))));
        assert_eq!(ledger.known(b"b"), Known::Nothing);
    }

    #[test]
    fn what_waits_covers_what_is_committed() {
        let mut ledger = Ledger::default();
        ledger.push(Op::ClearRange(bytes("b"), bytes("d")));
        ledger.push(Op::Set(bytes("c"), bytes("new")));
        ledger.push(Op::Clear(bytes("e")));
        let span = (bytes("a"), bytes("z"));
        let below = pairs(&["a", "b", "bb", "e", "f"]);
        let over = ledger.over(below, span.clone(), false).expect("readable");
        assert_eq!(keys(&over), [&b"a"[..], b"c", b"f"]);
        let below = pairs(&["f", "e", "bb", "b", "a"]);
        let over = ledger.over(below, span, true).expect("readable");
        assert_eq!(keys(&over), [&b"f"[..], b"c", b"a"]);
    }

    #[test]
    fn a_value_under_the_stamp_of_the_commit_is_unreadable() {
        let mut ledger = Ledger::default();
        ledger.push(Op::SetStampedValue {
            key: bytes("k"),
            before: bytes(""),
            after: bytes(""),
        });
        assert_eq!(ledger.known(b"k"), Known::Unreadable);
        let over = ledger.over(Vec::new(), (bytes("a"), bytes("z")), false);
        assert_eq!(over, Err(TxnError::Unreadable));
        ledger.push(Op::Clear(bytes("k")));
        assert_eq!(ledger.known(b"k"), Known::Value(None));
    }

    #[test]
    fn additions_add_up_over_what_is_committed() {
        let mut ledger = Ledger::default();
        ledger.push(Op::Add(bytes("n"), 5));
        ledger.push(Op::Add(bytes("n"), 6));
        assert_eq!(ledger.known(b"n"), Known::Added(11));
        assert_eq!(&Ledger::sum(Some(&[1]), 11)[..], 12u64.to_le_bytes());
        ledger.push(Op::Set(bytes("n"), bytes("")));
        ledger.push(Op::Add(bytes("n"), 1));
        assert_eq!(ledger.known(b"n"), Known::Value(Some(Ledger::sum(None, 1))));
    }
}
