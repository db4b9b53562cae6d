//! Sends: numbered, kept until answered, retried in order.
//!
//! Messages leave in the order of their numbers. When the server refuses number n for now, it refuses
//! everything above n too until a number up to n comes again (P39), so the whole of the rest is sent
//! again from the lowest refused number: that keeps the order of a chat (R16).
//!
//! A refusal that belongs to a chat is final for its number and pauses that chat alone (P112, [`chat`]). What
//! waits there has no number, and gets one above all that were used when the chat is tried again. So the
//! numbers under way lie within a short span, however long something waits (P37).
//!
//! Behind all of it is the question which messages may have been committed. One that was attempted under its
//! number is *open* until that number has its final answer, in whatever session: only then it may get another
//! number or be taken back (P113). In a chat the open ones come first, then those with a number that were not
//! attempted, then those without, all in the order of the application.

mod chat;
mod pausing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use roadstead_proto::limits::{SEND_ANSWERS_KEPT, SENDS_IN_FLIGHT_BYTES_MAX, SENDS_IN_FLIGHT_MAX};
use roadstead_proto::{ChatId, ErrorCode, v1};

use self::chat::Chat;
use self::pausing::delay;
use super::Now;
use crate::error::ClientError;
use crate::event::SendDelay;
use crate::journal::{Record, Saved, Unconfirmed};
use crate::pace::{Backoff, Budget, Jitter};

/// Unconfirmed messages that are kept at once. Beyond it `send` fails: an application that is offline
/// for long keeps the rest itself.
pub(crate) const UNCONFIRMED_MAX: usize = 1024;
/// Of those, what may wait for one chat that takes nothing: an eighth, which is more than anybody writes to
/// somebody who does not answer.
pub(crate) const CHAT_WAITING_MAX: usize = UNCONFIRMED_MAX / 8;
/// Of those, what may wait for all such chats together: half, so that the other chats have room whatever
/// these do.
pub(crate) const WAITING_MAX: usize = UNCONFIRMED_MAX / 2;

const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(crate) struct Sends {
    /// Messages that have a number, by that number: open, or about to leave.
    numbered: BTreeMap<u64, Numbered>,
    /// Chats that take nothing, or did not a moment ago.
    chats: BTreeMap<ChatId, Chat>,
    /// The highest number of each chat that was refused for a while in this session.
    refused: BTreeMap<ChatId, u64>,
    /// The highest number used.
    highest: u64,
    /// Every number below was transmitted in this session.
    transmit_from: u64,
    window: u64,
    retry: Option<Retry>,
    backoff: Backoff,
    budget: Budget,
    deadline_ms: u32,
    keep: Duration,
    is_active: bool,
    /// The server reads [`v1::Send::after`].
    reads_after: bool,
    /// The lowest number that was settled without its record being durable for certain.
    settled: Option<u64>,
    records: Vec<Record>,
    delays: VecDeque<SendDelay>,
}

/// A message under the number that it is sent as.
#[derive(Debug)]
struct Numbered {
    message: Unconfirmed,
    /// What was known to be refused of its chat when it got its place behind it: also when it is sent again,
    /// or it would overtake what was refused since.
    after: u64,
    /// It was sent under this number, in this session or an earlier one.
    is_open: bool,
}

/// Numbers from `from` on were refused for now and go out again at `at`.
#[derive(Debug, Clone, Copy)]
struct Retry {
    from: u64,
    at: Instant,
}

/// A message that the server has committed, and the number under which it did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) message: Unconfirmed,
    pub(crate) sent_as: u64,
}

/// What became of a refused number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such number waits for an answer.
    Unknown,
    /// It will be sent again.
    Retried,
    /// Its message will be sent again under another number, when its chat takes messages again.
    Delayed,
    /// It is given up.
    GivenUp(Unconfirmed),
}

