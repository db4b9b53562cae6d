//! How far chats are read: one mark of a session at a time, the others wait, one for each chat (R20).
//!
//! The store cuts a mark down to what was delivered, and it knows of a delivery by its acknowledgement. So a mark
//! waits until what its chat was given is acknowledged: a client says that it has read when it does, and that
//! it has stored a little later. A mark counts against its user's rate, and waits for that too.

use roadstead_proto::v1;
use roadstead_proto::{ChatId, ErrorCode, Position};

use super::inbox::backoff;
use super::sends::peer_in;
use super::{Pending, Shard};
use crate::io::SessionId;
use crate::limits;
use crate::session::{InFlight, Session};
use crate::store::{Command, MarkRead, StoreError};
use crate::time::Now;

impl Shard {
    pub(super) fn handle_read_mark(&mut self, now: Now, id: SessionId, read: &v1::Read) {
        let session = self.active_mut(id).expect("it sent the frame");
        let (user, _) = session.identity();
        let Some((chat, _)) = peer_in(&read.chat, user) else {
            return self.refuse(now, id, ErrorCode::ChatInvalid, "no chat of this user");
        };
        let Some(position) = Position::from_slice(&read.position) else {
            return self.refuse(
                now,
                id,
                ErrorCode::PositionInvalid,
                "a position has 16 bytes",
            );
        };
        if !session.in_flight(now.at).wait_to_mark(chat, position) {
            self.counters.read_marks_dropped += 1;
        }
        self.submit_read_mark(now, id);
    }

    /// Whether a session has to be heard no further until some of its read marks are with the store: the driver
    /// leaves its frames where they are. At most one chat for each entry of the window waits for an
    /// acknowledgement, which might be among those frames; so more than that go on without one.
    #[must_use]
    pub fn holds(&self, id: SessionId) -> bool {
        let session = self.sessions.get(id.index);
        let active = session.and_then(|session| session.in_flight.as_ref());
        active.is_some_and(|active| active.read_marks.len() >= limits::READ_MARKS_WAITING_MAX)
    }

    /// Hands the next mark to the store, if none is there.
    pub(super) fn submit_read_mark(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.active_mut(id) else {
            return;
        };
        let (user, _) = session.identity();
        let Some(place) = session.markable() else {
            return;
        };
        let wait = self
            .send_rates
            .as_mut()
            .and_then(|rates| rates.take(now.at, user).err());
        let active = self.session_mut(id).expect("looked at above");
        let active = active.in_flight(now.at);
        if let Some(wait) = wait {
            active.mark_at = Some(now.at + wait);
            self.counters.read_marks_rate_limited += 1;
            return;
        }
        let mark = active.read_marks.remove(place);
        active.marking = Some(mark);
        self.ask_mark_read(id, mark);
    }

    fn ask_mark_read(&mut self, id: SessionId, (chat, position): (ChatId, Position)) {
        let session = self.session_mut(id).expect("checked by the caller");
        let (user, device) = session.identity();
        self.counters.read_marks += 1;
        let command = Command::MarkRead(MarkRead {
            user,
            device,
            chat,
            position,
        });
        self.ask(command, Pending::MarkRead(id));
    }

    pub(super) fn handle_marked_read(
        &mut self,
        now: Now,
        id: SessionId,
        result: Result<(), StoreError>,
    ) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let in_service = session.is_active();
        let Some(active) = session.in_flight.as_mut() else {
            return;
        };
        let mark = active.marking.take();
        match result {
            Ok(()) => active.retries = 0,
            Err(error) if in_service && error.is_retryable() => {
                if let Some(mark) = mark {
                    active.mark_again(mark);
                }
                active.mark_at = Some(now.at + backoff(&mut active.retries));
            }
            Err(error) if in_service && error.ends_session() => {
                return self.end_session(now, id, error);
            }
            // The chat is not this user's any more, or the session has ended.
            Err(_) => {}
        }
        self.submit_read_mark(now, id);
        self.settle(now, id);
    }

    pub(super) fn handle_mark_due(&mut self, now: Now, id: SessionId) {
        let Some(active) = self
            .session_mut(id)
            .and_then(|session| session.in_flight.as_mut())
        else {
            return;
        };
        if active.mark_at.is_some_and(|at| at <= now.at) {
            active.mark_at = None;
            self.submit_read_mark(now, id);
        }
    }

    /// The session ends: the marks that wait go to the store together. They can not wait for their user's rate, so
    /// they use up what it will have later, as much as a bucket holds: logins without end make no more of them.
    pub(super) fn submit_all_read_marks(&mut self, now: Now, id: SessionId) {
        let Some(active) = self
            .session_mut(id)
            .and_then(|session| session.in_flight.as_mut())
        else {
            return;
        };
        let marks = std::mem::take(&mut active.read_marks);
        let (user, _) = self.session_mut(id).expect("looked at above").identity();
        for mark in marks {
            let rates = self.send_rates.as_mut();
            if rates.is_some_and(|rates| rates.borrow(now.at, user).is_err()) {
                self.counters.read_marks_dropped += 1;
            } else {
                self.ask_mark_read(id, mark);
            }
        }
    }
}

impl Session {
    /// The place of the first mark that can go to the store, if none is there: nothing that its chat was given
    /// up to it waits to be acknowledged, or is on its way to be.
    fn markable(&self) -> Option<usize> {
        let active = self.in_flight.as_ref()?;
        let is_busy = active.marking.is_some() || active.mark_at.is_some();
        if is_busy || active.flushing || !active.window_complete {
            return None;
        }
        let is_covered = |(chat, position): &(ChatId, Position)| {
            let mut given = active.window.iter().map(|entry| entry.known);
            !given.any(|entry| {
                entry.cursor <= *position && entry.receipt.is_some_and(|(of, ..)| of == *chat)
            })
        };
        active.read_marks.iter().position(is_covered)
    }
}

impl InFlight {
    /// A mark that failed for now waits again, even where all places are taken.
    fn mark_again(&mut self, (chat, position): (ChatId, Position)) {
        if !self.wait_to_mark(chat, position) {
            self.read_marks.push((chat, position));
        }
    }

    /// Keeps a mark until it is its turn; false if too many chats' marks wait.
    fn wait_to_mark(&mut self, chat: ChatId, position: Position) -> bool {
        if let Some((_, waiting)) = self.read_marks.iter_mut().find(|(other, _)| *other == chat) {
            *waiting = position.max(*waiting);
            return true;
        }
        let has_room = self.read_marks.len() < limits::READ_MARKS_WAITING_MAX;
        if has_room {
            self.read_marks.push((chat, position));
        }
        has_room
    }
}
