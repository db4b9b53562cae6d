//! Sends and the answers kept for them: `k/<user>/<device>/<n mod 256>` (R12 to R16).

use bytes::{BufMut, Bytes};
use roadstead::store::{EntryBody, Grown, SendItem, Sent, StoreError};
use roadstead_proto::{DeviceId, MessageId, Position, UserId};

use crate::txn::{RangeQuery, Read, Txn};

use super::codec::{Parts, finish, value};
use super::versions::{self, Versions};
use super::{Device, RecordError, Scope, inbox, read};

/// The first byte of the answer to a committed send.
const VERSION: u8 = 1;

/// The first byte of a refusal for good, [`StoreError::UserUnknown`]: number and hash follow.
const REFUSED: u8 = 2;

/// Bytes of an answer in front of the stamp: version, number, hash, message id, server time, generation.
const PREFIX: usize = 1 + 8 + 8 + 8 + 8 + 4;

/// The first answer to a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    number: u64,
    request_hash: u64,
    first: Result<Sent, StoreError>,
}

impl Answer {
    fn decode(value: &[u8]) -> Option<Self> {
        let is_refused = value.first() == Some(&REFUSED);
        let mut parts = Parts::of(value, if is_refused { REFUSED } else { VERSION })?;
        let (number, request_hash) = (parts.u64()?, parts.u64()?);
        let first = if is_refused {
            Err(StoreError::UserUnknown)
        } else {
            Ok(Sent {
                message_id: MessageId::new(parts.u64()?),
                server_time_ms: parts.u64()?,
                position: parts.position()?,
                repeated: true,
            })
        };
        parts.end(Self {
            number,
            request_hash,
            first,
        })
    }

    fn refusal(item: &SendItem) -> Bytes {
        let mut value = value(REFUSED, 8 + 8);
        value.put_u64(item.number);
        value.put_u64(item.request_hash);
        finish(value)
    }

    /// Everything but the position, which the commit gives.
    fn prefix(item: &SendItem, generation: u32) -> Bytes {
        let mut value = value(VERSION, PREFIX);
        value.put_u64(item.number);
        value.put_u64(item.request_hash);
        value.put_u64(item.envelope.message_id);
        value.put_u64(item.envelope.server_time_ms);
        value.put_u32(generation);
        finish(value)
    }
}

/// Commits one message, or finds the first answer to it.
///
/// The inner result is what the number is answered with from now on. A refusal for good is kept like any
/// other answer: otherwise a copy of the send that is evaluated later, perhaps by another session, would
/// find the recipient registered by then and deliver what its sender was told nobody would get.
///
/// The read set is its `k/` slot and `uv/` of both users (R14): everything that it writes beside them is
/// blind, so two devices that write to one inbox never conflict.
///
/// # Errors
/// Any other [`StoreError`] that a send is answered with: nothing is kept of it.
pub async fn send<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    sender: Device,
    item: &SendItem,
) -> Result<(Result<Sent, StoreError>, Vec<Grown>), RecordError> {
    if let Some(first) = first_answer(scope, txn, sender, item).await? {
        return Ok((first, Vec::new()));
    }
    let key = scope.keys.answer(sender.0, sender.1, item.number);
    let receivers = match receivers(scope, txn, sender, item.recipient).await {
        Err(RecordError::Refused(StoreError::UserUnknown)) => {
            txn.set(&key, Answer::refusal(item));
            scope.knowledge.raise_highest_number(sender, item.number);
            return Ok((Err(StoreError::UserUnknown), Vec::new()));
        }
        receivers => receivers?,
    };
    let index = scope.take_index()?;
    let grown = append(scope, txn, &receivers, index, item).await?;
    let prefix = Answer::prefix(item, scope.generation);
    txn.set_versionstamped_value(&key, &prefix, index, &[]);
    scope.knowledge.raise_highest_number(sender, item.number);
    let sent = Sent {
        message_id: MessageId::new(item.envelope.message_id),
        position: scope.position(index),
        server_time_ms: item.envelope.server_time_ms,
        repeated: false,
    };
    Ok((Ok(sent), grown))
}

