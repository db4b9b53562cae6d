//! GoAway to every session, a slice at a time: a shard with a million sessions must not stop for those already
//! served while it says the same to all.

use std::time::Duration;

use super::Shard;
use crate::io::SessionId;
use crate::limits;
use crate::time::{Now, Time};

/// How far it is: once for every session that was there when it began.
#[derive(Debug)]
pub(super) struct Sweep {
    next: u32,
    due: Time,
}

impl Shard {
    /// Begins with the first slice; the others come with the timer. Each session is closed at the end of its own
    /// grace.
    pub(super) fn send_all_away(&mut self, now: Now) {
        let due = now.at;
        self.going_away = Some(Sweep { next: 0, due });
        self.sweep(now);
    }

    /// When the next slice is due.
    pub(super) fn sweep_due(&self) -> Option<Time> {
        self.going_away.as_ref().map(|sweep| sweep.due)
    }

    /// A slice, if it is due.
    pub(super) fn sweep(&mut self, now: Now) {
        let Some(sweep) = self.going_away.take_if(|sweep| sweep.due <= now.at) else {
            return;
        };
        let end = sweep.next.saturating_add(limits::SWEEP_SLICE);
        for index in sweep.next..end.min(self.sessions.end()) {
            self.sweep_one(now, index);
        }
        if end < self.sessions.end() {
            let due = now.at + Duration::from_micros(1);
            self.going_away = Some(Sweep { next: end, due });
        }
    }

    fn sweep_one(&mut self, now: Now, index: u32) {
        let Some(session) = self.sessions.get(index) else {
            return;
        };
        let id = SessionId {
            index,
            generation: session.generation,
        };
        self.send_away(now, id);
        self.arm(now, id);
    }
}
