use bytes::BytesMut;
use roadstead_proto::v1::hello;
use roadstead_proto::{DeviceId, ErrorCode};

use super::chatter::RETRY_WAIT_MAX;
use super::*;

mod chats;

const TOKEN: &str = "signed";

const NONE: [u64; 0] = [];

/// A session with a server that a test plays by hand.
struct Rig {
    session: Session,
    rng: Rng,
    effects: Effects,
}

impl Rig {
    fn new() -> Self {
        Self {
            session: Session::new(true),
            rng: Rng::new(1),
            effects: Effects::default(),
        }
    }

    /// A session that was welcomed; numbers go on after `highest`.
    fn active(highest: u64) -> Self {
        let mut rig = Self::new();
        rig.connect();
        rig.welcome(highest);
        rig
    }

    fn connect(&mut self) -> v1::Hello {
        self.session.connecting();
        let login = Login {
            credential: hello::Credential::Token(TOKEN.into()),
            device: DeviceId::new(7).expect("not 0"),
            counter_base: 100,
        };
        self.session.opened(login, &mut self.effects);
        match self.written().pop() {
            Some(client_frame::Body::Hello(hello)) => hello,
            other => panic!("a Hello comes first, not {other:?}"),
        }
    }

    fn welcome(&mut self, highest: u64) -> Vec<Happened> {
        let welcome = v1::Welcome {
            user: 3,
            heartbeat_interval_ms: 120_000,
            highest_number: Some(highest),
            limits: Some(v1::Limits {
                sends_in_flight_max: 4,
                ..v1::Limits::default()
            }),
            resume_token: Bytes::from_static(b"again"),
            capabilities: v1::ServerCapability::FinalChatRefusals as u64,
            ..v1::Welcome::default()
        };
        self.receive(server_frame::Body::Welcome(welcome))
    }

    fn receive(&mut self, body: server_frame::Body) -> Vec<Happened> {
        self.receive_at(0, body)
    }

    fn receive_at(&mut self, now: Micros, body: server_frame::Body) -> Vec<Happened> {
        let mut bytes = BytesMut::new();
        encode_frame(&v1::ServerFrame { body: Some(body) }, &mut bytes);
        self.session
            .received(bytes.freeze(), now, &mut self.rng, &mut self.effects);
        std::mem::take(&mut self.effects.happened)
    }

    /// What a flush at `now` writes.
    fn flush(&mut self, now: Micros) -> Vec<client_frame::Body> {
        let compose = |message: u64, number| v1::Send {
            number,
            payload: Bytes::copy_from_slice(&message.to_be_bytes()),
            ..v1::Send::default()
        };
        self.session.flush(now, compose, &mut self.effects);
        self.written()
    }

    fn written(&mut self) -> Vec<client_frame::Body> {
        let mut chunk = self.effects.out.split().freeze();
        let mut deframer = Deframer::new(limits::FRAME_BYTES_MAX);
        let mut bodies = Vec::new();
        while let Some(frame) = deframer.next_frame(&mut chunk).expect("frames") {
            bodies.push(
                decode_frame::<v1::ClientFrame>(frame)
                    .expect("a frame")
                    .body
                    .expect("a body"),
            );
        }
        bodies
    }

    fn enqueue(&mut self, messages: std::ops::Range<u64>) {
        messages.for_each(|message| self.session.enqueue(message, 0));
    }

    fn refuse(&mut self, now: Micros, number: u64, retryable: bool) -> Vec<Happened> {
        let code = if retryable {
            ErrorCode::StoreUnavailable
        } else {
            ErrorCode::UserUnknown
        };
        let error = v1::Error {
            number,
            retryable,
            retry_after_ms: 100,
            ..code.frame("no")
        };
        self.receive_at(now, server_frame::Body::Error(error))
    }

    fn answer(&mut self, number: u64) -> Vec<Happened> {
        let result = v1::SendResult {
            number,
            message_id: 1_000 + number,
            position: field(&position(number)),
            server_time_ms: 1,
        };
        self.receive(server_frame::Body::SendResult(result))
    }
}

fn position(place: u64) -> Position {
    let mut stamp = [0; 10];
    stamp[2..].copy_from_slice(&place.to_be_bytes());
    Position::new(1, stamp, 0)
}

