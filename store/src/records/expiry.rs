//! `x/<slot>/<day>/<user>/<device>`: which devices got entries on which day, and the job that removes
//! entries by age (R25).
//!
//! # Age
//! Time is the store's own: the newest minute that was stamped ([`minutes`]). An entry goes once a minute
//! that was stamped after it lies [`KEPT_DAYS`] behind the newest one. So it is at least that old, and a
//! clock that nobody agrees with removes nothing.
//!
//! # Notes
//! The job visits the devices that have a note. A note bears the day of the minute that was stamped last
//! when the entry was written, as far as the writer knows: it may know of one a day older at most, because
//! every node stamps, and thereby learns, every minute. So the job has to
//! visit notes up to the day of its cut, and may drop those that are more than a day older than that: all
//! entries that they can stand for lie at or below the cut.

use bytes::Bytes;
use roadstead::store::StoreError;
use roadstead_proto::Position;

use crate::keys::{Key, Keys, expiry_parts};
use crate::txn::{RangeQuery, Read, Txn};

use super::device::{load_ack, save_ack};
use super::{Device, RecordError, Scope, minutes, position_of, versions};

/// How long entries are kept, in days.
pub const KEPT_DAYS: u32 = 30;

/// Entries that one transaction of the job removes at most.
const STEP_ENTRIES: usize = 512;

const MINUTES_PER_DAY: u32 = 24 * 60;
const MS_PER_MINUTE: u64 = 60_000;

/// Where the job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    cut: Position,
    cut_day: u32,
    from: Key,
    done: bool,
    /// Entries removed so far.
    pub removed: u64,
}

impl Progress {
    /// Whether there is nothing left to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }
}

/// The minute of a Unix time.
#[must_use]
pub fn minute_of(unix_ms: u64) -> u32 {
    u32::try_from(unix_ms / MS_PER_MINUTE).unwrap_or(u32::MAX)
}

/// Notes that a device gets an entry, once a day as far as is known.
pub(crate) async fn note<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    device: Device,
) -> Result<(), RecordError> {
    let day = newest_minute(scope, txn).await? / MINUTES_PER_DAY;
    if scope.knowledge.is_first_of_day(device, day) {
        txn.set(&scope.keys.expiry(day, device.0, device.1), Bytes::new());
    }
    Ok(())
}

/// The minute that was stamped last, 0 before the first: known, or read once in the life of what knows it.
async fn newest_minute<T: Txn>(scope: &mut Scope<'_>, txn: &mut T) -> Result<u32, RecordError> {
    if let Some(minute) = scope.knowledge.minute() {
        return Ok(minute);
    }
    let newest = minutes::last_at_or_before(txn, u32::MAX, Read::Snapshot).await?;
    let minute = newest.map_or(0, |(minute, _)| minute);
    scope.knowledge.learn_minute(minute);
    Ok(minute)
}

/// Finds where to cut: the newest stamp of a minute at least [`KEPT_DAYS`] before the newest one, of this
/// generation.
///
/// # Errors
/// If the minutes can not be read.
pub async fn begin<T: Txn>(scope: &Scope<'_>, txn: &mut T) -> Result<Progress, RecordError> {
    let newest = minutes::last_at_or_before(txn, u32::MAX, Read::Serializable).await?;
    let now = newest.map_or(0, |(minute, _)| minute);
    let stamped = match now.checked_sub(KEPT_DAYS * MINUTES_PER_DAY) {
        Some(minute) => minutes::last_at_or_before(txn, minute, Read::Serializable).await?,
        None => None,
    };
    let cut = stamped.filter(|(_, position)| position.generation() == scope.generation);
    if let Some((minute, _)) = cut {
        minutes::forget_before(txn, minute);
    }
    let (cut_minute, cut) = cut.unwrap_or_default();
    Ok(Progress {
        cut,
        cut_day: cut_minute / MINUTES_PER_DAY,
        from: Keys::expiry_day(0, 0),
        done: cut == Position::ZERO,
        removed: 0,
    })
}

/// Does a piece of the job in one transaction.
///
/// # Errors
/// If a record can not be read.
pub async fn step<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    progress: Progress,
) -> Result<Progress, RecordError> {
    let to = Keys::expiry_day(u16::MAX, u32::MAX).end_of_prefix();
    let query = RangeQuery {
        read: Read::Snapshot,
        ..RangeQuery::all(&progress.from, &to).limit(1)
    };
    let page = txn.range(query).await?;
    let Some((note, _)) = page.pairs.first() else {
        return Ok(Progress {
            done: true,
            ..progress
        });
    };
    let (slot, day, user, device) = expiry_parts(note).ok_or(StoreError::Corrupt)?;
    if day > progress.cut_day {
        // The rest of this slot is younger.
        let from = Keys::expiry_day(slot, u32::MAX).end_of_prefix();
        return Ok(Progress { from, ..progress });
    }
    let (removed, more) = remove_through(scope, txn, (user, device), progress.cut).await?;
    let removed = progress.removed + removed;
    if more {
        return Ok(Progress {
            removed,
            ..progress
        });
    }
    if day + 1 < progress.cut_day {
        txn.clear(note);
    }
    Ok(Progress {
        from: scope.keys.expiry(day, user, device).successor(),
        removed,
        ..progress
    })
}

/// Removes the oldest entries of a device up to the cut, and notes beside its ack how far.
async fn remove_through<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    (user, id): Device,
    cut: Position,
) -> Result<(u64, bool), RecordError> {
    let listed = versions::load(scope, txn, user).await?;
    if listed.is_none_or(|versions| versions.device(id).is_none()) {
        return Ok((0, false));
    }
    let mut ack = load_ack(scope, txn, (user, id), Read::Serializable).await?;
    if ack.floor() >= cut {
        return Ok((0, false));
    }
    let from = scope.keys.entry(user, id, ack.floor()).successor();
    let to = scope.keys.entry(user, id, cut).successor();
    let query = RangeQuery {
        read: Read::Snapshot,
        ..RangeQuery::all(&from, &to).limit(STEP_ENTRIES)
    };
    let page = txn.range(query).await?;
    let Some((last, _)) = page.pairs.last() else {
        return Ok((0, false));
    };
    ack.expired = position_of(last)?;
    let keys: Vec<Bytes> = page.pairs.iter().map(|(key, _)| key.clone()).collect();
    let to = scope.keys.entry(user, id, ack.expired).successor();
    txn.clear_range_known(&from, &to, &keys);
    save_ack(scope, txn, (user, id), ack);
    let removed = u64::try_from(keys.len()).unwrap_or(u64::MAX);
    Ok((removed, page.more))
}
