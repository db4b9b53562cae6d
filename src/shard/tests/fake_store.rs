//! A small store in memory with the semantics of the port, and an oracle for what the core claims.

use std::collections::{BTreeMap, BTreeSet};

use roadstead_proto::v1::{GapReason, ReceiptUpdate};
use roadstead_proto::{ChatId, DeviceId, MessageId, Position, UserId, limits as wire};

use crate::store::{
    CheckInbox, Command, DeviceOpened, Entry, EntryBody, Flush, Grown, InboxPage, KnownEntry,
    MarkRead, OpenDevice, Outcome, ReadInbox, SendItem, Sends, Sent, StoreError,
};
use crate::time::Time;

pub(super) type Device = (UserId, DeviceId);

#[derive(Debug, Default)]
pub(super) struct DeviceRecord {
    pub(super) inbox: BTreeMap<Position, EntryBody>,
    pub(super) stored_ack: Position,
    pub(super) suspended: bool,
    expired_through: Position,
    /// The last entry ever appended, for `Grown::previous`.
    last: Position,
    /// `k/`: number, hash and answer by `number % 256` (R12).
    answers: BTreeMap<u64, (u64, u64, Result<Sent, StoreError>)>,
    highest_number: u64,
    /// The one pending receipt entry per chat and peer (R20).
    pending_receipts: BTreeMap<(ChatId, UserId), Position>,
}

#[derive(Debug)]
pub(super) struct FakeStore {
    pub(super) generation: u32,
    pub(super) devices: BTreeMap<Device, DeviceRecord>,
    /// Delivered and read, by chat and user (R20).
    pub(super) receipts: BTreeMap<(ChatId, UserId), (Position, Position)>,
    /// Whether it knows the entry before each, as the embedded engine does.
    pub(super) knows_previous: bool,
    /// Refuses these numbers of a device, once each.
    pub(super) refuse_once: BTreeMap<(DeviceId, u64), StoreError>,
    /// Flushes that brought a list which could stand in for the read (R18).
    pub(super) known_lists_used: u64,
    /// Every message ever committed: number of commits by sender's device and number (R12).
    pub(super) committed: BTreeMap<(Device, u64), Position>,
    /// For the canary: one append in so many is dropped.
    pub(super) drops_one_in: Option<u64>,
    stamp: u64,
    /// When the tokens of users who were signed out have to be issued at the earliest.
    pub(super) valid_after_s: BTreeMap<UserId, u64>,
    removed: BTreeSet<Device>,
}

impl FakeStore {
    pub(super) fn new(generation: u32) -> Self {
        Self {
            generation,
            devices: BTreeMap::new(),
            receipts: BTreeMap::new(),
            knows_previous: true,
            refuse_once: BTreeMap::new(),
            known_lists_used: 0,
            committed: BTreeMap::new(),
            drops_one_in: None,
            stamp: 0,
            valid_after_s: BTreeMap::new(),
            removed: BTreeSet::new(),
        }
    }

    pub(super) fn execute(&mut self, now: Time, command: &Command) -> Result<Outcome, StoreError> {
        match command {
            Command::OpenDevice(open) => self.open(open).map(Outcome::DeviceOpened),
            Command::Send(sends) => Ok(self.send(now, sends)),
            Command::ReadInbox(read) => self.read(read).map(Outcome::Inbox),
            Command::Flush(flush) => self.flush(flush),
            Command::MarkRead(mark) if self.removed.contains(&(mark.user, mark.device)) => {
                Err(StoreError::DeviceRemoved)
            }
            Command::MarkRead(mark) => Ok(self.mark_read(mark)),
            Command::CheckInbox(check) => Ok(self.check(check)),
        }
    }

    /// Removes entries by age, as the expiry does.
    pub(super) fn expire(&mut self, device: Device, through: Position) {
        let record = self.devices.get_mut(&device).expect("registered");
        record.inbox.retain(|cursor, _| *cursor > through);
        record.expired_through = through;
    }

    /// For good (R13).
    pub(super) fn remove(&mut self, device: Device) {
        self.devices.remove(&device);
        self.removed.insert(device);
    }

    /// As a count that found too much (R21), without its Gap.
    pub(super) fn suspend(&mut self, device: Device) {
        self.devices.get_mut(&device).expect("registered").suspended = true;
    }

    pub(super) fn device(&self, device: Device) -> &DeviceRecord {
        &self.devices[&device]
    }

