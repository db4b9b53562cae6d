//! What a transaction reads: the cluster as of one version, each key and range fetched once.
//!
//! All reads are the library's snapshot reads. What belongs to the read set of a commit is told to the
//! library when the commit is made, so that nothing else can conflict (R14): a rehearsal or a command
//! that was taken back leaves no trace.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use ::foundationdb::options::StreamingMode;
use ::foundationdb::{FdbError, FdbValues, KeySelector, RangeOption, Transaction};
use bytes::{Bytes, BytesMut};
use roadstead_proto::position::Stamp;

use crate::txn::{Order, RangePage, TxnError};

use super::error::of_read;

/// The stamp of everything that a read version shows: commits of that version and before.
pub(crate) fn stamp_of_version(version: i64) -> Stamp {
    let mut stamp = [0xff; 10];
    stamp[..8].copy_from_slice(&version.to_be_bytes());
    stamp
}

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
pub(crate) struct Snapshot {
    trx: Transaction,
    prefix: Bytes,
    version: i64,
    values: RefCell<HashMap<Bytes, Option<Bytes>>>,
    pieces: RefCell<HashMap<Piece, RangePage>>,
    failure: Cell<Option<FdbError>>,
    fetched: Cell<u64>,
}

impl Snapshot {
    /// Takes the read version.
    pub(crate) async fn of(
        trx: Transaction,
        prefix: &Bytes,
    ) -> Result<Self, (Transaction, FdbError)> {
        let version = match trx.get_read_version().await {
            Ok(version) => version,
            Err(error) => return Err((trx, error)),
        };
        Ok(Self {
            trx,
            prefix: prefix.clone(),
            version,
            values: RefCell::default(),
            pieces: RefCell::default(),
            failure: Cell::new(None),
            fetched: Cell::new(0),
        })
    }

    /// The stamp of everything that it shows.
    pub(crate) fn stamp(&self) -> Stamp {
        stamp_of_version(self.version)
    }

    /// The deployment's prefix.
    pub(crate) fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// The transaction below.
    pub(crate) fn transaction(&self) -> &Transaction {
        &self.trx
    }

    /// The transaction below, to be committed or reset.
    pub(crate) fn into_transaction(self) -> Transaction {
        self.trx
    }

    /// What went wrong with a read, for the library's rules of backing off.
    pub(crate) fn failure(&self) -> Option<FdbError> {
        self.failure.get()
    }

    /// How often the cluster was asked.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched.get()
    }

    /// A key of the deployment as the cluster knows it.
    pub(crate) fn full(&self, key: &[u8]) -> BytesMut {
        let mut full = BytesMut::with_capacity(self.prefix.len() + key.len() + 16);
        full.extend_from_slice(&self.prefix);
        full.extend_from_slice(key);
        full
    }

    fn fail(&self, error: FdbError) -> TxnError {
        self.failure.set(Some(error));
        of_read(error)
    }

    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TxnError> {
        if let Some(value) = self.values.borrow().get(key) {
            return Ok(value.clone());
        }
        self.fetched.set(self.fetched.get() + 1);
        let fetched = self.trx.get(&self.full(key), true).await;
        let value = fetched.map_err(|error| self.fail(error))?;
        let value = value.map(|value| Bytes::copy_from_slice(&value));
        let key = Bytes::copy_from_slice(key);
        self.values.borrow_mut().insert(key, value.clone());
        Ok(value)
    }

    /// At most so many pairs of a range, or fewer with `more` set.
    pub(crate) async fn piece(&self, piece: Piece) -> Result<RangePage, TxnError> {
        if let Some(page) = self.pieces.borrow().get(&piece) {
            return Ok(page.clone());
        }
        self.fetched.set(self.fetched.get() + 1);
        let (from, to) = (self.full(&piece.from), self.full(&piece.to));
        let option = RangeOption {
            begin: KeySelector::first_greater_or_equal(&from[..]),
            end: KeySelector::first_greater_or_equal(&to[..]),
            limit: (piece.entries_max < i32::MAX as usize).then_some(piece.entries_max),
            target_bytes: piece.bytes_max.min(i32::MAX as usize),
            mode: StreamingMode::WantAll,
            reverse: piece.reverse,
            ..RangeOption::default()
        };
        let fetched = self.trx.get_range(&option, 1, true).await;
        let page = self.page(&fetched.map_err(|error| self.fail(error))?);
        self.pieces.borrow_mut().insert(piece, page.clone());
        Ok(page)
    }

    fn page(&self, values: &FdbValues) -> RangePage {
        let skip = self.prefix.len();
        let pairs = values.iter().map(|pair| {
            let key = Bytes::copy_from_slice(&pair.key()[skip..]);
            (key, Bytes::copy_from_slice(pair.value()))
        });
        RangePage {
            pairs: pairs.collect(),
            more: values.more(),
        }
    }
}

/// The piece behind what a page holds; `None` if it holds all.
pub(crate) fn next_piece(piece: &Piece, page: &RangePage) -> Option<Piece> {
    let (last, _) = page.pairs.last().filter(|_| page.more)?;
    let mut next = piece.clone();
    if piece.reverse {
        next.to = last.clone();
    } else {
        next.from = successor(last);
    }
    Some(next)
}

/// The key directly behind another.
pub(crate) fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.extend_from_slice(&[0]);
    next.freeze()
}

/// Whether the last pairs come first.
pub(crate) fn is_reverse(order: Order) -> bool {
    matches!(order, Order::Reverse)
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
