//! `d/<user>/<device>/n`: what an inbox holds, and `…/n/<sender>`: what of it is one sender's (R21).
//!
//! A counter is one number that is added to and never read by a send (R14): messages above bit 40, their bytes
//! below. So an inbox is never counted by reading it, and two devices that write to it do not conflict. An append
//! adds, a flush and the expiry take away what they remove.
//!
//! Counting every sender of every inbox would cost a message another write for nothing, because nearly all
//! inboxes are nearly empty. An inbox that holds a twentieth of what it may is *crowded*: its device is flagged so in
//! the list that every send reads anyway, and from then on its senders are counted one by one, until it
//! is empty again. A share is soft: what lay there before is in none.

use std::collections::BTreeMap;

use bytes::Bytes;
use roadstead::store::{InboxLimits, KnownEntry, StoreError};
use roadstead_proto::UserId;

use crate::keys::{Key, Keys, all_inboxes, entry_device};
use crate::txn::{RangeQuery, Read, Txn};

use super::device::{Ack, load_ack};
use super::{Device, RecordError, Scope, inbox, position_of, read};

/// Bits of the bytes: a tebibyte.
const BYTES_BITS: u32 = 40;

/// The bit of a share whose owner has been told, by a Gap, that it is used up.
const TOLD: u64 = 1 << 63;

/// Messages and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Messages.
    pub entries: u64,
    /// Their bytes, as [`roadstead::store::EntryBody::counted_bytes`] has them.
    pub bytes: u64,
}

/// What one sender has in a crowded inbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    held: Held,
    /// The device has its Gap for what this sender had no room for.
    told: bool,
}

impl Held {
    /// One message of so many bytes; nothing for what does not count.
    #[must_use]
    pub fn of(bytes: u32) -> Self {
        Self {
            entries: u64::from(bytes > 0),
            bytes: bytes.into(),
        }
    }

    /// What these entries count for together.
    pub(crate) fn of_all<'a>(entries: impl IntoIterator<Item = &'a KnownEntry>) -> Self {
        let each = entries.into_iter().map(|entry| Self::of(entry.bytes));
        each.fold(Self::default(), Self::and)
    }

    /// Whether it is more than that.
    #[must_use]
    pub fn is_above(self, limits: InboxLimits) -> bool {
        limits.is_above(self.entries, self.bytes)
    }

    fn and(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            bytes: self.bytes + other.bytes,
        }
    }

    fn without(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_sub(other.entries),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    fn packed(self) -> u64 {
        (self.entries << BYTES_BITS).wrapping_add(self.bytes)
    }

    /// A sum that came out below zero, in messages or in bytes, is none.
    fn unpacked(number: u64) -> Self {
        let bytes = number & ((1 << BYTES_BITS) - 1);
        // Bytes below zero have borrowed from the messages above them.
        let borrowed = bytes >> (BYTES_BITS - 1);
        let entries = (number >> BYTES_BITS) + borrowed;
        let is_below = entries >= 1 << (u64::BITS - BYTES_BITS - 1);
        if is_below || entries == 0 {
            // Bytes without a message are what is left of one that could not be read.
            return Self::default();
        }
        Self {
            entries,
            bytes: if borrowed > 0 { 0 } else { bytes },
        }
    }

    fn value(self) -> Bytes {
        Bytes::copy_from_slice(&self.packed().to_le_bytes())
    }
}

fn decode(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.try_into().ok()?))
}

/// What an inbox holds.
///
/// # Errors
/// If the counter can not be read.
pub async fn load<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    (user, id): Device,
    how: Read,
) -> Result<Held, RecordError> {
    let number = read(txn, &scope.keys.held(user, id), how, decode).await?;
    Ok(number.map(Held::unpacked).unwrap_or_default())
}

/// An inbox grows by a message.
pub(crate) fn add<T: Txn>(scope: &Scope<'_>, txn: &mut T, (user, id): Device, held: Held) {
    txn.atomic_add(&scope.keys.held(user, id), held.packed());
}

/// Messages leave an inbox.
pub(crate) fn take<T: Txn>(scope: &Scope<'_>, txn: &mut T, (user, id): Device, held: Held) {
    if held != Held::default() {
        let delta = held.packed().wrapping_neg();
        txn.atomic_add(&scope.keys.held(user, id), delta);
    }
}

/// A message of a sender joins a crowded inbox.
pub(crate) fn add_share<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    (user, id): Device,
    sender: UserId,
    held: Held,
) {
    txn.atomic_add(&scope.keys.share(user, id, sender), held.packed());
}

/// What a sender has in a crowded inbox, as of a moment ago: no send conflicts with another's.
pub(crate) async fn load_share<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    (user, id): Device,
    sender: UserId,
) -> Result<Share, RecordError> {
    let key = scope.keys.share(user, id, sender);
    let number = read(txn, &key, Read::Snapshot, decode).await;
    // A share that can not be read stops nobody: the inbox has its own limit.
    let number = match number {
        Err(RecordError::Refused(StoreError::Corrupt)) => None,
        number => number?,
    };
    Ok(number.map(Share::unpacked).unwrap_or_default())
}

impl Share {
    /// Whether there is no room for more.
    pub(crate) fn is_full(self, limits: InboxLimits) -> bool {
        let share = limits.share();
        self.held.entries >= share.entries_max.max(1) || self.held.bytes >= share.bytes_max.max(1)
    }

    pub(crate) fn is_told(self) -> bool {
        self.told
    }

