//! Acknowledging: the one door by which entries leave an inbox and delivered receipts arise (R18).

use std::collections::BTreeMap;

use bytes::Bytes;
use roadstead::limits::{DELIVER_WINDOW_BYTES_MAX, DELIVER_WINDOW_ENTRIES_MAX};
use roadstead::store::{Entry, Flush, Grown, KnownEntry, Outcome, StoreError};
use roadstead_proto::{ChatId, Position, UserId};

use crate::txn::{Read, Txn};

use super::device::{Ack, load_ack, save_ack};
use super::held::{self, Held};
use super::receipts::{self, Audience};
use super::versions::ListedDevice;
use super::{Device, RecordError, Scope, inbox, versions};

/// Entries that one flush takes at most: as many as a session can have delivered. A longer one is done in
/// pieces, each with its acknowledgement, so that no command costs the others more than a batch.
const PIECE_ENTRIES: usize = DELIVER_WINDOW_ENTRIES_MAX;

/// Bytes that one flush reads at most, where it has to read entries.
const PIECE_BYTES: usize = DELIVER_WINDOW_BYTES_MAX;

/// What a flush takes out of an inbox.
struct Piece {
    /// Those in `(ack, upto]`, in order.
    entries: Vec<KnownEntry>,
    upto: Position,
    /// There are more behind it.
    more: bool,
}

/// Carries out [`roadstead::store::Command::Flush`], or a piece of it.
///
/// # Errors
/// [`StoreError::CursorInvalid`] if it lies beyond everything committed.
pub async fn flush<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    flush: &Flush,
) -> Result<Outcome, RecordError> {
    let device = (flush.user, flush.device);
    let ack = load_ack(scope, txn, device, Read::Serializable).await?;
    if !scope.is_of_the_past(flush.upto)? || flush.upto <= ack.acked {
        return Ok(Outcome::Flushed {
            stored_ack: ack.acked,
            more: false,
            grown: Vec::new(),
        });
    }
    let listed = versions::load(scope, txn, flush.user).await?;
    let listed = listed.and_then(|versions| versions.device(flush.device).copied());
    // A removed device has no inbox, and an acknowledgement must not bring back a piece of it.
    let listed = listed.ok_or(StoreError::DeviceRemoved)?;
    let piece = piece(scope, txn, flush, ack).await?;
    let entries = &piece.entries;
    let mut grown = Vec::new();
    for (chat, (position, sender)) in furthest(entries) {
        deliver(scope, txn, (chat, flush.user, sender), position, &mut grown).await?;
    }
    let ends_suspension = entries.iter().any(|entry| entry.is_gap)
        || (listed.suspended && gap_has_expired(scope, txn, device, (ack, piece.upto)).await?);
    if ends_suspension {
        versions::change(scope, txn, device, |listed| listed.suspended = false).await?;
    }
    // What expired since it was delivered has been taken already.
    let there = entries.partition_point(|entry| entry.cursor <= ack.floor());
    take(scope, txn, device, listed, &entries[there..]).await?;
    clear(scope, txn, device, ack, &piece);
    let after = Ack {
        acked: piece.upto,
        expired: ack.expired,
    };
    save_ack(scope, txn, device, after);
    Ok(Outcome::Flushed {
        stored_ack: piece.upto,
        more: piece.more,
        grown,
    })
}

/// What the inbox holds is less by these. A crowded one that is empty now is crowded no more.
pub(crate) async fn take<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    device: Device,
    listed: ListedDevice,
    entries: &[KnownEntry],
) -> Result<(), RecordError> {
    held::take(scope, txn, device, Held::of_all(entries));
    if listed.crowded {
        held::take_shares(scope, txn, device, entries).await?;
        // A claim only where it is empty: or no message of anybody could join a crowded inbox beside this.
        let seems_empty = held::load(scope, txn, device, Read::Snapshot).await? == Held::default();
        if seems_empty
            && held::load(scope, txn, device, Read::Serializable).await? == Held::default()
        {
            versions::change(scope, txn, device, |listed| listed.crowded = false).await?;
        }
    }
    Ok(())
}

/// Whether the Gap of a suspended device was removed by age, and this acknowledges that (R21): a Gap is the
/// last entry of a suspended device's inbox, so if nothing is left behind what expired, it did.
async fn gap_has_expired<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    device: Device,
    (ack, upto): (Ack, Position),
) -> Result<bool, RecordError> {
    if ack.expired <= ack.acked || upto < ack.expired {
        return Ok(false);
    }
    // What would come in meanwhile is a Gap, and that writes the list of devices, which was read.
    let one = (1, PIECE_BYTES);
    let (left, _) = inbox::entries(scope, txn, device, ack.expired, one, Read::Snapshot).await?;
    Ok(left.is_empty())
}

/// The entries in `(ack, upto]`, or the first of them: the session's own list if it starts at the stored ack,
/// else read.
async fn piece<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    flush: &Flush,
    ack: Ack,
) -> Result<Piece, RecordError> {
    match &flush.known {
        Some(known) if known.from == ack.acked => {
            let is_meant =
                |entry: &&KnownEntry| entry.cursor > ack.acked && entry.cursor <= flush.upto;
            let entries = known.entries.iter().filter(is_meant).copied();
            let mut entries: Vec<KnownEntry> = entries.collect();
            let more = entries.len() > PIECE_ENTRIES;
            entries.truncate(PIECE_ENTRIES);
            Ok(Piece::new(entries, flush.upto, more))
        }
        _ => read_piece(scope, txn, flush, ack).await,
    }
}

async fn read_piece<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    flush: &Flush,
    ack: Ack,
) -> Result<Piece, RecordError> {
    let device = (flush.user, flush.device);
    // A snapshot read: new entries have positions above `upto`, and what is in the range leaves only
    // by this door, which the stored ack guards, or superseded (R20).
    let limits = (PIECE_ENTRIES, PIECE_BYTES);
    let after = ack.floor();
    let (page, more) = inbox::entries(scope, txn, device, after, limits, Read::Snapshot).await?;
    let is_meant = |entry: &&Entry| entry.cursor <= flush.upto;
    let meant = page.iter().take_while(is_meant);
    let entries: Vec<KnownEntry> = meant
        .map(|entry| KnownEntry::of(flush.user, entry.cursor, &entry.body))
        .collect();
    let more = more && entries.len() == page.len();
    Ok(Piece::new(entries, flush.upto, more))
}

impl Piece {
    fn new(entries: Vec<KnownEntry>, upto: Position, more: bool) -> Self {
        let last = entries.last().filter(|_| more);
        Self {
            upto: last.map_or(upto, |last| last.cursor),
            more: last.is_some_and(|last| last.cursor < upto),
            entries,
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

fn clear<T: Txn>(scope: &Scope<'_>, txn: &mut T, (user, id): Device, ack: Ack, piece: &Piece) {
    let key_of = |entry: &KnownEntry| Bytes::from(scope.keys.entry(user, id, entry.cursor));
    let keys: Vec<Bytes> = piece.entries.iter().map(key_of).collect();
    let from = scope.keys.entry(user, id, ack.acked).successor();
    let to = scope.keys.entry(user, id, piece.upto).successor();
    txn.clear_range_known(&from, &to, &keys);
}