impl Sends {
    pub(crate) fn new(now: Now, saved: Saved, deadline_ms: u32, keep: Duration) -> Self {
        let mut sends = Self {
            numbered: BTreeMap::new(),
            chats: BTreeMap::new(),
            refused: BTreeMap::new(),
            highest: saved.highest_number,
            transmit_from: 0,
            window: SENDS_IN_FLIGHT_MAX as u64,
            retry: None,
            backoff: Backoff::new(RETRY_MIN, RETRY_MAX),
            budget: Budget::new(),
            deadline_ms,
            keep,
            is_active: false,
            reads_after: false,
            settled: None,
            records: Vec::new(),
            delays: VecDeque::new(),
        };
        let mut waiting = BTreeSet::new();
        for (number, message) in saved.unconfirmed {
            let sent_as = saved.renumbered.get(&number).copied().unwrap_or(number);
            let waits_behind = waiting.contains(&message.chat);
            if sent_as == 0 || waits_behind {
                waiting.insert(message.chat);
                // A crash cut the records of a chat short: what is behind one without a number has none.
                if sent_as != 0 {
                    sends.record(Record::Renumbered { number, sent_as: 0 });
                }
                sends.wait(now, message, false);
            } else {
                sends.number(sent_as, message, true);
            }
        }
        sends
    }

    /// The highest number used.
    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    /// Numbers up to this one were used by an earlier life of the device.
    pub(crate) fn learn_highest(&mut self, number: u64) {
        self.highest = self.highest.max(number);
        self.record(Record::Numbers(self.highest));
    }

    /// Whether another message to the chat may be kept.
    ///
    /// # Errors
    /// [`ClientError::OutboxFull`], or [`ClientError::ChatFull`] if the chat takes nothing and has its share.
    pub(crate) fn room_for(&self, chat: ChatId) -> Result<(), ClientError> {
        let waiting: usize = self.chats.values().map(Chat::len).sum();
        if self.numbered.len() + waiting >= UNCONFIRMED_MAX {
            return Err(ClientError::OutboxFull);
        }
        match self.chats.get(&chat) {
            Some(held) if !held.is_holding(self.under_way(chat)) => Ok(()),
            Some(held) if held.len() >= CHAT_WAITING_MAX => Err(ClientError::ChatFull),
            Some(_) if waiting >= WAITING_MAX => Err(ClientError::ChatFull),
            _ => Ok(()),
        }
    }

    /// Gives a message to the chat the next number of the application, by which it is known from now on. It goes
    /// to the server under that number, too, unless it has to wait.
    pub(crate) fn push(&mut self, now: Now, mut message: Unconfirmed) -> u64 {
        self.highest += 1;
        message.number = self.highest;
        let number = self.highest;
        self.record(Record::Send(message.clone()));
        let chat = message.chat;
        let held = self.chats.get(&chat);
        if held.is_some_and(|held| held.is_holding(self.under_way(chat))) {
            self.record(Record::Renumbered { number, sent_as: 0 });
            self.wait(now, message, false);
            self.tell(now, chat);
            self.tend(now, chat);
        } else {
            self.number(number, message, false);
        }
        number
    }

    /// A session is open: everything open goes out again, from the lowest number (P38). Where a chat paused
    /// while a number of it was open, that number goes behind those that were refused before it: their kept
    /// answers are what makes the server refuse it, too, if it has not executed it.
    pub(crate) fn start_session(&mut self, now: Now, in_flight_max: u32, reads_after: bool) {
        self.transmit_from = 0;
        self.retry = None;
        self.backoff.reset();
        self.window = u64::from(in_flight_max).clamp(1, SENDS_IN_FLIGHT_MAX as u64);
        self.reads_after = reads_after;
        self.is_active = true;
        // The server remembers them for a session.
        self.refused.clear();
        for numbered in self.numbered.values_mut() {
            numbered.after = 0;
        }
        let refused: Vec<_> = self.chats.values_mut().map(Chat::take_refused).collect();
        for (number, message) in refused.into_iter().flatten() {
            self.number(number, message, true);
        }
        self.tend_all(now);
    }

    /// The session is lost, or gone to.
    pub(crate) fn end_session(&mut self) {
        self.is_active = false;
    }