    /// Everything committed so far lies before this.
    pub(super) fn committed_through(&self) -> Position {
        Position::end_of(self.generation, stamp_of(self.stamp))
    }

    fn next_stamp(&mut self) -> u64 {
        // Sparse, as a shared cluster's stamps are (R4).
        self.stamp += 1 + self.stamp % 3;
        self.stamp
    }

    fn place(&self, index: usize) -> Position {
        let index = u16::try_from(index).expect("a small batch");
        Position::new(self.generation, stamp_of(self.stamp), index)
    }

    fn open(&mut self, open: &OpenDevice) -> Result<DeviceOpened, StoreError> {
        let resync = open.cursor != Position::ZERO && open.cursor.generation() != self.generation;
        if !resync && open.cursor > self.committed_through() {
            return Err(StoreError::CursorInvalid);
        }
        let device = (open.user, open.device);
        let valid_after_s = self.valid_after_s.get(&open.user);
        if valid_after_s.is_some_and(|after| open.issued_s < *after) {
            return Err(StoreError::SignedOut);
        }
        if self.removed.contains(&device) {
            return Err(StoreError::DeviceRemoved);
        }
        if !self.devices.contains_key(&device) && self.devices_of(open.user).len() >= 4 {
            return Err(StoreError::DeviceLimit);
        }
        let record = self.devices.entry(device).or_default();
        Ok(DeviceOpened {
            generation: self.generation,
            stored_ack: record.stored_ack,
            expired_through: record.expired_through,
            resync,
            highest_number: open.want_highest_number.then_some(record.highest_number),
            version: self.stamp,
        })
    }

    fn devices_of(&self, user: UserId) -> Vec<Device> {
        let mine = |device: &&Device| device.0 == user;
        self.devices.keys().filter(mine).copied().collect()
    }

    fn send(&mut self, now: Time, sends: &Sends) -> Outcome {
        let device = (sends.user, sends.device);
        self.next_stamp();
        let mut grown = Vec::new();
        let mut failed = false;
        let mut busy: BTreeMap<ChatId, (u64, StoreError)> = BTreeMap::new();
        let mut answers = Vec::new();
        for (index, item) in sends.items.iter().enumerate() {
            let is_behind = |(number, _): &&(u64, StoreError)| item.after < *number;
            let mut item = item.clone();
            if let Some((_, error)) = busy.get(&item.chat).filter(is_behind) {
                item.refused.get_or_insert(*error);
            }
            let answer = if failed {
                Err(StoreError::EarlierSendFailed)
            } else {
                self.send_one(now, device, index, &item, &mut grown)
            };
            if let Err(error @ (StoreError::RecipientFull | StoreError::ChatBusy { .. })) = answer {
                busy.insert(item.chat, (item.number, error));
            }
            failed |= answer.is_err_and(StoreError::is_retryable);
            answers.push(answer);
        }
        Outcome::Sent { answers, grown }
    }

    fn send_one(
        &mut self,
        now: Time,
        sender: Device,
        index: usize,
        item: &SendItem,
        grown: &mut Vec<Grown>,
    ) -> Result<Sent, StoreError> {
        if !self.devices.contains_key(&sender) {
            return Err(StoreError::DeviceRemoved);
        }
        let slot = item.number % wire::SEND_ANSWERS_KEPT;
        match self.devices[&sender].answers.get(&slot) {
            Some((number, hash, first)) if *number == item.number => {
                return if *hash == item.request_hash {
                    first.map(|sent| Sent {
                        repeated: true,
                        ..sent
                    })
                } else {
                    Err(StoreError::NumberReused)
                };
            }
            Some((number, ..)) if *number > item.number => return Err(StoreError::NumberSpent),
            _ => {}
        }
        let recipients = self.devices_of(item.recipient);
        let all_full = recipients.iter().all(|d| self.devices[d].suspended);
        let refused = match self.refuse_once.remove(&(sender.1, item.number)) {
            Some(error) => Some(error),
            None if item.deadline <= now => Some(StoreError::DeadlinePassed),
            None if item.refused.is_some() => item.refused,
            None if recipients.is_empty() => Some(StoreError::UserUnknown),
            None => (item.recipient != sender.0 && all_full).then_some(StoreError::RecipientFull),
        };
        if let Some(error) = refused {
            if error.is_kept() {
                self.keep(sender, item, Err(error));
            }
            return Err(error);
        }
        let position = self.place(index);
        let mut inboxes = self.devices_of(sender.0);
        inboxes.extend(recipients);
        inboxes.sort_unstable();
        inboxes.dedup();
        inboxes.retain(|device| *device != sender);
        for inbox in inboxes {
            let body = EntryBody::Message {
                chat_position: Position::ZERO,
                envelope: item.envelope.clone(),
            };
            self.append(inbox, position, body, grown);
        }
        let sent = Sent {
            message_id: MessageId::new(item.envelope.message_id),
            position,
            server_time_ms: item.envelope.server_time_ms,
            repeated: false,
        };
        self.keep(sender, item, Ok(sent));
        let twice = self.committed.insert((sender, item.number), position);
        assert_eq!(twice, None, "R12: number {} executed twice", item.number);
        Ok(sent)
    }

