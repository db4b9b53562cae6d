//! The shard's memory for what is in flight (T8): counted as it changes, and taken back from the
//! biggest hoarder when it is used up.
//!
//! Flow control advertised is memory promised, and so is every window of unacknowledged data. A
//! single connection is bounded by its windows; the sum over a shard is bounded here. At three
//! quarters nothing more is promised: windows are not raised, and newcomers prove their address
//! first. Beyond the whole, the connection with the most is closed, again until there is room.
//! Connections with less than a page are never closed for it: many of them at once are a busy hour,
//! not an attack, and a new handshake each would cost more than they hold.

use std::collections::BTreeSet;

use super::Endpoint;
use crate::connection::Cx;
use crate::crypto::{Aead, Tls};
use crate::error::{Code, TransportError};
use crate::event::Handle;
use crate::time::{Time, sat32};

/// Bytes are compared in pages, so that a connection changes its place seldom.
const PAGE_BITS: u32 = 12;

/// Counts bytes by connection.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: usize,
    /// Pages and slab index of connections with at least a page; the biggest is the last.
    hoarders: BTreeSet<(u32, u32)>,
}

impl Budget {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            limit,
            used: 0,
            hoarders: BTreeSet::new(),
        }
    }

    /// Bytes in flight.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Three quarters are used: nothing more is promised.
    pub(super) const fn is_tight(&self) -> bool {
        self.used > self.limit / 4 * 3
    }

    pub(super) const fn is_exceeded(&self) -> bool {
        self.used > self.limit
    }

    /// A connection went from `old` to `new` bytes. One that can not be closed any more is counted
    /// but no hoarder.
    fn note(&mut self, index: u32, old: u32, new: u32, closable: bool) {
        self.used = self.used - old as usize + new as usize;
        let (before, after) = (old >> PAGE_BITS, new >> PAGE_BITS);
        if before > 0 && (before != after || !closable) {
            self.hoarders.remove(&(before, index));
        }
        if after > 0 && closable {
            self.hoarders.insert((after, index));
        }
    }

    fn biggest(&self) -> Option<u32> {
        self.hoarders.last().map(|(_, index)| *index)
    }
}

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// Counts what a connection has in flight by now.
    pub(super) fn count_in_flight(&mut self, index: u32) {
        let conn = &mut self.slab[index];
        let bytes = conn.active.as_ref().map_or(0, |a| a.heap_bytes());
        let bytes = sat32(bytes as u64);
        let old = std::mem::replace(&mut conn.in_flight_bytes, bytes);
        if old != 0 || bytes != 0 {
            let closable = conn.is_alive();
            self.budget.note(index, old, bytes, closable);
        }
    }

    /// Closes the biggest hoarders until the budget holds (T8).
    pub(super) fn relieve(&mut self, now: Time) {
        while self.budget.is_exceeded() {
            let Some(index) = self.budget.biggest() else {
                return;
            };
            let (conn, mut cx) = parts!(self, now, index);
            let reason = "the memory for data in flight is used up";
            conn.close_for(&mut cx, TransportError::new(Code::INTERNAL_ERROR, reason));
            self.stats.hoarders_closed += 1;
            self.settle_one(now, index, true);
        }
    }

    /// Bytes that connections have in flight: what the budget of the configuration bounds (T8).
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        self.budget.used()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_biggest_is_known_whatever_changes_t8() {
        let mut budget = Budget::new(100_000);
        budget.note(1, 0, 50_000, true);
        budget.note(2, 0, 20_000, true);
        assert_eq!((budget.used(), budget.biggest()), (70_000, Some(1)));
        assert!(!budget.is_tight());
        budget.note(2, 20_000, 60_000, true);
        assert_eq!(budget.biggest(), Some(2));
        assert!(budget.is_tight() && budget.is_exceeded());
        // A small change moves nothing; one that closes is out.
        budget.note(2, 60_000, 60_001, true);
        budget.note(2, 60_001, 60_001, false);
        assert_eq!((budget.used(), budget.biggest()), (110_001, Some(1)));
        budget.note(2, 60_001, 0, false);
        budget.note(1, 50_000, 4_095, true);
        assert_eq!((budget.used(), budget.biggest()), (4_095, None));
    }
}