    /// Takes out what was sent before `oldest_unix_ms`. Only between sessions, when no number is
    /// awaited by the server.
    pub(crate) fn expire(&mut self, now: Now, oldest_unix_ms: u64) -> Vec<Unconfirmed> {
        let numbered = self.numbered.values().map(|numbered| &numbered.message);
        let numbered = numbered.filter(|message| message.sent_unix_ms < oldest_unix_ms);
        let waiting = self.chats.values();
        let old: BTreeSet<u64> = numbered
            .map(|message| message.number)
            .chain(waiting.flat_map(|chat| chat.sent_before(oldest_unix_ms)))
            .collect();
        let expired = old.into_iter().filter_map(|number| self.take(number));
        let expired = expired.collect();
        self.tend_all(now);
        expired
    }

    /// Takes a message back, if it is certain that it was not and will not be committed (P113).
    pub(crate) fn take_back(&mut self, now: Now, number: u64) -> Option<Unconfirmed> {
        let mut numbered = self.numbered.values();
        if numbered.any(|numbered| numbered.message.number == number && numbered.is_open) {
            return None;
        }
        let message = self.take(number)?;
        // Of the records of a message only its `Settled` is not durable at once; this one is, and carries it.
        self.record(Record::Numbers(self.highest));
        self.tend(now, message.chat);
        Some(message)
    }

    /// The next frame to send.
    ///
    /// The window is a span of numbers, not a count: so the oldest unanswered number is never so old
    /// that the server has forgotten its answer (P37).
    pub(crate) fn poll_transmit(&mut self) -> Option<v1::Send> {
        if self.retry.is_some() {
            return None;
        }
        let lowest = *self.numbered.first_key_value()?.0;
        let number = *self.numbered.range(self.transmit_from..).next()?.0;
        if number >= lowest.saturating_add(self.window) {
            return None;
        }
        let under_way = self.numbered.range(..number);
        let bytes: usize = under_way.map(|(_, one)| one.message.payload.len()).sum();
        if bytes >= SENDS_IN_FLIGHT_BYTES_MAX {
            return None;
        }
        self.transmit_from = number + 1;
        let numbered = self.numbered.get_mut(&number).expect("found above");
        numbered.is_open = true;
        Some(v1::Send {
            number,
            chat: numbered.message.chat.as_bytes().to_vec().into(),
            payload: numbered.message.payload.clone(),
            deadline_ms: self.deadline_ms,
            after: if self.reads_after { numbered.after } else { 0 },
        })
    }

    /// Whether the server owes an answer.
    pub(crate) fn awaits_answer(&self) -> bool {
        let mut transmitted = self.numbered.range(..self.transmit_from);
        self.retry.is_none() && transmitted.next().is_some()
    }

    /// The server has committed it.
    pub(crate) fn confirm(&mut self, now: Now, sent_as: u64) -> Option<Committed> {
        let message = self.numbered.remove(&sent_as)?.message;
        self.backoff.reset();
        if let Some(chat) = self.chats.get_mut(&message.chat) {
            chat.succeed();
        }
        self.settle(message.number, Some(sent_as));
        self.tend(now, message.chat);
        Some(Committed { message, sent_as })
    }

    /// The server has refused it.
    pub(crate) fn refuse(&mut self, now: Now, error: &v1::Error, jitter: &mut Jitter) -> Refusal {
        let number = error.number;
        if !self.numbered.contains_key(&number) {
            return Refusal::Unknown;
        }
        if error.retryable {
            self.retry_from(now.at, error, jitter);
            return Refusal::Retried;
        }
        let message = self.numbered.remove(&number).expect("found above").message;
        let chat = message.chat;
        if !error.code().refuses_chat_for_now() {
            self.settle(message.number, Some(number));
            self.tend(now, chat);
            return Refusal::GivenUp(message);
        }
        self.note_refusal(chat, number);
        let refused = (message.number, chat);
        let paused = self.chats.entry(chat).or_insert_with(Chat::new);
        paused.refuse(now.at, message, error, jitter);
        self.delays.extend(delay(now.at, paused, refused));
        self.withdraw(now, chat);
        self.tell(now, chat);
        self.tend(now, chat);
        Refusal::Delayed
    }