fn numbers(bodies: &[client_frame::Body]) -> Vec<u64> {
    let number = |body: &client_frame::Body| match body {
        client_frame::Body::Send(send) => Some(send.number),
        _ => None,
    };
    bodies.iter().filter_map(number).collect()
}

fn deliver(cursor: u64) -> server_frame::Body {
    server_frame::Body::Deliver(v1::Deliver {
        cursor: field(&position(cursor)),
        chat_position: Bytes::new(),
        envelope: Some(v1::Envelope::default()),
    })
}

fn ack(place: u64) -> client_frame::Body {
    client_frame::Body::Ack(v1::Ack {
        cursor: field(&position(place)),
    })
}

#[test]
fn a_first_hello_asks_where_numbers_go_on() {
    let mut rig = Rig::new();
    let hello = rig.connect();
    assert_eq!(hello.version, 1);
    assert_eq!(hello.device, 7);
    assert_eq!(hello.connect_counter, 101);
    assert!(hello.cursor.is_empty());
    assert_eq!(hello.capabilities, 1);
    assert_eq!(
        hello.credential,
        Some(hello::Credential::Token(TOKEN.into()))
    );
    let happened = rig.welcome(41);
    assert!(
        matches!(happened[..], [Happened::Welcomed(Welcomed { user: 3, .. })]),
        "{happened:?}"
    );
    assert!(rig.session.is_active());
    assert_eq!(
        rig.session.next_number, 42,
        "R13: above the numbers of an earlier run"
    );
}

#[test]
fn a_later_hello_carries_the_cursor_and_a_higher_counter() {
    let mut rig = Rig::active(0);
    rig.receive(deliver(5));
    rig.session.closed();
    let hello = rig.connect();
    assert_eq!(hello.connect_counter, 102);
    assert_eq!(&hello.cursor[..], position(5).as_bytes());
    assert_eq!(hello.capabilities, 0);
    assert_eq!(
        rig.session.take_resume_token().as_deref(),
        Some(&b"again"[..])
    );
    assert_eq!(rig.session.take_resume_token(), None, "good for one try");
}

#[test]
fn sends_stay_below_the_limit_of_the_welcome() {
    let mut rig = Rig::active(0);
    rig.enqueue(0..6);
    assert_eq!(numbers(&rig.flush(0)), [1, 2, 3, 4]);
    assert_eq!(numbers(&rig.flush(0)), NONE);
    let happened = rig.answer(1);
    let [
        Happened::Answered {
            message: 0,
            number: 1,
            id,
            position: at,
        },
    ] = happened[..]
    else {
        panic!("{happened:?}");
    };
    assert_eq!((id, at), (MessageId::new(1_001), position(1)));
    assert_eq!(numbers(&rig.flush(0)), [5]);
    assert_eq!(rig.session.unconfirmed(), 5);
}

#[test]
fn p37_unanswered_numbers_stay_within_their_span() {
    let mut rig = Rig::active(0);
    rig.enqueue(0..9);
    rig.flush(0);
    rig.answer(2);
    rig.answer(3);
    assert_eq!(
        numbers(&rig.flush(0)),
        NONE,
        "1 is unanswered, so 5 has to wait"
    );
    rig.answer(1);
    assert_eq!(numbers(&rig.flush(0)), [5, 6, 7]);
}

#[test]
fn r12_what_is_unconfirmed_is_sent_again_under_its_number() {
    let mut rig = Rig::active(0);
    rig.enqueue(0..3);
    rig.flush(0);
    rig.answer(2);
    rig.session.closed();
    assert_eq!(
        numbers(&rig.flush(0)),
        NONE,
        "nothing while there is no session"
    );
    rig.connect();
    assert_eq!(numbers(&rig.flush(0)), NONE, "nor before the Welcome");
    rig.welcome(99);
    assert_eq!(numbers(&rig.flush(0)), [1, 3]);
    rig.enqueue(3..4);
    assert_eq!(
        numbers(&rig.flush(0)),
        [4],
        "the counter is the session's own"
    );
}

