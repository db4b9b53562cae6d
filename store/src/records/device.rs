//! `d/<user>/<device>`: devices, and beside each its stored acknowledgement.

use bytes::{BufMut, Bytes};
use roadstead::limits::DEVICES_PER_USER_MAX;
use roadstead::store::{DeviceOpened, OpenDevice, StoreError};
use roadstead_proto::Position;

use crate::keys::Key;
use crate::txn::{RangeQuery, Read, Txn};

use super::codec::{Parts, finish, put_position, value};
use super::versions::{self, ListedDevice, Versions};
use super::{Device, RecordError, Scope, read, send};

const VERSION: u8 = 1;
const ACK_VERSION: u8 = 1;

/// A device's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceRecord {
    /// Unix time in ms.
    registered_ms: u64,
    /// A tombstone: the id is never used again (R13).
    removed: bool,
}

impl DeviceRecord {
    fn encode(self) -> Bytes {
        let mut value = value(VERSION, 9);
        value.put_u8(u8::from(self.removed));
        value.put_u64(self.registered_ms);
        finish(value)
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let mut parts = Parts::of(value, VERSION)?;
        let removed = match parts.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let registered_ms = parts.u64()?;
        parts.end(Self {
            registered_ms,
            removed,
        })
    }
}

/// How far a device's inbox is done with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ack {
    /// Everything up to here was acknowledged (R18).
    pub acked: Position,
    /// Everything up to here was removed by age (R25); zero once it is acknowledged.
    pub expired: Position,
}

impl Ack {
    /// Where reading begins: nothing up to here is there any more. A read that began at the front would
    /// wade through the tombstones of everything acknowledged before.
    #[must_use]
    pub fn floor(self) -> Position {
        self.acked.max(self.expired)
    }

    fn encode(self) -> Bytes {
        let mut value = value(ACK_VERSION, 32);
        put_position(&mut value, self.acked);
        if self.expired > self.acked {
            put_position(&mut value, self.expired);
        }
        finish(value)
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let mut parts = Parts::of(value, ACK_VERSION)?;
        let acked = parts.position()?;
        let expired = match value.len() {
            17 => Position::ZERO,
            _ => parts.position()?,
        };
        parts.end(Self { acked, expired })
    }
}

/// The stored acknowledgement of a device.
///
/// # Errors
/// If the record can not be read.
pub async fn load_ack<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    (user, device): Device,
    how: Read,
) -> Result<Ack, RecordError> {
    let ack = read(txn, &scope.keys.ack(user, device), how, Ack::decode).await?;
    Ok(ack.unwrap_or_default())
}

/// Writes the stored acknowledgement.
pub(crate) fn save_ack<T: Txn>(scope: &Scope<'_>, txn: &mut T, (user, id): Device, ack: Ack) {
    txn.set(&scope.keys.ack(user, id), ack.encode());
}

/// What came of opening a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// For the shard.
    pub answer: DeviceOpened,
    /// It was registered just now: its inbox is empty.
    pub is_new: bool,
}

/// Carries out [`roadstead::store::Command::OpenDevice`].
///
/// The cursor is checked here and flushed by the shard afterwards (R19): there is one door.
///
/// # Errors
/// [`StoreError::SignedOut`], [`StoreError::DeviceRemoved`], [`StoreError::DeviceLimit`],
/// [`StoreError::CursorInvalid`].
pub async fn open<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    open: &OpenDevice,
) -> Result<Opened, RecordError> {
    let device = (open.user, open.device);
    let resync = open.cursor != Position::ZERO && !scope.check_given_out(open.cursor)?;
    let versions = versions::load(scope, txn, open.user)
        .await?
        .unwrap_or_default();
    if open.issued_s < versions.valid_after_s {
        return Err(StoreError::SignedOut.into());
    }
    let is_new = versions.device(open.device).is_none();
    if is_new {
        register(scope, txn, open, versions).await?;
    }
    let ack = load_ack(scope, txn, device, Read::Serializable).await?;
    let highest_number = if open.want_highest_number {
        Some(send::highest_number(scope, txn, device).await?)
    } else {
        None
    };
    if is_new {
        scope.knowledge.learn_highest_number(device, 0);
    }
    let answer = DeviceOpened {
        generation: scope.generation,
        stored_ack: ack.acked,
        expired_through: ack.expired,
        resync,
        highest_number,
        version: version_of(scope.committed),
    };
    Ok(Opened { answer, is_new })
}

