//! Acknowledgements and read marks: collected here, carried out by the store's one door (R18).

use roadstead_proto::v1;
use roadstead_proto::{DeviceId, ErrorCode, Position, UserId};

use super::inbox::backoff;
use super::{Pending, Shard};
use crate::io::SessionId;
use crate::limits;
use crate::session::{InFlight, Session};
use crate::store::{Command, Flush, KnownEntries, StoreError};
use crate::time::{Now, Time};

impl Shard {
    pub(super) fn handle_ack(&mut self, now: Now, id: SessionId, ack: &v1::Ack) {
        let session = self.active_mut(id).expect("it sent the frame");
        let Some(cursor) = Position::from_slice(&ack.cursor) else {
            return self.refuse(now, id, ErrorCode::CursorInvalid, "a cursor has 16 bytes");
        };
        if cursor <= session.acked {
            return;
        }
        if cursor > session.delivered {
            if cursor.generation() != session.store_generation {
                // R3: of another generation, it acknowledges nothing.
                self.counters.acks_of_other_generation += 1;
                return;
            }
            let message = "no such cursor was delivered in this session";
            return self.refuse(now, id, ErrorCode::CursorInvalid, message);
        }
        if !acknowledge_window(session.in_flight(now.at), cursor, now.at) {
            // It covers nothing that this session delivered: a word from another generation (R3).
            self.counters.acks_of_other_generation += 1;
            return;
        }
        session.acked = cursor;
        let full = session.in_flight(now.at).acked_entries() >= limits::FLUSH_ENTRIES;
        let dirty = session.dirty && session.in_flight(now.at).retry_at.is_none();
        if dirty {
            self.read_inbox(now, id);
        }
        self.schedule_flush(now, id, full);
    }

    /// Flushes at once if the last flush is long enough ago, else when it will be: so that a single
    /// message gets its second tick without delay and a stream of them shares a transaction.
    fn schedule_flush(&mut self, now: Now, id: SessionId, at_once: bool) {
        let session = self.active_mut(id).expect("checked by the caller");
        let active = session.in_flight(now.at);
        let at = if at_once {
            now.at
        } else {
            active.flush_not_before.max(now.at)
        };
        active.flush_at = Some(active.flush_at.map_or(at, |earlier| earlier.min(at)));
        self.flush_if_due(now, id);
        self.arm(now, id);
    }

    pub(super) fn flush_if_due(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let Some(active) = session.in_flight.as_mut() else {
            return;
        };
        if !active.flushing && active.flush_at.is_some_and(|at| at <= now.at) {
            active.flush_at = None;
            active.flush_not_before = now.at + limits::FLUSH_DELAY;
            self.flush(id);
        }
    }

    /// Sends what is acknowledged and not flushed to the store, now.
    pub(super) fn flush(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        if session.acked <= session.flushed {
            return;
        }
        let (user, device) = session.identity();
        let upto = session.acked;
        let known = take_known(session, upto);
        session.flushed = upto;
        if let Some(active) = session.in_flight.as_mut() {
            active.flushing = true;
        }
        self.ask_flush(
            id,
            Flush {
                user,
                device,
                upto,
                known,
            },
        );
    }

    pub(super) fn ask_flush(&mut self, session: SessionId, flush: Flush) {
        self.counters.flushes += 1;
        let (device, upto) = ((flush.user, flush.device), flush.upto);
        let pending = Pending::Flush {
            session,
            device,
            upto,
        };
        self.ask(Command::Flush(flush), pending);
    }

    /// The store did a piece of a flush: the rest of it, whether or not the session is still there.
    pub(super) fn flush_on(
        &mut self,
        session: SessionId,
        (user, device): (UserId, DeviceId),
        upto: Position,
    ) {
        let rest = Flush {
            user,
            device,
            upto,
            known: None,
        };
        self.ask_flush(session, rest);
    }

    pub(super) fn handle_flushed(&mut self, now: Now, id: SessionId, upto: Position) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let flushed = session.flushed;
        let Some(active) = session.in_flight.as_mut() else {
            return;
        };
        active.flushing = false;
        active.retries = 0;
        if upto == flushed {
            // What the window holds now is again all there is after the stored acknowledgement.
            active.window_complete = true;
        }
        self.flush_if_due(now, id);
        self.submit_read_mark(now, id);
        self.settle(now, id);
    }

    /// The acknowledgement is not lost: the store reads the entries itself at the next try.
    pub(super) fn handle_flush_failed(&mut self, now: Now, id: SessionId, error: StoreError) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        // Of two flushes at the end of a session the first may have been the last thing under way.
        let active = session.in_flight(now.at);
        active.flushing = false;
        if !error.is_retryable() {
            return self.refuse(
                now,
                id,
                error.code(),
                "the acknowledgement can not be stored",
            );
        }
        active.window_complete = false;
        let at = now.at + backoff(&mut active.retries);
        active.flush_at = Some(at);
        session.flushed = Position::ZERO;
        self.arm(now, id);
    }
}

impl InFlight {
    /// Entries of the window that the client has acknowledged.
    pub(crate) fn acked_entries(&self) -> usize {
        self.window.len() - self.unacked
    }
}

/// Whether there was anything to acknowledge.
fn acknowledge_window(active: &mut InFlight, cursor: Position, now: Time) -> bool {
    let first_unacked = active.window.len() - active.unacked;
    let (mut entries, mut bytes) = (0, 0);
    for entry in active.window.range(first_unacked..) {
        if entry.known.cursor > cursor {
            break;
        }
        entries += 1;
        bytes += entry.bytes;
    }
    active.unacked -= entries;
    active.unacked_bytes -= bytes;
    if entries > 0 {
        active.progress_at = now;
    }
    entries > 0
}

/// Takes the entries up to `upto` out of the window. They stand in for a read of the store if the window
/// is known to start at the stored acknowledgement (R18).
fn take_known(session: &mut Session, upto: Position) -> Option<KnownEntries> {
    let from = session.flushed;
    let active = session.in_flight.as_mut()?;
    let count = active
        .window
        .iter()
        .take_while(|entry| entry.known.cursor <= upto)
        .count();
    let entries = active
        .window
        .drain(..count)
        .map(|entry| entry.known)
        .collect();
    active
        .window_complete
        .then_some(KnownEntries { from, entries })
}
