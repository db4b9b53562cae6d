//! The database below: fjall, as it is used here.
//!
//! One tree without compression: payloads are encrypted by the clients. It is written by checkpoints
//! alone: sorted runs of what has stayed in memory long enough, ingested as finished tables. What was
//! appended and acknowledged in between never comes here, and no write passes fjall's own journal and
//! memory table, which would cost several microseconds each. Reads are by snapshots only: a plain get or
//! range is not consistent with anything (R8).

use std::io;
use std::path::Path;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, Readable, Snapshot};

use crate::txn::{Order, RangeQuery};

use super::config::EmbeddedLimits;
use super::write::{Write, Writes};

/// An open database; cheap to clone, and open until the last clone is gone.
#[derive(Clone)]
pub(crate) struct Disk {
    database: Database,
    tree: Keyspace,
}

/// The database as of one moment.
#[derive(Clone)]
pub(crate) struct DiskView {
    snapshot: Snapshot,
    tree: Keyspace,
}

/// A key and what was last written under it.
pub(crate) type Pair = Result<(Bytes, Write), fjall::Error>;

impl Disk {
    /// Opens or creates the database.
    pub(crate) fn open(path: &Path, limits: &EmbeddedLimits) -> Result<Self, fjall::Error> {
        remove_unborn(path)?;
        let database = Database::builder(path)
            .cache_size(limits.block_cache_bytes)
            .max_cached_files(Some(limits.open_files_max))
            .worker_threads(1)
            .manual_journal_persist(true)
            .open()?;
        let tree = database.keyspace("store", KeyspaceCreateOptions::default)?;
        // The database syncs the folder that it makes for a tree, but not the name of that folder.
        sync_folders(path)?;
        Ok(Self { database, tree })
    }

    /// The database as of now.
    pub(crate) fn view(&self) -> DiskView {
        DiskView {
            snapshot: self.database.snapshot(),
            tree: self.tree.clone(),
        }
    }

    /// Writes a sorted run into tables of its own and registers them: all durable and visible at once
    /// when this returns, or nothing.
    pub(crate) fn ingest(&self, writes: &Writes) -> Result<(), fjall::Error> {
        let mut ingestion = self.tree.start_ingestion()?;
        for (key, write) in writes {
            match write {
                Write::Set(value) => ingestion.write(Bytes::from(key), value.clone())?,
                // A weak tombstone would vanish with the value below it, but only a key that is proven to
                // have one value may have one (R10), and a log that is replayed writes it twice.
                Write::Clear | Write::ClearOnce => ingestion.write_tombstone(Bytes::from(key))?,
            }
        }
        ingestion.finish()
    }
}

impl DiskView {
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, fjall::Error> {
        let value = self.snapshot.get(&self.tree, key)?;
        Ok(value.map(Bytes::from))
    }

    /// The pairs of a range, in the order asked for.
    pub(crate) fn range(&self, query: &RangeQuery<'_>) -> Box<dyn Iterator<Item = Pair>> {
        let iter = self.snapshot.range(&self.tree, query.from..query.to);
        let pair = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner()?;
            Ok((Bytes::from(key), Write::Set(Bytes::from(value))))
        };
        match query.order {
            Order::Forward => Box::new(iter.map(pair)),
            Order::Reverse => Box::new(iter.rev().map(pair)),
        }
    }
}

/// Makes the names of all folders durable, the given one's too.
fn sync_folders(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    std::fs::File::open(path)?.sync_all()
}

/// Removes what a crash during the very first opening left behind: the database writes its version
/// last, and without it has never held anything, but would stumble over its own first journal.
fn remove_unborn(path: &Path) -> io::Result<()> {
    if path.join("version").try_exists()? {
        return Ok(());
    }
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(std::fs::remove_file(path.join("0.jnl")))?;
    gone(std::fs::remove_dir_all(path.join("keyspaces")))
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for DiskView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskView").finish_non_exhaustive()
    }
}
