//! What a transaction reads: the cluster as of one version, each key and range fetched once.
//!
//! All reads are the library's snapshot reads. What belongs to the read set of a commit is told to the
//! library when the commit is made, so that nothing else can conflict (R14): a rehearsal or a command
//! that was taken back leaves no trace.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use ::foundationdb::FdbError;
use bytes::{Bytes, BytesMut};
use roadstead_proto::position::Stamp;

use crate::txn::{Order, RangePage, TxnError};

use super::error::of_read;
use super::trx::{Piece, Trx};

/// The stamp of everything that a read version shows: commits of that version and before.
pub(crate) fn stamp_of_version(version: i64) -> Stamp {
    let mut stamp = [0xff; 10];
    stamp[..8].copy_from_slice(&version.to_be_bytes());
    stamp
}

/// See the [module](self).
pub(crate) struct Snapshot {
    trx: Trx,
    version: i64,
    values: RefCell<HashMap<Bytes, Option<Bytes>>>,
    pieces: RefCell<HashMap<Piece, RangePage>>,
    failure: Cell<Option<FdbError>>,
    fetched: Cell<u64>,
}

impl Snapshot {
    /// Takes the read version.
    pub(crate) async fn of(trx: Trx) -> Result<Self, (Trx, FdbError)> {
        let version = match trx.read_version().await {
            Ok(version) => version,
            Err(error) => return Err((trx, error)),
        };
        Ok(Self {
            trx,
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

    /// The read version.
    pub(crate) fn version(&self) -> u64 {
        self.version.unsigned_abs()
    }

    /// The transaction below, to be committed or reset.
    pub(crate) fn into_trx(self) -> Trx {
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

    fn fail(&self, error: FdbError) -> TxnError {
        self.failure.set(Some(error));
        of_read(error)
    }

    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TxnError> {
        if let Some(value) = self.values.borrow().get(key) {
            return Ok(value.clone());
        }
        self.fetched.set(self.fetched.get() + 1);
        let value = self.trx.get(key).await.map_err(|error| self.fail(error))?;
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
        let page = self
            .trx
            .piece(&piece)
            .await
            .map_err(|error| self.fail(error))?;
        self.pieces.borrow_mut().insert(piece, page.clone());
        Ok(page)
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
