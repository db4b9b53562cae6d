//! Reading again after the store failed (R15): every session once, at a pace.
//!
//! A commit whose outcome was unknown may have been durable, and nobody was told of what it appended: the retry of
//! such a send finds its answer, and tells no inbox that it grew. One failed sync concerns every session, so a shard goes round its table: first those with something under way, then all.
//! Who waits for its turn owns nothing for it, and reads at once if it is told of something new.

use std::time::Duration;

use super::inbox::backoff;
use super::{Pending, Shard};
use crate::io::SessionId;
use crate::limits;
use crate::store::{InboxPage, StoreError};
use crate::time::{Now, Time};

/// How far a shard is round its table.
#[derive(Debug)]
pub(super) struct Rereads {
    /// The slot to look at next.
    next: u32,
    /// Slots to look at for sessions with something under way.
    busy_left: u32,
    /// Slots to look at for any session, after those.
    left: u32,
    /// Reads that the store has not answered.
    under_way: usize,
    /// How often the store failed since it last answered one.
    retries: u32,
    due: Time,
}

impl Rereads {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            busy_left: 0,
            left: 0,
            under_way: 0,
            retries: 0,
            due: Time::ZERO,
        }
    }

    /// When it goes on, if there is anything to do before the store answers.
    pub(super) fn due(&self) -> Option<Time> {
        let waits_for_store = self.under_way >= limits::REREADS_UNDER_WAY_MAX;
        (!self.is_done() && !waits_for_store).then_some(self.due)
    }

    fn is_done(&self) -> bool {
        self.busy_left == 0 && self.left == 0
    }

    /// The next slot, and whether it is looked at for any session.
    fn step(&mut self, end: u32) -> Option<(u32, bool)> {
        let any = self.busy_left == 0;
        let left = if any {
            &mut self.left
        } else {
            &mut self.busy_left
        };
        *left = left.checked_sub(1)?;
        let slot = if self.next < end { self.next } else { 0 };
        self.next = slot + 1;
        Some((slot, any))
    }
}

impl Shard {
    /// From where the shard is, once round: what is under way for an earlier failure is part of it.
    pub(super) fn handle_store_reopened(&mut self, now: Now) {
        let slots = self.sessions.end();
        (self.rereads.busy_left, self.rereads.left) = (slots, slots);
        self.rereads.due = self.rereads.due.min(now.at);
        self.reread(now);
    }

    /// A few reads, if they are due and the store has answered those of before.
    pub(super) fn reread(&mut self, now: Now) {
        if self.rereads.due().is_none_or(|due| due > now.at) {
            return;
        }
        let free = limits::REREADS_UNDER_WAY_MAX - self.rereads.under_way;
        let mut reads = free.min(limits::REREADS_AT_ONCE);
        self.rereads.due = now.at + limits::REREAD_EVERY;
        for _ in 0..limits::SWEEP_SLICE {
            if reads == 0 {
                return;
            }
            let Some((slot, any)) = self.rereads.step(self.sessions.end()) else {
                return;
            };
            reads -= usize::from(self.reread_slot(now, slot, any));
        }
        // Of a slice some were empty: the rest of the reads at once.
        self.rereads.due = now.at + Duration::from_micros(1);
    }

    /// Whether it reads.
    fn reread_slot(&mut self, now: Now, index: u32, any: bool) -> bool {
        let Some(session) = self.sessions.get(index) else {
            return false;
        };
        if !session.is_active() || !(any || session.in_flight.is_some()) {
            return false;
        }
        let id = SessionId {
            index,
            generation: session.generation,
        };
        let reads = self.read_inbox_for(now, id, Pending::Reread);
        self.rereads.under_way += usize::from(reads);
        self.arm(now, id);
        reads
    }

    pub(super) fn handle_reread(
        &mut self,
        now: Now,
        id: SessionId,
        read: Result<InboxPage, StoreError>,
    ) {
        self.rereads.under_way -= 1;
        match read {
            Ok(page) => {
                self.rereads.retries = 0;
                self.handle_inbox_page(now, id, page);
            }
            Err(error) if error.is_retryable() => {
                // It is another round, and not a timer and what else it takes for each of them.
                self.rereads.left = self.sessions.end();
                if self.rereads.due <= now.at + limits::REREAD_EVERY {
                    self.rereads.due = now.at + backoff(&mut self.rereads.retries);
                }
                self.handle_reread_failed(now, id, error);
            }
            Err(error) => self.handle_read_failed(now, id, error),
        }
        self.reread(now);
    }

    /// One that has nothing else under way waits for the next round.
    fn handle_reread_failed(&mut self, now: Now, id: SessionId, error: StoreError) {
        let Some(session) = self.active_mut(id) else {
            return;
        };
        session.reading = false;
        session.settle(now.at);
        if session.in_flight.is_some() {
            return self.handle_read_failed(now, id, error);
        }
        session.dirty = true;
    }
}
