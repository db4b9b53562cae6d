//! Sends and the answers kept for them: `k/<user>/<device>/<n mod 256>` (R12 to R16).

use bytes::{BufMut, Bytes};
use roadstead::store::{EntryBody, Grown, InboxLimits, SendItem, Sent, StoreError};
use roadstead_proto::limits::SEND_ANSWERS_KEPT;
use roadstead_proto::v1::GapReason;
use roadstead_proto::{ErrorCode, MessageId, Position, UserId};

use crate::txn::{RangeQuery, Read, Txn};

use super::codec::{Parts, finish, value};
use super::held::{self, Held};
use super::versions::{self, Versions};
use super::{Device, RecordError, Scope, inbox, read};

/// The first byte of the answer to a committed send.
const VERSION: u8 = 1;

/// The first byte of the refusal [`StoreError::UserUnknown`]: number and hash follow.
const UNKNOWN: u8 = 2;

/// The first byte of any other refusal for good: number and hash follow, the error code (u16), and for how
/// many ms the chat takes nothing more (u32).
const REFUSED: u8 = 3;

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
        let kind = *value.first()?;
        let mut parts = Parts::of(value, kind)?;
        let (number, request_hash) = (parts.u64()?, parts.u64()?);
        let first = match kind {
            VERSION => Ok(Sent {
                message_id: MessageId::new(parts.u64()?),
                server_time_ms: parts.u64()?,
                position: parts.position()?,
                repeated: true,
            }),
            UNKNOWN => Err(StoreError::UserUnknown),
            REFUSED => Err(kept_error(parts.u16()?, parts.u32()?)?),
            _ => return None,
        };
        parts.end(Self {
            number,
            request_hash,
            first,
        })
    }

    /// The answer to a send that is refused for good.
    fn refusal(item: &SendItem, error: StoreError) -> Bytes {
        let code = u16::try_from(error.code().as_close_code()).expect("codes are below 64");
        let mut value = match error {
            StoreError::UserUnknown => value(UNKNOWN, 8 + 8),
            _ => value(REFUSED, 8 + 8 + 2 + 4),
        };
        value.put_u64(item.number);
        value.put_u64(item.request_hash);
        match error {
            StoreError::UserUnknown => {}
            StoreError::ChatBusy { retry_after_ms } => {
                value.put_u16(code);
                value.put_u32(retry_after_ms);
            }
            _ => {
                value.put_u16(code);
                value.put_u32(0);
            }
        }
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

/// The refusal that a kept answer names; `None` if this version knows none like it.
fn kept_error(code: u16, retry_after_ms: u32) -> Option<StoreError> {
    Some(match ErrorCode::from_close_code(code.into())? {
        ErrorCode::UserUnknown => StoreError::UserUnknown,
        ErrorCode::RecipientFull => StoreError::RecipientFull,
        ErrorCode::RecordDamaged => StoreError::RecordDamaged,
        ErrorCode::ChatBusy => StoreError::ChatBusy { retry_after_ms },
        _ => return None,
    })
}

/// Commits one message, or finds the first answer to it.
///
/// The inner result is what the number is answered with from now on. A refusal for good is kept like any
/// other answer (R16): otherwise a copy of the send that is evaluated later, perhaps by another session, would
/// find the recipient registered by then, or with room, and deliver what its sender was told nobody would get.
///
/// The read set is its `k/` slot and `uv/` of both users (R14): everything that it writes beside them is
/// blind, counters included, so two devices that write to one inbox never conflict.
///
/// # Errors
/// Any other [`StoreError`] that a send is answered with: nothing is kept of it.
pub async fn send<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    sender: Device,
    limits: InboxLimits,
    item: &SendItem,
) -> Result<(Result<Sent, StoreError>, Vec<Grown>), RecordError> {
    if let Some(first) = first_answer(scope, txn, sender, item).await? {
        return Ok((first, Vec::new()));
    }
    let key = scope.keys.answer(sender.0, sender.1, item.number);
    let own = own_devices(scope, txn, sender).await?;
    let receivers = match item.refused {
        Some(error) => Err(error.into()),
        None => receivers(scope, txn, (sender, &own), (item.recipient, limits)).await,
    };
    let receivers = match receivers {
        Err(RecordError::Refused(error)) if error.is_kept() => {
            txn.set(&key, Answer::refusal(item, error));
            scope.knowledge.raise_highest_number(sender, item.number);
            return Ok((Err(error), Vec::new()));
        }
        receivers => receivers?,
    };
    let index = scope.take_index()?;
    let mut grown = append(scope, txn, &receivers, index, item).await?;
    tell_of_gaps(scope, txn, &receivers.untold, sender.0, &mut grown).await?;
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
    // What this number was answered is not known if the slot can not be read, so it is not executed; and what
    // the slot held stays, because a newer number may ask for it.
    let answer = read(txn, &key, Read::Serializable, Answer::decode).await;
    match answer.map_err(damaged)? {
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

/// The highest number of a device that has its answer, 0 if there is none. Where an answer can not be read it
/// may be higher: above it no number was used (R13).
///
/// # Errors
/// If the engine can not read.
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
    let answers = page.pairs.iter().map(|(_, value)| Answer::decode(value));
    let is_damaged = answers.clone().any(|answer| answer.is_none());
    let highest = answers.flatten().map(|answer| answer.number).max();
    // The number of an answer that can not be read is less than a round of slots above the others.
    let above = if is_damaged { SEND_ANSWERS_KEPT } else { 0 };
    let highest = highest.unwrap_or(0).saturating_add(above);
    scope.knowledge.learn_highest_number(device, highest);
    Ok(highest)
}

/// A record that can not be read will not be read later: the send fails for good, and holds nothing up (R16).
fn damaged(error: RecordError) -> RecordError {
    match error {
        RecordError::Refused(StoreError::Corrupt) => StoreError::RecordDamaged.into(),
        other => other,
    }
}

/// Who gets a message.
#[derive(Debug, Default)]
struct Receivers {
    /// The recipient's devices and the sender's others, but the suspended ones. Whether the sender is counted
    /// there.
    devices: Vec<(Device, bool)>,
    /// Devices of the recipient in which the sender has used up its share, and which have not been told so.
    untold: Vec<Device>,
}

/// The devices of the sender. Nothing is kept for a device that is not among them (R26).
async fn own_devices<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    sender: Device,
) -> Result<Versions, RecordError> {
    let own = versions::load(scope, txn, sender.0).await;
    let own = own.map_err(damaged)?;
    let own = own.filter(|own| own.device(sender.1).is_some());
    own.ok_or_else(|| StoreError::DeviceRemoved.into())
}

