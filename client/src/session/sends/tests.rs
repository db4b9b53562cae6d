//! Numbers, windows, refusals, without a session around them.

mod chats;

use bytes::Bytes;
use roadstead_proto::UserId;

use super::*;

const NOW_UNIX_MS: u64 = 1_700_000_000_000;
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Sends with their clock and what the journal holds.
struct Rig {
    sends: Sends,
    now: Now,
    jitter: Jitter,
    saved: Saved,
}

impl Rig {
    /// A client with so many messages of one chat, in a session.
    fn new(messages: u64) -> Self {
        let mut rig = Self::started(Saved::default());
        rig.start_session();
        for _ in 0..messages {
            rig.push(chat(2));
        }
        rig
    }

    /// One that starts with what the journal holds.
    fn started(saved: Saved) -> Self {
        let now = Now {
            at: Instant::now(),
            unix_ms: NOW_UNIX_MS,
        };
        Self {
            sends: Sends::new(now, saved.clone(), 0, WEEK),
            now,
            jitter: Jitter::new(1),
            saved,
        }
    }

    fn start_session(&mut self) {
        self.sends.start_session(self.now, 128, true);
        self.write();
    }

    fn push(&mut self, chat: ChatId) -> u64 {
        self.push_bytes(chat, Bytes::new())
    }

    fn push_bytes(&mut self, chat: ChatId, payload: Bytes) -> u64 {
        let message = Unconfirmed {
            number: 0,
            chat,
            payload,
            sent_unix_ms: self.now.unix_ms,
        };
        let number = self.sends.push(self.now, message);
        self.write();
        number
    }

    fn write(&mut self) {
        for record in self.sends.take_records() {
            self.saved.apply(&record);
        }
    }

    fn sent(&mut self) -> Vec<v1::Send> {
        self.write();
        std::iter::from_fn(|| self.sends.poll_transmit()).collect()
    }

    fn transmitted(&mut self) -> Vec<u64> {
        self.sent().iter().map(|send| send.number).collect()
    }

    fn confirm(&mut self, number: u64) -> Option<Committed> {
        let committed = self.sends.confirm(self.now, number);
        self.write();
        committed
    }

    fn refuse(&mut self, number: u64, code: ErrorCode, retry_after_ms: u32) -> Refusal {
        let error = v1::Error {
            number,
            retry_after_ms,
            ..code.frame("")
        };
        let refusal = self.sends.refuse(self.now, &error, &mut self.jitter);
        self.write();
        refusal
    }

    fn delays(&mut self) -> Vec<SendDelay> {
        std::iter::from_fn(|| self.sends.poll_delay()).collect()
    }

    /// What is given up by the time.
    fn pass(&mut self, time: Duration) -> Vec<u64> {
        self.now.at += time;
        self.now.unix_ms += u64::try_from(time.as_millis()).expect("short");
        let expired = self.sends.handle_timeout(self.now);
        self.write();
        expired.iter().map(|message| message.number).collect()
    }

    /// How long the next timer takes, which it fires.
    fn pass_to_timeout(&mut self) -> Duration {
        let at = self.sends.poll_timeout().expect("something is due");
        let wait = at.saturating_duration_since(self.now.at);
        // Its clock for people has milliseconds.
        self.pass(wait + Duration::from_millis(1));
        wait
    }
}

fn chat(peer: u64) -> ChatId {
    let user = |id| UserId::new(id).expect("not 0");
    ChatId::pair(user(1), user(peer))
}

#[test]
fn p36_sends_leave_in_number_order_once() {
    let mut rig = Rig::new(3);
    assert_eq!(rig.transmitted(), [1, 2, 3]);
    assert_eq!(rig.transmitted(), [0; 0]);
}

#[test]
fn p37_the_window_is_a_span_from_the_oldest_unanswered() {
    let mut rig = Rig::new(300);
    assert_eq!(rig.transmitted().len(), 128);
    for number in 2..=128 {
        rig.confirm(number);
    }
    assert_eq!(rig.transmitted(), [0; 0], "1 is still out");
    rig.confirm(1);
    assert_eq!(rig.transmitted(), (129..=256).collect::<Vec<_>>());
}

#[test]
fn p37_the_servers_smaller_window_is_kept() {
    let mut rig = Rig::new(10);
    rig.sends.start_session(rig.now, 4, true);
    assert_eq!(rig.transmitted(), [1, 2, 3, 4]);
    rig.sends.start_session(rig.now, 0, true);
    assert_eq!(
        rig.transmitted(),
        [1],
        "a nonsensical limit does not stop the client"
    );
}

#[test]
fn p37_large_messages_wait_for_answers_though_there_are_few() {
    let mut rig = Rig::new(0);
    let large = Bytes::from(vec![7; SENDS_IN_FLIGHT_BYTES_MAX / 4]);
    for _ in 0..6 {
        rig.push_bytes(chat(2), large.clone());
    }
    let message = "a send that begins below the limit is taken";
    assert_eq!(rig.transmitted(), [1, 2, 3, 4], "{message}");
    rig.confirm(1);
    assert_eq!(rig.transmitted(), [5]);
}

