//! Sends and typing.

use super::*;

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
    let mut rig = Rig::with(rig.saved);
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
