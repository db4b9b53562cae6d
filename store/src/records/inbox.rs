//! `i/<user>/<device>/<position>`: inboxes, in order of position.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use roadstead::store::{CheckInbox, Entry, EntryBody, Grown, InboxPage, ReadInbox, StoreError};
use roadstead_proto::v1::{Envelope, GapReason, ReceiptUpdate};
use roadstead_proto::{ChatId, Position, UserId};

use crate::txn::{RangeQuery, Read, Txn};

use super::codec::{finish, put_position, value};
use super::device::load_ack;
use super::held::{self, Held};
use super::{Device, RecordError, Scope, position_of, versions};

/// The first byte of an entry: version and kind in one. Numbers are never used again.
mod kind {
    /// A message whose chat position is its cursor.
    pub(super) const MESSAGE: u8 = 1;
    /// A message behind its chat position.
    pub(super) const MESSAGE_AT: u8 = 2;
    pub(super) const RECEIPT: u8 = 3;
    pub(super) const GAP: u8 = 4;
}

/// Writes an entry.
#[must_use]
pub fn encode(body: &EntryBody) -> Bytes {
    match body {
        EntryBody::Message {
            chat_position,
            envelope,
        } => encode_message(*chat_position, envelope),
        EntryBody::Receipt(update) => {
            let mut value = value(kind::RECEIPT, update.encoded_len());
            update.encode(&mut value).expect("a buffer grows");
            finish(value)
        }
        EntryBody::Gap(reason) => {
            let mut value = value(kind::GAP, 1);
            value.put_u8(u8::try_from(i32::from(*reason)).unwrap_or(0));
            finish(value)
        }
    }
}

fn encode_message(chat_position: Position, envelope: &Envelope) -> Bytes {
    let length = envelope.encoded_len();
    let mut value = if chat_position == Position::ZERO {
        value(kind::MESSAGE, length)
    } else {
        let mut value = value(kind::MESSAGE_AT, Position::LEN + length);
        put_position(&mut value, chat_position);
        value
    };
    envelope.encode(&mut value).expect("a buffer grows");
    finish(value)
}

/// Reads an entry; payloads stay slices of the value.
#[must_use]
pub fn decode(mut value: Bytes) -> Option<EntryBody> {
    if value.is_empty() {
        return None;
    }
    match value.get_u8() {
        kind::MESSAGE => decode_message(Position::ZERO, value),
        kind::MESSAGE_AT => {
            let position = Position::from_slice(value.get(..Position::LEN)?)?;
            value.advance(Position::LEN);
            decode_message(position, value)
        }
        kind::RECEIPT => ReceiptUpdate::decode(value).ok().map(EntryBody::Receipt),
        kind::GAP => {
            let reason = GapReason::try_from(i32::from(*value.first()?)).ok()?;
            (value.len() == 1).then_some(EntryBody::Gap(reason))
        }
        _ => None,
    }
}

fn decode_message(chat_position: Position, value: Bytes) -> Option<EntryBody> {
    let envelope = Envelope::decode(value).ok()?;
    Some(EntryBody::Message {
        chat_position,
        envelope,
    })
}

/// The entries of an inbox behind `after`, and whether a limit ended them.
pub(crate) async fn entries<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    (user, device): Device,
    after: Position,
    limits: (usize, usize),
    how: Read,
) -> Result<(Vec<Entry>, bool), RecordError> {
    let from = scope.keys.entry(user, device, after).successor();
    let to = scope.keys.inbox(user, device).end_of_prefix();
    let query = RangeQuery {
        entries_max: limits.0.max(1),
        bytes_max: limits.1,
        read: how,
        ..RangeQuery::all(&from, &to)
    };
    let page = txn.range(query).await?;
    let entries = page.pairs.into_iter().map(|(key, value)| {
        Ok(Entry {
            cursor: position_of(&key)?,
            body: decode(value).ok_or(StoreError::Corrupt)?,
        })
    });
    Ok((entries.collect::<Result<_, RecordError>>()?, page.more))
}

/// Carries out [`roadstead::store::Command::ReadInbox`]: only this moves a delivered cursor (R4).
///
/// The caller opens the transaction after the session is registered (R5), and `scope.committed` is the
/// transaction's own read version: what the page says of completeness is true as of that moment.
///
/// # Errors
/// If an entry can not be read.
pub async fn read<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    read: &ReadInbox,
) -> Result<InboxPage, RecordError> {
    let device = (read.user, read.device);
    let ack = load_ack(scope, txn, device, Read::Snapshot).await?;
    // A cursor of a later generation says nothing (R3). One of an earlier generation comes from here: what
    // was imported has kept its positions.
    let after = if read.after.generation() <= scope.generation {
        read.after.max(ack.floor())
    } else {
        ack.floor()
    };
    let limits = (read.entries_max, read.bytes_max);
    let (entries, more) = entries(scope, txn, device, after, limits, Read::Snapshot).await?;
    let through = match entries.last() {
        Some(last) if more => last.cursor,
        _ => scope.committed,
    };
    Ok(InboxPage {
        entries,
        through,
        more,
    })
}

