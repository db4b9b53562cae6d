//! From a chat's refusal to its next messages (P112).

use std::time::Instant;

use roadstead_proto::ChatId;
use roadstead_proto::limits::SENDS_IN_FLIGHT_MAX;

use super::chat::Chat;
use super::{Now, Sends};
use crate::event::SendDelay;
use crate::journal::{Record, Unconfirmed};

/// Chats whose last refusal is remembered, for [`v1::Send::after`](roadstead_proto::v1::Send::after). The
/// server remembers as many. To have forgotten one costs a refusal.
const CHATS_REFUSED_MAX: usize = 2 * SENDS_IN_FLIGHT_MAX;

impl Sends {
    /// Numbers of the chat that are open or about to leave.
    pub(super) fn under_way(&self, chat: ChatId) -> usize {
        let numbered = self.numbered.values();
        numbered.filter(|one| one.message.chat == chat).count()
    }

    /// Remembers what was refused, for messages that get their place behind it.
    pub(super) fn note_refusal(&mut self, chat: ChatId, number: u64) {
        let highest = self.refused.entry(chat).or_default();
        *highest = number.max(*highest);
        if self.refused.len() > CHATS_REFUSED_MAX {
            let oldest = self.refused.iter().min_by_key(|(_, number)| **number);
            let oldest = *oldest.expect("not empty").0;
            self.refused.remove(&oldest);
        }
    }

    /// What has a number of a chat that pauses, and was not attempted under it, waits without one.
    pub(super) fn withdraw(&mut self, now: Now, chat: ChatId) {
        let left = self
            .numbered
            .extract_if(.., |_, one| one.message.chat == chat && !one.is_open);
        let left: Vec<Unconfirmed> = left.map(|(_, one)| one.message).collect();
        for message in left {
            self.release(now, message, false);
        }
    }

    /// The number of a message is of no use any more.
    fn release(&mut self, now: Now, message: Unconfirmed, is_told: bool) {
        let number = message.number;
        self.record(Record::Renumbered { number, sent_as: 0 });
        self.wait(now, message, is_told);
    }

    /// Tells the application what waits while the chat pauses.
    pub(super) fn tell(&mut self, now: Now, chat: ChatId) {
        let Some(paused) = self.chats.get_mut(&chat) else {
            return;
        };
        if paused.pause().is_some() {
            let untold: Vec<_> = paused.tell().collect();
            let untold = untold.into_iter();
            self.delays
                .extend(untold.flat_map(|one| delay(now.at, paused, one)));
        }
    }

    pub(super) fn tend_all(&mut self, now: Now) {
        for chat in self.chats.keys().copied().collect::<Vec<_>>() {
            self.tend(now, chat);
        }
    }

    /// Does what is due in a chat that is set apart: ends its pause, lets the next messages go, forgets it.
    pub(super) fn tend(&mut self, now: Now, id: ChatId) {
        if !self.chats.contains_key(&id) {
            return;
        }
        let mut under_way = self.under_way(id);
        if under_way == 0 {
            let refused = self.chats.get_mut(&id).map(Chat::take_refused);
            for message in refused.into_iter().flatten().map(|(_, message)| message) {
                self.release(now, message, true);
            }
        }
        let chat = self.chats.get_mut(&id).expect("looked up above");
        chat.end_pause(now.at);
        while self.is_active
            && let Some(message) = self.chats.get_mut(&id).and_then(|it| it.next(under_way))
        {
            self.highest += 1;
            let (number, sent_as) = (message.number, self.highest);
            self.record(Record::Renumbered { number, sent_as });
            self.number(sent_as, message, false);
            under_way += 1;
        }
        if self.chats.get(&id).is_some_and(|it| it.is_over(under_way)) {
            self.chats.remove(&id);
        }
    }
}

/// What the application is told of a message that waits because its chat pauses.
pub(super) fn delay(now: Instant, chat: &Chat, (number, id): (u64, ChatId)) -> Option<SendDelay> {
    let pause = chat.pause()?;
    Some(SendDelay {
        number,
        chat: id,
        code: pause.code,
        retry_in: pause.until.saturating_duration_since(now),
    })
}
