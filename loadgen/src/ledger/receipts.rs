//! Receipts and read marks: positions that only grow, and never ahead of what they confirm (R20).

use roadstead_proto::v1;
use roadstead_proto::{ChatId, Position, UserId};

use super::{Ledger, Message, View};
use crate::findings::Kind;
use crate::rng::chosen;

/// Names of the two receipts.
const DELIVERED: &str = "delivered";
const READ: &str = "read";

impl Ledger {
    /// How far this session has read its chats; said again in every new session, as a Read has no answer.
    pub(crate) fn read_marks(&self, session: u32) -> Vec<(ChatId, Position)> {
        let user = self.roster.user(session);
        let Some(account) = &self.accounts[session as usize] else {
            return Vec::new();
        };
        self.roster
            .circle(user)
            .zip(&account.views)
            .filter(|(_, view)| view.marked > Position::ZERO)
            .map(|(peer, view)| (self.chat(user, peer), view.marked))
            .collect()
    }

    /// A receipt reached a session.
    pub(crate) fn receipt(&mut self, session: u32, update: &v1::ReceiptUpdate) {
        let user = self.roster.user(session);
        let fields = (
            Position::from_field(&update.delivered),
            Position::from_field(&update.read),
        );
        let chat = ChatId::from_slice(&update.chat).ok();
        let (Some(chat), (Some(delivered), Some(read))) = (chat, fields) else {
            return self.note(
                Kind::ProtocolBroken,
                session,
                "a ReceiptUpdate with a bad field",
            );
        };
        if update.user == self.roster.user_id(user).get() {
            // Another device of this user has read: nothing is expected of that.
            return;
        }
        let peer = UserId::new(update.user)
            .ok()
            .and_then(|id| self.roster.user_of(id));
        match peer.filter(|peer| chat == self.chat(user, *peer)) {
            Some(peer) if self.roster.circle(user).contains(&peer) => {
                self.book_receipt(session, peer, delivered, read);
            }
            // Of a chat of another run.
            _ => self.tally.foreign += 1,
        }
    }

    fn book_receipt(&mut self, session: u32, peer: u32, delivered: Position, read: Position) {
        let (delivered, read) = (self.of_this_run(delivered), self.of_this_run(read));
        let user = self.roster.user(session);
        let own_seat = self.roster.seat(user);
        let furthest = |field: fn(&View) -> Position| {
            let views = self
                .roster
                .sessions_of(peer)
                .filter_map(|s| self.accounts[s as usize].as_ref());
            views
                .map(|account| field(&account.views[own_seat]))
                .max()
                .unwrap_or_default()
        };
        let (had, marked) = (
            furthest(|view| view.delivered),
            furthest(|view| view.marked),
        );
        let view = self.view(session, peer);
        let before = (view.receipt_delivered, view.receipt_read);
        view.receipt_delivered = before.0.max(delivered);
        view.receipt_read = before.1.max(read);
        let went_back = |new: Position, old: Position| new != Position::ZERO && new < old;
        let peer = self.roster.user_id(peer);
        if delivered > had || read > marked {
            let what = format!(
                "user {peer} delivered {delivered:?} of {had:?}, read {read:?} of {marked:?}"
            );
            self.note(Kind::ReceiptFalse, session, what);
        } else if went_back(delivered, before.0) || went_back(read, before.1) {
            let what = format!("user {peer} back to {delivered:?}, {read:?} from {before:?}");
            self.note(Kind::ReceiptFalse, session, what);
        }
    }

    fn of_this_run(&self, position: Position) -> Position {
        if position < self.began {
            Position::ZERO
        } else {
            position
        }
    }

    /// Whether this session marks its chat with `peer` read: one device of the chosen users does.
    pub(super) fn reads(&self, session: u32, peer: u32) -> bool {
        self.roster.device(session) == 0 && self.is_read_chat(self.roster.user(session), peer)
    }

    fn is_read_chat(&self, reader: u32, writer: u32) -> bool {
        let pair =
            self.roster.user_id(reader).get().rotate_left(32) ^ self.roster.user_id(writer).get();
        chosen(self.roster.seed(), pair, self.rules.read_fraction)
    }

    pub(super) fn receipts_missing(
        &self,
        message: &Message,
    ) -> impl Iterator<Item = (u32, &'static str)> {
        self.receipts(message)
            .filter(|(_, _, came)| !came)
            .map(|(session, name, _)| (session, name))
    }

    /// The receipts that are expected, for each device of the sender, and whether they came.
    fn receipts(&self, message: &Message) -> impl Iterator<Item = (u32, &'static str, bool)> {
        let author = self.roster.user(message.sender);
        let is_outside = Self::is_outside(message.recipient);
        let peer = if is_outside {
            author
        } else {
            message.recipient
        };
        let seat = self.roster.seat(peer);
        let is_read = self.is_read_chat(peer, author);
        let position = message.position;
        // Nothing is expected of somebody outside.
        let sessions = self.roster.sessions_of(author).filter(move |_| !is_outside);
        sessions.flat_map(move |session| {
            let view = self.accounts[session as usize]
                .as_ref()
                .map(|account| account.views[seat]);
            let view = view.unwrap_or_default();
            let delivered = (session, DELIVERED, view.receipt_delivered >= position);
            let read = is_read.then_some((session, READ, view.receipt_read >= position));
            [Some(delivered), read].into_iter().flatten()
        })
    }

    pub(super) fn count_receipts(&mut self, message: &Message) {
        if message.answered {
            let came: Vec<_> = self
                .receipts(message)
                .filter(|(_, _, came)| *came)
                .collect();
            let read = came.iter().filter(|(_, name, _)| *name == READ).count();
            let delivered = came.len() - read;
            self.tally.receipts_delivered += delivered as u64;
            self.tally.receipts_read += read as u64;
        }
    }
}