/// What of a position grows with every commit of either engine: FoundationDB's commit version, or the embedded
/// engine's stamp, which has its place.
fn version_of(committed: Position) -> u64 {
    let stamp = committed.stamp();
    stamp[..8]
        .iter()
        .fold(0, |version, byte| version << 8 | u64::from(*byte))
}

async fn register<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    open: &OpenDevice,
    mut versions: Versions,
) -> Result<(), RecordError> {
    let key = scope.keys.device(open.user, open.device);
    if read(txn, &key, Read::Serializable, DeviceRecord::decode)
        .await?
        .is_some()
    {
        // It is not in the list, so it was removed (R13).
        return Err(StoreError::DeviceRemoved.into());
    }
    if versions.devices.len() >= DEVICES_PER_USER_MAX {
        return Err(StoreError::DeviceLimit.into());
    }
    versions.devices.push(ListedDevice::new(open.device));
    versions::save(scope, txn, open.user, versions);
    let record = DeviceRecord {
        registered_ms: open.unix_ms,
        removed: false,
    };
    txn.set(&key, record.encode());
    Ok(())
}

/// Removes a device: nothing is sent to it or by it any more, its id stays used (R13). What its inbox holds is
/// cleaned away after that, by [`clean`].
///
/// # Errors
/// If a record can not be read. A device that is not there is removed already.
pub async fn remove<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    (user, id): Device,
) -> Result<bool, RecordError> {
    let Some(mut versions) = versions::load(scope, txn, user).await? else {
        return Ok(false);
    };
    if versions.device(id).is_none() {
        return Ok(false);
    }
    versions.devices.retain(|device| device.id != id);
    versions::save(scope, txn, user, versions);
    let key = scope.keys.device(user, id);
    let record = read(txn, &key, Read::Serializable, DeviceRecord::decode).await?;
    let record = DeviceRecord {
        registered_ms: record.map_or(0, |record| record.registered_ms),
        removed: true,
    };
    txn.set(&key, record.encode());
    txn.clear(&scope.keys.ack(user, id));
    let answers = scope.keys.answers(user, id);
    txn.clear_range(&answers, &answers.end_of_prefix());
    scope.knowledge.forget(&(user, id));
    Ok(true)
}

/// Keys of a removed device that one transaction cleans away at most.
const CLEANED_AT_ONCE: usize = 256;

/// Bytes of their values that are read for that.
const CLEANED_BYTES: usize = 64 * 1024;

/// Cleans away a piece of what a removed device has left; whether there is more. Should nobody get to the end of
/// it, the expiry does, which visits what got entries.
///
/// # Errors
/// If the engine can not read.
pub async fn clean<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    (user, id): Device,
) -> Result<bool, RecordError> {
    if clear_some(txn, &scope.keys.inbox(user, id)).await? {
        return Ok(true);
    }
    clean_counters(scope, txn, (user, id)).await
}

/// The same of what it was counted by, where its entries are gone.
pub(crate) async fn clean_counters<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    (user, id): Device,
) -> Result<bool, RecordError> {
    clear_some(txn, &scope.keys.held(user, id)).await
}

/// Clears a piece of a space of keys; whether there is more.
async fn clear_some<T: Txn>(txn: &mut T, space: &Key) -> Result<bool, RecordError> {
    let end = space.end_of_prefix();
    let query = RangeQuery {
        entries_max: CLEANED_AT_ONCE,
        bytes_max: CLEANED_BYTES,
        read: Read::Snapshot,
        ..RangeQuery::all(space, &end)
    };
    let page = txn.range(query).await?;
    for (key, _) in &page.pairs {
        txn.clear(key);
    }
    Ok(page.more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_are_short_until_something_expires() {
        let acked = Position::new(1, [3; 10], 4);
        let ack = Ack {
            acked,
            expired: Position::ZERO,
        };
        assert_eq!(ack.encode().len(), 17);
        assert_eq!(Ack::decode(&ack.encode()), Some(ack));
        let expired = Ack {
            acked,
            expired: Position::new(1, [3; 10], 5),
        };
        assert_eq!(Ack::decode(&expired.encode()), Some(expired));
        assert_eq!(expired.floor(), expired.expired);
        assert_eq!(Ack::decode(&expired.encode()[..20]), None);
    }
}
