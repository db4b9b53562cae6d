//! The sends of a device: numbered once, sent in order, and again until they are answered (R12, R16).
//!
//! A refusal that belongs to a chat is final for its number. A patient client keeps what it said, waits until
//! everything that it has sent to that chat has its answer, and says all of it again, in its order, under new
//! numbers; another one gives the message up. Both say with the next send what they know of, so that the server
//! knows that nothing overtakes (P112).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use roadstead_proto::ChatId;
use roadstead_proto::v1::{self, client_frame::Body as Up};

use super::Do;

/// A message that nobody has confirmed.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Its number.
    pub number: u64,
    /// What makes it itself.
    pub token: u64,
    /// Where it goes.
    pub chat: ChatId,
    /// What it says.
    pub payload: Bytes,
    state: State,
    /// What was known of refusals of its chat when it was first sent in this session.
    after: u64,
}

/// How far a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was never sent under its number.
    Waits,
    /// It was sent in this session and has no answer.
    IsOut,
    /// It was sent and has no answer for good: its number has to be said again.
    IsOpen,
    /// Its chat refused its number for good: it needs another one.
    Refused,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Outbox {
    window: usize,
    highest: u64,
    /// In order of numbers.
    pending: VecDeque<Pending>,
    /// Whether the numbers used are known (R13).
    forgot: bool,
    /// Since then an older life of this installation may still be sending.
    ever_forgot: bool,
    /// It says again what a chat refused for a while.
    patient: bool,
    /// The highest number of each chat that was refused for a while in this session.
    refused: BTreeMap<ChatId, u64>,
    /// Chats that wait to be tried again.
    paused: BTreeSet<ChatId>,
    /// Something failed: nothing is sent until it is tried again.
    held: bool,
    open: bool,
    /// A number that was answered in this session with its position.
    confirmed: Option<u64>,
}

impl Outbox {
    pub(super) fn new(window: usize, patient: bool) -> Self {
        Self {
            window,
            patient,
            ..Self::default()
        }
    }

    /// Whether everything is answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// How much is not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// The first message that is not confirmed.
    #[must_use]
    pub fn first(&self) -> Option<&Pending> {
        self.pending.front()
    }

