//! From the first frame to the Welcome.

use std::time::Duration;

use roadstead_proto::v1::{self, client_frame::Body as Up, server_frame::Body as Down};
use roadstead_proto::{ErrorCode, FrameError, Position};

use super::frames::{ack, chat, device, hello, send, typing};
use super::world::{ISSUED_S, Kind, World};
use crate::io::Input;
use crate::limits;
use crate::placement::ShardId;
use crate::store::StoreError;

const HOME: ShardId = ShardId(0);

/// Opens a connection, sends one frame and tells how it was closed.
fn refusal_of(frame: Up) -> Option<ErrorCode> {
    let mut world = World::new(1);
    let conn = world.open(HOME);
    world.frame(conn, frame);
    world.pump();
    let frames = world.take_frames(conn);
    let code = world.close_code(conn);
    if let Some(code) = code {
        assert!(matches!(&frames[..], [Down::Error(error)] if error.code() == code));
    }
    code
}

fn greeting(adjust: impl Fn(&mut v1::Hello)) -> Up {
    let Up::Hello(mut hello) = hello(device(1, 1), 1, Position::ZERO) else {
        unreachable!("it is a Hello");
    };
    adjust(&mut hello);
    Up::Hello(hello)
}

#[test]
fn a_welcome_answers_a_hello() {
    let mut world = World::new(3);
    let conn = world.connect(device(1, 1));
    let welcome = world.welcome(conn);
    assert_eq!(
        (welcome.user, welcome.generation, welcome.resync),
        (1, 1, false)
    );
    assert_eq!(welcome.highest_number, None, "it did not ask");
    assert_eq!(welcome.resume_token, format!("1 1 {ISSUED_S}"));
    assert_eq!(
        world
            .shards
            .iter()
            .map(|s| s.counters().welcomes)
            .sum::<u64>(),
        1
    );
}

#[test]
fn a_hello_that_can_not_be_right_is_refused() {
    type Adjust = fn(&mut v1::Hello);
    let cases: [(Adjust, ErrorCode); 7] = [
        (|hello| hello.version = 2, ErrorCode::VersionUnsupported),
        (|hello| hello.device = 0, ErrorCode::DeviceInvalid),
        (
            |hello| hello.cursor = vec![1; 15].into(),
            ErrorCode::CursorInvalid,
        ),
        (|hello| hello.credential = None, ErrorCode::TokenInvalid),
        (
            |hello| hello.credential = Some(v1::hello::Credential::Token("x".repeat(4097))),
            ErrorCode::TokenInvalid,
        ),
        (
            |hello| hello.credential = Some(v1::hello::Credential::Token("nobody".into())),
            ErrorCode::TokenInvalid,
        ),
        (
            |hello| hello.credential = Some(v1::hello::Credential::ResumeToken("old".into())),
            ErrorCode::TokenExpired,
        ),
    ];
    for (adjust, code) in cases {
        assert_eq!(refusal_of(greeting(adjust)), Some(code));
    }
    assert_eq!(refusal_of(greeting(|_| {})), None);
}

#[test]
fn nothing_but_a_hello_opens_a_session() {
    let chat = chat(device(1, 1), device(2, 1));
    let frames = [
        send(1, chat, "early"),
        ack(Position::MAX),
        typing(chat),
        Up::Ping(v1::Ping { nonce: 1 }),
    ];
    for frame in frames {
        assert_eq!(refusal_of(frame), Some(ErrorCode::FrameUnexpected));
    }
}

#[test]
fn nothing_is_taken_between_hello_and_welcome() {
    for held in [Kind::Open, Kind::Read] {
        let mut world = World::new(2);
        world.held.insert(held);
        world.hold_messages = true;
        let (alice, away) = (
            device(1, 1),
            ShardId(1 - world.placement.home(device(1, 1).0).0),
        );
        let conn = world.greet(away, alice, Position::ZERO);
        world.pump();
        world.send(conn, 1, chat(alice, alice), "early");
        assert_eq!(
            world.close_code(conn),
            Some(ErrorCode::FrameUnexpected),
            "{held:?}"
        );
        world.release();
        world.disconnect(conn);
        world.advance(Duration::from_secs(1));
        world.assert_quiet();
        assert!(
            world
                .shards
                .iter()
                .all(|shard| shard.is_idle() && shard.counters().users == 0)
        );
    }
}

