//! The session against a script: frames in, frames and events out, time by hand.

use std::time::{Duration, Instant};

use bytes::Bytes;
use roadstead_proto::{ChatId, DeviceId, ErrorCode, MessageId, Position, UserId, v1};

use super::{Action, Home, Now, Session, Settings};
use crate::error::{Cause, SendError};
use crate::event::Event;
use crate::journal::{Record, Saved};
use v1::client_frame::Body as Sent;
use v1::server_frame::Body;

const ME: u64 = 1;
const PEER: u64 = 2;

/// A session with its clock, its journal and everything that came out of it.
struct Rig {
    session: Session,
    now: Now,
    saved: Saved,
    events: Vec<Event>,
}

impl Rig {
    fn new() -> Self {
        Self::with(Saved::default(), false)
    }

    fn with(mut saved: Saved, ask_highest_number: bool) -> Self {
        saved.device = Some(DeviceId::new(77).expect("not 0"));
        let now = Now {
            at: Instant::now(),
            unix_ms: 1_700_000_000_000,
        };
        let settings = Settings {
            reconnect_min: Duration::from_secs(1),
            reconnect_max: Duration::from_secs(60),
            send_deadline_ms: 0,
            keep_unconfirmed: Duration::from_secs(7 * 24 * 3600),
            jitter_seed: 9,
            ask_highest_number,
        };
        Self {
            session: Session::new(now, settings, saved.clone()),
            now,
            saved,
            events: Vec::new(),
        }
    }

    /// A rig whose session is open.
    fn active() -> Self {
        let mut rig = Self::new();
        rig.open(welcome());
        rig
    }

    fn open(&mut self, welcome: v1::Welcome) -> v1::Hello {
        let hello = self.connect("token");
        self.receive(Body::Welcome(welcome));
        hello
    }

