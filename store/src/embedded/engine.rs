//! The engine proper: log, tables, stamps, and what is cached above them.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use roadstead::store::StoreError;
use roadstead_proto::Position;
use roadstead_proto::position::Stamp;

use crate::keys::{Keys, is_hot};
use crate::records::held::Count;
use crate::records::meta::{self, Meta};
use crate::records::node::{self, Lease};
use crate::records::{Knowledge, RecordError, Scope};
use crate::txn::{Read, Txn, ready};

use super::batch::{BatchTxn, Hot};
use super::checkpoint::Checkpoint;
use super::config::EmbeddedConfig;
use super::disk::Disk;
use super::error::{Failure, OpenError};
use super::log::{self, Log};
use super::small_key::SmallKey;
use super::tables::Tables;
use super::write::{Write, Writes};

/// Stamps reserved at once (R9). A crash skips what is left of a block; there are 2^64.
const STAMP_BLOCK: u64 = 1 << 20;

/// The next block is reserved while so many stamps are left.
const STAMP_RESERVE: u64 = 1 << 10;

/// A commit stamp of this engine: a counter in the bytes that FoundationDB gives its commit version.
pub(crate) fn stamp_bytes(number: u64) -> Stamp {
    let mut stamp = [0; 10];
    stamp[..8].copy_from_slice(&number.to_be_bytes());
    stamp
}

/// What is committed, for readers beside the committer.
#[derive(Debug, Clone)]
pub(crate) struct Committed(Arc<RwLock<Tables>>);

impl Committed {
    /// Nothing is published while the guard lives, so hold it for one read.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Tables> {
        // Who panicked while writing took the committer along; what was read before stays true.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything up to the last commit.
pub(crate) fn committed_end(generation: u32, tables: &Tables) -> Position {
    Position::end_of(generation, stamp_bytes(tables.stamp()))
}

/// An engine that is open and has not failed.
#[derive(Debug)]
pub(crate) struct Engine {
    disk: Disk,
    log: Log,
    log_folder: PathBuf,
    committed: Committed,
    checkpoint: Option<Checkpoint>,
    young_bytes_max: usize,
    /// Above this the log is begun anew.
    log_bytes_max: u64,
    hot: Hot,
    /// The last commit's.
    stamp: u64,
    /// Stamps below it may be used.
    ceiling: u64,
    /// What the store was born with.
    pub(crate) meta: Meta,
    /// Builds keys.
    pub(crate) keys: Keys,
    /// What is known because this engine alone commits.
    pub(crate) knowledge: Knowledge,
    /// Which node this is, and its incarnation.
    pub(crate) lease: (u16, Lease),
}

impl Engine {
    /// Opens or creates a store: what the log says goes into the database, stamps are reserved above all
    /// that were ever used, the lease is taken.
    pub(crate) fn open(config: &EmbeddedConfig) -> Result<Self, OpenError> {
        // What the database makes in it has the mode of the umask.
        log::make_folder(&config.path)?;
        let disk = Disk::open(&config.path.join("tables"), &config.limits)?;
        let log_folder = config.path.join("log");
        log::sync_parent(&config.path)?;
        let (mut tables, was_written) = replay(&disk, &log_folder)?;
        let mut hot = Hot::new(config.limits.cached_keys_max);
        let ceiling = read_ceiling(&tables)?;
        let stamp = ceiling + 1;
        let proposed = Meta {
            generation: 1,
            placement_key: config.placement_key,
        };
        let mut txn = BatchTxn::new(&tables, &mut hot, stamp_bytes(stamp));
        let meta = ready(meta::load_or_init(&mut txn, proposed))?;
        if was_written && meta_is_new(&txn) {
            // The log goes on where the database should be and is not: better no store than half of one.
            return Err(RecordError::Refused(StoreError::Corrupt).into());
        }
        let lease = ready(node::take(&mut txn, config.node))?;
        let (key, value) = ceiling_write(stamp + STAMP_BLOCK);
        let mut writes = txn.into_writes();
        writes.insert(key, value);
        let mut log = Log::start(&log_folder, ceiling, meta.placement_key)?;
        log.append(stamp, &writes)?;
        tables.publish(stamp, writes);
        hot.clear();
        let mut engine = Self {
            disk,
            log,
            log_folder,
            committed: Committed(Arc::new(RwLock::new(tables))),
            checkpoint: None,
            young_bytes_max: config.limits.young_bytes_max,
            log_bytes_max: log_bytes_max(config.limits.young_bytes_max),
            hot,
            stamp,
            ceiling: stamp + STAMP_BLOCK,
            meta,
            keys: Keys::new(meta.placement_key),
            knowledge: Knowledge::of_sole_committer(config.limits.known_devices_max),
            lease: (config.node, lease),
        };
        engine.count_inboxes()?;
        Ok(engine)
    }

