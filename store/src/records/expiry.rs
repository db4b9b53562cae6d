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
//! entries that they can stand for lie at or below the cut. It drops them in the commit that applies the cut.
//! A clock that jumps by days, with a write under way, makes a note older than that: so a note whose device has
//! something above the cut is not dropped, but goes on as one of the day of the cut.
//!
//! # Work
//! A step does no more than its [`Budget`], whatever there is to do, and reads what it does not have to change
//! without a claim to it: most devices have long acknowledged what lies below the cut. Who runs the job runs it once
//! for each day of the cut ([`Progress::day`]), so that a note is visited three times in its life and not at each run, and every other day while something waits.

use bytes::Bytes;
use roadstead::limits::ENTRY_BYTES;
use roadstead::store::{KnownEntry, StoreError};
use roadstead_proto::Position;

use crate::keys::{Key, Keys, expiry_parts};
use crate::txn::{RangeQuery, Read, Txn};

use super::device::{self, load_ack, save_ack};
use super::minutes::MINUTES_PER_DAY;
use super::{Device, RecordError, Scope, flush, inbox, minutes, position_of, versions};

/// How long entries are kept, in days.
pub const KEPT_DAYS: u32 = 30;

/// What one step of the job may cost.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Notes visited.
    pub notes: usize,
    /// Entries removed.
    pub entries: usize,
    /// Bytes of entries read to remove them.
    pub bytes: usize,
}

impl Budget {
    /// For an engine that evaluates the job between other commands: a fraction of a batch.
    pub const OF_A_BATCH: Self = Self {
        notes: 128,
        entries: 256,
        bytes: 64 * 1024,
    };

    /// For one where other transactions meet it: fewer devices, fewer conflicts.
    pub const OF_A_TRANSACTION: Self = Self {
        notes: 32,
        entries: 256,
        bytes: 256 * 1024,
    };
}

/// Notes read at once: those of one slot are few on most days.
const PAGE_NOTES: usize = 16;

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
    /// Notes visited so far.
    pub visited: u64,
}

impl Progress {
    /// Whether there is nothing left to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The day of the cut, counted from the Unix epoch; 0 if there is none.
    #[must_use]
    pub fn day(&self) -> u32 {
        self.cut_day
    }

    /// What came of it.
    #[must_use]
    pub fn result(&self) -> Expired {
        Expired {
            removed: self.removed,
            visited: self.visited,
            day: self.cut_day,
        }
    }
}

/// What came of a run of the job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Entries removed.
    pub removed: u64,
    /// Notes visited.
    pub visited: u64,
    /// The day of the cut, counted from the Unix epoch; 0 if there was none.
    pub day: u32,
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
/// generation. There is nothing to do if that lies on `day_done` or before it.
///
/// # Errors
/// If the minutes can not be read.
pub async fn begin<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    day_done: Option<u32>,
) -> Result<Progress, RecordError> {
    let newest = minutes::last_at_or_before(txn, u32::MAX, Read::Serializable).await?;
    let now = newest.map_or(0, |(minute, _)| minute);
    let stamped = match now.checked_sub(KEPT_DAYS * MINUTES_PER_DAY) {
        Some(minute) => minutes::last_at_or_before(txn, minute, Read::Serializable).await?,
        None => None,
    };
    let cut = stamped.filter(|(_, position)| position.generation() == scope.generation);
    let (cut_minute, cut) = cut.unwrap_or_default();
    let cut_day = cut_minute / MINUTES_PER_DAY;
    let done = cut == Position::ZERO || day_done.is_some_and(|day| cut_day <= day);
    if !done {
        minutes::thin_before(txn, cut_minute).await?;
    }
    Ok(Progress {
        cut,
        cut_day,
        from: Keys::expiry_day(0, 0),
        done,
        removed: 0,
        visited: 0,
    })
}

