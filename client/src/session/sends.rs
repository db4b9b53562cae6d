//! Sends: numbered, kept until answered, retried in order.
//!
//! Messages leave in the order of their numbers. When the server refuses number n for now, it refuses
//! everything above n too until a number up to n comes again (P39), so the whole of the rest is sent
//! again from the lowest refused number: that keeps the order of a chat (R16).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use roadstead_proto::limits::{SENDS_IN_FLIGHT_BYTES_MAX, SENDS_IN_FLIGHT_MAX};
use roadstead_proto::{ErrorCode, v1};

use crate::journal::Unconfirmed;
use crate::pace::{Backoff, Budget, Jitter};

/// Unconfirmed messages that are kept at once. Beyond it `send` waits: an application that is offline
/// for long keeps the rest itself.
pub(crate) const UNCONFIRMED_MAX: usize = 1024;

const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Sends {
    unconfirmed: BTreeMap<u64, Unconfirmed>,
    /// Every number below was transmitted in this session.
    transmit_from: u64,
    window: u64,
    retry: Option<Retry>,
    backoff: Backoff,
    budget: Budget,
    deadline_ms: u32,
}

/// Numbers from `from` on were refused for now and go out again at `at`.
#[derive(Debug, Clone, Copy)]
struct Retry {
    from: u64,
    at: Instant,
}

/// What became of a refused number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such number waits for an answer.
    Unknown,
    /// It will be sent again.
    Retried,
    /// It is given up.
    GivenUp(Unconfirmed),
}

impl Sends {
    pub(crate) fn new(unconfirmed: BTreeMap<u64, Unconfirmed>, deadline_ms: u32) -> Self {
        Self {
            unconfirmed,
            transmit_from: 0,
            window: SENDS_IN_FLIGHT_MAX as u64,
            retry: None,
            backoff: Backoff::new(RETRY_MIN, RETRY_MAX),
            budget: Budget::new(),
            deadline_ms,
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.unconfirmed.len() < UNCONFIRMED_MAX
    }

    pub(crate) fn push(&mut self, message: Unconfirmed) {
        self.unconfirmed.insert(message.number, message);
    }

    /// A session is open: everything unanswered goes out again, from the lowest number (P38).
    pub(crate) fn start_session(&mut self, in_flight_max: u32) {
        self.transmit_from = 0;
        self.retry = None;
        self.backoff.reset();
        self.window = u64::from(in_flight_max).clamp(1, SENDS_IN_FLIGHT_MAX as u64);
    }

    /// Takes out what was sent before `oldest_unix_ms`. Only between sessions, when no number is
    /// awaited by the server.
    pub(crate) fn expire(&mut self, oldest_unix_ms: u64) -> Vec<Unconfirmed> {
        let old = |message: &Unconfirmed| message.sent_unix_ms < oldest_unix_ms;
        let numbers: Vec<u64> = self
            .unconfirmed
            .values()
            .filter(|message| old(message))
            .map(|message| message.number)
            .collect();
        numbers
            .iter()
            .filter_map(|number| self.unconfirmed.remove(number))
            .collect()
    }

    /// The next frame to send.
    ///
    /// The window is a span of numbers, not a count: so the oldest unanswered number is never so old
    /// that the server has forgotten its answer (P37).
    pub(crate) fn poll_transmit(&mut self) -> Option<v1::Send> {
        if self.retry.is_some() {
            return None;
        }
        let lowest = *self.unconfirmed.first_key_value()?.0;
        let (number, message) = self.unconfirmed.range(self.transmit_from..).next()?;
        if *number >= lowest + self.window {
            return None;
        }
        let under_way = self.unconfirmed.range(..*number);
        let bytes: usize = under_way.map(|(_, one)| one.payload.len()).sum();
        if bytes >= SENDS_IN_FLIGHT_BYTES_MAX {
            return None;
        }
        self.transmit_from = number + 1;
        Some(v1::Send {
            number: *number,
            chat: message.chat.as_bytes().to_vec().into(),
            payload: message.payload.clone(),
            deadline_ms: self.deadline_ms,
            after: 0,
        })
    }

    /// Whether the server owes an answer.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.retry.is_none()
            && self
                .unconfirmed
                .range(..self.transmit_from)
                .next()
                .is_some()
    }

    /// The server has committed it.
    pub(crate) fn confirm(&mut self, number: u64) -> Option<Unconfirmed> {
        let message = self.unconfirmed.remove(&number)?;
        self.backoff.reset();
        Some(message)
    }

