//! The account of one thread's messages: what was sent, and what became of it.
//!
//! ```text
//! book ─▶ answered ─────────────▶ delivered receipt ─▶ read receipt ─▶ retired
//!     └─▶ delivered to each device that it concerns ┘
//! ```
//!
//! A [`Message`] is kept until all that is expected of it has come; [`Ledger::retire`] then drops it, so
//! a long run does not grow. What is left at the end is what is wrong. Per session and chat partner a
//! [`View`] holds the positions that only grow, so order and receipts are checked without a list.

mod delivery;
mod receipts;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use roadstead_proto::v1;
use roadstead_proto::{ChatId, ErrorCode, MessageId, Position, UserId};
use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::findings::{Findings, Kind};
use crate::payload::{self, Header};
use crate::topology::{DEVICES_MAX, Roster};

pub(crate) use delivery::{Arrival, Delivery};

/// The bit that tells an outsider from a user of the roster, by whose number it would be taken for one.
const OUTSIDER: u32 = 1 << 31;

/// What a ledger must know of its run.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) thread: u16,
    /// Tells this run's messages from those that an earlier one left in the server.
    pub(crate) run: u32,
    /// Bytes of a payload.
    pub(crate) size: usize,
    /// Share of the readers' chats that are read, each message at once.
    pub(crate) read_fraction: f64,
    /// Findings of each kind that are told in words.
    pub(crate) details_max: usize,
}

/// The messages of one thread.
#[derive(Debug)]
pub(crate) struct Ledger {
    rules: Rules,
    roster: Roster,
    /// The earliest position of this run's messages: receipts for less are for an earlier run's.
    began: Position,
    /// The number of the first message that is still kept.
    first: u64,
    messages: VecDeque<Message>,
    /// Of sessions that take part in a chat.
    accounts: Vec<Option<Box<Account>>>,
    /// Fan-outs so far, and the deliveries that those under way have left.
    fanouts: u64,
    /// Users who take no part in this run and are written to.
    outsiders: Vec<UserId>,
    deliveries_left: HashMap<u64, u32>,
    tally: Tally,
    findings: Findings,
}

/// Counts of a run. Everything grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    /// Deliveries wanted: one per message and device.
    pub(crate) to_deliver: u64,
    /// Deliveries made, each counted once.
    pub(crate) delivered: u64,
    /// Delivered receipts that reached the sender's devices.
    pub(crate) receipts_delivered: u64,
    /// Read receipts that reached the sender's devices.
    pub(crate) receipts_read: u64,
    /// Messages that no run of this ledger sent: of earlier runs, or of other clients.
    pub(crate) foreign: u64,
    /// Repeats after a Resync, recognised by message id (R3).
    pub(crate) repeats_filtered: u64,
    pub(crate) refused: u64,
    /// Messages to users who take no part in the run.
    pub(crate) outside: u64,
    /// Of these, taken back because their chat took nothing.
    pub(crate) given_up: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.to_deliver += other.to_deliver;
        self.delivered += other.delivered;
        self.receipts_delivered += other.receipts_delivered;
        self.receipts_read += other.receipts_read;
        self.foreign += other.foreign;
        self.repeats_filtered += other.repeats_filtered;
        self.outside += other.outside;
        self.given_up += other.given_up;
        self.refused += other.refused;
    }
}

/// One message, until nothing more is expected of it.
#[derive(Debug)]
struct Message {
    /// Session that sent it.
    sender: u32,
    /// User to whom, or an outsider.
    recipient: u32,
    /// The last one that it was sent under; 0 before.
    number: u64,
    intended: Micros,
    /// First written; 0 before.
    written: Micros,
    id: Option<MessageId>,
    position: Position,
    answered: bool,
    refused: bool,
    /// The fan-out that it is a part of; 0 if none.
    fanout: u64,
    /// Devices that have it, one bit each: see [`device_bit`].
    delivered: u8,
    expected: u8,
}

/// What a session knows of its chats.
#[derive(Debug)]
struct Account {
    /// By the partner's seat in the circle.
    views: Box<[View]>,
}