#[test]
fn a_second_hello_ends_the_session() {
    let mut world = World::new(1);
    let alice = device(1, 1);
    let conn = world.connect(alice);
    world.frame(conn, hello(alice, 2, Position::ZERO));
    assert_eq!(world.close_code(conn), Some(ErrorCode::FrameUnexpected));
}

#[test]
fn a_frame_without_a_body_and_bytes_that_are_no_frame_end_the_session() {
    let mut world = World::new(1);
    let conn = world.connect(device(1, 1));
    let (shard, session) = (world.conns[conn].shard, world.conns[conn].session);
    world.input(shard, Input::Frame(session, v1::ClientFrame { body: None }));
    assert_eq!(world.close_code(conn), Some(ErrorCode::FrameMalformed));
    // A session that is closed hears and says nothing more.
    world.input(shard, Input::Malformed(session, FrameError::Empty));
    world.frame(conn, Up::Ping(v1::Ping { nonce: 1 }));
    assert_eq!(world.take_frames(conn).len(), 1, "the one Error");

    let too_large = FrameError::TooLarge { length: 9, max: 8 };
    for (error, code) in [
        (FrameError::Empty, ErrorCode::FrameMalformed),
        (too_large, ErrorCode::FrameTooLarge),
    ] {
        let conn = world.open(HOME);
        let session = world.conns[conn].session;
        world.input(HOME, Input::Malformed(session, error));
        assert_eq!(world.close_code(conn), Some(code));
    }
}

#[test]
fn a_connection_that_says_nothing_is_closed_in_time() {
    let mut world = World::new(1);
    let conn = world.open(HOME);
    world.advance(limits::HELLO_TIMEOUT - Duration::from_millis(1));
    assert_eq!(world.close_code(conn), None);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.close_code(conn), Some(ErrorCode::HelloTimeout));
    world.advance(Duration::from_secs(100));
    world.disconnect(conn);
    world.assert_quiet();
}

#[test]
fn an_opening_that_hangs_is_closed_in_time_and_its_late_answer_ignored() {
    let mut world = World::new(1);
    world.held.insert(Kind::Open);
    let conn = world.greet(HOME, device(1, 1), Position::ZERO);
    world.advance(limits::HELLO_TIMEOUT);
    assert_eq!(world.close_code(conn), Some(ErrorCode::HelloTimeout));
    world.release();
    assert_eq!(
        world.take_frames(conn).len(),
        1,
        "no Welcome after the Error"
    );
    world.disconnect(conn);
    // The slot is used again by another connection, of which the late answer knows nothing.
    world.held.insert(Kind::Open);
    let first = world.greet(HOME, device(1, 1), Position::ZERO);
    world.disconnect(first);
    let second = world.open(HOME);
    assert_eq!(
        world.conns[first].session.index,
        world.conns[second].session.index
    );
    world.release();
    assert_eq!(world.take_frames(second), []);
    assert_eq!(world.shards[0].counters().users, 0);
}

#[test]
fn a_store_that_is_away_is_said_to_be_and_may_be_asked_again() {
    let mut world = World::new(1);
    world.held.insert(Kind::Open);
    let conn = world.greet(HOME, device(1, 1), Position::ZERO);
    world.fail(Kind::Open, StoreError::Unavailable);
    let frames = world.take_frames(conn);
    let [Down::Error(error)] = &frames[..] else {
        panic!("{frames:?}");
    };
    assert_eq!(error.code(), ErrorCode::StoreUnavailable);
    assert!(error.retryable && error.retry_after_ms > 0);
}

#[test]
fn a_fifth_device_is_refused() {
    let mut world = World::new(1);
    for number in 1..=4 {
        world.connect(device(1, number));
    }
    let conn = world.greet(HOME, device(1, 5), Position::ZERO);
    world.pump();
    assert_eq!(world.close_code(conn), Some(ErrorCode::DeviceLimit));
}

#[test]
fn r13_a_device_that_asks_is_told_its_highest_number() {
    let mut world = World::new(1);
    let (alice, bob) = (device(1, 1), device(2, 1));
    world.connect(bob);
    let conn = world.connect(alice);
    world.send(conn, 7, chat(alice, bob), "seven");
    world.pump();
    world.disconnect(conn);
    let conn = world.open(HOME);
    world.frame(
        conn,
        greeting(|hello| {
            hello.device = alice.1.get();
            hello.connect_counter = 9;
            hello.capabilities = v1::Capability::AskHighestNumber as u64;
        }),
    );
    world.pump();
    assert_eq!(world.welcome(conn).highest_number, Some(7));
}
