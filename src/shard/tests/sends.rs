//! Sending: R12, R16, R24.

use std::time::Duration;

use roadstead_proto::v1::{self, client_frame::Body as Up, server_frame::Body as Down};
use roadstead_proto::{ErrorCode, Position, limits as wire};

use super::frames::{alice, answers, bob, chat, device, ours, send};
use super::world::{ConnId, Kind, World};
use crate::io::Input;
use crate::placement::ShardId;
use crate::store::{Command, StoreError};

/// Alice and Bob on one shard; Alice's session and Bob's.
fn pair() -> (World, ConnId, ConnId) {
    let mut world = World::new(1);
    let to = world.connect(bob());
    let from = world.connect(alice());
    (world, from, to)
}

fn say(world: &mut World, from: ConnId, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        world.send(from, number, ours(), &number.to_string());
    }
}

fn answered(world: &mut World, conn: ConnId) -> Vec<(u64, Result<(), ErrorCode>)> {
    answers(&world.take_frames(conn))
}

/// The first is refused for now, and the others because they are behind it.
fn refused(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, Result<(), ErrorCode>)> {
    let mut refused = behind(numbers);
    refused[0].1 = Err(ErrorCode::StoreUnavailable);
    refused
}

fn behind(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, Result<(), ErrorCode>)> {
    let refusal = |number| (number, Err(ErrorCode::EarlierRefused));
    numbers.into_iter().map(refusal).collect()
}

fn committed(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, Result<(), ErrorCode>)> {
    numbers.into_iter().map(|number| (number, Ok(()))).collect()
}

#[test]
fn r12_a_number_sent_again_gets_the_first_answer_and_makes_no_second_message() {
    let (mut world, from, to) = pair();
    say(&mut world, from, [1]);
    world.pump();
    let first = world.take_frames(from);
    world.advance(Duration::from_secs(1));
    say(&mut world, from, [1, 1]);
    world.pump();
    let again = world.take_frames(from);
    assert_eq!(again, [&first[..], &first[..]].concat());
    assert_eq!(world.texts(to), ["1"]);
    let counters = world.shards[0].counters();
    assert_eq!((counters.sends_committed, counters.sends_repeated), (1, 2));
}

#[test]
fn r12_a_retry_after_an_unknown_outcome_gets_the_first_answer() {
    let (mut world, from, to) = pair();
    world.held.insert(Kind::Send);
    say(&mut world, from, [1]);
    world.lose_answer(Kind::Send);
    assert_eq!(answered(&mut world, from), refused([1]));
    world.held.clear();
    // From another session, as a client does that gave up waiting.
    world.disconnect(from);
    let from = world.connect(alice());
    say(&mut world, from, [1, 2]);
    world.pump();
    assert_eq!(answered(&mut world, from), committed([1, 2]));
    assert_eq!(world.texts(to), ["1", "2"]);
}

#[test]
fn r12_another_message_under_a_used_number_is_refused_and_blocks_nothing() {
    let (mut world, from, _) = pair();
    say(&mut world, from, [1]);
    world.pump();
    world.send(from, 1, ours(), "other");
    world.send(from, 2, ours(), "2");
    world.pump();
    let expected = [(1, Ok(())), (1, Err(ErrorCode::NumberReused)), (2, Ok(()))];
    assert_eq!(answered(&mut world, from), expected);
}

#[test]
fn r12_a_number_that_lost_its_slot_is_never_executed() {
    let (mut world, from, _) = pair();
    say(&mut world, from, [257]);
    say(&mut world, from, [1, 258]);
    world.pump();
    let expected = [
        (257, Ok(())),
        (1, Err(ErrorCode::NumberSpent)),
        (258, Ok(())),
    ];
    assert_eq!(answered(&mut world, from), expected);
}

#[test]
fn r12_number_0_ends_the_session() {
    let (mut world, from, _) = pair();
    say(&mut world, from, [0]);
    assert_eq!(world.close_code(from), Some(ErrorCode::NumberInvalid));
}

#[test]
fn r12_at_most_128_are_in_flight_and_the_rest_waits_for_its_turn() {
    let (mut world, from, to) = pair();
    world.held.insert(Kind::Send);
    let max = wire::SENDS_IN_FLIGHT_MAX as u64;
    say(&mut world, from, 1..=max + 2);
    let expected = [
        (max + 1, Err(ErrorCode::InFlightLimit)),
        (max + 2, Err(ErrorCode::EarlierRefused)),
    ];
    assert_eq!(
        answered(&mut world, from),
        expected,
        "R16: the second is behind the first"
    );
    world.release();
    assert_eq!(answered(&mut world, from), committed(1..=max));
    say(&mut world, from, max + 1..=max + 2);
    world.pump();
    assert_eq!(answered(&mut world, from), committed(max + 1..=max + 2));
    let expected: Vec<String> = (1..=max + 2).map(|n| n.to_string()).collect();
    assert_eq!(world.texts(to), expected);
}

