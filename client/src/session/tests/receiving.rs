//! Entries, acknowledgements, resynchronisation.

use super::*;

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

/// A restored store had lost the message, its sender repeated it, and it is another one for the server.
#[test]
fn r3_a_repeat_under_another_id_is_moved_and_not_shown_again() {
    let mut rig = Rig::active();
    rig.receive(deliver(1, 7));
    let mut events = rig.take_events();
    rig.store(events.last_mut().expect("a message"));
    rig.lose(Cause::Reset);
    rig.pass_to_timeout();
    rig.open(v1::Welcome {
        generation: 2,
        resync: true,
        ..welcome()
    });
    rig.take_events();
    rig.receive(deliver_as(2, 3, 1_000, 7));
    let mut events = rig.take_events();
    assert!(matches!(
        events.as_slice(),
        [Event::Moved(message)] if message.id == MessageId::new(1_000) && message.position == at(2, 3)
    ));
    assert_eq!(
        rig.saved.cursor,
        Position::ZERO,
        "its new place is not stored"
    );
    rig.store(&mut events[0]);
    assert_eq!(rig.saved.cursor, at(2, 3));
}

#[test]
fn an_error_ends_nothing_before_the_close_does() {
    let mut rig = Rig::active();
    rig.take_events();
    rig.receive(error(ErrorCode::Internal, 0));
    assert!(rig.take_events().is_empty());
    assert!(rig.session.is_active());
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
fn p9_a_frame_of_a_newer_server_is_passed_over() {
    let mut rig = Rig::active();
    rig.session
        .handle_frame(rig.now, v1::ServerFrame { body: None });
    assert!(rig.session.is_active());
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
