//! Chats that refused a device for a while, so that order holds behind a refusal that is final (R16).
//!
//! Sends 5, 6 and 7 to one chat are under way. 5 is refused for good, because its chat has no room for the
//! moment; then there is room again, 6 and 7 are committed, and the client sends what 5 said as 8: it stands
//! behind what was said after it. So what a device sent to a chat before it knew of a refusal there is refused
//! alike. [`Send.after`](roadstead_proto::v1::Send) says of which refusal it knows.
//!
//! No clock says when it must have known: what it sent may lie unread for long while the shard has no credit
//! to give (R26), or be refused for another reason and come again. Numbers say it: while a number is without its
//! answer, none leaves that is [256 above it](wire::SEND_ANSWERS_KEPT) (P37). What was sent before the refusal of 5
//! was known is below 5 + 256, and while that is without its answer, all is below 5 + 512. A client that never says what
//! it knows is heard from there on, or in its next session.

use std::collections::VecDeque;

use roadstead_proto::{ChatId, limits as wire};

use crate::store::StoreError;

/// Where a number so far above a refused one is sent, nothing is left that was sent before the refusal was known.
const UNAWARE_SPAN: u64 = 2 * wire::SEND_ANSWERS_KEPT;

/// Chats remembered: behind a refused number as many others may be refused, each of another chat, while one that was
/// sent before it was known is without its answer.
const CHATS_MAX: usize = 2 * wire::SENDS_IN_FLIGHT_MAX;

/// See the [module](self).
#[derive(Debug, Clone, Default)]
pub struct ChatRefusals {
    /// In the order in which they began.
    chats: VecDeque<ChatRefusal>,
}

#[derive(Debug, Clone, Copy)]
struct ChatRefusal {
    chat: ChatId,
    /// The lowest number refused, and the highest. They need not come in order: the lowest may have been refused in
    /// an earlier session, and the store says so after the shard has refused one behind it.
    lowest: u64,
    highest: u64,
    error: StoreError,
}

impl ChatRefusals {
    /// Remembers that a number was refused. Not longer than the refusal before it of the same chat: a client that
    /// never says what it knows must be heard again.
    pub fn note(&mut self, chat: ChatId, number: u64, error: StoreError) {
        if !error.code().refuses_chat_for_now() {
            return;
        }
        if let Some(known) = self.chats.iter_mut().find(|known| known.chat == chat) {
            known.lowest = known.lowest.min(number);
            known.highest = known.highest.max(number);
            return;
        }
        if self.chats.len() == CHATS_MAX {
            self.chats.pop_front();
        }
        self.chats.push_back(ChatRefusal {
            chat,
            lowest: number,
            highest: number,
            error,
        });
    }

    /// Why a number is refused that its client sent in the knowledge of the refusals up to `after`, if it is.
    pub fn of(&mut self, chat: ChatId, number: u64, after: u64) -> Option<StoreError> {
        let index = self.chats.iter().position(|known| known.chat == chat)?;
        let known = self.chats[index];
        if after >= known.highest {
            self.chats.remove(index);
            return None;
        }
        (number > known.lowest).then_some(known.error)
    }

    /// A number was not refused after all. What was refused behind it meanwhile stays so, and what is behind that.
    pub fn withdraw(&mut self, chat: ChatId, number: u64) {
        self.chats.retain(|known| {
            let is_alone = (known.lowest, known.highest) == (number, number);
            known.chat != chat || !is_alone
        });
    }

