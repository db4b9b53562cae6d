//! The sends of a device: numbered once, sent in order, and again until they are answered (R12, R16).

use std::collections::VecDeque;

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
}

impl Pending {
    /// The frame that sends it.
    #[must_use]
    pub fn frame(&self) -> Up {
        Up::Send(v1::Send {
            number: self.number,
            chat: Bytes::copy_from_slice(self.chat.as_bytes()),
            payload: self.payload.clone(),
            deadline_ms: 0,
            after: 0,
        })
    }
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
    /// Of the pending ones, those sent in this session.
    sent: usize,
    /// Something failed: nothing is sent until it is tried again.
    held: bool,
    open: bool,
    /// A number that was answered in this session with its position.
    confirmed: Option<u64>,
}

impl Outbox {
    pub(super) fn new(window: usize) -> Self {
        Self {
            window,
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

    /// A message that is not confirmed, by its place.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Pending> {
        self.pending.get(index).filter(|_| index < self.sent)
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
        (self.sent, self.held, self.open) = (0, false, true);
    }

    pub(super) fn end_session(&mut self) {
        (self.sent, self.held, self.open) = (0, false, false);
        self.confirmed = None;
    }

    /// Everything that was numbered and not confirmed is lost, and the numbers with it.
    pub(super) fn forget(&mut self) {
        self.pending.clear();
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
        if index < self.sent {
            self.sent -= 1;
        }
        self.pending.remove(index).map(|one| one.token)
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
        if index < self.sent {
            self.sent -= 1;
        }
        self.highest += 1;
        self.pending.push_back(Pending {
            number: self.highest,
            ..one
        });
        true
    }

    /// Holds everything back; whether it was not held before.
    pub(super) fn hold(&mut self) -> bool {
        !std::mem::replace(&mut self.held, true)
    }

    pub(super) fn send_again(&mut self) {
        (self.sent, self.held) = (0, false);
    }

    /// Sends what the window has room for.
    pub(super) fn pump(&mut self, todo: &mut Vec<Do>) {
        while self.open && !self.held && self.sent < self.pending.len().min(self.window) {
            todo.push(Do::Send(self.pending[self.sent].frame()));
            self.sent += 1;
        }
    }
}
