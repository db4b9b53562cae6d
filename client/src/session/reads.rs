//! How far the user has read: marks of chats, said once they are due, and again if a session was lost.

use std::collections::BTreeMap;

use roadstead_proto::{ChatId, Position, UserId};

/// Marks that are remembered after they were said, to say them again if the session is lost soon after: as many as a
/// server lets wait. One that is due is never forgotten: nothing else would make it good.
pub(super) const SETTLED_MAX: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reads {
    marks: BTreeMap<ChatId, Mark>,
    /// The highest position that this session was given, by its Hello or a delivery: a mark beyond it is
    /// held back (P31). The position of an own message says nothing: what others wrote before it may be on
    /// its way.
    given: Position,
    /// Marks said so far.
    said: u64,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    position: Position,
    /// When it was said, counted in marks; `None` while it is due.
    said: Option<u64>,
}

impl Reads {
    /// The user has seen the chat up to the position. Marks only grow.
    pub(super) fn mark(&mut self, chat: ChatId, position: Position) {
        let known = self.marks.get(&chat);
        if known.is_none_or(|mark| mark.position < position) {
            let said = None;
            self.marks.insert(chat, Mark { position, said });
        }
    }

    /// A session of the user is open, which was given what its Hello said.
    pub(super) fn start_session(&mut self, user: UserId, given: Position) {
        self.given = given;
        // The server would end the session over a mark in a chat of others.
        self.marks.retain(|chat, _| chat.peer_of(user).is_some());
    }

    /// A Read is not answered: those of a lost session are said again (P32).
    pub(super) fn end_session(&mut self) {
        self.marks.values_mut().for_each(|mark| mark.said = None);
    }

    /// An entry was delivered.
    pub(super) fn deliver(&mut self, cursor: Position) {
        self.given = self.given.max(cursor);
    }

    /// The next mark to say.
    pub(super) fn poll_transmit(&mut self) -> Option<(ChatId, Position)> {
        let given = self.given;
        let mut marks = self.marks.iter_mut();
        let (chat, mark) = marks.find(|(_, mark)| mark.said.is_none() && mark.position <= given)?;
        mark.said = Some(self.said);
        self.said += 1;
        let said = (*chat, mark.position);
        self.forget_settled();
        Some(said)
    }

    /// Forgets what was said the longest ago.
    fn forget_settled(&mut self) {
        let settled = self
            .marks
            .iter()
            .filter_map(|(chat, mark)| Some((mark.said?, *chat)));
        let (count, oldest) = settled.fold((0, None), |(count, oldest), one| {
            (count + 1, Some(oldest.map_or(one, |other| one.min(other))))
        });
        if let (true, Some((_, chat))) = (count > SETTLED_MAX, oldest) {
            self.marks.remove(&chat);
        }
    }
}