    /// A number arrived. Forgets the refusals that its client must know of.
    pub fn forget_known_at(&mut self, number: u64) {
        self.chats
            .retain(|known| number < known.lowest.saturating_add(UNAWARE_SPAN));
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chats.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use roadstead_proto::UserId;

    use super::*;

    const BUSY: StoreError = StoreError::ChatBusy {
        retry_after_ms: 1_000,
    };

    fn chat(peer: u64) -> ChatId {
        let user = |id| UserId::new(id).expect("not 0");
        ChatId::pair(user(1), user(1 + peer))
    }

    #[test]
    fn df1_r16_what_was_sent_before_the_refusal_was_known_is_refused_alike() {
        let mut refusals = ChatRefusals::default();
        refusals.note(chat(1), 5, BUSY);
        assert_eq!(refusals.of(chat(1), 6, 0), Some(BUSY));
        assert_eq!(refusals.of(chat(2), 6, 0), None, "another chat");
        assert_eq!(refusals.of(chat(1), 4, 0), None, "an earlier message");
        refusals.note(chat(1), 6, BUSY);
        assert_eq!(refusals.of(chat(1), 8, 5), Some(BUSY), "6 is not known yet");
        assert_eq!(refusals.of(chat(1), 8, 6), None);
        assert_eq!(refusals.of(chat(1), 9, 0), None, "the client knew once");
    }

    #[test]
    fn df1_r16_an_earlier_number_may_be_refused_later() {
        let mut refusals = ChatRefusals::default();
        refusals.note(chat(1), 7, BUSY);
        assert_eq!(refusals.of(chat(1), 6, 0), None, "what is behind is not");
        refusals.note(chat(1), 5, BUSY);
        assert_eq!(refusals.of(chat(1), 6, 0), Some(BUSY));
        assert_eq!(refusals.of(chat(1), 9, 6), Some(BUSY), "7 is not known yet");
        assert_eq!(refusals.of(chat(1), 9, 7), None);
    }

    #[test]
    fn df1_r16_a_client_that_never_says_what_it_knows_is_heard_again() {
        let mut refusals = ChatRefusals::default();
        refusals.note(chat(1), 5, BUSY);
        for number in 6..5 + UNAWARE_SPAN {
            refusals.forget_known_at(number);
            assert_eq!(refusals.of(chat(1), number, 0), Some(BUSY), "{number}");
            refusals.note(chat(1), number, BUSY);
        }
        refusals.forget_known_at(5 + UNAWARE_SPAN);
        assert_eq!(refusals.of(chat(1), 5 + UNAWARE_SPAN, 0), None);
        assert!(refusals.is_empty());
    }

    #[test]
    fn df1_r16_a_refusal_that_was_none_holds_nothing_back() {
        let mut refusals = ChatRefusals::default();
        refusals.note(chat(1), 5, BUSY);
        refusals.withdraw(chat(1), 4);
        refusals.withdraw(chat(2), 5);
        assert_eq!(refusals.of(chat(1), 6, 0), Some(BUSY));
        refusals.withdraw(chat(1), 5);
        assert_eq!(refusals.of(chat(1), 6, 0), None);
        refusals.note(chat(1), 7, BUSY);
        refusals.note(chat(1), 8, BUSY);
        refusals.withdraw(chat(1), 7);
        assert_eq!(refusals.of(chat(1), 9, 0), Some(BUSY), "8 was refused");
    }

    /// A node without its store refuses a number again and again, and it comes again and again.
    #[test]
    fn df1_r16_what_comes_again_for_long_is_refused_at_last() {
        let mut refusals = ChatRefusals::default();
        refusals.note(chat(1), 5, BUSY);
        for _ in 0..1_000 {
            refusals.forget_known_at(260);
            refusals.forget_known_at(6);
        }
        refusals.forget_known_at(6 + 255);
        assert_eq!(refusals.of(chat(1), 6, 0), Some(BUSY));
    }

    #[test]
    fn r16_no_more_chats_are_remembered_than_can_be_unanswered() {
        let mut refusals = ChatRefusals::default();
        let max = CHATS_MAX as u64;
        for number in 1..=max + 1 {
            refusals.note(chat(number), number, BUSY);
        }
        assert_eq!(refusals.of(chat(1), max + 2, 0), None);
        assert_eq!(refusals.of(chat(2), max + 2, 0), Some(BUSY));
    }

    #[test]
    fn r16_a_refusal_that_waiting_does_not_mend_stops_nothing() {
        let mut refusals = ChatRefusals::default();
        refusals.note(chat(1), 5, StoreError::UserUnknown);
        refusals.note(chat(1), 5, StoreError::RecordDamaged);
        assert_eq!(refusals.of(chat(1), 6, 0), None);
    }
}
