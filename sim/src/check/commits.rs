//! What commits did, in their order: from it the model knows what every inbox must hold.

use std::collections::BTreeMap;

use roadstead::store::{
    CheckInbox, DeviceOpened, EntryBody, Flush, Grown, MarkRead, OpenDevice, SendItem, Sent,
    StoreError,
};
use roadstead_proto::limits::SEND_ANSWERS_KEPT;
use roadstead_proto::v1::ReceiptUpdate;
use roadstead_proto::{ChatId, DeviceId, Position, UserId};

use super::{Checker, Committed, DEVICES_MAX, Device, Expected, Progress};
use crate::client::token_of;
use crate::store::Tap;

impl Checker {
    /// A commit is durable.
    pub fn commit(&mut self, tap: &Tap) {
        match tap {
            Tap::Sent {
                user,
                device,
                item,
                answer,
            } => self.sent((*user, *device), item, *answer),
            Tap::Opened(open, Ok(opened)) => self.opened(open, opened),
            Tap::Opened(open, Err(error)) => self.not_opened(open, *error),
            Tap::Flushed {
                flush,
                stored_ack,
                grown,
            } => self.flushed(flush, *stored_ack, grown),
            Tap::MarkedRead(mark, grown) => self.marked_read(mark, grown),
            Tap::Checked(check, suspended, grown) => self.checked(check, *suspended, grown),
            Tap::Removed(user, device) => self.removed(*user, *device),
            Tap::Stamped { minute, at } => self.minute_stamped(*minute, *at),
            Tap::ExpiryBegun => self.expiry_begun(),
            Tap::Expired(keys) => self.expired(keys),
            Tap::ExpiryDone => self.expiry_done(),
        }
    }

    fn sent(&mut self, sender: Device, item: &SendItem, answer: Result<Sent, StoreError>) {
        let token = token_of(&item.envelope.payload).unwrap_or(0);
        self.note_failure(sender, item.number, answer);
        match answer {
            Ok(sent) if sent.repeated => self.sent_before(sender, token, item.number, sent),
            Ok(sent) => self.sent_now(sender, token, item, sent),
            Err(error) => self.not_sent(sender, token, item, error),
        }
    }

    /// Failures of numbers that have their answer already are those of a late copy, and stop nobody.
    fn note_failure(&mut self, sender: Device, number: u64, answer: Result<Sent, StoreError>) {
        let model = self.device(sender);
        if model.failed.is_some_and(|failed| number <= failed) {
            model.failed = None;
        }
        match answer {
            Err(error) if error.is_retryable() => {
                let answered =
                    model.numbers.contains_key(&number) || model.refused.contains(&number);
                if !answered && error != StoreError::EarlierSendFailed {
                    model.failed = Some(number);
                }
            }
            Err(_) => {
                model.refused.insert(number);
            }
            Ok(_) => {}
        }
    }

    fn sent_now(&mut self, sender: Device, token: u64, item: &SendItem, sent: Sent) {
        let committed = Committed {
            number: item.number,
            position: sent.position,
            message_id: sent.message_id,
            server_time_ms: sent.server_time_ms,
        };
        let Some(message) = self.messages.get_mut(&token) else {
            return self.broken("R12", format!("a message that nobody sent: token {token}"));
        };
        let (forbidden, first) = (message.forbidden, message.committed.replace(committed));
        let recipient = message.recipient;
        self.committed += 1;
        self.require(!forbidden, "R12", || {
            format!("number {} was executed again", item.number)
        });
        self.require(first.is_none(), "R12", || {
            format!(
                "{sender:?} number {}: {first:?}, and again {committed:?}",
                item.number
            )
        });
        self.check_position(sent.position);
        let fresh = self.message_ids.insert(sent.message_id);
        self.require(fresh, "R24", || {
            format!("{:?} was given twice", sent.message_id)
        });
        let model = self.device(sender);
        let is_member = model.registered && !model.removed;
        let last = model.last_number.insert(item.chat, item.number);
        let failed = model.failed.filter(|failed| item.number > *failed);
        let taken = model.answered(item.number);
        model.numbers.insert(item.number, token);
        self.require(is_member, "R14", || {
            format!("{sender:?} is no device and has sent")
        });
        self.require(taken.is_none(), "R12", || {
            format!(
                "{sender:?} number {} answered for two messages",
                item.number
            )
        });
        self.require(item.number > last.unwrap_or(0), "R16", || {
            format!(
                "{sender:?} number {} was committed behind {last:?}",
                item.number
            )
        });
        self.require(failed.is_none(), "R16", || {
            format!(
                "{sender:?} number {} overtook {failed:?}, which failed",
                item.number
            )
        });
        self.expect_message(sender, recipient, token, sent.position);
    }