#[test]
fn p39_a_refusal_for_now_is_retried_from_the_lowest_number_in_order() {
    for behind in [ErrorCode::StoreUnavailable, ErrorCode::EarlierRefused] {
        let mut rig = Rig::new(5);
        rig.transmitted();
        rig.confirm(1);
        for number in [3, 2, 4, 5] {
            let code = if number == 2 {
                ErrorCode::StoreUnavailable
            } else {
                behind
            };
            assert_eq!(rig.refuse(number, code, 1_000), Refusal::Retried);
        }
        rig.push(chat(2));
        assert_eq!(rig.transmitted(), [0; 0], "nothing overtakes");
        let wait = rig.pass_to_timeout();
        assert!(
            wait >= Duration::from_millis(1_250),
            "no sooner than asked, and jittered"
        );
        assert_eq!(rig.transmitted(), [2, 3, 4, 5, 6]);
    }
}

#[test]
fn p53_a_user_above_its_rate_waits_as_long_as_it_is_told() {
    let mut rig = Rig::new(3);
    rig.transmitted();
    rig.confirm(1);
    let limited = (2, ErrorCode::RateLimited, 7_000);
    let behind = (3, ErrorCode::EarlierRefused, 250);
    // In whatever order the refusals of a round come.
    for [first, second] in [[limited, behind], [behind, limited]].repeat(2) {
        for (number, code, retry_after_ms) in [first, second] {
            rig.refuse(number, code, retry_after_ms);
        }
        let wait = rig.pass_to_timeout();
        assert!(wait >= Duration::from_secs(7), "{wait:?}");
        assert_eq!(rig.transmitted(), [2, 3]);
    }
}

#[test]
fn r26_one_round_costs_one_unit_however_many_are_refused() {
    let mut rig = Rig::new(100);
    rig.transmitted();
    for number in 1..=100 {
        rig.refuse(number, ErrorCode::Overloaded, 0);
    }
    assert!(
        rig.pass_to_timeout() <= RETRY_MIN,
        "the first round is quick"
    );
}

#[test]
fn r26_rounds_grow_apart_until_a_send_succeeds() {
    let mut rig = Rig::new(2);
    let mut delays = Vec::new();
    for _ in 0..6 {
        rig.transmitted();
        rig.refuse(1, ErrorCode::Overloaded, 0);
        delays.push(rig.pass_to_timeout());
    }
    assert!(delays[5] > 8 * delays[0], "{delays:?}");
    rig.transmitted();
    rig.confirm(1);
    rig.refuse(2, ErrorCode::Overloaded, 0);
    assert!(rig.pass_to_timeout() <= RETRY_MIN);
}

#[test]
fn a_refusal_for_good_is_given_up_and_holds_nobody_up() {
    for code in [ErrorCode::UserUnknown, ErrorCode::RecordDamaged] {
        let mut rig = Rig::new(2);
        rig.transmitted();
        let Refusal::GivenUp(message) = rig.refuse(1, code, 0) else {
            panic!("it is final");
        };
        assert_eq!(message.number, 1);
        assert_eq!(rig.sends.poll_timeout(), None);
        assert_eq!(rig.refuse(1, code, 0), Refusal::Unknown);
        assert_eq!(rig.saved.unconfirmed.len(), 1);
    }
}

#[test]
fn p38_a_new_session_sends_everything_unanswered_again() {
    let mut rig = Rig::new(4);
    rig.transmitted();
    rig.confirm(2);
    rig.refuse(3, ErrorCode::Overloaded, 60_000);
    rig.start_session();
    assert_eq!(rig.transmitted(), [1, 3, 4]);
}

#[test]
fn r3_old_messages_expire() {
    let mut rig = Rig::new(2);
    rig.pass(Duration::from_millis(1));
    rig.push(chat(2));
    rig.transmitted();
    let expired = rig.sends.expire(rig.now, NOW_UNIX_MS + 1);
    let expired: Vec<u64> = expired.iter().map(|old| old.number).collect();
    assert_eq!(expired, [1, 2]);
    rig.start_session();
    assert_eq!(rig.transmitted(), [3]);
}

/// Messages of an application that was offline have their records; of what the server answers the records are
/// not durable at once. A crash must not bring a message back whose answer the server has forgotten.
#[test]
fn df1_p37_what_was_answered_is_durable_before_its_slot_is_taken() {
    let mut rig = Rig::new(600);
    let mut durable = 0;
    for number in 1..=600 {
        let sent = rig.transmitted();
        let furthest = sent.last().copied().unwrap_or(0);
        assert!(
            furthest <= durable + SEND_ANSWERS_KEPT,
            "{furthest} takes the place of what a crash brings back: {durable} is durable"
        );
        rig.sends.confirm(rig.now, number).expect("it was sent");
        let records = rig.sends.take_records();
        if records.iter().any(Record::must_be_durable) {
            durable = number;
        }
    }
}
