//! What clients send, acknowledge and store.

use roadstead_proto::{ChatId, ErrorCode, Position, UserId};

use super::{Checker, Device, Expected, Message, Progress};
use crate::client::Arrived;

impl Checker {
    /// A client gives a message to its outbox.
    pub fn submitted(
        &mut self,
        token: u64,
        sender: Device,
        (chat, recipient): (ChatId, UserId),
        bytes: usize,
    ) {
        let message = Message {
            sender,
            chat,
            recipient,
            bytes,
            forbidden: false,
            committed: None,
        };
        self.messages.insert(token, message);
    }

    /// This message must not be committed: its number was another one's before.
    pub fn forbid(&mut self, token: u64) {
        self.messages
            .get_mut(&token)
            .expect("submitted before")
            .forbidden = true;
    }

    /// A client acknowledges.
    pub fn acked(&mut self, device: Device, cursor: Position) {
        let model = self.device(device);
        model.acked = model.acked.max(cursor);
    }

    /// A client stored what it was sent: each message once, and each cursor above the one before.
    pub fn stored(&mut self, device: Device, arrived: &[Arrived]) {
        for entry in arrived {
            let model = self.device(device);
            let before = model.cursor;
            model.cursor = before.max(entry.cursor);
            model.furthest = model.furthest.max(entry.cursor);
            let fresh = entry.token.is_none_or(|token| model.stored.insert(token));
            let may_repeat = model.resynced;
            if let Some(progress) = entry.progress {
                model.seen.insert((progress.chat, progress.user), progress);
            }
            self.require(entry.cursor > before, "R4", || {
                format!("{device:?} stored {:?} after {before:?}", entry.cursor)
            });
            // What makes a message itself is its token; the client has to find that out otherwise.
            self.require(fresh || entry.repeat, "R3", || {
                format!("{device:?} stored token {:?} twice", entry.token)
            });
            self.require(!(fresh && entry.repeat), "R3", || {
                format!("{device:?} takes token {:?} for another", entry.token)
            });
            self.require(fresh || may_repeat, "R4", || {
                format!("{device:?} got token {:?} twice", entry.token)
            });
        }
    }

    /// A client was refused a send for good.
    pub fn refused(&mut self, device: Device, number: u64, token: u64, code: ErrorCode) {
        if code == ErrorCode::DeviceRemoved {
            return;
        }
        let committed = self.messages[&token].committed;
        // A refusal after the commit would let a client believe that nobody will read it.
        self.require(committed.is_none(), "R12", || {
            format!("{device:?} number {number} is committed and was refused: {code:?}")
        });
    }

    /// Whether the client of a device has everything that it ought to have.
    #[must_use]
    pub fn is_complete(&self, device: Device) -> bool {
        let Some(model) = self.devices.get(&device) else {
            return false;
        };
        model
            .expected
            .last_key_value()
            .is_none_or(|(last, _)| *last <= model.cursor.max(model.flushed))
    }

    /// Whether everything that a client has stored is acknowledged in the store.
    #[must_use]
    pub fn is_flushed(&self, device: Device) -> bool {
        let Some(model) = self.devices.get(&device) else {
            return false;
        };
        model.flushed >= model.cursor
    }

    /// At the end, a client has everything, once (R2), and knows of the last receipts (R20).
    pub fn final_client(&mut self, device: Device) {
        let model = &self.devices[&device];
        let missing = model.expected.iter().find(|(_, expected)| match expected {
            Expected::Message(token) => !model.stored.contains(token),
            Expected::Receipt(_) | Expected::Gap => false,
        });
        let missing = missing.map(|(at, expected)| (*at, expected.clone()));
        let knows = |seen: &Progress, told: &Progress| {
            let further = seen.delivered >= told.delivered && seen.read >= told.read;
            seen == told || (model.restored && further)
        };
        let stale = model.told.iter().find(|(key, (_, told))| {
            let seen = model.seen.get(key);
            !seen.is_some_and(|seen| knows(seen, told))
        });
        let stale = stale.map(|(key, told)| (*told, model.seen.get(key).copied()));
        let (cursor, furthest, flushed) = (model.cursor, model.furthest, model.flushed);
        self.require(missing.is_none(), "R4", || {
            format!("{device:?} never got {missing:?}")
        });
        self.require(stale.is_none(), "R20", || {
            format!("{device:?} knows not {stale:?}")
        });
        let right = cursor <= flushed && flushed <= furthest;
        self.require(right, "R18", || {
            format!("{device:?} has {cursor:?}, the store believes {flushed:?}")
        });
    }
}
