//! A cluster that tests make up: versions, conflicts and stamps as the real one has them, and faults on
//! demand, unknown outcomes above all, which a real cluster gives only by chance.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use ::foundationdb::FdbError;
use bytes::Bytes;
use roadstead_proto::position::Stamp;

use crate::txn::{RangePage, TxnError};

use super::error::of_commit;
use super::ledger::{Ledger, Op};
use super::trx::{Failed, Piece, Span, Spent};

/// What shall happen to a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It succeeds.
    None,
    /// It is committed, and the answer is lost.
    UnknownCommitted,
    /// It is lost, and nobody can tell.
    UnknownLost,
    /// It is under way while the next commit is made, and arrives after it.
    UnknownLate,
    /// It is refused with this code.
    Code(i32),
    /// Someone else writes this key before it.
    Overtaken(Bytes),
    /// The same, and the library does not say which key it was.
    OvertakenUnnamed(Bytes),
}

/// Versions between two commits: the real cluster counts a million a second.
const STEP: i64 = 1_000;

/// See the [module](self).
#[derive(Debug, Clone, Default)]
pub(crate) struct World(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    version: i64,
    /// Every value that a key ever had, and since when.
    values: BTreeMap<Bytes, Vec<(i64, Option<Bytes>)>>,
    written: Vec<(i64, Vec<Span>)>,
    commit_faults: VecDeque<Fault>,
    read_faults: VecDeque<i32>,
    late: Option<(i64, Vec<Span>, Vec<Op>)>,
    commits: usize,
    back_offs: Vec<i32>,
    on_back_off: Option<Hook>,
    largest: usize,
}

/// What a test wants to happen once.
struct Hook(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

/// A transaction in a [`World`].
#[derive(Debug)]
pub(crate) struct Trx {
    world: World,
    version: Mutex<Option<i64>>,
}

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .expect("tests do not panic while they hold it")
    }

    pub(crate) fn transaction(&self) -> Trx {
        Trx {
            world: self.clone(),
            version: Mutex::default(),
        }
    }

    /// What shall happen to the next commits.
    pub(crate) fn fail_commits(&self, faults: &[Fault]) {
        self.state().commit_faults.extend(faults.iter().cloned());
    }

    /// The next reads of a version fail with these codes.
    pub(crate) fn fail_reads(&self, codes: &[i32]) {
        self.state().read_faults.extend(codes);
    }

    /// So many versions go by.
    pub(crate) fn pass(&self, versions: i64) {
        self.state().version += versions;
    }

    pub(crate) fn commits(&self) -> usize {
        self.state().commits
    }

    pub(crate) fn back_offs(&self) -> Vec<i32> {
        self.state().back_offs.clone()
    }

    /// Happens when somebody waits after a failure, once.
    pub(crate) fn on_back_off(&self, hook: impl FnOnce() + Send + 'static) {
        self.state().on_back_off = Some(Hook(Box::new(hook)));
    }

    /// Bytes of the largest commit.
    pub(crate) fn largest(&self) -> usize {
        self.state().largest
    }

    pub(crate) async fn back_off(&self, spent: &Spent) -> Trx {
        self.state().back_offs.push(spent.cause().code());
        let hook = self.state().on_back_off.take();
        if let Some(Hook(hook)) = hook {
            hook();
        }
        tokio::task::yield_now().await;
        self.transaction()
    }
}

impl Trx {
    pub(crate) async fn read_version(&self) -> Result<i64, FdbError> {
        tokio::task::yield_now().await;
        let mut state = self.world.state();
        if let Some(code) = state.read_faults.pop_front() {
            return Err(FdbError::from_code(code));
        }
        *self.version.lock().expect("one thread") = Some(state.version);
        Ok(state.version)
    }

    fn version(&self) -> i64 {
        self.version
            .lock()
            .expect("one thread")
            .expect("the version is read first")
    }

    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, FdbError> {
        tokio::task::yield_now().await;
        let state = self.world.state();
        Ok(state
            .values
            .get(key)
            .and_then(|values| at(values, self.version())))
    }

    pub(crate) async fn piece(&self, piece: &Piece) -> Result<RangePage, FdbError> {
        tokio::task::yield_now().await;
        let (state, version) = (self.world.state(), self.version());
        let range = state.values.range(piece.from.clone()..piece.to.clone());
        let live = range.filter_map(|(key, values)| Some((key.clone(), at(values, version)?)));
        let mut pairs: Vec<(Bytes, Bytes)> = live.collect();
        if piece.reverse {
            pairs.reverse();
        }
        // Small pages, so that continuation is tried all the time.
        let most = piece.entries_max.min(3);
        let more = pairs.len() > most;
        pairs.truncate(most);
        Ok(RangePage { pairs, more })
    }