    fn expect_message(&mut self, sender: Device, recipient: UserId, token: u64, at: Position) {
        let mut receivers = Vec::new();
        if recipient != sender.0 {
            receivers = self.receiving(recipient);
            let known = !self.devices_of(recipient).is_empty();
            self.require(known, "R14", || {
                format!("sent to {recipient:?}, who has no device")
            });
            let some = !receivers.is_empty() || !known;
            self.require(some, "R21", || {
                format!("sent to {recipient:?}: all are suspended")
            });
        }
        receivers.extend(
            self.receiving(sender.0)
                .into_iter()
                .filter(|own| *own != sender),
        );
        for device in receivers {
            self.device(device)
                .expected
                .insert(at, Expected::Message(token));
        }
    }

    fn sent_before(&mut self, sender: Device, token: u64, number: u64, sent: Sent) {
        let answer = Committed {
            number,
            position: sent.position,
            message_id: sent.message_id,
            server_time_ms: sent.server_time_ms,
        };
        let first = self
            .messages
            .get(&token)
            .and_then(|message| message.committed);
        self.require(first == Some(answer), "R12", || {
            format!("{sender:?} number {number}: first {first:?}, then {answer:?}")
        });
    }

    fn not_sent(&mut self, sender: Device, token: u64, item: &SendItem, error: StoreError) {
        let theirs = self.devices_of(item.recipient);
        let receiving = self.receiving(item.recipient);
        let model = self.device(sender);
        let (rule, justified) = match error {
            StoreError::UserUnknown => {
                let first = model.answered(item.number);
                let is_again = first.is_some() && model.unknown.get(&item.number) == Some(&token);
                if first.is_none() {
                    model.unknown.insert(item.number, token);
                }
                let rule = if first.is_some() { "R12" } else { "R14" };
                (rule, is_again || (first.is_none() && theirs.is_empty()))
            }
            StoreError::RecipientFull => ("R21", receiving.is_empty() && !theirs.is_empty()),
            StoreError::DeviceRemoved => ("R13", !model.registered),
            StoreError::NumberReused => {
                let holder = model.answered(item.number);
                ("R12", holder.is_some_and(|holder| holder != token))
            }
            StoreError::NumberSpent => {
                let newer = |number: &u64| {
                    *number > item.number
                        && (*number - item.number).is_multiple_of(SEND_ANSWERS_KEPT)
                };
                let mut taken = model.numbers.keys().chain(model.unknown.keys());
                ("R12", taken.any(newer))
            }
            StoreError::Corrupt | StoreError::CursorInvalid => ("R10", false),
            _ => return,
        };
        self.require(justified, rule, || {
            format!("{sender:?} number {} was refused: {error:?}", item.number)
        });
    }

    fn opened(&mut self, open: &OpenDevice, opened: &DeviceOpened) {
        let device = (open.user, open.device);
        let ids = self.users.entry(open.user).or_default();
        ids.insert(open.device);
        let count = ids.len();
        self.require(count <= DEVICES_MAX, "R13", || {
            format!("{device:?} is one too many")
        });
        let model = self.device(device);
        let (removed, flushed) = (model.removed, model.flushed);
        let highest = model.highest();
        model.registered = true;
        self.require(!removed, "R13", || {
            format!("{device:?} came back after its removal")
        });
        self.require(opened.stored_ack == flushed, "R18", || {
            format!(
                "{device:?} opened at {:?}, not {flushed:?}",
                opened.stored_ack
            )
        });
        let right = opened.highest_number.is_none_or(|number| number == highest);
        self.require(right, "R13", || {
            format!(
                "{device:?}: highest {:?}, not {highest}",
                opened.highest_number
            )
        });
    }