#[test]
fn r16_a_retry_starts_at_the_lowest_failed_number_and_keeps_the_order() {
    let mut rig = Rig::active(0);
    rig.enqueue(0..4);
    rig.flush(0);
    assert_eq!(rig.refuse(1_000, 2, true).len(), 1);
    let wake = rig.effects.wake_at.take().expect("to be woken");
    assert!(
        (1_000 + 50_000..1_000 + 150_000).contains(&wake),
        "jittered: {wake}"
    );
    // Those behind it fail with it, and that changes nothing.
    assert_eq!(rig.refuse(1_000, 3, true), []);
    assert_eq!(rig.refuse(1_000, 4, true), []);
    assert_eq!(rig.effects.wake_at, None);
    assert_eq!(numbers(&rig.flush(wake - 1)), NONE, "not before its time");
    rig.answer(1);
    assert_eq!(numbers(&rig.flush(wake)), [2, 3, 4]);
}

#[test]
fn r16_a_lower_failure_after_a_higher_one_moves_the_start_back() {
    let mut rig = Rig::active(0);
    rig.enqueue(0..3);
    rig.flush(0);
    rig.refuse(0, 3, true);
    rig.refuse(0, 1, true);
    assert_eq!(numbers(&rig.flush(10_000_000)), [1, 2, 3]);
}

#[test]
fn refusals_in_a_row_wait_longer() {
    let mut rig = Rig::active(0);
    rig.enqueue(0..1);
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..8 {
        rig.flush(now);
        rig.refuse(now, 1, true);
        let wake = rig.effects.wake_at.take().expect("to be woken");
        waits.push(wake - now);
        now = wake;
    }
    assert!(waits[3] > waits[0] * 2, "{waits:?}");
    assert!(
        waits.iter().all(|wait| *wait <= RETRY_WAIT_MAX * 3 / 2),
        "{waits:?}"
    );
}

#[test]
fn an_answer_that_overtakes_the_retry_is_taken() {
    let mut rig = Rig::active(0);
    rig.enqueue(0..2);
    rig.flush(0);
    rig.refuse(0, 1, true);
    assert!(matches!(
        rig.answer(2)[..],
        [Happened::Answered { message: 1, .. }]
    ));
    assert_eq!(numbers(&rig.flush(10_000_000)), [1]);
    rig.answer(1);
    assert_eq!(rig.answer(1), [Happened::AnsweredAgain { number: 1 }]);
    assert_eq!(rig.session.unconfirmed(), 0);
}

#[test]
fn a_refusal_for_good_ends_a_message() {
    let mut rig = Rig::active(0);
    rig.enqueue(0..2);
    rig.flush(0);
    let happened = rig.refuse(0, 1, false);
    assert_eq!(
        happened,
        [Happened::Refused {
            message: 0,
            code: ErrorCode::UserUnknown
        }]
    );
    assert_eq!(rig.session.unconfirmed(), 1);
}

#[test]
fn r19_one_acknowledgement_covers_all_that_was_stored() {
    let mut rig = Rig::active(0);
    for cursor in [3, 4, 9] {
        rig.receive(deliver(cursor));
    }
    assert_eq!(rig.flush(0), [ack(9)]);
    assert_eq!(rig.flush(0), [], "once");
    let update = v1::ReceiptUpdate {
        cursor: field(&position(11)),
        ..Default::default()
    };
    rig.receive(server_frame::Body::ReceiptUpdate(update));
    assert_eq!(rig.flush(0), [ack(11)], "receipts are entries too");
    let gap = v1::Gap {
        cursor: field(&position(12)),
        reason: 1,
    };
    assert_eq!(
        rig.receive(server_frame::Body::Gap(gap)),
        [Happened::Gap { reason: 1 }]
    );
    assert_eq!(rig.flush(0), [ack(12)]);
}

#[test]
fn a_cursor_that_does_not_grow_is_told_and_not_shown() {
    let mut rig = Rig::active(0);
    rig.receive(deliver(5));
    for cursor in [5, 4] {
        let happened = rig.receive(deliver(cursor));
        assert_eq!(
            happened,
            [Happened::Backwards {
                cursor: position(cursor),
                after: position(5)
            }]
        );
    }
}

