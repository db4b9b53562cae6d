//! What commits did, in their order: from it the model knows what every inbox must hold.

use std::collections::BTreeMap;

use roadstead::limits::{INBOX_CROWDED_PART, INBOX_SHARES};
use roadstead::store::{
    CheckInbox, DeviceOpened, EntryBody, Flush, Grown, MarkRead, OpenDevice, SendItem, Sent,
    StoreError,
};
use roadstead_proto::limits::SEND_ANSWERS_KEPT;
use roadstead_proto::v1::ReceiptUpdate;
use roadstead_proto::{ChatId, DeviceId, Position, UserId};

use super::{Checker, Committed, DEVICES_MAX, Device, Expected, Kept, Progress};
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
                grown,
            } => self.sent((*user, *device), item, *answer, grown),
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

    fn sent(
        &mut self,
        sender: Device,
        item: &SendItem,
        answer: Result<Sent, StoreError>,
        grown: &[Grown],
    ) {
        let token = token_of(&item.envelope.payload).unwrap_or(0);
        self.note_failure(sender, item.number, answer);
        match answer {
            Ok(sent) if sent.repeated => self.sent_before(sender, token, item.number, sent),
            Ok(sent) => self.sent_now(sender, (token, item), sent, grown),
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

    fn sent_now(
        &mut self,
        sender: Device,
        (token, item): (u64, &SendItem),
        sent: Sent,
        grown: &[Grown],
    ) {
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
        let before = model.last_token.insert(item.chat, token);
        let in_order = before.is_none_or(|before| before < token);
        let may_differ = model.forgetful || model.restored || model.resynced;
        self.require(in_order || may_differ, "R16", || {
            format!("{sender:?}: token {token} was committed behind {before:?}")
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
        self.expect_message(sender, recipient, (token, sent.position), grown);
    }

    fn expect_message(
        &mut self,
        sender: Device,
        recipient: UserId,
        (token, at): (u64, Position),
        grown: &[Grown],
    ) {
        let mut receivers = Vec::new();
        if recipient != sender.0 {
            let known = !self.devices_of(recipient).is_empty();
            self.require(known, "R14", || {
                format!("sent to {recipient:?}, who has no device")
            });
            let (mut with_room, without) = self.with_room(recipient, sender.0);
            for device in self.without_room(&mut with_room, without, grown) {
                self.expect_share_gap(device, sender.0, grown);
            }
            self.require(!with_room.is_empty() || !known, "R21", || {
                format!(
                    "sent to {recipient:?}: nobody there has room for {:?}",
                    sender.0
                )
            });
            receivers = with_room;
        }
        for device in &receivers {
            if let Some(shares) = &mut self.device(*device).shares {
                shares.entry(sender.0).or_default().messages += 1;
            }
        }
        receivers.extend(
            self.receiving(sender.0)
                .into_iter()
                .filter(|own| *own != sender),
        );
        let mut told: Vec<Device> = of_messages(grown).collect();
        told.sort_unstable();
        receivers.sort_unstable();
        self.require(told == receivers, "R14", || {
            format!("token {token} reached {told:?}, not {receivers:?}")
        });
        for device in receivers {
            self.device(device)
                .expected
                .insert(at, Expected::Message(token));
        }
    }

    /// The devices that go without. Where others write too, a share is looked at a moment before it is added to:
    /// it is soft, and who was given the message decides about those whose senders are counted.
    fn without_room(
        &self,
        with_room: &mut Vec<Device>,
        without: Vec<Device>,
        grown: &[Grown],
    ) -> Vec<Device> {
        if !self.shares_are_soft {
            return without;
        }
        let all = with_room.drain(..).chain(without);
        let (got, went_without) =
            all.partition(|device| of_messages(grown).any(|it| it == *device));
        *with_room = got;
        went_without
    }

    /// The receiving devices of a user that have room for a sender, and those that have none (R21).
    fn with_room(&self, user: UserId, sender: UserId) -> (Vec<Device>, Vec<Device>) {
        let share_max = (self.inbox_max / INBOX_SHARES).max(1);
        let has_room = |device: &Device| {
            let shares = self.devices[device].shares.as_ref();
            let share = shares.and_then(|shares| shares.get(&sender));
            share.is_none_or(|share| share.messages < share_max)
        };
        self.receiving(user).into_iter().partition(has_room)
    }

    /// A device goes without a message for which its sender had no more room: it is told so, once.
    fn expect_share_gap(&mut self, device: Device, sender: UserId, grown: &[Grown]) {
        let is_gap = |one: &&Grown| {
            (one.user, one.device) == device && matches!(one.entry, Some(EntryBody::Gap(_)))
        };
        let gap = grown.iter().find(is_gap).map(|one| one.cursor);
        let shares = self.device(device).shares.as_mut();
        let share = shares.and_then(|shares| shares.get_mut(&sender));
        let is_counted = share.is_some();
        let was_told = share.is_some_and(|share| std::mem::replace(&mut share.told, true));
        // Where others write too, the share may be gone again by the time of the commit.
        self.require(self.shares_are_soft || is_counted, "R21", || {
            format!("{device:?} went without a message of {sender:?}, of whom it has none")
        });
        self.require(
            self.shares_are_soft || was_told == gap.is_none(),
            "R21",
            || format!("{device:?} was told of the share of {sender:?}: {was_told}, now {gap:?}"),
        );
        if let Some(at) = gap {
            self.last_position = self.last_position.max(at);
            self.device(device).expected.insert(at, Expected::Gap);
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
        let has_room = !self.with_room(item.recipient, sender.0).0.is_empty();
        let crowded = |device: &Device| self.devices[device].shares.is_some();
        let all_crowded = self.receiving(item.recipient).iter().all(crowded);
        let model = self.device(sender);
        let first = model.answered(item.number);
        let is_behind = model.refused_alike_before(item, error);
        if error.is_kept() {
            let kept = Kept {
                token,
                chat: item.chat,
                error,
            };
            let known = *model.kept.entry(item.number).or_insert(kept);
            let is_first = first.is_none_or(|first| first == token);
            self.require(is_first && known == kept, "R12", || {
                format!(
                    "{sender:?} number {}: {error:?}, and {known:?}",
                    item.number
                )
            });
            if first.is_some() {
                return;
            }
        }
        let model = self.device(sender);
        let (rule, justified) = match error {
            StoreError::UserUnknown => ("R14", theirs.is_empty()),
            StoreError::RecipientFull => {
                let is_full = !has_room || (self.shares_are_soft && all_crowded);
                ("R21", is_behind || (!theirs.is_empty() && is_full))
            }
            // By a rate of the shard's own.
            StoreError::ChatBusy { .. } => ("R16", is_behind || item.refused.is_some()),
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
                let mut taken = model.numbers.keys().chain(model.kept.keys());
                ("R12", taken.any(newer))
            }
            StoreError::Corrupt | StoreError::RecordDamaged | StoreError::CursorInvalid => {
                ("R10", false)
            }
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
        let soft = self.shares_are_soft;
        let model = self.device(device);
        model.shares_are_soft = soft;
        if soft {
            model.shares.get_or_insert_default();
        }
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
        let senders = self.senders_between(device, before, stored_ack);
        self.device(device).left(senders);
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

    /// Who sent the messages of others in `(from, to]`.
    fn senders_between(&self, device: Device, from: Position, to: Position) -> Vec<UserId> {
        let bounds = (
            std::ops::Bound::Excluded(from),
            std::ops::Bound::Included(to),
        );
        let there = self.devices[&device].expected.range(bounds);
        let senders = there.filter_map(|(_, expected)| self.sender_of(expected));
        senders.filter(|sender| *sender != device.0).collect()
    }

    /// Who sent what an inbox holds, if it is a message.
    pub(super) fn sender_of(&self, expected: &Expected) -> Option<UserId> {
        match expected {
            Expected::Message(token) => Some(self.messages[token].sender.0),
            Expected::Receipt(_) | Expected::Gap => None,
        }
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
        let is_own = mark.chat.peer_of(mark.user) == Some(mark.user);
        let position = match is_own {
            true => mark.position,
            false => mark.position.min(progress.delivered),
        };
        if position <= progress.read {
            let none = grown.is_empty();
            return self.require(none, "R20", || {
                format!("{reader:?}: a read that is old, or of nothing delivered")
            });
        }
        progress.read = position;
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
        let limits = check.limits;
        let model = self.device(device);
        let (waiting, was_suspended) = (model.waiting(), model.suspended.is_some());
        if let Some(gap) = grown.first() {
            self.check_position(gap.cursor);
            let model = self.device(device);
            let again = model.suspended.replace(gap.cursor);
            model.expected.insert(gap.cursor, Expected::Gap);
            self.require(again.is_none(), "R21", || {
                format!("{device:?} got a second gap")
            });
            let soft = self.shares_are_soft;
            self.require(soft || waiting > limits.entries_max, "R21", || {
                format!("{device:?} is suspended with {waiting} messages")
            });
        } else if model.registered && !was_suspended && !model.shares_are_soft {
            if waiting == 0 {
                model.shares = None;
            } else if waiting > limits.entries_max / INBOX_CROWDED_PART {
                model.shares.get_or_insert_default();
            }
            self.require(waiting <= limits.entries_max, "R21", || {
                format!("{device:?} is not suspended with {waiting} messages")
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

/// The devices whose inboxes grew by a message.
fn of_messages(grown: &[Grown]) -> impl Iterator<Item = Device> + '_ {
    let messages = grown
        .iter()
        .filter(|one| matches!(one.entry, Some(EntryBody::Message { .. })));
    messages.map(|one| (one.user, one.device))
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
