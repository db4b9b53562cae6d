//! The engine proper: an open database, its stamps, and what is cached above it.

use roadstead::store::StoreError;
use roadstead_proto::Position;
use roadstead_proto::position::Stamp;

use crate::keys::Keys;
use crate::records::meta::{self, Meta};
use crate::records::node::{self, Lease};
use crate::records::{Knowledge, RecordError};
use crate::txn::{Read, Txn, TxnError, ready};

use super::batch::{BatchTxn, Hot};
use super::config::EmbeddedConfig;
use super::disk::{Disk, View};
use super::error::OpenError;

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

/// An engine that is open and has not failed.
#[derive(Debug)]
pub(crate) struct Engine {
    disk: Disk,
    hot: Hot,
    /// As of the last commit.
    view: View,
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
    /// Opens or creates the database, reserves stamps above all that were ever used, takes the lease.
    pub(crate) fn open(config: &EmbeddedConfig) -> Result<Self, OpenError> {
        let disk = Disk::open(&config.path, config.limits.block_cache_bytes)?;
        let mut hot = Hot::new(config.limits.cached_keys_max);
        let mut view = disk.view(0);
        let ceiling = read_ceiling(&view)?;
        // Stamps below the ceiling were used or never will be.
        view.stamp = ceiling;
        let proposed = Meta {
            generation: 1,
            placement_key: config.placement_key,
        };
        let mut txn = BatchTxn::new(&view, &mut hot, stamp_bytes(ceiling + 1));
        let meta = ready(meta::load_or_init(&mut txn, proposed))?;
        let lease = ready(node::take(&mut txn, config.node))?;
        set_ceiling(&mut txn, ceiling + STAMP_BLOCK);
        let (writes, _) = txn.into_writes();
        disk.commit(writes.into_iter())?;
        hot.clear();
        let stamp = ceiling + 1;
        Ok(Self {
            view: disk.view(stamp),
            disk,
            hot,
            ceiling: ceiling + STAMP_BLOCK,
            meta,
            keys: Keys::new(meta.placement_key),
            knowledge: Knowledge::of_sole_committer(config.limits.known_devices_max),
            lease: (config.node, lease),
        })
    }

    /// The database as of the last commit.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Everything up to here is committed and visible.
    pub(crate) fn committed(&self) -> Position {
        committed(self.meta.generation, &self.view)
    }

    /// Begins the one transaction at a time, beside the parts that its commands use.
    pub(crate) fn begin(&mut self) -> (BatchTxn<'_>, Stamp, &Keys, &mut Knowledge) {
        let stamp = stamp_bytes(self.view.stamp + 1);
        let txn = BatchTxn::new(&self.view, &mut self.hot, stamp);
        (txn, stamp, &self.keys, &mut self.knowledge)
    }

    /// Commits what a transaction of this engine wrote; nothing, if it wrote nothing. After an error the
    /// engine is of no use (R10).
    pub(crate) fn commit(&mut self, writes: Writes) -> Result<bool, fjall::Error> {
        let mut writes = writes;
        if writes.is_empty() {
            return Ok(false);
        }
        let stamp = self.view.stamp + 1;
        assert!(
            stamp < self.ceiling,
            "stamps come from a reserved block (R9)"
        );
        let raised = (self.ceiling - stamp < STAMP_RESERVE).then(|| stamp + STAMP_BLOCK);
        if let Some(ceiling) = raised {
            let value = bytes::Bytes::copy_from_slice(&ceiling.to_be_bytes());
            writes.insert(Keys::stamp_ceiling().into(), super::disk::Write::Set(value));
        }
        self.write_through(&writes);
        self.disk.commit(writes.into_iter())?;
        self.view = self.disk.view(stamp);
        self.ceiling = raised.unwrap_or(self.ceiling);
        Ok(true)
    }

    /// Brings the hot values up to the commit. If it fails, the engine is dropped and they with it.
    fn write_through(&mut self, writes: &Writes) {
        for (key, write) in writes.iter().filter(|(key, _)| crate::keys::is_hot(key)) {
            let value = match write {
                super::disk::Write::Set(value) => Some(value.clone()),
                super::disk::Write::Clear | super::disk::Write::ClearOnce => None,
            };
            self.hot.insert(key.clone(), value);
        }
    }
}

/// The writes of a transaction, in order of keys.
pub(crate) type Writes = std::collections::BTreeMap<bytes::Bytes, super::disk::Write>;

/// Everything that a view shows.
pub(crate) fn committed(generation: u32, view: &View) -> Position {
    Position::end_of(generation, stamp_bytes(view.stamp))
}

fn read_ceiling(view: &View) -> Result<u64, OpenError> {
    let mut txn = BatchTxn::reading(view);
    let value =
        ready(txn.get(&Keys::stamp_ceiling(), Read::Serializable)).map_err(RecordError::Txn)?;
    match value {
        None => Ok(0),
        Some(value) => match <[u8; 8]>::try_from(&*value) {
            Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
            Err(_) => Err(RecordError::Refused(StoreError::Corrupt).into()),
        },
    }
}

fn set_ceiling(txn: &mut BatchTxn<'_>, ceiling: u64) {
    let value = bytes::Bytes::copy_from_slice(&ceiling.to_be_bytes());
    txn.set(&Keys::stamp_ceiling(), value);
}

impl From<TxnError> for OpenError {
    fn from(error: TxnError) -> Self {
        RecordError::Txn(error).into()
    }
}