    fn unpacked(number: u64) -> Self {
        Self {
            held: Held::unpacked(number & !TOLD),
            told: number & TOLD != 0,
        }
    }
}

/// The device has its Gap for what a sender had no room for. Two sends that say so at once may undo each other:
/// then it gets another.
pub(crate) fn mark_told<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    (user, id): Device,
    sender: UserId,
) {
    txn.atomic_add(&scope.keys.share(user, id, sender), TOLD);
}

/// Entries leave a crowded inbox: their senders have room again, and whoever finds none after that is told
/// of again.
pub(crate) async fn take_shares<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    (user, id): Device,
    entries: &[KnownEntry],
) -> Result<(), RecordError> {
    let mut senders: BTreeMap<UserId, Held> = BTreeMap::new();
    for entry in entries {
        if let Some((_, _, sender)) = entry.receipt {
            let sum = senders.entry(sender).or_default();
            *sum = sum.and(Held::of(entry.bytes));
        }
    }
    for (sender, taken) in senders {
        let key = scope.keys.share(user, id, sender);
        let share = read(txn, &key, Read::Serializable, decode).await;
        let left = match share {
            Ok(None) => continue,
            Ok(Some(number)) => Share::unpacked(number).held.without(taken),
            Err(RecordError::Refused(StoreError::Corrupt)) => Held::default(),
            Err(error) => return Err(error),
        };
        if left.entries == 0 {
            txn.clear(&key);
        } else {
            txn.set(&key, left.value());
        }
    }
    Ok(())
}

/// Where the count of all inboxes stands.
#[derive(Debug, Clone)]
pub struct Count {
    from: Key,
    /// The device whose entries are being counted, what it has acknowledged, and what was counted.
    device: Option<(Device, Ack, Held)>,
    done: bool,
}

/// Entries that one transaction of a count reads at most, and bytes of them.
const COUNTED_AT_ONCE: (usize, usize) = (1_024, 1024 * 1024);

impl Count {
    /// From the start; nothing if it was done in the life of this store.
    ///
    /// # Errors
    /// If the engine can not read.
    pub async fn begin<T: Txn>(txn: &mut T) -> Result<Self, RecordError> {
        let counted = txn.get(&Keys::counted(), Read::Serializable).await?;
        Ok(Self {
            from: all_inboxes().0,
            device: None,
            done: counted.is_some(),
        })
    }

    /// Whether there is nothing left to count.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Counts a piece of all inboxes, in one transaction: of a store that was written before there were counters,
    /// or imported. Nothing else may write meanwhile.
    ///
    /// # Errors
    /// If the engine can not read.
    pub async fn step<T: Txn>(
        mut self,
        scope: &Scope<'_>,
        txn: &mut T,
    ) -> Result<Self, RecordError> {
        let end = all_inboxes().1;
        let query = RangeQuery {
            entries_max: COUNTED_AT_ONCE.0,
            bytes_max: COUNTED_AT_ONCE.1,
            read: Read::Snapshot,
            ..RangeQuery::all(&self.from, &end)
        };
        let page = txn.range(query).await?;
        for (key, value) in page.pairs {
            let device = entry_device(&key).ok_or(StoreError::Corrupt)?;
            let cursor = position_of(&key)?;
            if self.device.is_none_or(|(counted, ..)| counted != device) {
                self.save(scope, txn);
                let ack = load_ack(scope, txn, device, Read::Snapshot).await?;
                self.device = Some((device, ack, Held::default()));
            }
            self.from = scope.keys.entry(device.0, device.1, cursor).successor();
            if let Some((_, ack, held)) = &mut self.device
                && cursor > ack.floor()
            {
                let bytes = inbox::decode(value).map_or(0, |body| body.counted_bytes());
                *held = held.and(Held::of(bytes));
            }
        }
        if !page.more {
            self.save(scope, txn);
            txn.set(&Keys::counted(), Bytes::new());
            self.done = true;
        }
        Ok(self)
    }

    fn save<T: Txn>(&self, scope: &Scope<'_>, txn: &mut T) {
        if let Some(((user, id), _, held)) = self.device {
            txn.set(&scope.keys.held(user, id), held.value());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r21_a_counter_adds_and_takes_away() {
        let one = Held::of(196);
        let mut number = 0_u64;
        for _ in 0..10_000 {
            number = number.wrapping_add(one.packed());
        }
        let full = Held {
            entries: 10_000,
            bytes: 1_960_000,
        };
        assert_eq!(Held::unpacked(number), full);
        for _ in 0..10_000 {
            number = number.wrapping_sub(one.packed());
        }
        assert_eq!(Held::unpacked(number), Held::default());
        let below = number.wrapping_sub(one.packed());
        assert_eq!(Held::unpacked(below), Held::default(), "below zero is none");
        let odd = Held::of(100).packed().wrapping_sub(200);
        let one = Held {
            entries: 1,
            bytes: 0,
        };
        assert_eq!(Held::unpacked(odd), one, "and so are its bytes alone");
    }

    #[test]
    fn r21_what_counts_for_nothing_is_nothing() {
        assert_eq!(Held::of(0), Held::default());
        assert_eq!(Held::of(96).entries, 1, "an empty message is one");
    }

    #[test]
    fn r21_a_share_remembers_that_it_was_told_of() {
        let held = Held {
            entries: 1_000,
            bytes: 96_000,
        };
        let share = Share::unpacked(held.packed() | TOLD);
        assert_eq!((share.held, share.told), (held, true));
        assert!(!Share::unpacked(held.packed()).told);
    }
}
