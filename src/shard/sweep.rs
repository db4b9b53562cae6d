//! Matters of every session, done a slice at a time: a shard with a million sessions must not stop for
//! those already served while it says the same to all.

use std::time::Duration;

use super::Shard;
use crate::io::SessionId;
use crate::limits;
use crate::time::{Now, Time};

/// Something to do once for every session that was there when it began.
#[derive(Debug, Clone, Copy)]
pub(super) enum Matter {
    /// GoAway; each is closed at the end of its own grace.
    GoAway,
    /// Read the inbox again (R5).
    Read,
}

/// A matter under way.
#[derive(Debug)]
pub(super) struct Sweep {
    matter: Matter,
    next: u32,
    due: Time,
}

impl Shard {
    /// Begins with the first slice; the others come with the timer.
    pub(super) fn begin_sweep(&mut self, now: Now, matter: Matter) {
        self.sweeps.push(Sweep {
            matter,
            next: 0,
            due: now.at,
        });
        self.sweep(now);
    }

    /// When the next slice is due.
    pub(super) fn sweep_due(&self) -> Option<Time> {
        self.sweeps.iter().map(|sweep| sweep.due).min()
    }

    /// A slice of every sweep that is due.
    pub(super) fn sweep(&mut self, now: Now) {
        let mut sweeps = std::mem::take(&mut self.sweeps);
        sweeps.retain_mut(|sweep| {
            if sweep.due > now.at {
                return true;
            }
            let end = sweep.next.saturating_add(limits::SWEEP_SLICE);
            for index in sweep.next..end.min(self.sessions.end()) {
                self.sweep_one(now, sweep.matter, index);
            }
            sweep.next = end;
            sweep.due = now.at + Duration::from_micros(1);
            end < self.sessions.end()
        });
        debug_assert!(self.sweeps.is_empty(), "no session begins a sweep");
        self.sweeps = sweeps;
    }

    fn sweep_one(&mut self, now: Now, matter: Matter, index: u32) {
        let Some(session) = self.sessions.get(index) else {
            return;
        };
        let id = SessionId {
            index,
            generation: session.generation,
        };
        match matter {
            Matter::GoAway => self.send_away(now, id),
            Matter::Read => self.read_inbox(now, id),
        }
        self.arm(now, id);
    }
}
