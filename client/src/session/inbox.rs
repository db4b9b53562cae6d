//! The inbox as this device sees it: what was shown, what the application has stored, what may be
//! acknowledged.
//!
//! The server delivers in cursor order and the acknowledgement is cumulative, while the application may
//! store out of order. So entries wait in a queue, and the acknowledgement is the end of its stored
//! prefix, but never beyond what *this* session has delivered (P27).

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hasher};

use roadstead_proto::limits::DELIVER_WINDOW_ENTRIES_MAX;
use roadstead_proto::{DeviceId, MessageId, Position, UserId};

use crate::event::Message;

/// Messages that are remembered to recognise repeats after a resync (R3): about 100 bytes each.
const SEEN_MAX: usize = 16 * 1024;

/// By what a message is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// What the server calls it.
    pub(crate) id: MessageId,
    /// What its sender calls it, if the server says so.
    pub(crate) origin: Option<Origin>,
}

/// What makes a message itself for its sender, who repeats it until it is confirmed. A store that was
/// restored to an earlier state may have given it to this device before, under another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    sender: UserId,
    device: DeviceId,
    number: u64,
    /// A hash of chat and payload: a device that lost its count may use a number again for another
    /// message, if the store has forgotten the first (R13).
    content: u64,
}

impl Identity {
    pub(crate) fn of(message: &Message) -> Self {
        let content = || {
            let mut hasher = DefaultHasher::new();
            hasher.write(message.chat.as_bytes());
            hasher.write(&message.payload);
            hasher.finish()
        };
        let origin = (message.number > 0).then(|| Origin {
            sender: message.sender,
            device: message.sender_device,
            number: message.number,
            content: content(),
        });
        Self {
            id: message.id,
            origin,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Shown and not yet part of the stored prefix, in cursor order.
    waiting: VecDeque<Waiting>,
    /// Of an earlier generation: their cursors mean nothing now, but the application still holds them.
    orphans: Vec<Waiting>,
    /// Everything up to here is stored by the application.
    stored: Position,
    /// The last entry that was shown to the application.
    shown: Position,
    /// The last entry that this session delivered.
    delivered: Position,
    /// What this session has acknowledged, by its Hello to begin with (R19).
    acked: Position,
    seen: HashSet<MessageId>,
    /// Under which id each was seen last.
    origins: HashMap<Origin, MessageId>,
    seen_order: VecDeque<Identity>,
    next_entry: u64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    cursor: Position,
    entry: u64,
    message: Option<MessageId>,
    stored: bool,
}

/// What to do with an entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Show it, under this entry number.
    New(u64),
    /// The application has it already.
    Repeat,
    /// The application has it already, under another id and position: these take their place.
    Moved(u64),
    /// The server broke the order, or its own window.
    Violation(&'static str),
}

impl Inbox {
    pub(crate) fn new(stored: Position) -> Self {
        Self {
            stored,
            shown: stored,
            ..Self::default()
        }
    }

    /// What the next Hello says is stored, and thereby acknowledges.
    pub(crate) fn greet(&mut self) -> Position {
        self.acked = self.stored;
        self.delivered = Position::ZERO;
        self.stored
    }

    /// A session is open. What its Hello acknowledged: nothing if it was of another generation.
    pub(crate) fn start_session(&mut self, resync: bool) -> Position {
        if resync {
            self.orphans.extend(self.waiting.drain(..));
            self.stored = Position::ZERO;
            self.shown = Position::ZERO;
            self.acked = Position::ZERO;
        }
        self.acked
    }

    /// An entry was delivered.
    pub(crate) fn arrive(&mut self, cursor: Position, message: Option<Identity>) -> Arrival {
        if cursor <= self.delivered {
            return Arrival::Violation("cursors must grow");
        }
        if self.waiting.len() >= 2 * DELIVER_WINDOW_ENTRIES_MAX {
            return Arrival::Violation("more entries than the window allows");
        }
        self.delivered = cursor;
        if cursor <= self.shown {
            return Arrival::Repeat;
        }
        self.shown = cursor;
        if let Some(known) = message.filter(|message| self.seen.contains(&message.id)) {
            self.arrive_again(cursor, known.id);
            return Arrival::Repeat;
        }
        self.next_entry += 1;
        let entry = self.next_entry;
        self.waiting.push_back(Waiting {
            cursor,
            entry,
            message: message.map(|message| message.id),
            stored: false,
        });
        match message.map(|message| self.remember(message)) {
            Some(true) => Arrival::Moved(entry),
            Some(false) | None => Arrival::New(entry),
        }
    }

    /// A message that was shown before has another cursor now. If the application has not stored it
    /// yet, the new cursor waits for the same event.
    fn arrive_again(&mut self, cursor: Position, id: MessageId) {
        let earlier = self.orphans.iter().chain(&self.waiting);
        let unstored = earlier
            .filter(|waiting| waiting.message == Some(id) && !waiting.stored)
            .map(|waiting| waiting.entry)
            .next();
        self.waiting.push_back(Waiting {
            cursor,
            entry: unstored.unwrap_or(0),
            message: Some(id),
            stored: unstored.is_none(),
        });
    }

    /// Whether it was known by its origin.
    fn remember(&mut self, message: Identity) -> bool {
        self.seen.insert(message.id);
        let before = message
            .origin
            .map(|origin| self.origins.insert(origin, message.id));
        self.seen_order.push_back(message);
        if self.seen_order.len() > SEEN_MAX {
            let oldest = self.seen_order.pop_front().expect("not empty");
            self.forget(oldest);
        }
        before.flatten().is_some()
    }

    fn forget(&mut self, message: Identity) {
        self.seen.remove(&message.id);
        if let Some(origin) = message.origin
            && self.origins.get(&origin) == Some(&message.id)
        {
            self.origins.remove(&origin);
        }
    }

    /// The application has stored what this entry brought.
    pub(crate) fn mark_stored(&mut self, entry: u64) {
        self.orphans.retain(|waiting| waiting.entry != entry);
        for waiting in &mut self.waiting {
            waiting.stored |= waiting.entry == entry;
        }
    }

    /// The application has stored everything up to the cursor.
    pub(crate) fn mark_stored_up_to(&mut self, cursor: Position) {
        for waiting in &mut self.waiting {
            waiting.stored |= waiting.cursor <= cursor;
        }
    }

    /// Moves the stored prefix: its new end, if it moved.
    pub(crate) fn advance(&mut self) -> Option<Position> {
        let before = self.stored;
        while let Some(first) = self.waiting.pop_front_if(|first| first.stored) {
            self.stored = first.cursor;
        }
        (self.stored > before).then_some(self.stored)
    }

    /// What may be acknowledged now and has not been.
    pub(crate) fn ack_due(&self) -> Option<Position> {
        let ack = self.stored.min(self.delivered);
        (ack > self.acked).then_some(ack)
    }

    pub(crate) fn acknowledged(&mut self, cursor: Position) {
        self.acked = cursor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u16) -> Position {
        Position::new(1, [0; 10], n)
    }

    /// The first message of another device each.
    fn id(n: u64) -> Option<Identity> {
        again(n, n, 1, 0)
    }

    /// A message under an id, from one of many devices.
    fn again(id: u64, device: u64, number: u64, content: u64) -> Option<Identity> {
        let device = u32::try_from(device + 1).expect("few devices");
        let origin = Origin {
            sender: UserId::new(1).expect("not 0"),
            device: DeviceId::new(device).expect("not 0"),
            number,
            content,
        };
        Some(Identity {
            id: MessageId::new(id),
            origin: Some(origin),
        })
    }

    fn entry(arrival: Arrival) -> u64 {
        match arrival {
            Arrival::New(entry) => entry,
            other => panic!("{other:?}"),
        }
    }

    fn store(inbox: &mut Inbox, entry: u64) -> Option<Position> {
        inbox.mark_stored(entry);
        inbox.advance()
    }

    fn next_session(inbox: &mut Inbox, resync: bool) -> Position {
        inbox.greet();
        inbox.start_session(resync)
    }

    #[test]
    fn what_was_stored_between_hello_and_welcome_is_acknowledged_when_delivered_again() {
        let mut inbox = Inbox::new(Position::ZERO);
        inbox.start_session(false);
        let first = entry(inbox.arrive(at(1), id(1)));
        assert_eq!(inbox.greet(), Position::ZERO);
        store(&mut inbox, first);
        inbox.start_session(false);
        assert_eq!(inbox.ack_due(), None);
        assert_eq!(inbox.arrive(at(1), id(1)), Arrival::Repeat);
        assert_eq!(inbox.ack_due(), Some(at(1)));
    }

    #[test]
    fn p26_only_the_stored_prefix_is_acknowledged() {
        let mut inbox = Inbox::new(Position::ZERO);
        inbox.start_session(false);
        let entries: Vec<u64> = (1..=3)
            .map(|n| entry(inbox.arrive(at(n), id(n.into()))))
            .collect();
        assert_eq!(store(&mut inbox, entries[2]), None);
        assert_eq!(inbox.ack_due(), None, "1 and 2 are not stored");
        assert_eq!(store(&mut inbox, entries[0]), Some(at(1)));
        assert_eq!(inbox.ack_due(), Some(at(1)));
        inbox.acknowledged(at(1));
        assert_eq!(inbox.ack_due(), None);
        assert_eq!(store(&mut inbox, entries[1]), Some(at(3)));
        assert_eq!(inbox.ack_due(), Some(at(3)));
    }

    #[test]
    fn a_cumulative_mark_takes_all_before_it() {
        let mut inbox = Inbox::new(Position::ZERO);
        inbox.start_session(false);
        for n in 1..=4 {
            entry(inbox.arrive(at(n), None));
        }
        inbox.mark_stored_up_to(at(3));
        assert_eq!(inbox.advance(), Some(at(3)));
    }

    #[test]
    fn p27_an_ack_waits_until_this_session_has_delivered_the_entry() {
        let mut inbox = Inbox::new(Position::ZERO);
        inbox.start_session(false);
        let first = entry(inbox.arrive(at(1), id(1)));
        let second = entry(inbox.arrive(at(2), id(2)));
        // The session is lost, and the Hello of the next one knows of neither.
        assert_eq!(next_session(&mut inbox, false), Position::ZERO);
        store(&mut inbox, first);
        store(&mut inbox, second);
        assert_eq!(inbox.ack_due(), None, "this session has delivered nothing");
        assert_eq!(inbox.arrive(at(1), id(1)), Arrival::Repeat);
        assert_eq!(inbox.ack_due(), Some(at(1)));
        assert_eq!(inbox.arrive(at(2), id(2)), Arrival::Repeat);
        assert_eq!(inbox.ack_due(), Some(at(2)));
    }

    #[test]
    fn a_repeat_in_the_next_session_waits_for_the_first_showing() {
        let mut inbox = Inbox::new(Position::ZERO);
        inbox.start_session(false);
        let first = entry(inbox.arrive(at(1), id(1)));
        next_session(&mut inbox, false);
        assert_eq!(inbox.arrive(at(1), id(1)), Arrival::Repeat);
        assert_eq!(inbox.ack_due(), None);
        store(&mut inbox, first);
        assert_eq!(inbox.ack_due(), Some(at(1)));
    }

    #[test]
    fn the_hello_cursor_is_not_acknowledged_twice() {
        let mut inbox = Inbox::new(at(5));
        assert_eq!(next_session(&mut inbox, false), at(5));
        assert_eq!(inbox.ack_due(), None);
        let next = entry(inbox.arrive(at(6), id(6)));
        assert_eq!(inbox.ack_due(), None);
        store(&mut inbox, next);
        assert_eq!(inbox.ack_due(), Some(at(6)));
    }

    #[test]
    fn r3_after_a_resync_repeats_are_recognised_by_message_id() {
        let later = |n| Position::new(2, [0; 10], n);
        let mut inbox = Inbox::new(Position::ZERO);
        inbox.start_session(false);
        let stored = entry(inbox.arrive(at(8), id(1)));
        let unstored = entry(inbox.arrive(at(9), id(2)));
        store(&mut inbox, stored);
        assert_eq!(next_session(&mut inbox, true), Position::ZERO);
        assert_eq!(inbox.arrive(later(1), id(1)), Arrival::Repeat);
        assert_eq!(inbox.advance(), Some(later(1)), "stored long ago");
        assert_eq!(inbox.arrive(later(2), id(2)), Arrival::Repeat);
        assert_eq!(inbox.advance(), None, "the application still holds it");
        assert_eq!(store(&mut inbox, unstored), Some(later(2)));
        assert_eq!(inbox.ack_due(), Some(later(2)));
        entry(inbox.arrive(later(3), id(3)));
    }

    /// The sender repeated it to a store that had lost it: other id, other position, the same message.
    #[test]
    fn r3_after_a_restore_repeats_are_recognised_by_what_their_sender_calls_them() {
        let later = |n| Position::new(2, [0; 10], n);
        let mut inbox = Inbox::new(Position::ZERO);
        inbox.start_session(false);
        let first = entry(inbox.arrive(at(8), again(1, 3, 5, 77)));
        assert_eq!(next_session(&mut inbox, true), Position::ZERO);
        let Arrival::Moved(moved) = inbox.arrive(later(1), again(2, 3, 5, 77)) else {
            panic!("it is shown already");
        };
        store(&mut inbox, first);
        assert_eq!(inbox.ack_due(), None, "where it stands now is not stored");
        assert_eq!(store(&mut inbox, moved), Some(later(1)));
        // What only looks like it is another message.
        entry(inbox.arrive(later(2), again(4, 3, 5, 78)));
        entry(inbox.arrive(later(3), again(5, 3, 6, 77)));
        entry(inbox.arrive(later(4), again(6, 4, 5, 77)));
        assert_eq!(next_session(&mut inbox, true), Position::ZERO);
        let third = Position::new(3, [0; 10], 1);
        assert_eq!(inbox.arrive(third, again(2, 3, 5, 77)), Arrival::Repeat);
    }

    #[test]
    fn p28_the_server_is_held_to_growing_cursors_and_its_window() {
        let mut inbox = Inbox::new(Position::ZERO);
        inbox.start_session(false);
        entry(inbox.arrive(at(2), None));
        assert!(matches!(inbox.arrive(at(2), None), Arrival::Violation(_)));
        assert!(matches!(inbox.arrive(at(1), None), Arrival::Violation(_)));
        let violation =
            (3..2_000).find(|n| matches!(inbox.arrive(at(*n), None), Arrival::Violation(_)));
        assert!(violation.is_some(), "memory has a limit");
    }

    #[test]
    fn remembered_ids_have_a_limit() {
        let mut inbox = Inbox::new(Position::ZERO);
        inbox.start_session(false);
        for n in 0..SEEN_MAX as u64 + 10 {
            let cursor = Position::new(1, [0; 10], 0).as_bytes().to_owned();
            let mut cursor = cursor;
            cursor[4..12].copy_from_slice(&(n + 1).to_be_bytes());
            let cursor = Position::from_slice(&cursor).expect("16 bytes");
            let entry = entry(inbox.arrive(cursor, id(n)));
            store(&mut inbox, entry);
        }
        assert_eq!(inbox.seen.len(), SEEN_MAX);
        assert_eq!(inbox.origins.len(), SEEN_MAX);
    }
}