    fn not_opened(&mut self, open: &OpenDevice, error: StoreError) {
        let device = (open.user, open.device);
        let (rule, justified) = match error {
            StoreError::DeviceLimit => ("R13", self.devices_of(open.user).len() >= DEVICES_MAX),
            StoreError::DeviceRemoved => ("R13", self.device(device).removed),
            // No client holds a cursor that the store does not know, unless something was undone.
            StoreError::CursorInvalid => ("R8", false),
            _ => return,
        };
        self.require(justified, rule, || {
            format!("{device:?} was not opened: {error:?}")
        });
    }

    fn flushed(&mut self, flush: &Flush, stored_ack: Position, grown: &[Grown]) {
        let device = (flush.user, flush.device);
        let model = self.device(device);
        let (before, acked) = (model.flushed, model.acked);
        self.require(stored_ack >= before, "R18", || {
            format!("{device:?}: stored acknowledgement back from {before:?} to {stored_ack:?}")
        });
        if stored_ack <= before {
            let none = grown.is_empty();
            return self.require(none, "R18", || {
                format!("{device:?}: receipts without progress")
            });
        }
        self.require(stored_ack <= acked, "R19", || {
            format!("{device:?}: flushed to {stored_ack:?}, acknowledged to {acked:?}")
        });
        let model = self.device(device);
        model.flushed = stored_ack;
        if model.suspended.is_some_and(|gap| gap <= stored_ack) {
            model.suspended = None;
        }
        let furthest = self.furthest(flush, before, stored_ack);
        let mut owed = Vec::new();
        for ((chat, peer), position) in furthest {
            let mut progress = self.progress_of(chat, flush.user);
            if position > progress.delivered {
                progress.delivered = position;
                self.progress.insert((chat, flush.user), progress);
                owed.extend(
                    self.receiving(peer)
                        .into_iter()
                        .map(|device| (device, progress)),
                );
            }
        }
        self.settle_receipts("R18", owed, grown);
    }

    /// The furthest message of somebody else per chat among the entries in `(from, to]`. A session's own
    /// list stands in for reading them if it starts where they do (R18), and may hold some that have
    /// expired since they were delivered.
    fn furthest(
        &self,
        flush: &Flush,
        from: Position,
        to: Position,
    ) -> BTreeMap<(ChatId, UserId), Position> {
        let model = &self.devices[&(flush.user, flush.device)];
        let listed = flush.known.as_ref().filter(|known| known.from == from);
        let listed = listed.into_iter().flat_map(|known| &known.entries);
        let expired = listed.filter_map(|entry| {
            // A Gap that tells of what expired stands where the last of that stood, and owes no receipt.
            entry.receipt?;
            let gone = model.expired.get(&entry.cursor)?;
            Some((entry.cursor, &gone.expected))
        });
        let bounds = (
            std::ops::Bound::Excluded(from),
            std::ops::Bound::Included(to),
        );
        let there = model.expected.range(bounds);
        let there = there.map(|(position, expected)| (*position, expected));
        let mut furthest: BTreeMap<_, Position> = BTreeMap::new();
        for (position, expected) in expired
            .filter(|(at, _)| *at > from && *at <= to)
            .chain(there)
        {
            if let Expected::Message(token) = expected {
                let message = &self.messages[token];
                if message.sender.0 != flush.user {
                    let known = furthest
                        .entry((message.chat, message.sender.0))
                        .or_default();
                    *known = position.max(*known);
                }
            }
        }
        furthest
    }

    pub(crate) fn progress_of(&self, chat: ChatId, user: UserId) -> Progress {
        let none = Progress {
            chat,
            user,
            delivered: Position::ZERO,
            read: Position::ZERO,
        };
        self.progress.get(&(chat, user)).copied().unwrap_or(none)
    }

