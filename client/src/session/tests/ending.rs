//! Lost, refused and abandoned sessions.

use super::*;

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
    let refused = rig.session.send(rig.now, chat(), Bytes::new());
    assert!(matches!(refused, Err(ClientError::Stopped)));
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
fn df18_r13_a_removed_device_ends_and_gives_up_no_message_after_the_other() {
    let mut rig = Rig::active();
    for _ in 0..3 {
        rig.send("x");
    }
    rig.sent();
    rig.take_events();
    for number in 1..=3 {
        rig.receive(error(ErrorCode::DeviceRemoved, number));
    }
    rig.lose(Cause::Closed(ErrorCode::DeviceRemoved));
    let events = rig.take_events();
    assert!(
        matches!(
            events.as_slice(),
            [Event::Disconnected(it)] if it.cause == Cause::Closed(ErrorCode::DeviceRemoved)
        ),
        "{events:?}"
    );
    assert!(rig.session.is_stopped());
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