    /// What inboxes hold is counted once in the life of a store that was written by a version without counters,
    /// or imported.
    fn count_inboxes(&mut self) -> Result<(), OpenError> {
        let mut count = ready(Count::begin(&mut BatchTxn::reading(&self.committed.read())))?;
        while !count.is_done() {
            let Begun {
                tables,
                hot,
                stamp,
                keys,
                generation,
                knowledge,
            } = self.begin();
            let mut txn = BatchTxn::new(&tables, hot, stamp);
            let scope = Scope {
                keys,
                generation,
                stamp,
                committed: committed_end(generation, &tables),
                next_index: 0,
                knowledge,
            };
            count = ready(count.step(&scope, &mut txn))?;
            let writes = txn.into_writes();
            drop(tables);
            self.commit(writes)?;
        }
        Ok(())
    }

    /// What is committed, now and later.
    pub(crate) fn committed(&self) -> &Committed {
        &self.committed
    }

    /// The parts that a transaction uses: there is one at a time.
    pub(crate) fn begin(&mut self) -> Begun<'_> {
        Begun {
            tables: self.committed.read(),
            hot: &mut self.hot,
            stamp: stamp_bytes(self.stamp + 1),
            keys: &self.keys,
            generation: self.meta.generation,
            knowledge: &mut self.knowledge,
        }
    }

    /// Commits what a transaction of this engine wrote: synced, then visible (R8). `false` if it wrote
    /// nothing. After an error the engine is of no use (R10).
    pub(crate) fn commit(&mut self, writes: Writes) -> Result<bool, Failure> {
        self.finish_checkpoint(false)?;
        if writes.is_empty() {
            return Ok(false);
        }
        let mut writes = writes;
        let stamp = self.stamp + 1;
        assert!(
            stamp < self.ceiling,
            "stamps come from a reserved block (R9)"
        );
        if self.ceiling - stamp < STAMP_RESERVE {
            let (key, value) = ceiling_write(stamp + STAMP_BLOCK);
            writes.insert(key, value);
        }
        self.log.append(stamp, &writes)?;
        self.write_through(&writes);
        if writes.contains_key(&Keys::stamp_ceiling()[..]) {
            self.ceiling = stamp + STAMP_BLOCK;
        }
        let mut tables = self.committed.write();
        tables.publish(stamp, writes);
        let is_large = tables.young_bytes() > self.young_bytes_max;
        drop(tables);
        self.stamp = stamp;
        if is_large || self.log.bytes() > self.log_bytes_max {
            self.begin_checkpoint()?;
        }
        Ok(true)
    }

    /// The log is begun anew above so many bytes, if that is less than usual.
    pub(crate) fn keep_log_below(&mut self, bytes: u64) {
        self.log_bytes_max = log_bytes_max(self.young_bytes_max).min(bytes);
    }

    /// Bytes that are in the log and in memory, and not yet in the database.
    pub(crate) fn young_bytes(&self) -> usize {
        self.committed.read().young_bytes()
    }

    /// Brings the hot values up to the commit.
    fn write_through(&mut self, writes: &Writes) {
        for (key, write) in writes.iter().filter(|(key, _)| is_hot(key)) {
            self.hot.insert(key.clone(), write.value().cloned());
        }
    }

    /// Sets the young writes aside, and begins to write them into the database.
    fn begin_checkpoint(&mut self) -> Result<(), Failure> {
        // The one before has had the time in which the young writes grew; if that was not enough, the
        // disk is behind, and commits have to wait for it.
        self.finish_checkpoint(true)?;
        let old = self.log.rotate(self.stamp)?;
        let frozen = self.committed.write().freeze();
        self.checkpoint = Some(Checkpoint::begin(self.disk.clone(), frozen, vec![old])?);
        Ok(())
    }

    /// A store that stops leaves no checkpoint half done: the next start has the less to read back.
    pub(crate) fn close(mut self) {
        if let Err(error) = self.finish_checkpoint(true) {
            tracing::warn!(%error, "the last checkpoint is done again at the next start");
        }
    }

    /// If a checkpoint is complete, the database is read in place of what was set aside.
    fn finish_checkpoint(&mut self, wait: bool) -> Result<(), Failure> {
        let Some(checkpoint) = &mut self.checkpoint else {
            return Ok(());
        };
        if !wait && !checkpoint.is_done() {
            return Ok(());
        }
        let checkpoint = self.checkpoint.take().expect("looked at above");
        let logs = checkpoint.finish()?;
        let view = self.disk.view();
        let thawed = self.committed.write().thaw(view);
        // Freeing a hundred thousand pairs takes a while: not under the lock.
        drop(thawed);
        log::remove(&self.log_folder, &logs)?;
        Ok(())
    }
}

/// What a transaction uses.
#[derive(Debug)]
pub(crate) struct Begun<'a> {
    pub(crate) tables: RwLockReadGuard<'a, Tables>,
    pub(crate) hot: &'a mut Hot,
    pub(crate) stamp: Stamp,
    pub(crate) keys: &'a Keys,
    pub(crate) generation: u32,
    pub(crate) knowledge: &'a mut Knowledge,
}

/// A log grows faster than what it leaves in memory, where entries come and go; its replay must stay
/// short all the same.
fn log_bytes_max(young_bytes_max: usize) -> u64 {
    8 * young_bytes_max as u64
}

