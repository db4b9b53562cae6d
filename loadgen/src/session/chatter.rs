//! What a session that sends or reads has under way.

use std::collections::VecDeque;

use roadstead_proto::{ChatId, Position};

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
    /// Chats read further than the server was told.
    pub(super) reads: Vec<(ChatId, Position)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Unconfirmed {
    pub(super) number: u64,
    pub(super) message: u64,
}

impl Chatter {
    /// The next message to put on the wire, if one may go now. All unanswered numbers stay within the span
    /// of `in_flight_max`, so that no answer is pushed out by a later one (P37).
    pub(super) fn next(&mut self, now: Micros, in_flight_max: u64) -> Option<Unconfirmed> {
        let next = *self.unconfirmed.get(self.on_wire)?;
        let lowest = self.unconfirmed.front()?.number;
        if now < self.retry_at || next.number - lowest >= in_flight_max {
            return None;
        }
        self.on_wire += 1;
        Some(next)
    }

    /// Takes out an answered number and returns its message.
    pub(super) fn confirm(&mut self, number: u64) -> Option<u64> {
        let at = self.place(number)?;
        let message = self.unconfirmed.remove(at)?.message;
        if at < self.on_wire {
            self.on_wire -= 1;
        }
        self.refusals = 0;
        Some(message)
    }

    /// A number was refused for now: it and all above it must be sent again, in order (R16). Returns
    /// how long to wait.
    pub(super) fn postpone(&mut self, number: u64, retry_after_ms: u32) -> Option<Micros> {
        let at = self.place(number)?;
        if at >= self.on_wire {
            // It failed because of a lower one that is waiting already.
            return None;
        }
        self.on_wire = at;
        let wait = match retry_after_ms {
            0 => RETRY_WAIT_DEFAULT,
            ms => u64::from(ms) * 1_000,
        };
        let factor = 1 << self.refusals.min(6);
        self.refusals += 1;
        Some((wait * factor).min(RETRY_WAIT_MAX))
    }

    fn place(&self, number: u64) -> Option<usize> {
        self.unconfirmed
            .binary_search_by_key(&number, |entry| entry.number)
            .ok()
    }
}