/// Does a piece of the job in one transaction.
///
/// # Errors
/// If a record can not be read.
pub async fn step<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    mut progress: Progress,
    mut budget: Budget,
) -> Result<Progress, RecordError> {
    // A slot without an old note costs a look, which is one of the budget too.
    while budget.notes > 0 && !progress.done {
        budget.notes -= 1;
        let to = Keys::expiry_day(u16::MAX, u32::MAX).end_of_prefix();
        let query = RangeQuery {
            read: Read::Snapshot,
            ..RangeQuery::all(&progress.from, &to).limit(PAGE_NOTES.min(budget.notes.max(1)))
        };
        let page = txn.range(query).await?;
        progress.done = page.pairs.is_empty();
        for (note, _) in &page.pairs {
            let (slot, day, user, device) = expiry_parts(note).ok_or(StoreError::Corrupt)?;
            if day > progress.cut_day {
                // The rest of this slot is younger.
                progress.from = Keys::expiry_day(slot, u32::MAX).end_of_prefix();
                break;
            }
            progress.visited += 1;
            budget.notes = budget.notes.saturating_sub(1);
            let removed = remove_through(scope, txn, (user, device), progress.cut, &mut budget);
            let (removed, more) = removed.await?;
            progress.removed += removed;
            if more {
                // The rest of this device with the next step.
                return Ok(progress);
            }
            if day + 1 < progress.cut_day {
                txn.clear(note);
                let above = holds_above(scope, txn, (user, device), progress.cut, &mut budget);
                if above.await? {
                    let later = scope.keys.expiry(progress.cut_day, user, device);
                    txn.set(&later, Bytes::new());
                }
            }
            progress.from = scope.keys.expiry(day, user, device).successor();
        }
    }
    Ok(progress)
}

/// Whether an inbox holds something that is younger than the cut.
async fn holds_above<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    (user, device): Device,
    cut: Position,
    budget: &mut Budget,
) -> Result<bool, RecordError> {
    let from = scope.keys.entry(user, device, cut).successor();
    let to = scope.keys.inbox(user, device).end_of_prefix();
    let query = RangeQuery {
        read: Read::Snapshot,
        ..RangeQuery::all(&from, &to).limit(1)
    };
    let page = txn.range(query).await?;
    let first = page.pairs.first();
    budget.bytes = budget
        .bytes
        .saturating_sub(first.map_or(0, |(_, value)| value.len()));
    Ok(first.is_some())
}

/// Removes the oldest entries of a device up to the cut, and notes beside its ack how far. Of a device that was
/// removed, all of them. Whether there are more.
async fn remove_through<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    device: Device,
    cut: Position,
    budget: &mut Budget,
) -> Result<(u64, bool), RecordError> {
    // A look without a claim: of most devices there is nothing to remove.
    let mut ack = load_ack(scope, txn, device, Read::Snapshot).await?;
    if ack.floor() >= cut {
        return Ok((0, false));
    }
    if budget.entries == 0 || budget.bytes == 0 {
        return Ok((0, true));
    }
    let (user, id) = device;
    let from = scope.keys.entry(user, id, ack.floor()).successor();
    let to = scope.keys.entry(user, id, cut).successor();
    let query = RangeQuery {
        entries_max: budget.entries,
        bytes_max: budget.bytes,
        read: Read::Snapshot,
        ..RangeQuery::all(&from, &to)
    };
    let page = txn.range(query).await?;
    let Some((last, _)) = page.pairs.last() else {
        return Ok((0, false));
    };
    let last = position_of(last)?;
    ack = load_ack(scope, txn, device, Read::Serializable).await?;
    let listed = versions::load(scope, txn, user).await?;
    let listed = listed.and_then(|versions| versions.device(id).copied());
    if listed.is_some() && ack.floor() >= last {
        // Acknowledged since that look.
        return Ok((0, true));
    }
    let mut entries = Vec::with_capacity(page.pairs.len());
    for (key, value) in &page.pairs {
        budget.bytes = budget.bytes.saturating_sub(value.len());
        let cursor = position_of(key)?;
        entries.push(match inbox::decode(value.clone()) {
            Some(body) => KnownEntry::of(user, cursor, &body),
            None => unreadable(cursor, value.len()),
        });
    }
    budget.entries -= page.pairs.len().min(budget.entries);
    let keys: Vec<Bytes> = page.pairs.iter().map(|(key, _)| key.clone()).collect();
    let end = scope.keys.entry(user, id, last).successor();
    txn.clear_range_known(&from, &end, &keys);
    if let Some(listed) = listed {
        ack.expired = last;
        save_ack(scope, txn, device, ack);
        flush::take(scope, txn, device, listed, &entries).await?;
    }
    let mut more = page.more;
    if listed.is_none() && !more {
        more = device::clean_counters(scope, txn, (user, id)).await?;
    }
    let removed = u64::try_from(keys.len()).unwrap_or(u64::MAX);
    Ok((removed, more))
}

/// What is counted off for an entry that says nothing: it was a message, if it counts for anything.
fn unreadable(cursor: Position, length: usize) -> KnownEntry {
    let bytes = ENTRY_BYTES + length;
    KnownEntry {
        cursor,
        receipt: None,
        is_gap: false,
        bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
    }
}