    fn keep(&mut self, sender: Device, item: &SendItem, answer: Result<Sent, StoreError>) {
        let slot = item.number % wire::SEND_ANSWERS_KEPT;
        let record = self.devices.get_mut(&sender).expect("it sends");
        let kept = (item.number, item.request_hash, answer);
        record.answers.insert(slot, kept);
        record.highest_number = record.highest_number.max(item.number);
    }

    fn append(
        &mut self,
        device: Device,
        cursor: Position,
        body: EntryBody,
        grown: &mut Vec<Grown>,
    ) {
        let record = self.devices.get_mut(&device).expect("registered");
        if record.suspended {
            return;
        }
        assert!(cursor > record.last, "the store appends in order");
        let is_message = matches!(body, EntryBody::Message { .. });
        if is_message
            && self
                .drops_one_in
                .is_some_and(|n| self.stamp.is_multiple_of(n))
        {
            return;
        }
        let previous = std::mem::replace(&mut record.last, cursor);
        record.inbox.insert(cursor, body.clone());
        grown.push(Grown {
            user: device.0,
            device: device.1,
            previous: self.knows_previous.then_some(previous),
            cursor,
            entry: self.knows_previous.then_some(body),
        });
    }

    fn read(&mut self, read: &ReadInbox) -> Result<InboxPage, StoreError> {
        assert!(read.entries_max >= 1, "a read asks for at least one entry");
        let record = self.devices.get(&(read.user, read.device));
        let record = record.ok_or(StoreError::DeviceRemoved)?;
        let after = read.after.max(record.expired_through);
        let beyond = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let mut page = InboxPage {
            entries: Vec::new(),
            through: self.committed_through(),
            more: false,
        };
        let mut bytes = 0;
        for (cursor, body) in record.inbox.range(beyond) {
            if page.entries.len() == read.entries_max || bytes > read.bytes_max {
                page.more = true;
                break;
            }
            if let EntryBody::Message { envelope, .. } = body {
                bytes += envelope.payload.len();
            }
            page.entries.push(Entry {
                cursor: *cursor,
                body: body.clone(),
            });
        }
        if page.more {
            page.through = page.entries.last().expect("it asked for one").cursor;
        }
        Ok(page)
    }

    fn flush(&mut self, flush: &Flush) -> Result<Outcome, StoreError> {
        let device = (flush.user, flush.device);
        let record = self.devices.get_mut(&device);
        let record = record.ok_or(StoreError::DeviceRemoved)?;
        let stored_ack = record.stored_ack;
        let mut grown = Vec::new();
        if flush.upto > stored_ack {
            let kept = record.inbox.split_off(&flush.upto);
            let mut taken = std::mem::replace(&mut record.inbox, kept);
            if let Some(body) = record.inbox.remove(&flush.upto) {
                taken.insert(flush.upto, body);
            }
            record.pending_receipts.retain(|_, at| *at > flush.upto);
            record.stored_ack = flush.upto;
            let taken: Vec<KnownEntry> = taken
                .iter()
                .map(|(cursor, body)| known_entry(flush.user, *cursor, body))
                .filter(matters)
                .collect();
            if taken.iter().any(|entry| entry.is_gap) {
                record.suspended = false;
            }
            if let Some(known) = flush
                .known
                .as_ref()
                .filter(|known| known.from == stored_ack)
            {
                let mut claimed = known.entries.clone();
                claimed.retain(matters);
                assert_eq!(claimed, taken, "R18: the list is what a read would find");
                self.known_lists_used += 1;
            }
            self.give_receipts(flush.user, &taken, &mut grown);
        }
        Ok(Outcome::Flushed {
            stored_ack: stored_ack.max(flush.upto),
            more: false,
            grown,
        })
    }

