//! What a session that sends or reads has under way.

use std::collections::VecDeque;

use roadstead_proto::{ChatId, Position};

use super::paused::Paused;
use crate::clock::Micros;

/// Longest wait before a refused send is tried again, whatever the number of refusals.
pub(super) const RETRY_WAIT_MAX: Micros = 10_000_000;

/// Wait before a retry if the server names none.
const RETRY_WAIT_DEFAULT: Micros = 200_000;

/// What only a sender or reader needs.
#[derive(Debug, Default)]
pub(super) struct Chatter {
    /// In order of number. The first `on_wire` were sent in this session.
    pub(super) unconfirmed: VecDeque<Unconfirmed>,
    pub(super) on_wire: usize,
    /// Nothing is sent before this: a retryable error asked to wait.
    pub(super) retry_at: Micros,
    pub(super) refusals: u32,
    /// The longest wait that an error of this round has asked for (P39).
    round_wait: Micros,
    /// Chats that refused something in this session, or that hold messages back (P112).
    pub(super) paused: Paused,
    /// Chats read further than the server was told.
    pub(super) reads: Vec<(ChatId, Position)>,
}

/// A message with its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unconfirmed {
    pub(super) number: u64,
    pub(super) message: u64,
    /// The caller's name of the chat.
    pub(super) chat: u32,
    /// The highest number of its chat refused when it was first sent (P112).
    pub(super) after: u64,
    /// It was sent, in whatever session: its number is open until it has its answer (P113).
    pub(super) sent: bool,
    /// Its number was refused for good: it goes again only so that what is behind it is refused, too (P38).
    pub(super) again: bool,
}

/// A wait because of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) time: Micros,
    /// It is the refusal that begins a retry, not one behind it.
    pub(super) begins: bool,
}

impl Chatter {
    /// The next message to put on the wire, if one may go now. All unanswered numbers stay within the span
    /// of `in_flight_max`, so that no answer is pushed out by a later one (P37).
    pub(super) fn next(&mut self, now: Micros, in_flight_max: u64) -> Option<Unconfirmed> {
        let lowest = self.unconfirmed.front()?.number;
        let next = self.unconfirmed.get_mut(self.on_wire)?;
        if now < self.retry_at || next.number - lowest >= in_flight_max {
            return None;
        }
        next.sent = true;
        let next = *next;
        self.on_wire += 1;
        self.round_wait = 0;
        Some(next)
    }

    /// Takes out an answered number.
    pub(super) fn confirm(&mut self, number: u64) -> Option<Unconfirmed> {
        let at = self.place(number)?;
        let confirmed = self.unconfirmed.remove(at)?;
        if at < self.on_wire {
            self.on_wire -= 1;
        }
        self.refusals = 0;
        Some(confirmed)
    }

    /// A number was refused for now: it and all above it must be sent again, in order (R16), after the longest
    /// wait that any of them was told (P39). `None` if there is nothing new in it.
    pub(super) fn postpone(&mut self, number: u64, retry_after_ms: u32) -> Option<Wait> {
        let at = self.place(number)?;
        let wait = match retry_after_ms {
            0 => RETRY_WAIT_DEFAULT,
            ms => u64::from(ms) * 1_000,
        };
        // It may have failed because of a lower one that is waiting already.
        let begins = at < self.on_wire;
        if !begins && wait <= self.round_wait {
            return None;
        }
        self.round_wait = wait.max(self.round_wait);
        if begins {
            self.on_wire = at;
            self.refusals += 1;
        }
        let factor = 1 << self.refusals.saturating_sub(1).min(6);
        let time = (self.round_wait * factor).min(RETRY_WAIT_MAX);
        Some(Wait { time, begins })
    }

    /// Whether a number of this chat is without its answer.
    pub(super) fn has_open(&self, chat: u32) -> bool {
        self.unconfirmed.iter().any(|entry| entry.chat == chat)
    }

    /// Takes back what of this chat was never sent under its number.
    pub(super) fn take_back(&mut self, chat: u32) -> Vec<u64> {
        let is_unsent = |entry: &Unconfirmed| entry.chat == chat && !entry.sent;
        let unsent = self.unconfirmed.iter().filter(|entry| is_unsent(entry));
        let messages = unsent.map(|entry| entry.message).collect();
        // They are all behind those on the wire.
        self.unconfirmed.retain(|entry| !is_unsent(entry));
        messages
    }

    /// The session is over. What is open goes again, behind the refused number of its chat (P38).
    pub(super) fn closed(&mut self) {
        self.on_wire = 0;
        self.retry_at = 0;
        self.round_wait = 0;
        self.reads.clear();
        for refused in self.paused.closed() {
            if !self.has_open(refused.chat) {
                continue;
            }
            if let Err(at) = self.find(refused.number) {
                self.unconfirmed.insert(at, refused);
            }
        }
        for entry in &mut self.unconfirmed {
            entry.after = 0;
        }
    }

    fn place(&self, number: u64) -> Option<usize> {
        self.find(number).ok()
    }

    fn find(&self, number: u64) -> Result<usize, usize> {
        self.unconfirmed
            .binary_search_by_key(&number, |entry| entry.number)
    }
}