/// R12: same number and hash, the first answer; same number and another hash, reused; a newer number in
/// the slot, spent and never executed.
async fn first_answer<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    sender: Device,
    item: &SendItem,
) -> Result<Option<Result<Sent, StoreError>>, RecordError> {
    let known = scope.knowledge.highest_number(sender);
    if known.is_none() && scope.knowledge.keeps_numbers() {
        highest_number(scope, txn, sender).await?;
    }
    if scope
        .knowledge
        .highest_number(sender)
        .is_some_and(|highest| item.number > highest)
    {
        return Ok(None);
    }
    let key = scope.keys.answer(sender.0, sender.1, item.number);
    match read(txn, &key, Read::Serializable, Answer::decode).await? {
        Some(answer) if answer.number > item.number => Err(StoreError::NumberSpent.into()),
        Some(answer) if answer.number == item.number => {
            if answer.request_hash != item.request_hash {
                return Err(StoreError::NumberReused.into());
            }
            Ok(Some(answer.first))
        }
        _ => Ok(None),
    }
}

/// The highest number of a device that has its answer, 0 if there is none.
///
/// # Errors
/// If an answer can not be read.
pub async fn highest_number<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    device: Device,
) -> Result<u64, RecordError> {
    if let Some(known) = scope.knowledge.highest_number(device) {
        return Ok(known);
    }
    let from = scope.keys.answers(device.0, device.1);
    let to = from.end_of_prefix();
    let page = txn.range(RangeQuery::all(&from, &to)).await?;
    let mut highest = 0;
    for (_, value) in &page.pairs {
        let answer = Answer::decode(value).ok_or(StoreError::Corrupt)?;
        highest = answer.number.max(highest);
    }
    scope.knowledge.learn_highest_number(device, highest);
    Ok(highest)
}

/// Every device that gets the message: the recipient's and the sender's others, but the suspended ones.
async fn receivers<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    sender: Device,
    recipient: UserId,
) -> Result<Vec<Device>, RecordError> {
    let own = versions::load(scope, txn, sender.0)
        .await?
        .filter(|own| own.device(sender.1).is_some())
        .ok_or(StoreError::DeviceRemoved)?;
    let mut receivers = Vec::with_capacity(4);
    if recipient != sender.0 {
        let theirs = versions::load(scope, txn, recipient).await?;
        push_receiving(&mut receivers, recipient, &known_user(theirs)?)?;
    }
    receivers.extend(others(&own, sender));
    Ok(receivers)
}

/// A user without a device has no inbox that a message could reach: as if unknown.
fn known_user(versions: Option<Versions>) -> Result<Versions, StoreError> {
    versions
        .filter(|versions| !versions.devices.is_empty())
        .ok_or(StoreError::UserUnknown)
}

fn push_receiving(
    receivers: &mut Vec<Device>,
    user: UserId,
    versions: &Versions,
) -> Result<(), StoreError> {
    receivers.extend(versions.receiving().map(|id| (user, id)));
    if receivers.is_empty() {
        return Err(StoreError::RecipientFull);
    }
    Ok(())
}

/// The receiving devices of a user but one.
pub(crate) fn others(versions: &Versions, device: Device) -> impl Iterator<Item = Device> + '_ {
    let but = move |id: &DeviceId| *id != device.1;
    versions
        .receiving()
        .filter(but)
        .map(move |id| (device.0, id))
}

async fn append<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    receivers: &[Device],
    index: u16,
    item: &SendItem,
) -> Result<Vec<Grown>, RecordError> {
    let body = EntryBody::Message {
        chat_position: Position::ZERO,
        envelope: item.envelope.clone(),
    };
    let value = inbox::encode(&body);
    let mut grown = Vec::with_capacity(receivers.len());
    for device in receivers {
        scope.append(txn, *device, index, value.clone()).await?;
        grown.push(scope.grown(*device, index, body.clone()));
    }
    Ok(grown)
}
