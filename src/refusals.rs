//! Chats that refused a device for a while, so that order holds behind a refusal that is final (R16).
//!
//! Sends 5, 6 and 7 to one chat are under way. 5 is refused for good, because its chat has no room for the
//! moment; then there is room again, 6 and 7 are committed, and the client sends what 5 said as 8: it stands
//! behind what was said after it. So what a device sent to a chat before it knew of a refusal there is refused
//! alike. [`Send.after`](roadstead_proto::v1::Send) says of which refusal it knows.

use std::collections::VecDeque;

use roadstead_proto::{ChatId, limits as wire};

use crate::store::StoreError;
use crate::time::Time;

/// Chats that are remembered. A device has at most so many sends unanswered, so whatever it sends behind so
/// many refusals it sent in the knowledge of the first.
const CHATS_MAX: usize = wire::SENDS_IN_FLIGHT_MAX;

/// See the [module](self).
#[derive(Debug, Clone, Default)]
pub struct ChatRefusals {
    /// In the order in which they began.
    chats: VecDeque<ChatRefusal>,
}

#[derive(Debug, Clone, Copy)]
struct ChatRefusal {
    chat: ChatId,
    /// The highest number refused.
    number: u64,
    error: StoreError,
    until: Time,
}

impl ChatRefusals {
    /// Remembers that a number was refused, until then at the latest. Not longer than the refusal before it of
    /// the same chat: a client that never says what it knows must be heard again.
    pub fn note(&mut self, chat: ChatId, number: u64, error: StoreError, until: Time) {
        if !error.code().refuses_chat_for_now() {
            return;
        }
        if let Some(known) = self.chats.iter_mut().find(|known| known.chat == chat) {
            known.number = known.number.max(number);
            return;
        }
        if self.chats.len() >= CHATS_MAX {
            self.chats.pop_front();
        }
        self.chats.push_back(ChatRefusal {
            chat,
            number,
            error,
            until,
        });
    }

    /// Why a number is refused that its client sent in the knowledge of the refusals up to `after`, if it is.
    pub fn of(&mut self, chat: ChatId, number: u64, after: u64) -> Option<StoreError> {
        let index = self.chats.iter().position(|known| known.chat == chat)?;
        let known = self.chats[index];
        if after >= known.number {
            self.chats.remove(index);
            return None;
        }
        (number > known.number).then_some(known.error)
    }

    /// Forgets what is over by now.
    pub fn forget(&mut self, now: Time) {
        self.chats.retain(|known| known.until > now);
    }

    /// When the last of them is over.
    #[must_use]
    pub fn until(&self) -> Option<Time> {
        self.chats.iter().map(|known| known.until).max()
    }
}

#[cfg(test)]
mod tests {
    use roadstead_proto::UserId;

    use super::*;

    const BUSY: StoreError = StoreError::ChatBusy {
        retry_after_ms: 1_000,
    };
    const LATER: Time = Time::from_micros(60_000_000);

    fn chat(peer: u64) -> ChatId {
        let user = |id| UserId::new(id).expect("not 0");
        ChatId::pair(user(1), user(1 + peer))
    }

    #[test]
    fn df1_r16_what_was_sent_before_the_refusal_was_known_is_refused_alike() {
        let mut refusals = ChatRefusals::default();
        refusals.note(chat(1), 5, BUSY, LATER);
        assert_eq!(refusals.of(chat(1), 6, 0), Some(BUSY));
        assert_eq!(refusals.of(chat(2), 6, 0), None, "another chat");
        assert_eq!(refusals.of(chat(1), 4, 0), None, "an earlier message");
        refusals.note(chat(1), 6, BUSY, LATER);
        assert_eq!(refusals.of(chat(1), 8, 5), Some(BUSY), "6 is not known yet");
        assert_eq!(refusals.of(chat(1), 8, 6), None);
        assert_eq!(refusals.of(chat(1), 9, 0), None, "the client knew once");
    }

    #[test]
    fn df1_r16_a_client_that_never_says_what_it_knows_is_heard_again() {
        let mut refusals = ChatRefusals::default();
        refusals.note(chat(1), 5, BUSY, LATER);
        refusals.note(chat(1), 6, BUSY, Time::NEVER);
        assert_eq!(refusals.until(), Some(LATER));
        refusals.forget(LATER);
        assert_eq!(refusals.of(chat(1), 7, 0), None);
    }

    #[test]
    fn r16_no_more_chats_are_remembered_than_can_be_unanswered() {
        let mut refusals = ChatRefusals::default();
        let max = CHATS_MAX as u64;
        for number in 1..=max + 1 {
            refusals.note(chat(number), number, BUSY, LATER);
        }
        assert_eq!(refusals.of(chat(1), max + 2, 0), None);
        assert_eq!(refusals.of(chat(2), max + 2, 0), Some(BUSY));
    }

    #[test]
    fn r16_a_refusal_that_waiting_does_not_mend_stops_nothing() {
        let mut refusals = ChatRefusals::default();
        refusals.note(chat(1), 5, StoreError::UserUnknown, LATER);
        refusals.note(chat(1), 5, StoreError::RecordDamaged, LATER);
        assert_eq!(refusals.of(chat(1), 6, 0), None);
    }
}