    pub(crate) async fn commit(self, reads: &[Span], ops: &[Op]) -> Result<Stamp, Failed> {
        tokio::task::yield_now().await;
        let world = self.world.clone();
        let mut state = world.state();
        let fault = match is_renewal(ops) {
            true => Fault::None,
            false => state.commit_faults.pop_front().unwrap_or(Fault::None),
        };
        if let Fault::Code(code) = fault {
            return Err(self.failed(code, Vec::new()));
        }
        if let Fault::Overtaken(key) | Fault::OvertakenUnnamed(key) = &fault {
            let value = state
                .values
                .get(key)
                .and_then(|values| at(values, i64::MAX));
            state.apply(&[Op::Set(key.clone(), value.unwrap_or_default())]);
        }
        let conflicts = state.conflicts(self.version(), reads);
        if !conflicts.is_empty() {
            let named = !matches!(fault, Fault::OvertakenUnnamed(_));
            return Err(self.failed(1020, if named { conflicts } else { Vec::new() }));
        }
        match fault {
            Fault::UnknownLost => return Err(self.failed(1021, Vec::new())),
            Fault::UnknownLate => {
                state.late = Some((self.version(), reads.to_vec(), ops.to_vec()));
                return Err(self.failed(1031, Vec::new()));
            }
            _ => {}
        }
        let stamp = state.apply(ops);
        state.arrive();
        if fault == Fault::UnknownCommitted {
            return Err(self.failed(1021, Vec::new()));
        }
        Ok(stamp)
    }

    fn failed(self, code: i32, conflicts: Vec<Span>) -> Failed {
        let cause = FdbError::from_code(code);
        let error = match code {
            // The predicates of the library are not for tests.
            1051 | 1213 => TxnError::Unavailable,
            _ => of_commit(cause),
        };
        Failed {
            error,
            conflicts,
            spent: Spent::Before(super::trx::Trx::Fake(self), cause),
        }
    }
}

impl State {
    fn conflicts(&self, since: i64, reads: &[Span]) -> Vec<Span> {
        let newer = self.written.iter().filter(|(version, _)| *version > since);
        let spans: Vec<&Span> = newer.flat_map(|(_, spans)| spans).collect();
        let overlaps = |read: &&Span| spans.iter().any(|span| read.0 < span.1 && span.0 < read.1);
        reads.iter().filter(overlaps).cloned().collect()
    }

    /// A commit that was late arrives, and fails or not as any other.
    fn arrive(&mut self) {
        if let Some((version, reads, ops)) = self.late.take()
            && self.conflicts(version, &reads).is_empty()
        {
            self.apply(&ops);
        }
    }

    fn apply(&mut self, ops: &[Op]) -> Stamp {
        self.version += STEP;
        self.commits += 1;
        let mut stamp = [0; 10];
        stamp[..8].copy_from_slice(&self.version.to_be_bytes());
        let sizes = ops.iter().map(Op::lengths);
        self.largest = self
            .largest
            .max(sizes.map(|(key, value)| key + value).sum());
        let mut spans = Vec::new();
        for op in ops {
            spans.push(self.apply_op(op, &stamp));
        }
        self.written.push((self.version, spans));
        stamp
    }

    fn apply_op(&mut self, op: &Op, stamp: &Stamp) -> Span {
        let joined = |before: &[u8], after: &[u8]| Bytes::from([before, stamp, after].concat());
        let (key, value) = match op {
            Op::Set(key, value) => (key.clone(), Some(value.clone())),
            Op::Clear(key) => (key.clone(), None),
            Op::ClearRange(from, to) => {
                let version = self.version;
                for (_, values) in self.values.range_mut(from.clone()..to.clone()) {
                    values.push((version, None));
                }
                return (from.clone(), to.clone());
            }
            Op::Add(key, delta) => {
                let before = self
                    .values
                    .get(key)
                    .and_then(|values| at(values, self.version));
                (key.clone(), Some(Ledger::sum(before.as_deref(), *delta)))
            }
            Op::SetStampedKey {
                before,
                after,
                value,
            } => (joined(before, after), Some(value.clone())),
            Op::SetStampedValue { key, before, after } => {
                (key.clone(), Some(joined(before, after)))
            }
        };
        let span = (key.clone(), super::snapshot::successor(&key));
        self.values
            .entry(key)
            .or_default()
            .push((self.version, value));
        span
    }
}

/// The lease is renewed beside everything else: faults are for what a test does itself.
fn is_renewal(ops: &[Op]) -> bool {
    matches!(ops, [Op::SetStampedValue { key, .. }] if key.first() == Some(&b'n'))
}

/// The value at a version.
fn at(values: &[(i64, Option<Bytes>)], version: i64) -> Option<Bytes> {
    let past = values.iter().rev().find(|(since, _)| *since <= version);
    past.and_then(|(_, value)| value.clone())
}
