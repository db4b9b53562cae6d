//! What the answer to one of a device's sends means for those behind it (R16).

use std::borrow::Cow;

use roadstead::refusals::ChatRefusals;
use roadstead::store::{SendItem, Sent, StoreError};

/// Sends of one device that are evaluated in order: what was answered so far.
#[derive(Debug, Clone, Default)]
pub struct Order {
    failed: bool,
    refusals: ChatRefusals,
}

impl Order {
    /// Behind sends with these answers.
    #[must_use]
    pub fn behind(items: &[SendItem], answers: &[Result<Sent, StoreError>]) -> Self {
        let mut order = Self::default();
        for (item, answer) in items.iter().zip(answers) {
            order.note(item, answer);
        }
        order
    }

    /// The next send as it is to be evaluated: refused for good if its chat refused one before it for a while.
    ///
    /// # Errors
    /// [`StoreError::EarlierSendFailed`]: one before it failed for now, and none behind it is tried.
    pub fn next<'a>(&mut self, item: &'a SendItem) -> Result<Cow<'a, SendItem>, StoreError> {
        if self.failed {
            return Err(StoreError::EarlierSendFailed);
        }
        if item.refused.is_some() {
            return Ok(Cow::Borrowed(item));
        }
        let refused = self.refusals.of(item.chat, item.number, item.after);
        Ok(match refused {
            None => Cow::Borrowed(item),
            refused => Cow::Owned(SendItem {
                refused,
                ..item.clone()
            }),
        })
    }

    /// The next send has its answer.
    pub fn note(&mut self, item: &SendItem, answer: &Result<Sent, StoreError>) {
        if let Err(error) = answer {
            self.failed |= error.is_retryable();
            self.refusals.note(item.chat, item.number, *error);
        }
    }
}

#[cfg(test)]
mod tests {
    use roadstead::time::Time;
    use roadstead_proto::v1::Envelope;
    use roadstead_proto::{ChatId, UserId};

    use super::*;

    fn item(number: u64, peer: u64, after: u64) -> SendItem {
        let user = |id| UserId::new(id).expect("not 0");
        SendItem {
            number,
            request_hash: 0,
            after,
            refused: None,
            chat: ChatId::pair(user(1), user(peer)),
            recipient: user(peer),
            envelope: Envelope::default(),
            deadline: Time::NEVER,
        }
    }

    #[test]
    fn r16_a_failure_for_now_fails_all_behind_it() {
        let mut order = Order::default();
        assert!(order.next(&item(1, 2, 0)).is_ok());
        order.note(&item(1, 2, 0), &Err(StoreError::DeadlinePassed));
        for behind in [item(2, 2, 0), item(3, 3, 2)] {
            let refused = order.next(&behind).expect_err("it waits");
            assert_eq!(refused, StoreError::EarlierSendFailed);
        }
    }

    #[test]
    fn df1_r16_a_refusal_of_a_chat_is_that_of_all_behind_it_in_the_chat() {
        let full = Err(StoreError::RecipientFull);
        let items = [item(1, 2, 0), item(2, 3, 0)];
        let mut order = Order::behind(&items[..1], &[full]);
        let refused = |order: &mut Order, item| order.next(&item).expect("goes on").refused;
        assert_eq!(refused(&mut order, item(2, 3, 0)), None, "another chat");
        assert_eq!(refused(&mut order, item(3, 2, 0)), full.err());
        assert_eq!(refused(&mut order, item(4, 2, 1)), None, "it knew");
    }

    #[test]
    fn r16_other_refusals_for_good_mean_nothing_for_those_behind_them() {
        let mut order = Order::default();
        for error in [StoreError::UserUnknown, StoreError::RecordDamaged] {
            order.note(&item(1, 2, 0), &Err(error));
        }
        assert_eq!(order.next(&item(2, 2, 0)).expect("goes on").refused, None);
    }
}
