//! Acknowledging: the one door by which entries leave an inbox and delivered receipts arise (R18).

use std::collections::BTreeMap;

use bytes::Bytes;
use roadstead::store::{Flush, Grown, KnownEntry, StoreError};
use roadstead_proto::{ChatId, Position, UserId};

use crate::txn::{Read, Txn};

use super::device::{Ack, load_ack, save_ack};
use super::receipts::{self, Audience};
use super::{Device, RecordError, Scope, inbox, versions};

/// Entries read at once where a flush has to read them.
const PAGE_ENTRIES: usize = 512;

/// Bytes read at once where a flush has to read entries.
const PAGE_BYTES: usize = 256 * 1024;

/// Carries out [`roadstead::store::Command::Flush`]; answers the stored acknowledgement after it.
///
/// # Errors
/// [`StoreError::CursorInvalid`] if it lies beyond everything committed.
pub async fn flush<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    flush: &Flush,
) -> Result<(Position, Vec<Grown>), RecordError> {
    let device = (flush.user, flush.device);
    let ack = load_ack(scope, txn, device, Read::Serializable).await?;
    if !scope.is_of_the_past(flush.upto)? || flush.upto <= ack.acked {
        return Ok((ack.acked, Vec::new()));
    }
    let listed = versions::load(scope, txn, flush.user).await?;
    let listed = listed.and_then(|versions| versions.device(flush.device).copied());
    // A removed device has no inbox, and an acknowledgement must not bring back a piece of it.
    let listed = listed.ok_or(StoreError::DeviceRemoved)?;
    let entries = entries(scope, txn, flush, ack).await?;
    let mut grown = Vec::new();
    for (chat, (position, sender)) in furthest(&entries) {
        deliver(scope, txn, (chat, flush.user, sender), position, &mut grown).await?;
    }
    let ends_suspension = entries.iter().any(|entry| entry.is_gap)
        || (listed.suspended && gap_has_expired(scope, txn, flush, ack).await?);
    if ends_suspension {
        versions::set_suspended(scope, txn, device, false).await?;
    }
    clear(scope, txn, device, ack, flush.upto, &entries);
    let after = Ack {
        acked: flush.upto,
        expired: ack.expired,
    };
    save_ack(scope, txn, device, after);
    Ok((flush.upto, grown))
}

/// Whether the Gap of a suspended device was removed by age, and this acknowledges that (R21): a Gap is the
/// last entry of a suspended device's inbox, so if nothing is left behind what expired, it did.
async fn gap_has_expired<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    flush: &Flush,
    ack: Ack,
) -> Result<bool, RecordError> {
    if ack.expired <= ack.acked || flush.upto < ack.expired {
        return Ok(false);
    }
    let device = (flush.user, flush.device);
    // What would come in meanwhile is a Gap, and that writes the list of devices, which was read.
    let one = (1, PAGE_BYTES);
    let (left, _) = inbox::entries(scope, txn, device, ack.expired, one, Read::Snapshot).await?;
    Ok(left.is_empty())
}

/// The entries in `(ack, upto]`: the session's own list if it starts at the stored ack, else read.
async fn entries<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    flush: &Flush,
    ack: Ack,
) -> Result<Vec<KnownEntry>, RecordError> {
    match &flush.known {
        Some(known) if known.from == ack.acked => Ok(known
            .entries
            .iter()
            .filter(|entry| entry.cursor > ack.acked && entry.cursor <= flush.upto)
            .copied()
            .collect()),
        _ => read_entries(scope, txn, flush, ack).await,
    }
}

async fn read_entries<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    flush: &Flush,
    ack: Ack,
) -> Result<Vec<KnownEntry>, RecordError> {
    let device = (flush.user, flush.device);
    let mut known = Vec::new();
    let mut after = ack.floor();
    loop {
        // A snapshot read: new entries have positions above `upto`, and what is in the range leaves only
        // by this door, which the stored ack guards, or superseded (R20).
        let limits = (PAGE_ENTRIES, PAGE_BYTES);
        let (page, more) =
            inbox::entries(scope, txn, device, after, limits, Read::Snapshot).await?;
        for entry in &page {
            if entry.cursor > flush.upto {
                return Ok(known);
            }
            let entry = inbox::known(entry.cursor, &entry.body, flush.user);
            known.push(entry.ok_or(StoreError::Corrupt)?);
        }
        match page.last() {
            Some(last) if more => after = last.cursor,
            _ => return Ok(known),
        }
    }
}

/// The furthest position per chat, in order of chats, so that the same flush writes the same receipts.
fn furthest(entries: &[KnownEntry]) -> BTreeMap<ChatId, (Position, UserId)> {
    let mut furthest = BTreeMap::new();
    for (chat, position, sender) in entries.iter().filter_map(|entry| entry.receipt) {
        let known = furthest.entry(chat).or_insert((position, sender));
        if position > known.0 {
            *known = (position, sender);
        }
    }
    furthest
}

/// Writes a delivered receipt if it advances (R20).
async fn deliver<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    of: (ChatId, UserId, UserId),
    position: Position,
    grown: &mut Vec<Grown>,
) -> Result<(), RecordError> {
    let mut receipt = receipts::load(scope, txn, of.0, of.1).await?;
    if position <= receipt.delivered {
        return Ok(());
    }
    receipt.delivered = position;
    receipts::advance(scope, txn, of, receipt, Audience::Peer, grown).await
}

fn clear<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    (user, id): Device,
    ack: Ack,
    upto: Position,
    entries: &[KnownEntry],
) {
    let key_of = |entry: &KnownEntry| Bytes::from(scope.keys.entry(user, id, entry.cursor));
    let keys: Vec<Bytes> = entries.iter().map(key_of).collect();
    let from = scope.keys.entry(user, id, ack.acked).successor();
    let to = scope.keys.entry(user, id, upto).successor();
    txn.clear_range_known(&from, &to, &keys);
}