#[test]
fn refusals_that_a_retry_can_not_mend_block_nothing() {
    let (mut world, from, _) = pair();
    world.send(from, 1, chat(alice(), device(9, 1)), "to nobody");
    world.send(from, 2, chat(bob(), device(9, 1)), "not my chat");
    world.send(from, 3, ours(), &"x".repeat(wire::PAYLOAD_BYTES_MAX + 1));
    world.frame(from, {
        let Up::Send(frame) = send(4, ours(), "") else {
            unreachable!()
        };
        Up::Send(v1::Send {
            chat: vec![1; 3].into(),
            ..frame
        })
    });
    world.send(from, 5, ours(), &"x".repeat(wire::PAYLOAD_BYTES_MAX));
    world.pump();
    let mut got = answered(&mut world, from);
    got.sort_unstable_by_key(|(number, _)| *number);
    let expected = [
        (1, Err(ErrorCode::UserUnknown)),
        (2, Err(ErrorCode::ChatInvalid)),
        (3, Err(ErrorCode::PayloadTooLarge)),
        (4, Err(ErrorCode::ChatInvalid)),
        (5, Ok(())),
    ];
    assert_eq!(got, expected);
    assert_eq!(world.close_code(from), None);
}

#[test]
fn a_note_to_oneself_reaches_the_other_devices() {
    let mut world = World::new(2);
    let (sender, sibling) = (world.connect(alice()), world.connect(device(1, 2)));
    world.send(sender, 1, chat(alice(), alice()), "note");
    world.pump();
    assert_eq!(world.texts(sibling), ["note"]);
    assert_eq!(answered(&mut world, sender), committed([1]));
}

#[test]
fn r16_one_batch_of_a_device_is_under_way_at_a_time() {
    let (mut world, from, _) = pair();
    world.held.insert(Kind::Send);
    say(&mut world, from, 1..=5);
    assert_eq!(world.waiting(Kind::Send), 1);
    world.complete(Kind::Send);
    assert_eq!(answered(&mut world, from), committed([1]));
    assert_eq!(world.waiting(Kind::Send), 1);
    let Command::Send(sends) = &world.asked[0].request.command else {
        panic!("a batch waits");
    };
    let numbers: Vec<u64> = sends.items.iter().map(|item| item.number).collect();
    assert_eq!(numbers, [2, 3, 4, 5], "all that waited, in order");
    world.complete(Kind::Send);
    assert_eq!(answered(&mut world, from), committed(2..=5));
}

#[test]
fn r16_a_retryable_failure_fails_all_behind_it_until_it_is_sent_again() {
    let (mut world, from, to) = pair();
    world.held.insert(Kind::Send);
    say(&mut world, from, [1]);
    say(&mut world, from, 2..=4);
    world.complete(Kind::Send);
    // Two and three are with the store; five and six wait; then two fails.
    say(&mut world, from, 5..=6);
    let fails = (alice().1, 3);
    world
        .store
        .refuse_once
        .insert(fails, StoreError::Unavailable);
    world.complete(Kind::Send);
    let mut expected = committed([1, 2]);
    expected.extend(refused(3..=6));
    assert_eq!(answered(&mut world, from), expected);
    world.held.clear();
    // Those that arrive later are behind it, too.
    say(&mut world, from, 7..=8);
    world.pump();
    assert_eq!(answered(&mut world, from), behind(7..=8));
    say(&mut world, from, 3..=9);
    world.pump();
    assert_eq!(answered(&mut world, from), committed(3..=9));
    let in_order: Vec<String> = (1..=9).map(|n| n.to_string()).collect();
    assert_eq!(world.texts(to), in_order);
}

#[test]
fn r16_a_whole_batch_that_fails_takes_those_that_wait_with_it() {
    for error in [StoreError::Unavailable, StoreError::Overloaded] {
        let (mut world, from, to) = pair();
        world.held.insert(Kind::Send);
        say(&mut world, from, 1..=4);
        world.fail(Kind::Send, error);
        assert_eq!(world.waiting(Kind::Send), 0);
        let expected: Vec<_> = [(1, Err(error.code()))]
            .into_iter()
            .chain(behind(2..=4))
            .collect();
        assert_eq!(answered(&mut world, from), expected);
        world.held.clear();
        say(&mut world, from, 1..=4);
        world.pump();
        assert_eq!(world.texts(to), ["1", "2", "3", "4"]);
        assert_eq!(world.shards[0].counters().sends_pending, 0);
    }
}