    /// The server has refused it.
    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        error: &v1::Error,
        jitter: &mut Jitter,
    ) -> Refusal {
        let number = error.number;
        if !self.unconfirmed.contains_key(&number) {
            return Refusal::Unknown;
        }
        if !error.retryable {
            let message = self.unconfirmed.remove(&number);
            return Refusal::GivenUp(message.expect("found above"));
        }
        let at = match self.retry {
            // One refusal brings one for every number behind it: they make one round.
            Some(retry) => retry.at,
            None => self.retry_at(now, error, jitter),
        };
        let from = self.retry.map_or(number, |retry| retry.from.min(number));
        self.retry = Some(Retry { from, at });
        Refusal::Retried
    }

    fn retry_at(&mut self, now: Instant, error: &v1::Error, jitter: &mut Jitter) -> Instant {
        let own = self.backoff.next(jitter);
        let asked = Duration::from_millis(u64::from(error.retry_after_ms));
        // What the server asks for is a minimum, and the same for many clients: jitter goes on top.
        let delay = match ErrorCode::try_from(error.code) {
            Ok(ErrorCode::InFlightLimit) if asked.is_zero() => own / 4,
            _ => own.max(asked + jitter.upper_half(asked / 2)),
        };
        self.budget.spend(now) + delay
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.retry.map(|retry| retry.at)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Some(retry) = self.retry.take_if(|retry| retry.at <= now) {
            self.transmit_from = self.transmit_from.min(retry.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use roadstead_proto::{ChatId, UserId};

    use super::*;

    fn message(number: u64) -> Unconfirmed {
        let user = UserId::new(1).expect("not 0");
        Unconfirmed {
            number,
            chat: ChatId::pair(user, user),
            payload: Bytes::from(number.to_string()),
            sent_unix_ms: number,
        }
    }

    fn sends(numbers: impl IntoIterator<Item = u64>) -> Sends {
        let messages = numbers.into_iter().map(|number| (number, message(number)));
        let mut sends = Sends::new(messages.collect(), 0);
        sends.start_session(128);
        sends
    }

    fn transmitted(sends: &mut Sends) -> Vec<u64> {
        std::iter::from_fn(|| sends.poll_transmit())
            .map(|send| send.number)
            .collect()
    }

    fn refusal(number: u64, code: ErrorCode, retry_after_ms: u32) -> v1::Error {
        v1::Error {
            number,
            retry_after_ms,
            ..code.frame("")
        }
    }

    #[test]
    fn p36_sends_leave_in_number_order_once() {
        let mut sends = sends([3, 1, 2]);
        assert_eq!(transmitted(&mut sends), [1, 2, 3]);
        assert_eq!(transmitted(&mut sends), [0; 0]);
    }

    #[test]
    fn p37_the_window_is_a_span_from_the_oldest_unanswered() {
        let mut sends = sends(1..=300);
        assert_eq!(transmitted(&mut sends).len(), 128);
        for number in 2..=128 {
            sends.confirm(number);
        }
        assert_eq!(transmitted(&mut sends), [0; 0], "1 is still out");
        sends.confirm(1);
        assert_eq!(transmitted(&mut sends), (129..=256).collect::<Vec<_>>());
    }

    #[test]
    fn p37_the_servers_smaller_window_is_kept() {
        let mut sends = sends(1..=10);
        sends.start_session(4);
        assert_eq!(transmitted(&mut sends), [1, 2, 3, 4]);
        sends.start_session(0);
        assert_eq!(
            transmitted(&mut sends),
            [1],
            "a nonsensical limit does not stop the client"
        );
    }

    #[test]
    fn p39_a_refusal_for_now_is_retried_from_the_lowest_number_in_order() {
        let now = Instant::now();
        let mut jitter = Jitter::new(1);
        let mut sends = sends(1..=5);
        transmitted(&mut sends);
        sends.confirm(1);
        for number in [3, 2, 4, 5] {
            let error = refusal(number, ErrorCode::StoreUnavailable, 1_000);
            assert_eq!(sends.refuse(now, &error, &mut jitter), Refusal::Retried);
        }
        sends.push(message(6));
        assert_eq!(transmitted(&mut sends), [0; 0], "nothing overtakes");
        let at = sends.poll_timeout().expect("a retry is due");
        assert!(
            at >= now + Duration::from_millis(1_250),
            "no sooner than asked, and jittered"
        );
        sends.handle_timeout(at);
        assert_eq!(transmitted(&mut sends), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn p53_a_user_above_its_rate_waits_as_long_as_it_is_told() {
        let mut now = Instant::now();
        let mut jitter = Jitter::new(1);
        let mut sends = sends(1..=3);
        transmitted(&mut sends);
        sends.confirm(1);
        for _ in 0..4 {
            sends.refuse(now, &refusal(2, ErrorCode::RateLimited, 7_000), &mut jitter);
            sends.refuse(
                now,
                &refusal(3, ErrorCode::StoreUnavailable, 250),
                &mut jitter,
            );
            let at = sends.poll_timeout().expect("a retry is due");
            assert!(at >= now + Duration::from_secs(7), "{:?}", at - now);
            now = at;
            sends.handle_timeout(now);
            assert_eq!(transmitted(&mut sends), [2, 3]);
        }
    }

    #[test]
    fn r26_one_round_costs_one_unit_however_many_are_refused() {
        let now = Instant::now();
        let mut jitter = Jitter::new(1);
        let mut sends = sends(1..=100);
        transmitted(&mut sends);
        for number in 1..=100 {
            let error = refusal(number, ErrorCode::Overloaded, 0);
            sends.refuse(now, &error, &mut jitter);
        }
        let at = sends.poll_timeout().expect("due");
        assert!(at <= now + RETRY_MIN, "the first round is quick");
    }

    #[test]
    fn r26_rounds_grow_apart_until_a_send_succeeds() {
        let mut now = Instant::now();
        let mut jitter = Jitter::new(1);
        let mut sends = sends([1, 2]);
        let mut delays = Vec::new();
        for _ in 0..6 {
            transmitted(&mut sends);
            sends.refuse(now, &refusal(1, ErrorCode::Overloaded, 0), &mut jitter);
            let at = sends.poll_timeout().expect("due");
            delays.push(at - now);
            now = at;
            sends.handle_timeout(now);
        }
        assert!(delays[5] > 8 * delays[0], "{delays:?}");
        transmitted(&mut sends);
        sends.confirm(1);
        sends.refuse(now, &refusal(2, ErrorCode::Overloaded, 0), &mut jitter);
        assert!(sends.poll_timeout().expect("due") <= now + RETRY_MIN);
    }

    #[test]
    fn a_refusal_for_good_is_given_up_and_holds_nobody_up() {
        let now = Instant::now();
        let mut sends = sends([1, 2]);
        transmitted(&mut sends);
        let error = refusal(1, ErrorCode::UserUnknown, 0);
        let mut jitter = Jitter::new(1);
        assert_eq!(
            sends.refuse(now, &error, &mut jitter),
            Refusal::GivenUp(message(1))
        );
        assert_eq!(sends.poll_timeout(), None);
        assert_eq!(sends.refuse(now, &error, &mut jitter), Refusal::Unknown);
    }

    #[test]
    fn p38_a_new_session_sends_everything_unanswered_again() {
        let mut sends = sends(1..=4);
        transmitted(&mut sends);
        sends.confirm(2);
        sends.refuse(
            Instant::now(),
            &refusal(3, ErrorCode::Overloaded, 60_000),
            &mut Jitter::new(1),
        );
        sends.start_session(128);
        assert_eq!(transmitted(&mut sends), [1, 3, 4]);
    }

    #[test]
    fn r3_old_messages_expire() {
        let mut sends = sends(1..=4);
        let expired: Vec<u64> = sends.expire(3).iter().map(|old| old.number).collect();
        assert_eq!(expired, [1, 2]);
        assert_eq!(transmitted(&mut sends), [3, 4]);
    }

    #[test]
    fn p37_large_messages_wait_for_answers_though_there_are_few() {
        let mut sends = Sends::new(BTreeMap::new(), 0);
        let large = vec![7; SENDS_IN_FLIGHT_BYTES_MAX / 4];
        for number in 1..=6 {
            let payload = Bytes::from(large.clone());
            sends.push(Unconfirmed {
                payload,
                ..message(number)
            });
        }
        sends.start_session(128);
        let sent = std::iter::from_fn(|| sends.poll_transmit()).count();
        assert_eq!(sent, 4, "a send that begins below the limit is taken");
        sends.confirm(1);
        assert_eq!(sends.poll_transmit().map(|send| send.number), Some(5));
        assert_eq!(sends.poll_transmit(), None);
    }
}