    /// The server refuses everything from the number on for now.
    fn retry_from(&mut self, now: Instant, error: &v1::Error, jitter: &mut Jitter) {
        let asked = Duration::from_millis(u64::from(error.retry_after_ms));
        // What the server asks for is a minimum, and the same for many clients: jitter goes on top.
        let asked_until = now + asked + jitter.upper_half(asked / 2);
        let at = match self.retry {
            // One refusal brings one for every number behind it: they make one round.
            Some(retry) => retry.at.max(asked_until),
            None => {
                let own = self.backoff.next(jitter);
                let soon = error.code() == ErrorCode::InFlightLimit && asked.is_zero();
                let own = if soon { own / 4 } else { own };
                self.budget.spend(now) + own.max(asked_until - now)
            }
        };
        let from = self.retry.map_or(u64::MAX, |retry| retry.from);
        self.retry = Some(Retry {
            from: from.min(error.number),
            at,
        });
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let chats = self.chats.values().filter_map(Chat::poll_timeout);
        chats.chain(self.retry.map(|retry| retry.at)).min()
    }

    /// Time has passed in a session: what is given up by it.
    pub(crate) fn handle_timeout(&mut self, now: Now) -> Vec<Unconfirmed> {
        if let Some(retry) = self.retry.take_if(|retry| retry.at <= now.at) {
            self.transmit_from = self.transmit_from.min(retry.from);
        }
        let chats = self.chats.values();
        let old: Vec<u64> = chats.flat_map(|chat| chat.expired(now.at)).collect();
        let expired = old.into_iter().filter_map(|number| self.take(number));
        let expired = expired.collect();
        self.tend_all(now);
        expired
    }

    /// What has to be durable before anything is sent.
    ///
    /// The record of a settled message is not at once. If a crash loses it the message is sent again, and gets
    /// the same answer as long as the server has it: so it becomes durable before a number may leave that
    /// takes that answer's place.
    pub(crate) fn take_records(&mut self) -> Vec<Record> {
        let lowest = self.numbered.first_key_value().map(|(lowest, _)| *lowest);
        if let (Some(settled), Some(lowest)) = (self.settled, lowest)
            && lowest.saturating_add(SENDS_IN_FLIGHT_MAX as u64) > settled + SEND_ANSWERS_KEPT
        {
            self.record(Record::Numbers(self.highest));
        }
        std::mem::take(&mut self.records)
    }

    pub(crate) fn has_records(&self) -> bool {
        !self.records.is_empty()
    }

    /// What the application is to be told of a message that waits.
    pub(crate) fn poll_delay(&mut self) -> Option<SendDelay> {
        self.delays.pop_front()
    }

    // The parts of the above.

    fn record(&mut self, record: Record) {
        if record.must_be_durable() {
            self.settled = None;
        }
        self.records.push(record);
    }

    /// A message is done with.
    fn settle(&mut self, number: u64, sent_as: Option<u64>) {
        self.record(Record::Settled(number));
        self.settled = self.settled.into_iter().chain(sent_as).min();
    }

    /// Takes a message out, wherever it is, by the application's number.
    fn take(&mut self, number: u64) -> Option<Unconfirmed> {
        let mut numbered = self.numbered.iter();
        let sent_as = numbered.find(|(_, one)| one.message.number == number);
        let sent_as = sent_as.map(|(sent_as, _)| *sent_as);
        let message = match sent_as {
            Some(sent_as) => self.numbered.remove(&sent_as).map(|one| one.message),
            None => self.chats.values_mut().find_map(|chat| chat.take(number)),
        };
        let message = message?;
        self.settle(number, sent_as);
        Some(message)
    }

    fn number(&mut self, sent_as: u64, message: Unconfirmed, is_open: bool) {
        let after = self.refused.get(&message.chat).copied().unwrap_or(0);
        let after = if is_open { 0 } else { after };
        let numbered = Numbered {
            message,
            after,
            is_open,
        };
        self.numbered.insert(sent_as, numbered);
    }

    fn wait(&mut self, now: Now, message: Unconfirmed, is_told: bool) {
        let age = now.unix_ms.saturating_sub(message.sent_unix_ms);
        let left = self.keep.saturating_sub(Duration::from_millis(age));
        let expires_at = now.at.checked_add(left);
        let chat = self.chats.entry(message.chat).or_insert_with(Chat::new);
        chat.wait(message, expires_at, is_told);
    }
}
