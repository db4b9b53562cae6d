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

/// Sends one message and hears that its chat takes none; its number.
fn delayed(rig: &mut Rig) -> u64 {
    let number = rig.send("waits");
    rig.sent();
    rig.take_events();
    rig.receive(error(ErrorCode::RecipientFull, number));
    number
}

#[test]
fn df1_p112_a_message_that_waits_is_told_and_keeps_its_number_for_the_application() {
    let mut rig = Rig::active();
    let number = delayed(&mut rig);
    let events = rig.take_events();
    assert!(matches!(
        events.as_slice(),
        [Event::SendDelayed(delay)]
            if delay.number == number && delay.chat == chat() && delay.code == ErrorCode::RecipientFull
    ));
    assert!(rig.session.is_active(), "the session goes on");
    rig.pass_to_timeout();
    let sent = rig.sent();
    let [Sent::Send(send)] = sent.as_slice() else {
        panic!("{sent:?}");
    };
    assert_eq!((send.number, send.after), (number + 1, number));
    rig.receive(result(send.number));
    assert!(matches!(
        rig.take_events().as_slice(),
        [Event::SendConfirmed(it)] if (it.number, it.sent_as) == (number, number + 1)
    ));
    assert!(rig.saved.unconfirmed.is_empty());
}

#[test]
fn df1_p112_what_is_said_depends_on_what_the_server_understands() {
    let mut rig = Rig::new();
    rig.open(v1::Welcome {
        capabilities: 0,
        ..welcome()
    });
    delayed(&mut rig);
    rig.pass_to_timeout();
    assert!(matches!(rig.sent().as_slice(), [Sent::Send(send)] if send.after == 0));
}

/// A server of the first version: its refusal holds everything, and says so.
#[test]
fn df1_p44_a_full_recipient_of_an_old_server_is_retried_as_it_says() {
    let mut rig = Rig::active();
    rig.send("a");
    rig.sent();
    rig.take_events();
    let Body::Error(refused) = error(ErrorCode::RecipientFull, 1) else {
        unreachable!()
    };
    rig.receive(Body::Error(v1::Error {
        retryable: true,
        ..refused
    }));
    assert!(rig.take_events().is_empty());
    rig.pass_to_timeout();
    assert_eq!(numbers(&rig.sent()), [1]);
}

#[test]
fn df1_p113_what_is_taken_back_is_told_and_settled() {
    let mut rig = Rig::active();
    let number = delayed(&mut rig);
    rig.take_events();
    assert!(rig.session.take_back(rig.now, number));
    rig.drain();
    assert!(matches!(
        rig.take_events().as_slice(),
        [Event::SendFailed(failure)]
            if (failure.number, &failure.error) == (number, &SendError::TakenBack)
    ));
    assert!(rig.saved.unconfirmed.is_empty());
    assert!(!rig.session.take_back(rig.now, number), "it is gone");
    let out = rig.send("on its way");
    rig.pass_to_timeout();
    assert_eq!(rig.sent().len(), 1);
    assert!(!rig.session.take_back(rig.now, out));
    assert!(rig.saved.unconfirmed.contains_key(&out));
}

#[test]
fn df1_p41_a_message_that_waits_is_given_up_within_the_session() {
    let mut rig = Rig::active();
    let number = delayed(&mut rig);
    rig.pass(Duration::from_secs(7 * 24 * 3600) + Duration::from_secs(1));
    assert!(matches!(
        rig.take_events().as_slice(),
        [Event::SendDelayed(_), Event::SendFailed(failure)]
            if (failure.number, &failure.error) == (number, &SendError::Expired)
    ));
    assert!(rig.session.is_active());
    assert!(rig.saved.unconfirmed.is_empty());
}

#[test]
fn df1_p112_a_full_outbox_is_an_error_and_no_wait() {
    let mut rig = Rig::active();
    let kept = std::iter::from_fn(|| rig.session.send(rig.now, chat(), Bytes::new()).ok());
    assert_eq!(kept.count(), crate::session::sends::UNCONFIRMED_MAX);
    let full = rig.session.send(rig.now, chat(), Bytes::new());
    assert!(matches!(full, Err(ClientError::OutboxFull)));
    assert_eq!(numbers(&rig.sent()).len(), 128);
    rig.receive(result(1));
    assert_eq!(rig.send("there is room again"), 1_025);
}
