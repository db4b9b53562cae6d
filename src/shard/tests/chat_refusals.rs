//! A refusal that belongs to a chat: final for its number, and it holds nothing but that chat (R16, R21).

use std::time::Duration;

use roadstead_proto::v1::server_frame::Body as Down;
use roadstead_proto::{ChatId, ErrorCode, limits as wire};

use super::fake_store::Device;
use super::frames::{alice, answers, bob, chat, device, ours};
use super::world::{ConnId, Kind, World};
use crate::rate::Rate;
use crate::store::StoreError;

const BUSY: Result<(), ErrorCode> = Err(ErrorCode::ChatBusy);
const FULL: Result<(), ErrorCode> = Err(ErrorCode::RecipientFull);

fn carol() -> Device {
    device(3, 1)
}

fn with_carol() -> ChatId {
    chat(alice(), carol())
}

/// Alice, Bob and Carol.
fn three() -> (World, ConnId, ConnId, ConnId) {
    limited(None)
}

/// The same, where a user may send to another one so much.
fn limited(recipient_rate: Option<Rate>) -> (World, ConnId, ConnId, ConnId) {
    let mut world = World::with(1, |config| config.recipient_rate = recipient_rate);
    let (bob, carol) = (world.connect(bob()), world.connect(carol()));
    let from = world.connect(alice());
    (world, from, bob, carol)
}

fn answered(world: &mut World, conn: ConnId) -> Vec<(u64, Result<(), ErrorCode>)> {
    answers(&world.take_frames(conn))
}

fn refuse_once(world: &mut World, number: u64, error: StoreError) {
    world.store.refuse_once.insert((alice().1, number), error);
}

/// D-F1. Bob's only device is suspended and stays away. Whatever Alice does with what she wrote to him, what
/// she writes to Carol arrives, and no later session changes that.
#[test]
fn df1_r16_a_full_recipient_does_not_stop_what_goes_to_others() {
    let (mut world, mut from, _, to_carol) = three();
    world.store.suspend(bob());
    let mut texts = Vec::new();
    for round in 0..4 {
        let first = round * 3 + 1;
        world.send(from, first, ours(), "to a full inbox");
        world.send(from, first + 1, with_carol(), &round.to_string());
        world.pump();
        assert_eq!(
            answered(&mut world, from),
            [(first, FULL), (first + 1, Ok(()))]
        );
        // A client that tries the same number again hears the same and holds nobody up either.
        world.send(from, first, ours(), "to a full inbox");
        world.send(from, first + 2, with_carol(), &round.to_string());
        world.pump();
        assert_eq!(
            answered(&mut world, from),
            [(first, FULL), (first + 2, Ok(()))]
        );
        texts.extend([round.to_string(), round.to_string()]);
        world.disconnect(from);
        from = world.connect(alice());
    }
    assert_eq!(world.texts(to_carol), texts);
}

/// D-F1, the same of a record that can not be read.
#[test]
fn df1_r16_a_damaged_record_of_one_recipient_stops_nothing_else() {
    let (mut world, from, _, to_carol) = three();
    refuse_once(&mut world, 1, StoreError::RecordDamaged);
    world.send(from, 1, ours(), "lost");
    world.send(from, 2, with_carol(), "arrives");
    world.send(from, 3, ours(), "arrives, too: waiting mends nothing");
    world.pump();
    let damaged = Err(ErrorCode::RecordDamaged);
    assert_eq!(
        answered(&mut world, from),
        [(1, damaged), (2, Ok(())), (3, Ok(()))]
    );
    assert_eq!(world.texts(to_carol), ["arrives"]);
}

#[test]
fn df1_p39_what_waits_behind_a_failure_has_a_code_of_its_own() {
    let (mut world, from, _, _) = three();
    refuse_once(&mut world, 1, StoreError::Unavailable);
    world.send(from, 1, ours(), "1");
    world.send(from, 2, with_carol(), "2");
    world.pump();
    world.send(from, 3, with_carol(), "3");
    let behind = Err(ErrorCode::EarlierRefused);
    let unavailable = Err(ErrorCode::StoreUnavailable);
    assert_eq!(
        answered(&mut world, from),
        [(1, unavailable), (2, behind), (3, behind)]
    );
}

