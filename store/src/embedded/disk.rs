//! The database below: fjall, as it is used here.
//!
//! One tree, no compression (payloads are encrypted by the clients), reads by snapshots only: a plain get
//! or range can see a batch half applied (R8).

use std::io;
use std::path::Path;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use crate::txn::{Order, RangeQuery};

/// A write of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    /// Put the value.
    Set(Bytes),
    /// Remove the key.
    Clear,
    /// Remove a key that was written at most once in its life: the tombstone may vanish together with
    /// what it removes, where an ordinary one has to sink to the bottom of the tree (R10).
    ClearOnce,
}

/// An open database.
pub(crate) struct Disk {
    database: Database,
    tree: Keyspace,
}

/// The database as of one commit.
#[derive(Clone)]
pub(crate) struct View {
    snapshot: Snapshot,
    tree: Keyspace,
    /// The number of the last commit that it shows.
    pub(crate) stamp: u64,
}

/// A pair of a view.
pub(crate) type Pair = Result<(Bytes, Bytes), fjall::Error>;

impl Disk {
    /// Opens or creates the database.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Self, fjall::Error> {
        remove_unborn(path)?;
        let database = Database::builder(path)
            .cache_size(cache_bytes)
            .worker_threads(2)
            .manual_journal_persist(true)
            .open()?;
        let tree = database.keyspace("store", KeyspaceCreateOptions::default)?;
        Ok(Self { database, tree })
    }

    /// The database as of the last commit, whose number the caller tells. Nobody else commits.
    pub(crate) fn view(&self, stamp: u64) -> View {
        View {
            snapshot: self.database.snapshot(),
            tree: self.tree.clone(),
            stamp,
        }
    }

    /// Makes all writes durable, then visible, at once (R8).
    pub(crate) fn commit(
        &self,
        writes: impl ExactSizeIterator<Item = (Bytes, Write)>,
    ) -> Result<(), fjall::Error> {
        let batch = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), writes.len());
        let mut batch = batch.durability(Some(PersistMode::SyncData));
        for (key, write) in writes {
            match write {
                Write::Set(value) => batch.insert(&self.tree, key, value),
                Write::Clear => batch.remove(&self.tree, key),
                Write::ClearOnce => batch.remove_weak(&self.tree, key),
            }
        }
        batch.commit()
    }
}

impl View {
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, fjall::Error> {
        let value = self.snapshot.get(&self.tree, key)?;
        Ok(value.map(Bytes::from))
    }

    /// The pairs of a range, in the order asked for.
    pub(crate) fn range(&self, query: &RangeQuery<'_>) -> Box<dyn Iterator<Item = Pair>> {
        if query.from >= query.to {
            return Box::new(std::iter::empty());
        }
        let iter = self.snapshot.range(&self.tree, query.from..query.to);
        let pair = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner()?;
            Ok((Bytes::from(key), Bytes::from(value)))
        };
        match query.order {
            Order::Forward => Box::new(iter.map(pair)),
            Order::Reverse => Box::new(iter.rev().map(pair)),
        }
    }
}

/// Removes what a crash during the very first opening left behind: the database writes its version
/// last, and without it has never held anything, but would stumble over its own first journal.
fn remove_unborn(path: &Path) -> io::Result<()> {
    if path.join("version").try_exists()? {
        return Ok(());
    }
    match std::fs::remove_file(path.join("0.jnl")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match std::fs::remove_dir_all(path.join("keyspaces")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("stamp", &self.stamp)
            .finish_non_exhaustive()
    }
}