fn meta_is_new(txn: &BatchTxn<'_>) -> bool {
    txn.writes().contains_key(&Keys::placement()[..])
}

/// Brings the database up to the log, and removes the log. Tells whether there was any.
///
/// Each file by itself, as it was or would have been by its checkpoint, which may have been done when the process
/// ended. What one file appends and the next one takes back must not cancel out in memory: the entry would stay in the
/// database, acknowledged and there again (R18).
fn replay(disk: &Disk, folder: &std::path::Path) -> Result<(Tables, bool), OpenError> {
    let (mut stamp, mut was_written) = (0, false);
    let mut log = log::Reader::open(folder)?;
    while log.has_files() {
        let mut tables = Tables::new(disk.view(), stamp);
        log.read_file(|record| {
            tables.publish(record.stamp, record.writes);
            was_written = true;
        })?;
        stamp = tables.stamp();
        if tables.young_bytes() > 0 {
            disk.ingest(&tables.freeze())?;
        }
    }
    log::remove(folder, log.files())?;
    Ok((Tables::new(disk.view(), stamp), was_written))
}

fn read_ceiling(tables: &Tables) -> Result<u64, OpenError> {
    let mut txn = BatchTxn::reading(tables);
    let key = Keys::stamp_ceiling();
    let value = ready(txn.get(&key, Read::Serializable)).map_err(RecordError::Txn)?;
    let Some(value) = value else {
        return Ok(0);
    };
    let bytes = <[u8; 8]>::try_from(&*value);
    let bytes = bytes.map_err(|_| RecordError::Refused(StoreError::Corrupt))?;
    Ok(u64::from_be_bytes(bytes))
}

fn ceiling_write(ceiling: u64) -> (SmallKey, Write) {
    let value = Bytes::copy_from_slice(&ceiling.to_be_bytes());
    (
        SmallKey::from(&Keys::stamp_ceiling()[..]),
        Write::Set(value),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: &std::path::Path) -> EmbeddedConfig {
        EmbeddedConfig {
            path: path.to_path_buf(),
            node: 1,
            placement_key: [7; 16],
            clock: Arc::new(|| roadstead::time::Time::from_micros(0)),
            limits: super::super::config::EmbeddedLimits::default(),
        }
    }

    fn key(name: &[u8]) -> SmallKey {
        SmallKey::from(name)
    }

    fn set(value: &'static [u8]) -> Write {
        Write::Set(Bytes::from_static(value))
    }

    /// D-F10: a process that ended between the ingestion of a file and its removal, or a store that stopped while a
    /// checkpoint ran, left two files. What the first appended and the second took away cancelled out in memory, and
    /// came back from the database: an acknowledged message below the acknowledgement, for ever, or a receipt that
    /// had been taken back.
    #[test]
    fn df10_r18_what_left_does_not_come_back_when_a_log_is_read_twice() {
        let first = Writes::from([
            (key(b"ever"), set(b"stays")),
            (key(b"gone"), set(b"acknowledged")),
        ]);
        let second = Writes::from([(key(b"gone"), Write::ClearOnce)]);
        // What of both is in the database when the process ends.
        for ingested in [&[][..], &[&first], &[&first, &second]] {
            let folder = tempfile::tempdir().expect("a folder");
            let config = config(folder.path());
            // Behind the file of a second opening, which has one record.
            for _ in 0..2 {
                Engine::open(&config).expect("opens").close();
            }
            let logs = config.path.join("log");
            let file = std::fs::read_dir(&logs).expect("a folder").next();
            let path = file.expect("one file").expect("its name").path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let stamp: u64 = stem.expect("a name").parse().expect("a stamp");
            let mut log = Log::start(&logs, stamp + 1, config.placement_key).expect("starts");
            log.append(stamp + 2, &first).expect("appends");
            log.rotate(stamp + 2).expect("rotates");
            log.append(stamp + 3, &second).expect("appends");
            let disk = Disk::open(&config.path.join("tables"), &config.limits).expect("opens");
            for writes in ingested {
                disk.ingest(writes).expect("ingests");
            }
            drop(disk);
            // The next start may end in the same place.
            let kept: Vec<_> = std::fs::read_dir(&logs)
                .expect("a folder")
                .map(|entry| entry.expect("an entry").path())
                .map(|path| (path.clone(), std::fs::read(path).expect("reads")))
                .collect();
            assert_eq!(kept.len(), 3);
            for _ in 0..2 {
                let engine = Engine::open(&config).expect("opens");
                let get = |name| engine.committed.read().get(name).expect("reads");
                assert_eq!(get(&b"gone"[..]), None, "{} ingested", ingested.len());
                assert_eq!(get(&b"ever"[..]).as_deref(), Some(&b"stays"[..]));
                engine.close();
                std::fs::remove_dir_all(&logs).expect("removes");
                std::fs::create_dir(&logs).expect("makes");
                for (path, bytes) in &kept {
                    std::fs::write(path, bytes).expect("writes");
                }
            }
        }
    }
}