/// How far one session's chat with one partner has got. Positions only grow.
#[derive(Debug, Clone, Copy, Default)]
struct View {
    /// The last message delivered to this session.
    delivered: Position,
    /// The highest number answered, and its position: in a chat, later numbers have later positions (R2).
    answered: (u64, Position),
    /// The last message that this session marked read.
    marked: Position,
    /// The partner's receipts.
    receipt_delivered: Position,
    receipt_read: Position,
}

/// When a message was meant to be sent, and when it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) intended: Micros,
    pub(crate) written: Micros,
}

impl Ledger {
    pub(crate) fn new(rules: Rules, roster: Roster) -> Self {
        let accounts = (0..roster.sessions()).map(|_| None).collect();
        let findings = Findings::new(rules.details_max);
        Self {
            rules,
            roster,
            began: Position::MAX,
            first: 0,
            messages: VecDeque::new(),
            accounts,
            fanouts: 0,
            outsiders: Vec::new(),
            deliveries_left: HashMap::new(),
            tally: Tally::default(),
            findings,
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Something that is no message's fault.
    pub(crate) fn note(&mut self, kind: Kind, session: u32, what: impl std::fmt::Display) {
        let who = self.who(session);
        self.findings.add(kind, format_args!("{who}: {what}"));
    }

    /// Books a message that `sender` is about to send, and gives it its number in this ledger.
    pub(crate) fn book(&mut self, sender: u32, recipient: u32, intended: Micros) -> u64 {
        let user = self.roster.user(sender);
        assert!(user != recipient && self.roster.circle(user).contains(&recipient));
        let devices = (1 << self.roster.devices()) - 1;
        let siblings = (devices << DEVICES_MAX) & !sibling_bit(self.roster.device(sender));
        let expected = devices | siblings;
        self.account(sender);
        self.tally.sent += 1;
        self.tally.to_deliver += u64::from(expected.count_ones());
        self.push(sender, recipient, intended, expected)
    }

    /// Books a message to somebody who takes no part in this run: it has to be answered, by whatever answer, and
    /// nothing more is expected of it.
    pub(crate) fn book_outside(&mut self, sender: u32, to: UserId, intended: Micros) -> u64 {
        let index = self.outsiders.iter().position(|known| *known == to);
        let index = index.unwrap_or_else(|| {
            self.outsiders.push(to);
            self.outsiders.len() - 1
        });
        let index = u32::try_from(index).expect("a few of them");
        self.tally.outside += 1;
        self.push(sender, OUTSIDER | index, intended, 0)
    }

    /// The name that a session gives to the chat of a message.
    pub(crate) fn chat_name(&self, message: u64) -> u32 {
        self.get(message).expect("just booked").recipient
    }

    /// Whether a chat is one with somebody outside.
    pub(crate) fn is_outside(chat: u32) -> bool {
        chat & OUTSIDER != 0
    }

    /// A message to somebody outside is taken back: its chat takes nothing (P113).
    pub(crate) fn given_up(&mut self, message: u64) {
        if let Some(entry) = self.get_mut(message) {
            entry.refused = true;
            self.tally.given_up += 1;
        }
    }

    fn push(&mut self, sender: u32, recipient: u32, intended: Micros, expected: u8) -> u64 {
        self.messages.push_back(Message {
            sender,
            recipient,
            number: 0,
            intended,
            written: 0,
            id: None,
            position: Position::ZERO,
            answered: false,
            refused: false,
            fanout: 0,
            delivered: 0,
            expected,
        });
        self.first + self.messages.len() as u64 - 1
    }

    /// Books a send to several users at once: as many messages, and a note of how many deliveries are left.
    pub(crate) fn book_fanout(
        &mut self,
        sender: u32,
        recipients: impl IntoIterator<Item = u32>,
        intended: Micros,
    ) -> Vec<u64> {
        self.fanouts += 1;
        let fanout = self.fanouts;
        let mut booked = Vec::new();
        let mut left = 0;
        for recipient in recipients {
            let message = self.book(sender, recipient, intended);
            let entry = self.get_mut(message).expect("just booked");
            entry.fanout = fanout;
            left += entry.expected.count_ones();
            booked.push(message);
        }
        self.deliveries_left.insert(fanout, left);
        booked
    }

    /// A delivery of a fan-out was made. Answers whether it was the last.
    fn fanned_out(&mut self, fanout: u64) -> bool {
        let Some(left) = self.deliveries_left.get_mut(&fanout) else {
            return false;
        };
        *left -= 1;
        let done = *left == 0;
        if done {
            self.deliveries_left.remove(&fanout);
        }
        done
    }

    /// The frame of a message; the same bytes at every try under a number.
    pub(crate) fn compose(&mut self, message: u64, number: u64, now: Micros) -> v1::Send {
        let header = self.header(message, number);
        let entry = self
            .get_mut(message)
            .expect("unconfirmed messages are kept");
        if entry.written == 0 {
            entry.written = now;
        }
        entry.number = number.max(entry.number);
        let (sender, recipient) = (entry.sender, entry.recipient);
        let chat = self.chat(self.roster.user(sender), recipient);
        v1::Send {
            number: header.number,
            chat: Bytes::copy_from_slice(chat.as_bytes()),
            payload: payload::encode(&header, self.rules.size),
            deadline_ms: 0,
            after: 0,
        }
    }

    /// The server committed a message.
    pub(crate) fn answered(
        &mut self,
        message: u64,
        id: MessageId,
        position: Position,
    ) -> Option<Timing> {
        self.learn(message, id, position);
        let entry = self.get_mut(message)?;
        entry.answered = true;
        let timing = entry.timing();
        let (sender, recipient, number) = (entry.sender, entry.recipient, entry.number);
        if Self::is_outside(recipient) {
            return None;
        }
        self.tally.acknowledged += 1;
        let view = self.view(sender, recipient);
        let (last, at) = view.answered;
        if (number > last) != (position > at) {
            let what = format!("number {number} is at {position:?}, number {last} at {at:?}");
            self.note(Kind::Reordered, sender, what);
        } else if number > last {
            view.answered = (number, position);
        }
        Some(timing)
    }

    /// The server refused a message for good.
    pub(crate) fn refused(&mut self, message: u64, code: ErrorCode) {
        let Some(entry) = self.get_mut(message) else {
            return;
        };
        entry.refused = true;
        let devices = entry.expected.count_ones();
        entry.expected = 0;
        self.tally.refused += 1;
        self.tally.to_deliver -= u64::from(devices);
        let what = self.describe(message);
        self.findings.add(
            Kind::Refused,
            format_args!("{what}: {}", code.as_str_name()),
        );
    }

    /// Whether all that is expected has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.messages.iter().all(|message| self.is_settled(message))
    }

    /// Forgets the messages at the front of which nothing more is expected, and counts their receipts.
    pub(crate) fn retire(&mut self) {
        while let Some(message) = self.messages.front() {
            if !self.is_settled(message) {
                return;
            }
            let message = self.messages.pop_front().expect("there is a front");
            self.first += 1;
            self.count_receipts(&message);
        }
    }

    /// Ends the account: whatever is still open is a finding.
    pub(crate) fn close(mut self) -> (Tally, Findings) {
        self.retire();
        while !self.messages.is_empty() {
            self.close_first();
        }
        (self.tally, self.findings)
    }

    fn close_first(&mut self) {
        let what = self.describe(self.first);
        let message = self.messages.pop_front().expect("checked by the caller");
        self.first += 1;
        self.count_receipts(&message);
        if message.refused {
            return;
        }
        if !message.answered {
            self.findings.add(Kind::Unacknowledged, what);
            return;
        }
        let missing = message.expected & !message.delivered;
        for session in self.sessions_of_bits(&message, missing) {
            let who = self.who(session);
            self.findings
                .add(Kind::Lost, format_args!("{what}: not delivered to {who}"));
        }
        let missing: Vec<_> = self.receipts_missing(&message).collect();
        for (session, name) in missing {
            let who = self.who(session);
            self.findings.add(
                Kind::ReceiptMissing,
                format_args!("{what}: no {name} receipt for {who}"),
            );
        }
    }

    /// Remembers the identity of a message, or compares it with what was said before.
    fn learn(&mut self, message: u64, id: MessageId, position: Position) {
        self.began = self.began.min(position);
        let Some(entry) = self.get_mut(message) else {
            return;
        };
        match entry.id {
            None => {
                entry.id = Some(id);
                entry.position = position;
            }
            Some(known) if known == id && entry.position == position => {}
            Some(known) => {
                let before = entry.position;
                let what = self.describe(message);
                self.findings.add(
                    Kind::Contradicted,
                    format_args!("{what}: {known:?} at {before:?}, then {id:?} at {position:?}"),
                );
            }
        }
    }

    fn is_settled(&self, message: &Message) -> bool {
        message.refused
            || (message.answered
                && message.delivered == message.expected
                && self.receipts_missing(message).next().is_none())
    }

    fn sessions_of_bits(&self, message: &Message, bits: u8) -> Vec<u32> {
        let author = self.roster.user(message.sender);
        let recipients = self.roster.sessions_of(message.recipient);
        let siblings = self.roster.sessions_of(author);
        let of = |sessions: Range<u32>, bit: fn(u32) -> u8| {
            (0..)
                .zip(sessions)
                .filter(move |(device, _)| bits & bit(*device) != 0)
        };
        of(recipients, device_bit)
            .chain(of(siblings, sibling_bit))
            .map(|(_, session)| session)
            .collect()
    }

    fn account(&mut self, session: u32) -> &mut Account {
        let seats = self.roster.circle(self.roster.user(session)).len();
        self.accounts[session as usize].get_or_insert_with(|| {
            Box::new(Account {
                views: vec![View::default(); seats].into(),
            })
        })
    }

    fn view(&mut self, session: u32, peer: u32) -> &mut View {
        let seat = self.roster.seat(peer);
        &mut self.account(session).views[seat]
    }

    fn get(&self, message: u64) -> Option<&Message> {
        let at = usize::try_from(message.checked_sub(self.first)?).ok()?;
        self.messages.get(at)
    }

    fn get_mut(&mut self, message: u64) -> Option<&mut Message> {
        let at = usize::try_from(message.checked_sub(self.first)?).ok()?;
        self.messages.get_mut(at)
    }

    fn header(&self, message: u64, number: u64) -> Header {
        let entry = self.get(message).expect("unconfirmed messages are kept");
        Header {
            thread: self.rules.thread,
            run: self.rules.run,
            message,
            sender: self.roster.user_id(self.roster.user(entry.sender)).get(),
            number,
        }
    }

    fn chat(&self, a: u32, b: u32) -> ChatId {
        ChatId::pair(self.user_id(a), self.user_id(b))
    }

    fn user_id(&self, user: u32) -> UserId {
        match Self::is_outside(user) {
            true => self.outsiders[(user & !OUTSIDER) as usize],
            false => self.roster.user_id(user),
        }
    }

    fn who(&self, session: u32) -> String {
        let user = self.roster.user_id(self.roster.user(session));
        format!("user {user} device {:?}", self.roster.device_id(session))
    }

    fn describe(&self, message: u64) -> String {
        let Some(entry) = self.get(message) else {
            return format!("message #{message}");
        };
        let sender = self.who(entry.sender);
        let recipient = self.user_id(entry.recipient);
        let identity = match entry.id {
            Some(id) => format!("{id:?} at {:?}", entry.position),
            None => "no id".into(),
        };
        format!(
            "number {} of {sender} to user {recipient} ({identity})",
            entry.number
        )
    }
}

impl Message {
    fn timing(&self) -> Timing {
        Timing {
            intended: self.intended,
            written: self.written,
        }
    }
}

/// The bit of a recipient's device.
fn device_bit(device: u32) -> u8 {
    1 << device
}

/// The bit of another device of the sender.
fn sibling_bit(device: u32) -> u8 {
    1 << (device + DEVICES_MAX)
}

#[cfg(test)]
mod tests;