#[test]
fn r3_after_a_resync_the_inbox_starts_again() {
    let mut rig = Rig::active(0);
    rig.receive(deliver(5));
    rig.session.closed();
    rig.connect();
    let welcome = v1::Welcome {
        resync: true,
        ..v1::Welcome::default()
    };
    rig.receive(server_frame::Body::Welcome(welcome));
    let happened = rig.receive(deliver(2));
    assert!(
        matches!(happened[..], [Happened::Delivered { resynced: true, .. }]),
        "{happened:?}"
    );
}

#[test]
fn a_chat_position_is_the_cursor_unless_it_is_given() {
    let mut rig = Rig::active(0);
    let happened = rig.receive(deliver(5));
    assert!(
        matches!(happened[..], [Happened::Delivered { position: at, .. }] if at == position(5))
    );
    let other = v1::Deliver {
        cursor: field(&position(8)),
        chat_position: field(&position(6)),
        envelope: Some(v1::Envelope::default()),
    };
    let happened = rig.receive(server_frame::Body::Deliver(other));
    assert!(
        matches!(happened[..], [Happened::Delivered { position: at, .. }] if at == position(6))
    );
}

#[test]
fn read_marks_of_a_chat_collapse_into_the_furthest() {
    let mut rig = Rig::active(0);
    let chat = ChatId::from_slice(&[1; 16]).expect("a pair");
    rig.session.read(chat, position(3));
    rig.session.read(chat, position(7));
    rig.session.read(chat, position(5));
    let read = v1::Read {
        chat: Bytes::copy_from_slice(chat.as_bytes()),
        position: field(&position(7)),
    };
    assert_eq!(rig.flush(0), [client_frame::Body::Read(read)]);
}

#[test]
fn r26_a_blocked_stream_gets_nothing_more() {
    let mut rig = Rig::active(0);
    rig.enqueue(0..1);
    rig.receive(deliver(5));
    rig.session.set_blocked(true);
    assert_eq!(rig.flush(0), []);
    rig.session.set_blocked(false);
    assert_eq!(rig.flush(0).len(), 2);
}

#[test]
fn what_a_server_must_not_send_is_named() {
    let mut rig = Rig::new();
    rig.connect();
    let happened = rig.receive(deliver(5));
    assert_eq!(
        happened,
        [Happened::Broken("a Deliver while ExpectWelcome".into())]
    );
    let mut rig = Rig::active(0);
    assert!(matches!(rig.welcome(0)[..], [Happened::Broken(_)]));
    assert!(
        matches!(rig.answer(9)[..], [Happened::Broken(_)]),
        "never sent"
    );
    rig.session
        .received(Bytes::from_static(&[0]), 0, &mut rig.rng, &mut rig.effects);
    assert!(matches!(rig.effects.happened[..], [Happened::Broken(_)]));
}

#[test]
fn session_errors_and_farewells_are_told_in_any_phase() {
    let mut rig = Rig::new();
    rig.connect();
    let error = ErrorCode::TokenExpired.frame("late");
    assert_eq!(
        rig.receive(server_frame::Body::Error(error)),
        [Happened::SessionError {
            code: ErrorCode::TokenExpired
        }]
    );
    let go = v1::GoAway {
        reconnect_after_ms: 70,
        reason: String::new(),
    };
    assert_eq!(
        rig.receive(server_frame::Body::GoAway(go)),
        [Happened::GoAway { after: 70_000 }]
    );
}

#[test]
fn frames_in_pieces_need_memory_only_while_they_are_incomplete() {
    let mut rig = Rig::active(0);
    let mut bytes = BytesMut::new();
    encode_frame(
        &v1::ServerFrame {
            body: Some(deliver(5)),
        },
        &mut bytes,
    );
    encode_frame(
        &v1::ServerFrame {
            body: Some(deliver(6)),
        },
        &mut bytes,
    );
    for byte in bytes.freeze() {
        rig.session.received(
            Bytes::copy_from_slice(&[byte]),
            0,
            &mut rig.rng,
            &mut rig.effects,
        );
    }
    assert_eq!(rig.effects.happened.len(), 2);
    assert!(rig.session.partial.is_none());
}

#[test]
fn an_idle_session_is_small_and_owns_nothing() {
    assert!(size_of::<Session>() <= 88, "{}", size_of::<Session>());
    let rig = Rig::active(0);
    assert!(rig.session.chatter.is_none() && rig.session.partial.is_none());
}
