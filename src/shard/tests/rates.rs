//! The rate of a user's sends: what is above it is refused for now, and nothing else changes (R12, R16, R26).

use std::time::Duration;

use roadstead_proto::v1::server_frame::Body as Down;
use roadstead_proto::{ErrorCode, Position};

use super::fake_store::Device;
use super::frames::{alice, answers, bob, chat, device, ours};
use super::world::{ConnId, Kind, World};
use crate::rate::Rate;

/// From one token to the next at the rate of [`limited`].
const TOKEN: Duration = Duration::from_secs(1);

fn tablet() -> Device {
    device(1, 2)
}

/// Alice's phone and Bob's, where a user may send one message a second and three at once.
fn limited() -> (World, ConnId, ConnId) {
    let mut world = World::with(1, |config| config.send_rate = Rate::new(1, 3));
    let to = world.connect(bob());
    let from = world.connect(alice());
    (world, from, to)
}

fn say(world: &mut World, from: ConnId, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        world.send(from, number, ours(), &number.to_string());
    }
    world.pump();
}

fn answered(world: &mut World, conn: ConnId) -> Vec<(u64, Result<(), ErrorCode>)> {
    answers(&world.take_frames(conn))
}

const LIMITED: Result<(), ErrorCode> = Err(ErrorCode::RateLimited);
const BEHIND: Result<(), ErrorCode> = Err(ErrorCode::EarlierRefused);

#[test]
fn r26_a_send_above_the_rate_is_refused_for_now_and_not_executed() {
    let (mut world, from, to) = limited();
    say(&mut world, from, 1..=5);
    let frames = world.take_frames(from);
    let expected = [
        (4, LIMITED),
        (5, BEHIND),
        (1, Ok(())),
        (2, Ok(())),
        (3, Ok(())),
    ];
    assert_eq!(answers(&frames), expected);
    let Down::Error(error) = &frames[0] else {
        panic!("{frames:?}");
    };
    assert!(error.retryable);
    assert_eq!(u128::from(error.retry_after_ms), TOKEN.as_millis());
    assert_eq!(world.texts(to), ["1", "2", "3"]);
    let counters = world.shards[0].counters();
    assert_eq!(
        (counters.sends_rate_limited, counters.sends_refused),
        (1, 2)
    );
}

/// Seed 796048452412 of the simulator.
#[test]
fn r16_an_earlier_attempt_that_waits_frees_nothing_behind_a_refused_copy() {
    let (mut world, from, to) = limited();
    world.held.insert(Kind::Send);
    say(&mut world, from, 1..=3);
    // 1 is with the store, 2 and 3 wait. The client says it all again from 2, and one more, above its rate.
    say(&mut world, from, 2..=4);
    let refused = [(2, LIMITED), (3, BEHIND), (4, BEHIND)];
    assert_eq!(answered(&mut world, from), refused);
    world.held.clear();
    world.release();
    let committed = [(1, Ok(())), (2, Ok(())), (3, Ok(()))];
    assert_eq!(answered(&mut world, from), committed);
    // There are tokens again, and the rest of what the client was saying arrives: 4 comes first.
    world.advance(3 * TOKEN);
    say(&mut world, from, [5]);
    assert_eq!(answered(&mut world, from), [(5, BEHIND)]);
    say(&mut world, from, 4..=5);
    assert_eq!(answered(&mut world, from), [(4, Ok(())), (5, Ok(()))]);
    assert_eq!(world.texts(to), ["1", "2", "3", "4", "5"]);
}

#[test]
fn r16_what_was_refused_comes_through_in_order_at_the_rate() {
    let (mut world, from, to) = limited();
    say(&mut world, from, 1..=6);
    world.take_frames(from);
    world.advance(3 * TOKEN);
    // There are tokens again, and nothing overtakes the number that was refused.
    say(&mut world, from, [5, 6]);
    assert_eq!(answered(&mut world, from), [(5, BEHIND), (6, BEHIND)]);
    say(&mut world, from, 4..=6);
    let committed = [(4, Ok(())), (5, Ok(())), (6, Ok(()))];
    assert_eq!(answered(&mut world, from), committed);
    assert_eq!(world.texts(to), ["1", "2", "3", "4", "5", "6"]);
}

#[test]
fn r12_a_refusal_does_not_spend_the_number() {
    let (mut world, from, to) = limited();
    say(&mut world, from, 1..=4);
    world.take_frames(from);
    world.advance(TOKEN);
    // Not what a client does, and proof that the server has kept nothing of the first attempt.
    world.send(from, 4, ours(), "another message");
    world.pump();
    assert_eq!(answered(&mut world, from), [(4, Ok(()))]);
    assert_eq!(world.texts(to), ["1", "2", "3", "another message"]);
}

#[test]
fn r12_a_number_sent_again_counts_like_the_first_time() {
    let (mut world, from, _) = limited();
    say(&mut world, from, [1, 1, 1, 1]);
    let expected = [(1, LIMITED), (1, Ok(())), (1, Ok(())), (1, Ok(()))];
    assert_eq!(answered(&mut world, from), expected);
    assert_eq!(world.shards[0].counters().sends_committed, 1);
}

#[test]
fn refusals_for_other_reasons_cost_no_token() {
    let (mut world, from, _) = limited();
    for number in 1..=5 {
        world.send(from, number, chat(bob(), bob()), "not her chat");
    }
    world.take_frames(from);
    say(&mut world, from, 6..=8);
    assert_eq!(answered(&mut world, from).len(), 3);
    assert_eq!(world.shards[0].counters().sends_rate_limited, 0);
}

#[test]
fn the_devices_of_a_user_share_its_rate_and_a_new_session_does_not_renew_it() {
    let (mut world, from, to) = limited();
    let second = world.connect(tablet());
    say(&mut world, from, 1..=2);
    say(&mut world, second, 1..=2);
    world.disconnect(from);
    let again = world.connect(alice());
    say(&mut world, again, [3]);
    let mut got = answered(&mut world, second);
    got.retain(|(_, answer)| answer.is_err());
    assert_eq!(got, [(2, LIMITED)]);
    assert_eq!(answered(&mut world, again)[0], (3, LIMITED));
    // It is Alice's limit and nobody else's.
    say(&mut world, to, 1..=3);
    let got = answered(&mut world, to);
    assert!(got.iter().all(|(_, answer)| answer.is_ok()), "{got:?}");
}

#[test]
fn a_user_at_its_limit_is_silent_and_owns_nothing() {
    let (mut world, from, to) = limited();
    say(&mut world, from, 1..=4);
    world.take_frames(from);
    world.advance(TOKEN);
    say(&mut world, from, [4]);
    let last = world.delivered(to).last().expect("four messages").1;
    world.ack(to, last);
    world.advance(60 * TOKEN);
    // The receipt.
    let cursors = world.take_frames(from);
    let cursor = cursors.iter().filter_map(super::frames::cursor_of).max();
    world.ack(from, cursor.unwrap_or(Position::ZERO));
    world.advance(60 * TOKEN);
    world.assert_quiet();
}