#[test]
fn r16_a_failure_that_becomes_known_while_a_later_refusal_is_retried_goes_first() {
    let (mut world, from, to) = pair();
    // 129 is refused at once; before it is tried again the batch before it fails at 2.
    world.held.insert(Kind::Send);
    say(&mut world, from, 1..=129);
    world.complete(Kind::Send);
    assert_eq!(answered(&mut world, from).len(), 2);
    say(&mut world, from, [129]);
    world
        .store
        .refuse_once
        .insert((alice().1, 2), StoreError::Unavailable);
    world.complete(Kind::Send);
    assert_eq!(answered(&mut world, from), refused(2..=129));
    world.held.clear();
    say(&mut world, from, 2..=129);
    world.pump();
    let in_order: Vec<String> = (1..=129).map(|n| n.to_string()).collect();
    assert_eq!(world.texts(to), in_order);
}

#[test]
fn r16_a_late_copy_of_one_number_frees_none_behind_it() {
    let (mut world, from, to) = pair();
    world.held.insert(Kind::Send);
    say(&mut world, from, [1]);
    say(&mut world, from, 2..=3);
    world.complete(Kind::Send);
    assert_eq!(answered(&mut world, from), committed([1]));
    // A copy of 2 and nothing else waits when the batch with 2 and 3 fails.
    say(&mut world, from, [2]);
    world.fail(Kind::Send, StoreError::Unavailable);
    let unavailable = Err(ErrorCode::StoreUnavailable);
    assert_eq!(
        answered(&mut world, from),
        [(2, unavailable), (3, unavailable)]
    );
    // What comes behind it is no resend: 4 may not overtake 3.
    say(&mut world, from, [4]);
    assert_eq!(answered(&mut world, from), behind([4]));
    world.held.clear();
    world.release();
    assert_eq!(answered(&mut world, from), committed([2]));
    say(&mut world, from, 3..=4);
    world.pump();
    assert_eq!(answered(&mut world, from), committed(3..=4));
    assert_eq!(world.texts(to), ["1", "2", "3", "4"]);
}

#[test]
fn r16_one_that_was_sent_again_before_its_failure_was_known_reopens() {
    let (mut world, from, to) = pair();
    world.held.insert(Kind::Send);
    say(&mut world, from, 1..=2);
    // The client does not know how the batch with 1 will end and says it all again.
    say(&mut world, from, 1..=3);
    world.fail(Kind::Send, StoreError::Unavailable);
    // The 2 from before the resend is behind the failure; 1, 2 and 3 are in order behind the resend.
    assert_eq!(answered(&mut world, from), refused(1..=2));
    world.release();
    assert_eq!(answered(&mut world, from), committed(1..=3));
    say(&mut world, from, 4..=4);
    world.pump();
    assert_eq!(answered(&mut world, from), committed(4..=4));
    assert_eq!(world.texts(to), ["1", "2", "3", "4"]);
}

#[test]
fn r16_an_answer_to_an_attempt_that_was_under_way_reopens() {
    let (mut world, from, to) = pair();
    let reserve = |until_ms| Input::MessageIdsReserved {
        from_ms: 0,
        until_ms,
    };
    world.held.insert(Kind::Send);
    say(&mut world, from, [1]);
    // A second attempt is refused while the first is with the store, which then commits it.
    world.input(ShardId(0), reserve(0));
    say(&mut world, from, [1]);
    world.input(ShardId(0), reserve(1 << 40));
    assert_eq!(answered(&mut world, from), refused([1]));
    world.release();
    assert_eq!(answered(&mut world, from), committed([1]));
    say(&mut world, from, [2]);
    world.pump();
    assert_eq!(answered(&mut world, from), committed([2]));
    assert_eq!(world.texts(to), ["1", "2"]);
}

#[test]
fn r16_a_repeat_that_fails_after_its_answer_holds_nothing_up() {
    let (mut world, from, to) = pair();
    say(&mut world, from, [1]);
    world.pump();
    // Sent again while the answer was on its way; the client will not send it a third time.
    world.held.insert(Kind::Send);
    say(&mut world, from, [1]);
    world.fail(Kind::Send, StoreError::Unavailable);
    world.held.clear();
    let expected = [(1, Ok(())), (1, Err(ErrorCode::StoreUnavailable))];
    assert_eq!(answered(&mut world, from), expected);
    say(&mut world, from, [2]);
    world.pump();
    assert_eq!(world.texts(to), ["1", "2"]);
}