    /// Follows the session to its Hello.
    fn connect(&mut self, token: &str) -> v1::Hello {
        let Some(Action::Connect { needs_token }) = self.session.poll_action() else {
            panic!("the session does not want to connect");
        };
        let token = needs_token.then(|| token.to_owned());
        self.session.handle_connected(self.now, token);
        match self.sent().as_slice() {
            [Sent::Hello(hello)] => hello.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn receive(&mut self, body: Body) {
        let frame = v1::ServerFrame { body: Some(body) };
        self.session.handle_frame(self.now, frame);
        self.drain();
    }

    /// Records, then events: the order of the drive contract.
    fn drain(&mut self) {
        for record in self.session.poll_record() {
            self.saved.apply(&record);
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
    }

    fn sent(&mut self) -> Vec<Sent> {
        self.drain();
        std::iter::from_fn(|| self.session.poll_transmit(self.now))
            .map(|frame| frame.body.expect("a body"))
            .collect()
    }

    fn send(&mut self, payload: &'static str) -> u64 {
        let number = self.session.send(self.now, chat(), Bytes::from(payload));
        self.drain();
        number.expect("fits")
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.now.unix_ms += u64::try_from(time.as_millis()).expect("short");
        self.session.handle_timeout(self.now);
        self.drain();
    }

    fn pass_to_timeout(&mut self) -> Duration {
        let at = self.session.poll_timeout().expect("something is due");
        let wait = at.saturating_duration_since(self.now.at);
        self.pass(wait);
        wait
    }

    fn lose(&mut self, cause: Cause) {
        self.session.handle_disconnected(self.now, cause);
        self.drain();
    }

    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Tells the session that the application has stored what the event brought.
    fn store(&mut self, event: &mut Event) {
        let entry = event.entry_mut().expect("an entry").id;
        self.session.mark_stored(self.now, entry);
        self.drain();
    }
}

fn chat() -> ChatId {
    ChatId::pair(
        UserId::new(ME).expect("not 0"),
        UserId::new(PEER).expect("not 0"),
    )
}

fn chat_bytes() -> Bytes {
    Bytes::copy_from_slice(chat().as_bytes())
}

fn at(generation: u32, n: u16) -> Position {
    Position::new(generation, [0; 10], n)
}

fn bytes(position: Position) -> Bytes {
    Bytes::copy_from_slice(position.as_bytes())
}

fn welcome() -> v1::Welcome {
    v1::Welcome {
        user: ME,
        generation: 1,
        limits: Some(v1::Limits {
            frame_bytes_max: 65_536,
            sends_in_flight_max: 128,
            payload_bytes_max: 1_000,
        }),
        heartbeat_interval_ms: 120_000,
        resume_token: Bytes::from_static(b"resume"),
        home_prefix: Some(v1::HomePrefix {
            bits: 0x4000,
            length: 2,
        }),
        ..v1::Welcome::default()
    }
}

fn deliver(generation: u32, n: u16) -> Body {
    Body::Deliver(v1::Deliver {
        cursor: bytes(at(generation, n)),
        chat_position: Bytes::new(),
        envelope: Some(v1::Envelope {
            message_id: u64::from(n),
            chat: chat_bytes(),
            sender: PEER,
            sender_device: 5,
            server_time_ms: 1,
            payload: Bytes::from_static(b"hi"),
            number: u64::from(n),
        }),
    })
}

fn result(number: u64) -> Body {
    Body::SendResult(v1::SendResult {
        number,
        message_id: 1_000 + number,
        position: bytes(at(1, u16::try_from(number).expect("small"))),
        server_time_ms: 5,
    })
}

fn error(code: ErrorCode, number: u64) -> Body {
    Body::Error(v1::Error {
        number,
        ..code.frame("no")
    })
}

fn numbers(sent: &[Sent]) -> Vec<u64> {
    sent.iter()
        .filter_map(|frame| match frame {
            Sent::Send(send) => Some(send.number),
            _ => None,
        })
        .collect()
}

#[test]
fn p10_the_first_frame_is_a_hello_with_what_the_journal_holds() {
    let saved = Saved {
        connect_counter: 4,
        cursor: at(1, 9),
        ..Saved::default()
    };
    let mut rig = Rig::with(saved, false);
    let hello = rig.connect("jwt");
    assert_eq!(hello.version, 1);
    assert_eq!(
        hello.credential,
        Some(v1::hello::Credential::Token("jwt".into()))
    );
    assert_eq!(hello.device, 77);
    assert_eq!(hello.connect_counter, 5);
    assert_eq!(
        rig.saved.connect_counter, 5,
        "written down before it leaves"
    );
    assert_eq!(hello.cursor, bytes(at(1, 9)));
    assert!(rig.sent().is_empty(), "nothing before Welcome");
}

#[test]
fn p13_nothing_but_hello_is_sent_before_welcome() {
    let mut rig = Rig::new();
    rig.send("early");
    rig.connect("token");
    assert!(rig.sent().is_empty());
    rig.receive(Body::Welcome(welcome()));
    assert_eq!(numbers(&rig.sent()), [1]);
}

#[test]
fn welcome_teaches_the_home_the_heartbeat_and_the_limits() {
    let mut rig = Rig::active();
    assert!(rig.session.is_active());
    assert_eq!(
        rig.session.home(),
        Some(Home {
            bits: 0x4000,
            length: 2
        })
    );
    assert_eq!(rig.session.heartbeat().interval(), Duration::from_secs(120));
    let large = Bytes::from(vec![0; 1_001]);
    assert!(rig.session.send(rig.now, chat(), large).is_err());
    let connected = rig.take_events();
    assert!(matches!(connected.as_slice(), [Event::Connected(c)] if c.user.get() == ME));
}

#[test]
fn a_send_is_written_down_before_it_leaves_and_settled_when_confirmed() {
    let mut rig = Rig::active();
    rig.take_events();
    let number = rig
        .session
        .send(rig.now, chat(), Bytes::from("hello"))
        .expect("fits");
    assert!(matches!(
        rig.session.poll_record().as_slice(),
        [Record::Send(message)] if message.number == number
    ));
    assert_eq!(numbers(&rig.sent()), [1]);
    rig.receive(result(1));
    assert!(rig.saved.unconfirmed.is_empty());
    let events = rig.take_events();
    let [Event::SendConfirmed(confirmation)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!((confirmation.number, confirmation.id.get()), (1, 1_001));
    assert_eq!(confirmation.position, at(1, 1));
}

#[test]
#[should_panic(expected = "records first")]
fn frames_can_not_overtake_records() {
    let mut rig = Rig::active();
    let _ = rig.session.send(rig.now, chat(), Bytes::new());
    rig.session.poll_transmit(rig.now);
}

#[test]
fn r12_unanswered_sends_go_out_again_in_the_next_session_and_the_next_process() {
    let mut rig = Rig::active();
    for payload in ["a", "b", "c"] {
        rig.send(payload);
    }
    assert_eq!(numbers(&rig.sent()), [1, 2, 3]);
    rig.receive(result(2));
    rig.lose(Cause::TimedOut);
    rig.pass_to_timeout();
    rig.open(welcome());
    assert_eq!(numbers(&rig.sent()), [1, 3]);
    // The process dies; another starts with what the journal holds.
    let mut rig = Rig::with(rig.saved, false);
    rig.open(welcome());
    assert_eq!(numbers(&rig.sent()), [1, 3]);
    assert_eq!(rig.send("d"), 4, "numbers are not used again");
}

#[test]
fn p39_a_refusal_for_now_waits_then_repeats_in_order() {
    let mut rig = Rig::active();
    for payload in ["a", "b", "c"] {
        rig.send(payload);
    }
    rig.sent();
    for number in 1..=3 {
        rig.receive(error(ErrorCode::StoreUnavailable, number));
    }
    assert!(rig.sent().is_empty());
    rig.pass_to_timeout();
    assert_eq!(numbers(&rig.sent()), [1, 2, 3]);
    assert!(rig.session.is_active(), "the session goes on");
}

#[test]
fn a_refusal_for_good_is_told_and_settled() {
    let mut rig = Rig::active();
    rig.take_events();
    rig.send("to nobody");
    rig.sent();
    rig.receive(error(ErrorCode::UserUnknown, 1));
    let events = rig.take_events();
    assert!(matches!(
        events.as_slice(),
        [Event::SendFailed(failure)]
            if matches!(failure.error, SendError::Refused { code: ErrorCode::UserUnknown, .. })
    ));
    assert!(rig.saved.unconfirmed.is_empty());
}

#[test]
fn p25_only_what_the_application_stored_is_acknowledged_and_many_at_once() {
    let mut rig = Rig::active();
    rig.take_events();
    for n in 1..=3 {
        rig.receive(deliver(1, n));
    }
    let mut events = rig.take_events();
    assert_eq!(events.len(), 3);
    rig.pass(Duration::from_secs(5));
    assert!(rig.sent().is_empty(), "nothing is stored yet");
    rig.store(&mut events[1]);
    rig.store(&mut events[0]);
    assert!(rig.sent().is_empty(), "acknowledgements are gathered");
    rig.pass_to_timeout();
    let sent = rig.sent();
    let [Sent::Ack(ack)] = sent.as_slice() else {
        panic!("{sent:?}");
    };
    assert_eq!(ack.cursor, bytes(at(1, 2)));
    assert_eq!(rig.saved.cursor, at(1, 2));
    assert_eq!(
        rig.session.poll_timeout(),
        None,
        "an idle session has no timer"
    );
}

#[test]
fn p27_what_was_stored_after_a_loss_is_acknowledged_only_once_delivered_again() {
    let mut rig = Rig::active();
    rig.take_events();
    rig.receive(deliver(1, 1));
    rig.receive(deliver(1, 2));
    let mut events = rig.take_events();
    rig.store(&mut events[0]);
    rig.lose(Cause::Reset);
    rig.pass_to_timeout();
    let hello = rig.open(welcome());
    assert_eq!(hello.cursor, bytes(at(1, 1)), "R19: the Hello acknowledges");
    rig.store(&mut events[1]);
    rig.take_events();
    rig.pass(Duration::from_secs(1));
    assert!(rig.sent().is_empty());
    rig.receive(deliver(1, 2));
    assert!(rig.take_events().is_empty(), "shown once");
    rig.pass_to_timeout();
    assert!(matches!(rig.sent().as_slice(), [Sent::Ack(ack)] if ack.cursor == bytes(at(1, 2))));
}

#[test]
fn r3_another_generation_is_told_and_repeats_are_kept_back() {
    let mut rig = Rig::active();
    rig.receive(deliver(1, 7));
    let mut events = rig.take_events();
    rig.store(events.last_mut().expect("a message"));
    rig.lose(Cause::Reset);
    rig.pass_to_timeout();
    rig.take_events();
    rig.open(v1::Welcome {
        generation: 2,
        resync: true,
        ..welcome()
    });
    let events = rig.take_events();
    assert!(matches!(
        events.as_slice(),
        [Event::Connected(_), Event::Resynced { generation: 2 }]
    ));
    assert_eq!(rig.saved.cursor, Position::ZERO);
    rig.receive(deliver(2, 7));
    assert!(rig.take_events().is_empty(), "the same message id");
    assert_eq!(rig.saved.cursor, at(2, 7), "and it was stored long ago");
    rig.receive(deliver(2, 8));
    assert!(matches!(
        rig.take_events().as_slice(),
        [Event::Message(message)] if message.id == MessageId::new(8)
    ));
}

#[test]
fn r3_an_own_message_that_comes_back_confirms_its_send() {
    let mut rig = Rig::active();
    rig.send("mine");
    rig.sent();
    rig.take_events();
    let Body::Deliver(mut own) = deliver(1, 4) else {
        unreachable!()
    };
    let envelope = own.envelope.as_mut().expect("set");
    (envelope.sender, envelope.sender_device, envelope.number) = (ME, 77, 1);
    rig.receive(Body::Deliver(own));
    assert!(matches!(
        rig.take_events().as_slice(),
        [Event::SendConfirmed(confirmation)] if confirmation.position == at(1, 4)
    ));
    assert_eq!(rig.saved.cursor, at(1, 4));
}

#[test]
fn a_resume_token_takes_the_place_of_a_signed_one_until_it_is_refused() {
    let mut rig = Rig::active();
    rig.lose(Cause::TimedOut);
    rig.pass_to_timeout();
    let hello = rig.connect("unused");
    assert_eq!(
        hello.credential,
        Some(v1::hello::Credential::ResumeToken(Bytes::from_static(
            b"resume"
        )))
    );
    rig.lose(Cause::Closed(ErrorCode::TokenExpired));
    assert_eq!(rig.pass_to_timeout(), Duration::ZERO);
    let hello = rig.connect("jwt");
    assert_eq!(
        hello.credential,
        Some(v1::hello::Credential::Token("jwt".into()))
    );
    rig.lose(Cause::Closed(ErrorCode::TokenExpired));
    assert!(
        rig.pass_to_timeout() > Duration::ZERO,
        "a signed one was refused: no hurry"
    );
}

#[test]
fn t1_a_reset_is_answered_with_a_jittered_delay() {
    let mut rig = Rig::active();
    rig.take_events();
    rig.lose(Cause::Reset);
    let events = rig.take_events();
    let [Event::Disconnected(disconnected)] = events.as_slice() else {
        panic!("{events:?}");
    };
    let delay = disconnected.retry_in.expect("it tries again");
    assert!(delay >= Duration::from_millis(500) && delay < Duration::from_secs(1));
    assert_eq!(rig.pass_to_timeout(), delay);
}

#[test]
fn failures_grow_apart_and_a_good_session_forgives_them() {
    let mut rig = Rig::new();
    for _ in 0..6 {
        rig.session.poll_action().expect("wants to connect");
        rig.lose(Cause::Transport("unreachable".into()));
        rig.pass_to_timeout();
    }
    rig.session.poll_action().expect("wants to connect");
    rig.lose(Cause::Transport("unreachable".into()));
    assert!(rig.pass_to_timeout() >= Duration::from_secs(30));
    rig.open(welcome());
    rig.pass(Duration::from_secs(11));
    rig.lose(Cause::TimedOut);
    assert!(rig.pass_to_timeout() < Duration::from_secs(1));
}

#[test]
fn p45_a_replaced_session_does_not_fight_back() {
    let mut rig = Rig::active();
    rig.take_events();
    rig.lose(Cause::Closed(ErrorCode::SessionReplaced));
    assert!(rig.session.is_stopped());
    assert!(matches!(
        rig.take_events().as_slice(),
        [Event::Disconnected(disconnected)] if disconnected.retry_in.is_none()
    ));
    assert_eq!(rig.session.poll_timeout(), None);
    assert!(!rig.session.accepts_sends());
}

#[test]
fn p48_go_away_begins_nothing_new_and_leaves_at_the_given_time() {
    let mut rig = Rig::active();
    rig.send("before");
    assert_eq!(numbers(&rig.sent()), [1]);
    rig.receive(Body::GoAway(v1::GoAway {
        reconnect_after_ms: 3_000,
        reason: String::new(),
    }));
    rig.send("after");
    assert!(rig.sent().is_empty());
    rig.receive(result(1));
    assert_eq!(rig.pass_to_timeout(), Duration::from_secs(3));
    assert_eq!(
        rig.session.poll_action(),
        Some(Action::Close(ErrorCode::Unspecified))
    );
    rig.pass_to_timeout();
    rig.open(welcome());
    assert_eq!(numbers(&rig.sent()), [2]);
}

#[test]
fn p48_a_close_while_draining_keeps_the_appointment() {
    let mut rig = Rig::active();
    rig.receive(Body::GoAway(v1::GoAway {
        reconnect_after_ms: 3_000,
        reason: String::new(),
    }));
    rig.pass(Duration::from_secs(1));
    rig.lose(Cause::Closed(ErrorCode::Draining));
    assert_eq!(rig.pass_to_timeout(), Duration::from_secs(2));
}

#[test]
fn an_error_frame_explains_a_close_that_was_lost() {
    let mut rig = Rig::active();
    rig.take_events();
    rig.receive(error(ErrorCode::DeviceRemoved, 0));
    rig.lose(Cause::TimedOut);
    assert!(matches!(
        rig.take_events().as_slice(),
        [Event::Disconnected(it)] if it.cause == Cause::Closed(ErrorCode::DeviceRemoved)
    ));
    assert!(rig.session.is_stopped());
}

#[test]
fn a_refused_read_mark_ends_nothing() {
    let mut rig = Rig::active();
    rig.take_events();
    rig.receive(error(ErrorCode::PositionInvalid, 0));
    assert!(matches!(
        rig.take_events().as_slice(),
        [Event::Refused {
            code: ErrorCode::PositionInvalid,
            ..
        }]
    ));
    assert!(rig.session.is_active());
}

#[test]
fn read_marks_only_grow_and_are_repeated_after_a_loss() {
    let mut rig = Rig::active();
    rig.receive(deliver(1, 5));
    rig.session.read(chat(), at(1, 5));
    rig.session.read(chat(), at(1, 3));
    let sent = rig.sent();
    assert!(matches!(sent.as_slice(), [Sent::Read(read)] if read.position == bytes(at(1, 5))));
    rig.lose(Cause::Reset);
    rig.pass_to_timeout();
    rig.open(welcome());
    assert!(
        rig.sent().is_empty(),
        "P31: this session was not given the position yet"
    );
    rig.receive(deliver(1, 5));
    assert!(matches!(rig.sent().as_slice(), [Sent::Read(_)]));
    assert!(rig.sent().is_empty());
}

#[test]
fn read_marks_that_are_kept_have_a_limit() {
    let mut rig = Rig::active();
    rig.receive(deliver(1, 1));
    for peer in 2..500 {
        let peer = UserId::new(peer).expect("not 0");
        rig.session.read(
            ChatId::pair(UserId::new(ME).expect("not 0"), peer),
            at(1, 1),
        );
    }
    assert_eq!(rig.sent().len(), super::READS_MAX);
}

#[test]
fn typing_is_now_or_never() {
    let mut rig = Rig::new();
    rig.session.typing(chat());
    rig.open(welcome());
    assert!(rig.sent().is_empty());
    rig.session.typing(chat());
    assert!(matches!(rig.sent().as_slice(), [Sent::Typing(_)]));
    rig.take_events();
    rig.receive(Body::Typing(v1::Typing {
        chat: chat_bytes(),
        user: PEER,
    }));
    assert!(matches!(
        rig.take_events().as_slice(),
        [Event::Typing { .. }]
    ));
}

#[test]
fn receipts_and_gaps_are_entries_too() {
    let mut rig = Rig::active();
    rig.take_events();
    rig.receive(Body::ReceiptUpdate(v1::ReceiptUpdate {
        cursor: bytes(at(1, 1)),
        chat: chat_bytes(),
        user: PEER,
        delivered: bytes(at(1, 1)),
        read: Bytes::new(),
    }));
    rig.receive(Body::Gap(v1::Gap {
        cursor: bytes(at(1, 2)),
        reason: v1::GapReason::InboxLimit.into(),
    }));
    let mut events = rig.take_events();
    assert!(matches!(
        events.as_slice(),
        [Event::Receipt(receipt), Event::Gap(_)] if receipt.read == Position::ZERO
    ));
    rig.store(&mut events[0]);
    rig.store(&mut events[1]);
    rig.pass_to_timeout();
    assert!(matches!(rig.sent().as_slice(), [Sent::Ack(ack)] if ack.cursor == bytes(at(1, 2))));
}

#[test]
fn r13_a_device_without_a_journal_asks_for_its_numbers_first() {
    let mut rig = Rig::with(Saved::default(), true);
    assert!(!rig.session.accepts_sends());
    let hello = rig.connect("token");
    assert_eq!(hello.capabilities, 1);
    rig.receive(Body::Welcome(v1::Welcome {
        highest_number: Some(41),
        ..welcome()
    }));
    assert!(rig.session.accepts_sends());
    assert_eq!(rig.send("next"), 42);
    assert_eq!(rig.saved.highest_number, 42);
}

#[test]
fn r3_messages_older_than_a_week_are_given_up_at_the_next_connection() {
    let mut rig = Rig::new();
    rig.send("old");
    rig.session.poll_action();
    rig.lose(Cause::TimedOut);
    rig.take_events();
    rig.pass(Duration::from_secs(8 * 24 * 3600));
    assert!(matches!(
        rig.take_events().as_slice(),
        [Event::SendFailed(failure)] if failure.error == SendError::Expired
    ));
    assert!(rig.saved.unconfirmed.is_empty());
}

#[test]
fn a_server_that_breaks_the_protocol_is_left_and_tried_again() {
    let short = Bytes::from_static(b"short");
    let broken: Vec<Body> = vec![
        Body::Welcome(welcome()),
        Body::Gap(v1::Gap {
            cursor: short.clone(),
            reason: 0,
        }),
        Body::Deliver(v1::Deliver {
            cursor: bytes(at(1, 1)),
            ..v1::Deliver::default()
        }),
        Body::SendResult(v1::SendResult {
            number: 1,
            position: short,
            ..v1::SendResult::default()
        }),
        Body::Typing(v1::Typing::default()),
    ];
    for body in broken {
        let mut rig = Rig::active();
        rig.take_events();
        rig.receive(body.clone());
        assert_eq!(
            rig.session.poll_action(),
            Some(Action::Close(ErrorCode::FrameMalformed)),
            "{body:?}"
        );
        assert!(matches!(
            rig.take_events().as_slice(),
            [Event::Disconnected(it)] if matches!(it.cause, Cause::Protocol(_)) && it.retry_in.is_some()
        ));
    }
}

#[test]
fn p9_a_frame_of_a_newer_server_is_passed_over() {
    let mut rig = Rig::active();
    rig.session
        .handle_frame(rig.now, v1::ServerFrame { body: None });
    assert!(rig.session.is_active());
}

#[test]
fn a_silent_server_is_given_up_after_ten_seconds() {
    let mut rig = Rig::new();
    rig.connect("token");
    assert_eq!(rig.pass_to_timeout(), Duration::from_secs(10));
    assert_eq!(
        rig.session.poll_action(),
        Some(Action::Close(ErrorCode::HelloTimeout))
    );
    assert!(!rig.session.is_active());
}

#[test]
fn a_server_that_owes_an_answer_and_says_nothing_is_given_up() {
    let mut rig = Rig::active();
    rig.send("a");
    rig.send("b");
    rig.sent();
    rig.pass(Duration::from_secs(40));
    rig.receive(result(1));
    assert_eq!(
        rig.pass_to_timeout(),
        Duration::from_secs(60),
        "any frame is a sign of life"
    );
    assert!(!rig.session.is_active());
    let close = Some(Action::Close(ErrorCode::Unspecified));
    assert_eq!(rig.session.poll_action(), close);
    rig.pass_to_timeout();
    rig.open(welcome());
    assert_eq!(numbers(&rig.sent()), [2]);
    rig.receive(result(2));
    assert_eq!(rig.session.poll_timeout(), None, "nothing is owed");
}

#[test]
fn any_frame_in_any_state_never_panics() {
    let frames = || {
        let mut frames = vec![
            Body::Welcome(v1::Welcome::default()),
            Body::Welcome(welcome()),
            deliver(1, 1),
            result(1),
            error(ErrorCode::Internal, 1),
            error(ErrorCode::Internal, 0),
            Body::Gap(v1::Gap::default()),
            Body::ReceiptUpdate(v1::ReceiptUpdate::default()),
            Body::GoAway(v1::GoAway::default()),
            Body::Pong(v1::Pong::default()),
        ];
        frames.push(Body::Error(v1::Error {
            code: 4_000,
            number: 1,
            ..v1::Error::default()
        }));
        frames
    };
    for first in frames() {
        for second in frames() {
            let mut rig = Rig::new();
            rig.send("x");
            rig.receive(first.clone());
            rig.connect("token");
            rig.receive(second.clone());
            rig.receive(first.clone());
            rig.receive(second);
            rig.sent();
        }
    }
}