    fn give_receipts(&mut self, user: UserId, taken: &[KnownEntry], grown: &mut Vec<Grown>) {
        let mut advanced = BTreeMap::new();
        for (chat, place, sender) in taken.iter().filter_map(|entry| entry.receipt) {
            let marks = self.receipts.entry((chat, user)).or_default();
            if place > marks.0 {
                marks.0 = place;
                advanced.insert(chat, sender);
            }
        }
        if !advanced.is_empty() {
            self.next_stamp();
        }
        for (index, (chat, sender)) in advanced.into_iter().enumerate() {
            for device in self.devices_of(sender) {
                self.append_receipt(device, index, (chat, user), grown);
            }
        }
    }

    fn append_receipt(
        &mut self,
        device: Device,
        index: usize,
        (chat, user): (ChatId, UserId),
        grown: &mut Vec<Grown>,
    ) {
        let cursor = self.place(index);
        let record = self.devices.get_mut(&device).expect("registered");
        if record.suspended {
            return;
        }
        if let Some(pending) = record.pending_receipts.insert((chat, user), cursor) {
            record.inbox.remove(&pending);
        }
        let (delivered, read) = self.receipts[&(chat, user)];
        let update = ReceiptUpdate {
            cursor: bytes::Bytes::new(),
            chat: bytes::Bytes::copy_from_slice(chat.as_bytes()),
            user: user.get(),
            delivered: bytes::Bytes::copy_from_slice(delivered.as_bytes()),
            read: bytes::Bytes::copy_from_slice(read.as_bytes()),
        };
        self.append(device, cursor, EntryBody::Receipt(update), grown);
    }

    fn mark_read(&mut self, mark: &MarkRead) -> Outcome {
        let mut grown = Vec::new();
        let marks = self.receipts.get_mut(&(mark.chat, mark.user));
        if let Some((delivered, read)) = marks
            && mark.position.min(*delivered) > *read
        {
            *read = mark.position.min(*delivered);
            self.next_stamp();
            let peer = mark.chat.peer_of(mark.user).expect("the shard checks");
            let mut devices = self.devices_of(mark.user);
            devices.extend(self.devices_of(peer));
            devices.sort_unstable();
            devices.dedup();
            devices.retain(|device| *device != (mark.user, mark.device));
            for device in devices {
                self.append_receipt(device, 0, (mark.chat, mark.user), &mut grown);
            }
        }
        Outcome::MarkedRead { grown }
    }

    fn check(&mut self, check: &CheckInbox) -> Outcome {
        let device = (check.user, check.device);
        let mut grown = Vec::new();
        let is_message = |body: &&EntryBody| matches!(body, EntryBody::Message { .. });
        let full = self.devices.get(&device).is_some_and(|record| {
            let messages = record.inbox.values().filter(is_message).count();
            !record.suspended && messages as u64 > check.limits.entries_max
        });
        if full {
            self.next_stamp();
            let gap = EntryBody::Gap(GapReason::InboxLimit);
            self.append(device, self.place(0), gap, &mut grown);
            self.devices.get_mut(&device).expect("it is full").suspended = true;
        }
        let suspended = self
            .devices
            .get(&device)
            .is_some_and(|record| record.suspended);
        Outcome::InboxChecked { suspended, grown }
    }
}

/// What a flush would find of an entry, by the port's documentation and not by the core's code.
fn known_entry(user: UserId, cursor: Position, body: &EntryBody) -> KnownEntry {
    let receipt = match body {
        EntryBody::Message { envelope, .. } if envelope.sender != user.get() => Some((
            ChatId::from_slice(&envelope.chat).expect("stored"),
            cursor,
            UserId::new(envelope.sender).expect("stored"),
        )),
        _ => None,
    };
    let bytes = match body {
        EntryBody::Message { envelope, .. } => 96 + envelope.payload.len(),
        EntryBody::Receipt(_) | EntryBody::Gap(_) => 0,
    };
    KnownEntry {
        cursor,
        bytes: u32::try_from(bytes).expect("small"),
        receipt,
        is_gap: matches!(body, EntryBody::Gap(_)),
    }
}

/// Receipts that a later one replaced are in a session's list and no more in the store; they change
/// nothing.
fn matters(entry: &KnownEntry) -> bool {
    entry.is_gap || entry.receipt.is_some()
}

fn stamp_of(counter: u64) -> [u8; 10] {
    let mut stamp = [0; 10];
    stamp[..8].copy_from_slice(&counter.to_be_bytes());
    stamp
}