    /// The highest number used.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    pub(super) fn asks_for_numbers(&self) -> bool {
        self.forgot
    }

    pub(super) fn push(&mut self, (token, chat, payload): (u64, ChatId, Bytes)) {
        if self.forgot {
            // It cannot be numbered, so it is not accepted: the user will press the button again.
            return;
        }
        self.highest += 1;
        self.pending.push_back(Pending {
            number: self.highest,
            token,
            chat,
            payload,
            state: State::Waits,
            after: 0,
        });
    }

    /// Whether a message can be numbered.
    #[must_use]
    pub fn accepts(&self) -> bool {
        !self.forgot
    }

    pub(super) fn begin_session(&mut self, highest: Option<u64>) {
        if let Some(highest) = highest.filter(|_| self.forgot) {
            self.forgot = false;
            self.highest = highest;
        }
        (self.held, self.open) = (false, true);
        self.refused.clear();
        self.pending.iter_mut().for_each(|one| one.after = 0);
        for chat in std::mem::take(&mut self.paused) {
            if self.is_settled(chat) {
                self.renumber_chat(chat);
                continue;
            }
            // What is open may be refused only behind what was: that says its number once more (P38).
            for one in self.pending.iter_mut().filter(|one| one.chat == chat) {
                if one.state == State::Refused {
                    one.state = State::IsOpen;
                }
            }
        }
    }

    pub(super) fn end_session(&mut self) {
        self.nothing_is_out();
        (self.held, self.open) = (false, false);
        self.confirmed = None;
    }

    fn nothing_is_out(&mut self) {
        for one in &mut self.pending {
            if one.state == State::IsOut {
                one.state = State::IsOpen;
            }
        }
    }

    /// Everything that was numbered and not confirmed is lost, and the numbers with it.
    pub(super) fn forget(&mut self) {
        self.pending.clear();
        self.paused.clear();
        self.refused.clear();
        (self.forgot, self.ever_forgot) = (true, true);
    }

    pub(super) fn confirm(&mut self, number: u64) {
        self.confirmed = Some(number);
        self.drop_number(number);
    }

    /// A number that is committed.
    #[must_use]
    pub fn confirmed(&self) -> Option<u64> {
        self.confirmed
    }

    /// What was committed may not be any more.
    pub fn forget_confirmed(&mut self) {
        self.confirmed = None;
    }

    /// Takes a message out; its token, if it was there.
    pub(super) fn drop_number(&mut self, number: u64) -> Option<u64> {
        let index = self.pending.iter().position(|one| one.number == number)?;
        self.pending.remove(index).map(|one| one.token)
    }

    /// Its chat refused a number for a while. The token of the message, if it is given up.
    pub(super) fn refuse_for_now(&mut self, number: u64) -> Option<u64> {
        let one = self.pending.iter_mut().find(|one| one.number == number)?;
        let chat = one.chat;
        one.state = State::Refused;
        let known = self.refused.entry(chat).or_default();
        *known = number.max(*known);
        if self.patient && !self.ever_forgot {
            self.paused.insert(chat);
            return None;
        }
        self.drop_number(number)
    }

    /// Whether everything that was sent to a chat has its answer.
    fn is_settled(&self, chat: ChatId) -> bool {
        let mut of_chat = self.pending.iter().filter(|one| one.chat == chat);
        of_chat.all(|one| !matches!(one.state, State::IsOut | State::IsOpen))
    }

    /// Whether everything that a paused chat had out is answered.
    pub(super) fn may_resume(&self, chat: ChatId) -> bool {
        self.paused.contains(&chat) && self.is_settled(chat)
    }

    /// Says again what a paused chat holds.
    pub(super) fn resume(&mut self, chat: ChatId) {
        if self.may_resume(chat) {
            self.paused.remove(&chat);
            self.renumber_chat(chat);
        }
    }

    /// The chat of a message that waits.
    pub(super) fn chat_of(&self, number: u64) -> Option<ChatId> {
        let one = self.pending.iter().find(|one| one.number == number)?;
        Some(one.chat)
    }

    fn renumber_chat(&mut self, chat: ChatId) {
        let (of_chat, others): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|one| one.chat == chat);
        self.pending = others;
        for one in of_chat {
            self.highest += 1;
            self.pending.push_back(Pending {
                number: self.highest,
                state: State::Waits,
                ..one
            });
        }
    }

    /// An older life of this installation used that number: the message gets a new one. `false` if there
    /// was no older life.
    pub(super) fn renumber(&mut self, number: u64) -> bool {
        if !self.ever_forgot {
            return false;
        }
        let Some(index) = self.pending.iter().position(|one| one.number == number) else {
            return false;
        };
        let one = self.pending.remove(index).expect("found above");
        self.highest += 1;
        self.pending.push_back(Pending {
            number: self.highest,
            state: State::Waits,
            ..one
        });
        true
    }

    /// What a chat refuses from now on is given up; what it has refused is said once more.
    pub(super) fn lose_patience(&mut self) {
        self.patient = false;
        let paused: Vec<ChatId> = self.paused.iter().copied().collect();
        for chat in paused {
            self.resume(chat);
        }
    }

    /// Holds everything back; whether it was not held before.
    pub(super) fn hold(&mut self) -> bool {
        !std::mem::replace(&mut self.held, true)
    }

    pub(super) fn send_again(&mut self) {
        self.nothing_is_out();
        self.held = false;
    }

    /// Sends what the window has room for.
    pub(super) fn pump(&mut self, todo: &mut Vec<Do>) {
        if !self.open || self.held {
            return;
        }
        let is_out = |one: &&Pending| one.state == State::IsOut;
        let mut out = self.pending.iter().filter(is_out).count();
        for one in &mut self.pending {
            if out >= self.window {
                return;
            }
            match one.state {
                State::IsOut | State::Refused => continue,
                State::Waits if self.paused.contains(&one.chat) => continue,
                State::Waits => one.after = self.refused.get(&one.chat).copied().unwrap_or(0),
                State::IsOpen => {}
            }
            one.state = State::IsOut;
            out += 1;
            todo.push(Do::Send(Up::Send(v1::Send {
                number: one.number,
                chat: Bytes::copy_from_slice(one.chat.as_bytes()),
                payload: one.payload.clone(),
                deadline_ms: 0,
                after: one.after,
            })));
        }
    }
}