    fn marked_read(&mut self, mark: &MarkRead, grown: &[Grown]) {
        let reader = (mark.user, mark.device);
        let mut progress = self.progress_of(mark.chat, mark.user);
        if mark.position <= progress.read {
            let none = grown.is_empty();
            return self.require(none, "R20", || format!("{reader:?}: a read that is old"));
        }
        progress.read = mark.position;
        progress.delivered = progress.delivered.max(mark.position);
        self.progress.insert((mark.chat, mark.user), progress);
        self.take_back(reader, (mark.chat, mark.user));
        let peer = mark
            .chat
            .peer_of(mark.user)
            .expect("clients read in chats of theirs");
        let mut told = self.receiving(mark.user);
        told.retain(|device| *device != reader);
        if peer != mark.user {
            told.extend(self.receiving(peer));
        }
        let owed = told.into_iter().map(|device| (device, progress)).collect();
        self.settle_receipts("R20", owed, grown);
    }

    /// A commit owes these receipts, and tells of those.
    fn settle_receipts(
        &mut self,
        rule: &'static str,
        mut owed: Vec<(Device, Progress)>,
        grown: &[Grown],
    ) {
        let mut previous = Position::ZERO;
        for grown in grown {
            let device = (grown.user, grown.device);
            let Some(EntryBody::Receipt(update)) = &grown.entry else {
                self.broken("R20", format!("{device:?}: growth that is no receipt"));
                continue;
            };
            let progress = read_update(update);
            let index = owed
                .iter()
                .position(|one| Some(*one) == progress.map(|of| (device, of)));
            match index {
                Some(index) => owed.swap_remove(index),
                None => {
                    self.broken("R20", format!("{device:?}: {progress:?} is not due"));
                    continue;
                }
            };
            if grown.cursor != previous {
                self.check_position(grown.cursor);
                previous = grown.cursor;
            }
            self.tell(device, grown.cursor, progress.expect("matched above"));
        }
        self.require(owed.is_empty(), rule, || {
            format!("receipts are missing: {owed:?}")
        });
    }

    /// An inbox holds at most one receipt per chat and user (R20).
    fn tell(&mut self, device: Device, at: Position, progress: Progress) {
        self.receipts += 1;
        let key = (progress.chat, progress.user);
        self.take_back(device, key);
        let model = self.device(device);
        model.told.insert(key, (at, progress));
        model.expected.insert(at, Expected::Receipt(progress));
    }

    /// The receipt before this one is superseded, unless it is acknowledged already. A device that reads
    /// knows better itself.
    fn take_back(&mut self, device: Device, key: (ChatId, UserId)) {
        let model = self.device(device);
        if let Some((before, old)) = model.told.remove(&key)
            && before > model.flushed
        {
            model.expected.remove(&before);
            model.superseded.insert(before, old);
        }
    }

    fn checked(&mut self, check: &CheckInbox, suspended: bool, grown: &[Grown]) {
        let device = (check.user, check.device);
        if let Some(gap) = grown.first() {
            self.check_position(gap.cursor);
            let model = self.device(device);
            let again = model.suspended.replace(gap.cursor);
            model.expected.insert(gap.cursor, Expected::Gap);
            self.require(again.is_none(), "R21", || {
                format!("{device:?} got a second gap")
            });
        }
        let is = self.device(device).suspended.is_some();
        self.require(is == suspended, "R21", || {
            format!("{device:?} suspended: {is}")
        });
    }

    fn removed(&mut self, user: UserId, id: DeviceId) {
        if let Some(ids) = self.users.get_mut(&user) {
            ids.remove(&id);
        }
        let model = self.device((user, id));
        model.registered = false;
        model.removed = true;
        model.suspended = None;
    }
}

/// The words of a receipt; `None` if they are malformed.
pub(crate) fn read_update(update: &ReceiptUpdate) -> Option<Progress> {
    Some(Progress {
        chat: ChatId::from_slice(&update.chat).ok()?,
        user: UserId::new(update.user).ok()?,
        delivered: Position::from_field(&update.delivered)?,
        read: Position::from_field(&update.read)?,
    })
}