/// CHAT_BUSY must not turn the order round: a bucket of one, seven sends in one packet, two sessions.
#[test]
fn df1_r16_what_was_sent_before_a_refusal_was_known_does_not_overtake_it() {
    let (mut world, from, to, to_carol) = limited(Rate::new(1, 1));
    for number in 1..=5 {
        world.send(from, number, ours(), &number.to_string());
    }
    world.send(from, 6, with_carol(), "6");
    world.pump();
    // The bucket has a token again before the client has heard of anything.
    world.advance(Duration::from_secs(2));
    world.send(from, 7, ours(), "7");
    world.pump();
    let mut got = answered(&mut world, from);
    got.sort_unstable_by_key(|(number, _)| *number);
    let busy = |number| (number, BUSY);
    let expected = [
        vec![(1, Ok(()))],
        (2..=5).map(busy).collect(),
        vec![(6, Ok(())), busy(7)],
    ];
    assert_eq!(got, expected.concat());
    // Another session, whose client has not heard of the last refusal: the answer is kept.
    world.disconnect(from);
    let from = world.connect(alice());
    world.send(from, 7, ours(), "7");
    world.pump();
    assert_eq!(answered(&mut world, from), [(7, BUSY)]);
    // What was refused goes out again, in its order, under new numbers and in the knowledge of all that.
    for (number, text) in (8..).zip(2..=5) {
        world.advance(Duration::from_secs(1));
        world.send_after(from, number, 7, ours(), &text.to_string());
        world.pump();
        assert_eq!(answered(&mut world, from), [(number, Ok(()))]);
    }
    assert_eq!(world.texts(to), ["1", "2", "3", "4", "5"]);
    assert_eq!(world.texts(to_carol), ["6"]);
    assert_eq!(world.shards[0].counters().sends_chat_busy, 1, "one bucket");
}

#[test]
fn df6_r21_a_user_may_send_so_much_to_one_other_and_is_told_when_it_may_again() {
    let (mut world, from, to, _) = limited(Rate::new(1, 3));
    for number in 1..=4 {
        world.send(from, number, ours(), &number.to_string());
    }
    world.pump();
    let frames = world.take_frames(from);
    let error = frames.iter().find_map(|frame| match frame {
        Down::Error(error) => Some(error),
        _ => None,
    });
    let error = error.expect("the fourth is refused");
    assert_eq!((error.number, error.code()), (4, ErrorCode::ChatBusy));
    assert!(!error.retryable, "final for its number");
    assert_eq!(error.retry_after_ms, 1_000);
    world.advance(Duration::from_millis(error.retry_after_ms.into()));
    world.send_after(from, 5, 4, ours(), "4");
    world.pump();
    assert_eq!(answered(&mut world, from), [(5, Ok(()))]);
    assert_eq!(world.texts(to), ["1", "2", "3", "4"]);
}

#[test]
fn r12_a_number_that_was_committed_keeps_its_answer_when_its_chat_is_busy() {
    let (mut world, from, to, _) = limited(Rate::new(1, 1));
    world.send(from, 1, ours(), "1");
    world.pump();
    world.send(from, 1, ours(), "1");
    world.pump();
    assert_eq!(answered(&mut world, from), [(1, Ok(())), (1, Ok(()))]);
    assert_eq!(world.texts(to), ["1"]);
    // Nothing was refused, so nothing is refused alike.
    world.advance(Duration::from_secs(2));
    world.send(from, 2, ours(), "2");
    world.pump();
    assert_eq!(answered(&mut world, from), [(2, Ok(()))]);
}

#[test]
fn df1_r16_what_waits_in_the_shard_is_refused_with_what_the_store_refused() {
    let (mut world, from, _, to_carol) = three();
    world.held.insert(Kind::Send);
    refuse_once(&mut world, 1, StoreError::RecipientFull);
    world.send(from, 1, ours(), "1");
    world.send(from, 2, ours(), "2");
    world.send(from, 3, with_carol(), "3");
    world.complete(Kind::Send);
    world.complete(Kind::Send);
    assert_eq!(
        answered(&mut world, from),
        [(1, FULL), (2, FULL), (3, Ok(()))]
    );
    assert_eq!(world.texts(to_carol), ["3"]);
}

/// A client of the first version does not say what it knows.
#[test]
fn df1_r16_a_client_that_never_says_what_it_knows_is_heard_in_the_end() {
    let (mut world, from, to, _) = three();
    refuse_once(&mut world, 1, StoreError::RecipientFull);
    world.send(from, 1, ours(), "1");
    world.pump();
    // What is sent before the refusal is known may come in late: an outage of the store leaves it unread (R26).
    world.advance(Duration::from_secs(3_600));
    world.send(from, 2, ours(), "2");
    world.pump();
    assert_eq!(answered(&mut world, from), [(1, FULL), (2, FULL)]);
    // 512 above the refused number, nothing is on its way that was sent before that was known (P37).
    let unaware = 2 * wire::SEND_ANSWERS_KEPT;
    world.send(from, unaware, ours(), "not yet");
    world.pump();
    assert_eq!(answered(&mut world, from), [(unaware, FULL)]);
    world.send(from, unaware + 1, ours(), "heard");
    world.pump();
    assert_eq!(answered(&mut world, from), [(unaware + 1, Ok(()))]);
    assert_eq!(world.texts(to), ["heard"]);
    // Or in its next session.
    refuse_once(&mut world, unaware + 2, StoreError::RecipientFull);
    world.send(from, unaware + 2, ours(), "no");
    world.pump();
    world.disconnect(from);
    let from = world.connect(alice());
    world.send(from, unaware + 3, ours(), "yes");
    world.pump();
    assert_eq!(answered(&mut world, from), [(unaware + 3, Ok(()))]);
}