/// What a look at an inbox leads to (R21).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing, and the device is suspended or not.
    Stays {
        /// Whether it is.
        suspended: bool,
    },
    /// It holds too much.
    Suspend,
    /// It holds enough that its senders have to be counted.
    Crowd,
    /// It is empty, and its senders are still counted.
    Clear,
}

/// Looks at what an inbox holds: a few keys by themselves.
///
/// # Errors
/// If a record can not be read.
pub(crate) async fn look<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    check: &CheckInbox,
) -> Result<Verdict, RecordError> {
    let device = (check.user, check.device);
    let versions = versions::load(scope, txn, check.user).await?;
    let listed = versions.as_ref().and_then(|user| user.device(check.device));
    let crowded = match listed {
        None => return Ok(Verdict::Stays { suspended: false }),
        Some(listed) if listed.suspended => return Ok(Verdict::Stays { suspended: true }),
        Some(listed) => listed.crowded,
    };
    let held = held::load(scope, txn, device, Read::Snapshot).await?;
    Ok(if held.is_above(check.limits) {
        Verdict::Suspend
    } else if !crowded && held.is_above(check.limits.crowded()) {
        Verdict::Crowd
    } else if crowded && held == Held::default() {
        Verdict::Clear
    } else {
        Verdict::Stays { suspended: false }
    })
}

/// Carries out [`roadstead::store::Command::CheckInbox`]: a device over the limit gets one Gap entry and
/// nothing more until it resynchronises (R21).
///
/// # Errors
/// If a record can not be read.
pub async fn check<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    check: &CheckInbox,
) -> Result<(bool, Vec<Grown>), RecordError> {
    let device = (check.user, check.device);
    match look(scope, txn, check).await? {
        Verdict::Stays { suspended } => return Ok((suspended, Vec::new())),
        Verdict::Crowd => {
            versions::change(scope, txn, device, |listed| listed.crowded = true).await?;
            return Ok((false, Vec::new()));
        }
        Verdict::Clear => {
            // What comes in meanwhile is in its sender's share already.
            let held = held::load(scope, txn, device, Read::Serializable).await?;
            let crowded = held != Held::default();
            versions::change(scope, txn, device, |listed| listed.crowded = crowded).await?;
            return Ok((false, Vec::new()));
        }
        Verdict::Suspend => {}
    }
    versions::change(scope, txn, device, |listed| listed.suspended = true).await?;
    let index = scope.take_index()?;
    let gap = append_gap(scope, txn, device, (index, GapReason::InboxLimit)).await?;
    Ok((true, vec![gap]))
}

/// Tells a device that messages were not kept for it.
pub(crate) async fn append_gap<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    device: Device,
    (index, reason): (u16, GapReason),
) -> Result<Grown, RecordError> {
    let body = EntryBody::Gap(reason);
    scope.append(txn, device, index, encode(&body)).await?;
    Ok(scope.grown(device, index, body))
}

/// A receipt entry's update, as it is stored: without a cursor.
pub(crate) fn receipt_update(
    chat: ChatId,
    user: UserId,
    delivered: Position,
    read: Position,
) -> ReceiptUpdate {
    let field = |position: Position| match position {
        Position::ZERO => Bytes::new(),
        position => Bytes::copy_from_slice(position.as_bytes()),
    };
    ReceiptUpdate {
        cursor: Bytes::new(),
        chat: Bytes::copy_from_slice(chat.as_bytes()),
        user: user.get(),
        delivered: field(delivered),
        read: field(read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            message_id: 5,
            chat: Bytes::from_static(&[1; 16]),
            sender: 2,
            sender_device: 3,
            server_time_ms: 4,
            payload: Bytes::from_static(b"hello"),
            number: 6,
        }
    }

    #[test]
    fn entries_survive() {
        let chat = ChatId::from_slice(&[1; 16]).expect("valid");
        let user = UserId::new(9).expect("not 0");
        let position = Position::new(1, [2; 10], 3);
        for body in [
            EntryBody::Message {
                chat_position: Position::ZERO,
                envelope: envelope(),
            },
            EntryBody::Message {
                chat_position: position,
                envelope: envelope(),
            },
            EntryBody::Receipt(receipt_update(chat, user, position, Position::ZERO)),
            EntryBody::Gap(GapReason::Expired),
        ] {
            assert_eq!(decode(encode(&body)), Some(body));
        }
    }

    #[test]
    fn damaged_entries_are_refused_and_never_panic() {
        let value = encode(&EntryBody::Message {
            chat_position: Position::new(1, [2; 10], 3),
            envelope: envelope(),
        });
        for length in 0..17 {
            assert_eq!(decode(value.slice(..length)), None);
        }
        for first in 5..=255u8 {
            assert_eq!(decode(Bytes::from(vec![first; 40])), None);
        }
        assert_eq!(decode(Bytes::from_static(&[4, 200])), None);
    }
}
