//! `rp/<chat>/<user>`: how far a user has got in a chat, in two positions that only grow (R20).

use bytes::{BufMut, Bytes};
use roadstead::store::{EntryBody, Grown, StoreError};
use roadstead_proto::{ChatId, Position, UserId};

use crate::txn::{Read, Txn};

use super::codec::{Parts, finish, put_position, value};
use super::device::load_ack;
use super::versions::Versions;
use super::{Device, RecordError, Scope, inbox, read, versions};

/// A record whose last entries are written.
const SETTLED: u8 = 1;

/// How far a user has got in a chat, and where the last entries that say so stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// By the first device.
    pub delivered: Position,
    /// On any device.
    pub read: Position,
    /// The last entry in the inboxes of the peer's devices.
    pub told_peer: Position,
    /// The last entry in the inboxes of the reader's own devices.
    pub told_own: Position,
}

/// Who is told of a receipt beside the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// The peer alone: something was delivered.
    Peer,
    /// The peer and the reader's devices but this one: something was read.
    PeerAndOthersThan(Device),
}

impl Receipt {
    fn decode(value: &[u8]) -> Option<Self> {
        let mut parts = Parts::of(value, SETTLED)?;
        let flags = parts.u8()?;
        let mut receipt = Self {
            delivered: parts.position()?,
            read: parts.position()?,
            ..Self::default()
        };
        if flags & STALE_PEER != 0 {
            receipt.told_peer = parts.position()?;
        }
        if flags & STALE_OWN != 0 {
            receipt.told_own = parts.position()?;
        }
        if flags & (NEW_PEER | NEW_OWN) != 0 {
            let new = parts.position()?;
            if flags & NEW_PEER != 0 {
                receipt.told_peer = new;
            }
            if flags & NEW_OWN != 0 {
                receipt.told_own = new;
            }
        }
        parts.end(receipt)
    }

    /// The value in front of the position of the entries that this commit appends.
    fn prefix(&self, flags: u8, generation: u32) -> Bytes {
        let mut value = value(SETTLED, 1 + 16 * 4 + 4);
        value.put_u8(flags);
        put_position(&mut value, self.delivered);
        put_position(&mut value, self.read);
        if flags & STALE_PEER != 0 {
            put_position(&mut value, self.told_peer);
        }
        if flags & STALE_OWN != 0 {
            put_position(&mut value, self.told_own);
        }
        if flags & (NEW_PEER | NEW_OWN) != 0 {
            value.put_u32(generation);
        }
        finish(value)
    }
}

/// The value holds the place of an earlier entry…
const STALE_PEER: u8 = 1;
const STALE_OWN: u8 = 2;
/// …or ends with the position of the commit that wrote it.
const NEW_PEER: u8 = 4;
const NEW_OWN: u8 = 8;

/// How far a user has got in a chat. What can not be read is begun anew: it must not hold up what its device
/// acknowledges in all chats.
///
/// # Errors
/// If the engine can not read.
pub async fn load<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    chat: ChatId,
    user: UserId,
) -> Result<Receipt, RecordError> {
    let key = scope.keys.receipt(chat, user);
    match read(txn, &key, Read::Serializable, Receipt::decode).await {
        Err(RecordError::Refused(StoreError::Corrupt)) => Ok(Receipt::default()),
        receipt => Ok(receipt?.unwrap_or_default()),
    }
}

/// Writes a receipt that advanced, and tells its audience: one logical message, one position.
pub(crate) async fn advance<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    (chat, user, peer): (ChatId, UserId, UserId),
    receipt: Receipt,
    audience: Audience,
    grown: &mut Vec<Grown>,
) -> Result<(), RecordError> {
    let index = scope.take_index()?;
    let update = inbox::receipt_update(chat, user, receipt.delivered, receipt.read);
    let body = EntryBody::Receipt(update);
    let mut flags = 0;
    if peer != user {
        flags |= NEW_PEER;
        for id in receiving(scope, txn, peer).await? {
            tell(
                scope,
                txn,
                (peer, id),
                receipt.told_peer,
                index,
                &body,
                grown,
            )
            .await?;
        }
    } else if receipt.told_peer != Position::ZERO {
        flags |= STALE_PEER;
    }
    if let Audience::PeerAndOthersThan(reader) = audience {
        flags |= NEW_OWN;
        // The reader knows better by now than what another device's Read left in its inbox, and may read
        // while it is suspended.
        take_back(scope, txn, reader, receipt.told_own).await?;
        for id in receiving(scope, txn, user).await? {
            if id != reader.1 {
                let device = (user, id);
                tell(scope, txn, device, receipt.told_own, index, &body, grown).await?;
            }
        }
    } else if receipt.told_own != Position::ZERO {
        flags |= STALE_OWN;
    }
    let key = scope.keys.receipt(chat, user);
    let prefix = receipt.prefix(flags, scope.generation);
    if flags & (NEW_PEER | NEW_OWN) == 0 {
        txn.set(&key, prefix);
    } else {
        txn.set_versionstamped_value(&key, &prefix, index, &[]);
    }
    Ok(())
}

async fn receiving<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    user: UserId,
) -> Result<Vec<roadstead_proto::DeviceId>, RecordError> {
    let versions = versions::load(scope, txn, user).await?;
    let ids = |versions: Versions| versions.receiving().map(|listed| listed.id).collect();
    Ok(versions.map_or_else(Vec::new, ids))
}

/// Appends a receipt entry to one inbox and takes back the one before it, if it is still there: an inbox
/// holds at most one per (chat, peer).
async fn tell<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    device: Device,
    before: Position,
    index: u16,
    body: &EntryBody,
    grown: &mut Vec<Grown>,
) -> Result<(), RecordError> {
    take_back(scope, txn, device, before).await?;
    let value = inbox::encode(body);
    scope.append(txn, device, index, value).await?;
    grown.push(scope.grown(device, index, body.clone()));
    Ok(())
}

/// Removes an earlier receipt entry from an inbox, if it is still there.
async fn take_back<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    device: Device,
    before: Position,
) -> Result<(), RecordError> {
    if before == Position::ZERO {
        return Ok(());
    }
    // A look that may be late: to clear what a flush has cleared is no harm.
    let ack = load_ack(scope, txn, device, Read::Snapshot).await?;
    if before > ack.floor() {
        txn.clear_once(&scope.keys.entry(device.0, device.1, before));
    }
    Ok(())
}