#[test]
fn r16_a_repeat_that_fails_after_a_refusal_for_good_holds_nothing_up() {
    let (mut world, from, to) = pair();
    let refusal = ((alice().1, 1), StoreError::UserUnknown);
    world.store.refuse_once.insert(refusal.0, refusal.1);
    say(&mut world, from, [1]);
    world.pump();
    // A late copy: the client has its answer and will not send it a third time.
    world.held.insert(Kind::Send);
    say(&mut world, from, [1]);
    world.fail(Kind::Send, StoreError::Unavailable);
    world.held.clear();
    let expected = [
        (1, Err(ErrorCode::UserUnknown)),
        (1, Err(ErrorCode::StoreUnavailable)),
    ];
    assert_eq!(answered(&mut world, from), expected);
    say(&mut world, from, [2]);
    world.pump();
    assert_eq!(answered(&mut world, from), committed([2]));
    assert_eq!(world.texts(to), ["2"]);
}

#[test]
fn r16_what_was_refused_behind_a_failure_is_not_overtaken_when_that_is_answered() {
    let (mut world, from, to) = pair();
    let reserve = |until_ms| Input::MessageIdsReserved {
        from_ms: 0,
        until_ms,
    };
    world.held.insert(Kind::Send);
    say(&mut world, from, [1]);
    world.input(ShardId(0), reserve(0));
    say(&mut world, from, [1, 2]);
    world.input(ShardId(0), reserve(1 << 40));
    // The first attempt of 1 is answered; 2 was refused and 3 must not pass it.
    world.release();
    say(&mut world, from, [3]);
    world.pump();
    let expected = [refused([1, 2]), committed([1]), behind([3])].concat();
    assert_eq!(answered(&mut world, from), expected);
    say(&mut world, from, [2, 3]);
    world.pump();
    assert_eq!(world.texts(to), ["1", "2", "3"]);
}

#[test]
fn r16_a_lower_number_sent_again_does_not_reopen() {
    let (mut world, from, _) = pair();
    say(&mut world, from, [1]);
    world.pump();
    world
        .store
        .refuse_once
        .insert((alice().1, 2), StoreError::Unavailable);
    say(&mut world, from, [2]);
    world.pump();
    world.take_frames(from);
    say(&mut world, from, [1, 3]);
    world.pump();
    let mut got = answered(&mut world, from);
    got.sort_unstable_by_key(|(number, _)| *number);
    assert_eq!(got, [&committed([1])[..], &behind([3])[..]].concat());
}

#[test]
fn r16_a_reconnect_with_a_batch_under_way_makes_no_second_message() {
    for old_first in [false, true] {
        let mut world = World::new(2);
        let to = world.connect(bob());
        let old = world.connect_on(ShardId(0), alice(), Position::ZERO);
        world.held.insert(Kind::Send);
        say(&mut world, old, 1..=3);
        world.disconnect(old);
        let new = world.connect_on(ShardId(1), alice(), Position::ZERO);
        say(&mut world, new, 1..=3);
        if !old_first {
            world.asked.rotate_left(1);
        }
        world.release();
        assert_eq!(answered(&mut world, new), committed(1..=3));
        assert_eq!(world.texts(to), ["1", "2", "3"]);
        assert!(
            world
                .shards
                .iter()
                .all(|shard| shard.counters().sends_pending == 0)
        );
    }
}

#[test]
fn r24_nothing_is_sent_without_reserved_ids() {
    let (mut world, from, _) = pair();
    let reserve = |until_ms| Input::MessageIdsReserved {
        from_ms: 0,
        until_ms,
    };
    world.input(ShardId(0), reserve(0));
    say(&mut world, from, 1..=2);
    assert_eq!(answered(&mut world, from), refused(1..=2));
    assert_eq!(world.waiting(Kind::Send), 0);
    world.input(ShardId(0), reserve(1 << 40));
    say(&mut world, from, 1..=2);
    world.pump();
    assert_eq!(answered(&mut world, from), committed(1..=2));
}

#[test]
fn r1_the_answer_names_the_position_that_every_device_sees() {
    let mut world = World::new(3);
    let to = [device(2, 1), device(2, 2), device(1, 2)].map(|device| world.connect(device));
    let from = world.connect(alice());
    say(&mut world, from, [1]);
    world.pump();
    let frames = world.take_frames(from);
    let [Down::SendResult(result)] = &frames[..] else {
        panic!("{frames:?}");
    };
    for conn in to {
        let frames = world.take_frames(conn);
        let [Down::Deliver(deliver)] = &frames[..] else {
            panic!("{frames:?}");
        };
        assert_eq!(deliver.cursor, result.position);
        let envelope = deliver.envelope.as_ref().expect("a message");
        assert_eq!(envelope.message_id, result.message_id);
        assert_eq!((envelope.sender, envelope.number), (1, 1));
    }
}
