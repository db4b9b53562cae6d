//! `t/<minute>`: which stamp belongs to which minute, so that age is told by the store's own order and
//! not by comparing clocks (R25).

use bytes::{BufMut, Bytes};
use roadstead::store::StoreError;
use roadstead_proto::Position;

use crate::keys::Keys;
use crate::txn::{Order, RangeQuery, Read, Txn};

use super::codec::{Parts, finish, value};
use super::{RecordError, Scope};

const VERSION: u8 = 1;

/// Minutes of a day.
pub const MINUTES_PER_DAY: u32 = 24 * 60;

/// A clock may run ahead of the last minute stamped by so much before others have to agree.
pub const MINUTES_AHEAD_MAX: u32 = 10;

/// What came of stamping a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamped {
    /// It has a stamp, now or since before.
    Yes,
    /// The clock is behind the last minute, or too far ahead of it and nobody agreed.
    Refused {
        /// The last minute.
        last: u32,
    },
}

/// Notes the stamp of this commit for a minute.
///
/// # Errors
/// If the last minute can not be read.
pub async fn stamp<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    minute: u32,
    agreed: bool,
) -> Result<Stamped, RecordError> {
    if let Some((last, _)) = last_at_or_before(txn, u32::MAX, Read::Serializable).await? {
        scope.knowledge.learn_minute(last);
        if minute == last {
            return Ok(Stamped::Yes);
        }
        if minute < last || (minute - last > MINUTES_AHEAD_MAX && !agreed) {
            return Ok(Stamped::Refused { last });
        }
    }
    let index = scope.take_index()?;
    let mut prefix = value(VERSION, 4);
    prefix.put_u32(scope.generation);
    let prefix: Bytes = finish(prefix);
    txn.set_versionstamped_value(&Keys::minute(minute), &prefix, index, &[]);
    scope.knowledge.learn_minute(minute);
    Ok(Stamped::Yes)
}

/// A node that holds the only lease is all that could agree on its clock: a jump is refused once, and
/// believed when the next call confirms it (R25).
#[derive(Debug, Default)]
pub struct Doubt(Option<u32>);

impl Doubt {
    /// Whether this minute confirms the one that was refused before it.
    #[must_use]
    pub fn confirms(&self, minute: u32) -> bool {
        let goes_on = |before: u32| before..=before.saturating_add(MINUTES_AHEAD_MAX);
        self.0
            .is_some_and(|before| goes_on(before).contains(&minute))
    }

    /// What came of this minute.
    pub fn note(&mut self, minute: u32, stamped: Stamped) {
        let is_refused = matches!(stamped, Stamped::Refused { .. });
        self.0 = is_refused.then_some(minute);
    }
}

/// The newest stamped minute that is not after `minute`, and its position.
///
/// # Errors
/// If it can not be read.
pub async fn last_at_or_before<T: Txn>(
    txn: &mut T,
    minute: u32,
    how: Read,
) -> Result<Option<(u32, Position)>, RecordError> {
    let from = Keys::minute(0);
    let to = Keys::minute(minute).successor();
    let query = RangeQuery {
        order: Order::Reverse,
        read: how,
        ..RangeQuery::all(&from, &to).limit(1)
    };
    match txn.range(query).await?.pairs.first() {
        None => Ok(None),
        Some((key, value)) => Ok(Some(decode(key, value).ok_or(StoreError::Corrupt)?)),
    }
}

/// Minutes that are looked at in one go: more than two days of them.
const THINNED_AT_ONCE: usize = 4_096;

/// Leaves one minute a day of those before this one, the first: what is kept longer than entries are is told by
/// the day.
///
/// # Errors
/// If the minutes can not be read.
pub async fn thin_before<T: Txn>(txn: &mut T, minute: u32) -> Result<(), RecordError> {
    let (from, to) = (Keys::minute(0), Keys::minute(minute));
    let query = RangeQuery {
        order: Order::Reverse,
        read: Read::Snapshot,
        ..RangeQuery::all(&from, &to).limit(THINNED_AT_ONCE)
    };
    let page = txn.range(query).await?;
    let day_of = |key: &[u8]| minute_of_key(key).map(|minute| minute / MINUTES_PER_DAY);
    for pair in page.pairs.windows(2) {
        // From the newest on: an earlier one of the same day follows.
        let [(later, _), (earlier, _)] = pair else {
            continue;
        };
        if day_of(later) == day_of(earlier) {
            txn.clear(later);
        }
    }
    Ok(())
}

fn minute_of_key(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(3..)?.try_into().ok()?))
}

fn decode(key: &[u8], value: &[u8]) -> Option<(u32, Position)> {
    let minute = minute_of_key(key)?;
    let mut parts = Parts::of(value, VERSION)?;
    let position = parts.position()?;
    parts.end((minute, position))
}
