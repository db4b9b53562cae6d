//! Chats that take nothing for a while: P112, P113, and what P38 and P39 say of them.

use super::*;

/// Messages of chat 0 are even, those of chat 1 are odd.
fn enqueue(rig: &mut Rig, messages: &[u64]) {
    for message in messages {
        let chat = u32::try_from(message % 2).expect("0 or 1");
        rig.session.enqueue(*message, chat);
    }
}

fn full(rig: &mut Rig, number: u64) -> Vec<Happened> {
    full_at(rig, 0, number)
}

fn full_at(rig: &mut Rig, now: Micros, number: u64) -> Vec<Happened> {
    let error = v1::Error {
        number,
        retry_after_ms: 30_000,
        ..ErrorCode::RecipientFull.frame("full")
    };
    rig.receive_at(now, server_frame::Body::Error(error))
}

/// Number, message and `after` of what a flush writes.
fn sent(rig: &mut Rig, now: Micros) -> Vec<(u64, u64, u64)> {
    let sends = rig.flush(now).into_iter().map(|body| match body {
        client_frame::Body::Send(send) => {
            let message = send.payload[..].try_into().expect("a message");
            (send.number, u64::from_be_bytes(message), send.after)
        }
        other => panic!("a Send, not {other:?}"),
    });
    sends.collect()
}

const REFUSED: [Happened; 1] = [Happened::ChatRefused {
    code: ErrorCode::RecipientFull,
}];

#[test]
fn p112_a_chat_that_is_full_holds_up_no_other() {
    let mut rig = Rig::active(0);
    enqueue(&mut rig, &[0, 1, 2]);
    assert_eq!(sent(&mut rig, 0), [(1, 0, 0), (2, 1, 0), (3, 2, 0)]);
    assert_eq!(full(&mut rig, 1), REFUSED);
    assert_eq!(rig.answer(2).len(), 1);
    assert_eq!(full(&mut rig, 3), REFUSED);
    enqueue(&mut rig, &[3, 4]);
    assert_eq!(sent(&mut rig, 0), [(4, 3, 0)], "the other chat goes on");
    let wake = rig.effects.wake_at.take().expect("to be woken");
    assert!((15_000_000..45_000_000).contains(&wake), "{wake}");
    assert_eq!(sent(&mut rig, wake - 1), []);
    assert_eq!(
        sent(&mut rig, wake),
        [(5, 0, 3)],
        "one first, in order, under a new number"
    );
    rig.answer(5);
    assert_eq!(sent(&mut rig, wake), [(6, 2, 3), (7, 4, 3)]);
    rig.answer(6);
    rig.answer(7);
    rig.answer(4);
    enqueue(&mut rig, &[6]);
    assert_eq!(sent(&mut rig, wake), [(8, 6, 3)]);
    rig.answer(8);
    assert_eq!(rig.session.unconfirmed(), 0);
}

#[test]
fn p112_a_chat_waits_for_its_own_answers_and_longer_each_time() {
    let mut rig = Rig::active(0);
    enqueue(&mut rig, &[0, 2]);
    sent(&mut rig, 0);
    full(&mut rig, 1);
    sent(&mut rig, 0);
    assert_eq!(rig.effects.wake_at, None, "2 has no answer yet");
    full(&mut rig, 2);
    let (mut waits, mut now) = (Vec::new(), 0);
    for number in 3..7 {
        sent(&mut rig, now);
        let wake = rig.effects.wake_at.take().expect("to be woken");
        waits.push(wake - now);
        now = wake;
        assert_eq!(sent(&mut rig, now), [(number, 0, number - 1)]);
        full_at(&mut rig, now, number);
    }
    assert!(waits[2] > waits[0] * 2, "{waits:?}");
}

#[test]
fn p112_what_was_never_sent_waits_without_a_number() {
    let mut rig = Rig::active(0);
    enqueue(&mut rig, &[0, 2, 4, 6, 8, 1]);
    assert_eq!(sent(&mut rig, 0).len(), 4, "four may be unanswered");
    for number in 1..=4 {
        full(&mut rig, number);
    }
    assert_eq!(sent(&mut rig, 0), [(6, 1, 0)], "8 gave its number back");
    rig.answer(6);
    assert_eq!(rig.session.give_up(|chat| chat == 1), NONE);
    assert_eq!(
        rig.session.give_up(|chat| chat == 0),
        [0, 2, 4, 6, 8],
        "P113"
    );
}

#[test]
fn p38_a_refused_number_goes_again_before_an_open_one_of_its_chat() {
    let mut rig = Rig::active(0);
    enqueue(&mut rig, &[0, 2, 1]);
    sent(&mut rig, 0);
    full(&mut rig, 1);
    rig.session.closed();
    rig.connect();
    rig.welcome(3);
    assert_eq!(sent(&mut rig, 0), [(1, 0, 0), (2, 2, 0), (3, 1, 0)]);
    assert_eq!(full(&mut rig, 1), REFUSED);
    assert_eq!(full(&mut rig, 2), REFUSED);
    rig.answer(3);
    sent(&mut rig, 0);
    let wake = rig.effects.wake_at.take().expect("to be woken");
    assert_eq!(sent(&mut rig, wake), [(4, 0, 2)], "once, and before 2");
}

#[test]
fn p38_a_chat_without_an_open_number_sends_nothing_again() {
    let mut rig = Rig::active(0);
    enqueue(&mut rig, &[0, 1]);
    sent(&mut rig, 0);
    full(&mut rig, 1);
    rig.session.closed();
    rig.connect();
    rig.welcome(2);
    assert_eq!(sent(&mut rig, 0), [(2, 1, 0)]);
}

#[test]
fn p39_the_longest_wait_of_a_round_counts() {
    let mut rig = Rig::active(0);
    enqueue(&mut rig, &[0, 1]);
    sent(&mut rig, 0);
    assert_eq!(rig.refuse(0, 1, true).len(), 1);
    let earlier = v1::Error {
        number: 2,
        retry_after_ms: 8_000,
        ..ErrorCode::EarlierRefused.frame("behind 1")
    };
    assert_eq!(rig.receive_at(0, server_frame::Body::Error(earlier)), []);
    assert_eq!(sent(&mut rig, 1_000_000), [], "8 s were asked for");
    assert_eq!(sent(&mut rig, 20_000_000), [(1, 0, 0), (2, 1, 0)]);
}

#[test]
fn p112_nothing_is_said_of_refusals_to_a_server_that_does_not_ask() {
    let mut rig = Rig::active(0);
    rig.session.reads_after = false;
    enqueue(&mut rig, &[0]);
    sent(&mut rig, 0);
    full(&mut rig, 1);
    assert_eq!(sent(&mut rig, 100_000_000), [(2, 0, 0)]);
}