async fn receivers<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    (sender, own): (Device, &Versions),
    (recipient, limits): (UserId, InboxLimits),
) -> Result<Receivers, RecordError> {
    let mut receivers = Receivers::default();
    if recipient != sender.0 {
        let theirs = versions::load(scope, txn, recipient).await;
        let theirs = known_user(theirs.map_err(damaged)?)?;
        let to = (recipient, &theirs);
        receivers
            .push_recipient(scope, txn, sender.0, to, limits)
            .await?;
    }
    let others = others(own, sender).map(|device| (device, false));
    receivers.devices.extend(others);
    Ok(receivers)
}

/// A user without a device has no inbox that a message could reach: as if unknown.
fn known_user(versions: Option<Versions>) -> Result<Versions, StoreError> {
    versions
        .filter(|versions| !versions.devices.is_empty())
        .ok_or(StoreError::UserUnknown)
}

impl Receivers {
    /// The recipient's devices. Where the sender has used up its share of a crowded one, that one goes without,
    /// with a Gap; only if that is so of all of them the send is refused (R21).
    async fn push_recipient<T: Txn>(
        &mut self,
        scope: &Scope<'_>,
        txn: &mut T,
        sender: UserId,
        (recipient, versions): (UserId, &Versions),
        limits: InboxLimits,
    ) -> Result<(), RecordError> {
        for listed in versions.receiving() {
            let device = (recipient, listed.id);
            if listed.crowded {
                let share = held::load_share(scope, txn, device, sender).await?;
                if share.is_full(limits) {
                    self.untold.extend((!share.is_told()).then_some(device));
                    continue;
                }
            }
            self.devices.push((device, listed.crowded));
        }
        if self.devices.is_empty() {
            return Err(StoreError::RecipientFull.into());
        }
        Ok(())
    }
}

/// The receiving devices of a user but one.
pub(crate) fn others(versions: &Versions, device: Device) -> impl Iterator<Item = Device> + '_ {
    let others = versions.receiving().map(|listed| listed.id);
    others
        .filter(move |id| *id != device.1)
        .map(move |id| (device.0, id))
}

async fn append<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    receivers: &Receivers,
    index: u16,
    item: &SendItem,
) -> Result<Vec<Grown>, RecordError> {
    let body = EntryBody::Message {
        chat_position: Position::ZERO,
        envelope: item.envelope.clone(),
    };
    let value = inbox::encode(&body);
    let held = Held::of(body.counted_bytes());
    let mut grown = Vec::with_capacity(receivers.devices.len());
    for (device, crowded) in &receivers.devices {
        scope.append(txn, *device, index, value.clone()).await?;
        held::add(scope, txn, *device, held);
        if *crowded && let Ok(sender) = UserId::new(item.envelope.sender) {
            held::add_share(scope, txn, *device, sender, held);
        }
        grown.push(scope.grown(*device, index, body.clone()));
    }
    Ok(grown)
}

/// Tells devices that what this sender sent was not kept for them.
async fn tell_of_gaps<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    untold: &[Device],
    sender: UserId,
    grown: &mut Vec<Grown>,
) -> Result<(), RecordError> {
    if untold.is_empty() {
        return Ok(());
    }
    let index = scope.take_index()?;
    for device in untold {
        let gap = (index, GapReason::SenderLimit);
        grown.push(inbox::append_gap(scope, txn, *device, gap).await?);
        held::mark_told(scope, txn, *device, sender);
    }
    Ok(())
}
