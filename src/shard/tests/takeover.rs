//! R13: of two sessions of a device one serves it, and correctness never depends on that.

use std::time::Duration;

use roadstead_proto::{ErrorCode, Position};

use super::frames::{alice, bob, chat, hello, shard_id};
use super::world::{ConnId, Kind, World};
use crate::io::Input;
use crate::peer::{Holder, ShardMessage};
use crate::placement::ShardId;

/// Opens a session of Bob with a connect counter of the test's choice.
fn bob_with(world: &mut World, shard: ShardId, counter: u64) -> ConnId {
    let conn = world.open(shard);
    world.frame(conn, hello(bob(), counter, Position::ZERO));
    world.pump();
    conn
}

fn alice_says(world: &mut World, from: ConnId, number: u64) {
    world.send(from, number, chat(alice(), bob()), &number.to_string());
    world.pump();
}

#[test]
fn r13_the_higher_counter_takes_over_wherever_both_are() {
    for first in 0..3 {
        for second in 0..3 {
            let mut world = World::new(3);
            let from = world.connect(alice());
            let old = bob_with(&mut world, shard_id(first), 5);
            let new = bob_with(&mut world, shard_id(second), 6);
            assert_eq!(world.close_code(old), Some(ErrorCode::SessionReplaced));
            assert_eq!(world.close_code(new), None);
            world.disconnect(old);
            world.pump();
            alice_says(&mut world, from, 1);
            assert_eq!(world.texts(new), ["1"], "{first} {second}");
        }
    }
}

#[test]
fn r13_a_lower_counter_is_turned_away() {
    let mut world = World::new(3);
    let from = world.connect(alice());
    let new = bob_with(&mut world, ShardId(0), 6);
    let stale = bob_with(&mut world, ShardId(1), 5);
    assert_eq!(world.close_code(stale), Some(ErrorCode::SessionReplaced));
    assert_eq!(world.take_frames(stale).len(), 1, "no Welcome");
    world.disconnect(stale);
    world.pump();
    world.take_frames(new);
    alice_says(&mut world, from, 1);
    assert_eq!(world.texts(new), ["1"], "its end unregistered nobody else");
}

#[test]
fn r13_of_equal_counters_the_newcomer_wins() {
    let mut world = World::new(2);
    let old = bob_with(&mut world, ShardId(0), 5);
    let new = bob_with(&mut world, ShardId(1), 5);
    assert_eq!(world.close_code(old), Some(ErrorCode::SessionReplaced));
    assert_eq!(world.close_code(new), None);
}

#[test]
fn df26_r13_of_equal_counters_the_later_opening_wins_in_whatever_order_they_register() {
    for turned in [false, true] {
        let mut world = World::new(3);
        let from = world.connect(alice());
        world.disconnect(from);
        let home = world.placement.home(bob().0);
        let away = |n| shard_id((usize::from(home.0) + n) % 3);
        world.hold_messages = true;
        let early = bob_with(&mut world, away(1), 5);
        let one = std::mem::take(&mut world.passing);
        // Something is committed between the two.
        world.hold_messages = false;
        let from = world.connect(alice());
        alice_says(&mut world, from, 1);
        world.hold_messages = true;
        let late = bob_with(&mut world, away(2), 5);
        let other = std::mem::take(&mut world.passing);
        world.hold_messages = false;
        for registers in if turned { [other, one] } else { [one, other] } {
            world.passing.extend(registers);
            world.pump();
        }
        assert_eq!(world.close_code(early), Some(ErrorCode::SessionReplaced));
        assert_eq!(world.close_code(late), None, "{turned}");
    }
}

#[test]
fn r13_a_late_unregister_removes_nobody_else() {
    let mut world = World::new(3);
    let from = world.connect(alice());
    let home = world.placement.home(bob().0);
    let away = shard_id((usize::from(home.0) + 1) % 3);
    let old = bob_with(&mut world, away, 1);
    world.hold_messages = true;
    world.disconnect(old);
    let new = bob_with(&mut world, home, 2);
    // Replaced and Unregister of the old one cross.
    world.release();
    world.take_frames(new);
    alice_says(&mut world, from, 1);
    assert_eq!(world.texts(new), ["1"]);
    assert_eq!(world.close_code(new), None);
}

#[test]
fn r13_words_for_a_session_that_is_gone_do_not_reach_its_successor_in_the_slot() {
    let mut world = World::new(2);
    let home = world.placement.home(bob().0);
    let away = shard_id(1 - usize::from(home.0));
    let old = bob_with(&mut world, away, 1);
    let session = world.conns[old].session;
    world.disconnect(old);
    world.pump();
    let other = world.greet(away, alice(), Position::ZERO);
    assert_eq!(world.conns[other].session.index, session.index);
    for message in [
        ShardMessage::Registered(session),
        ShardMessage::Replaced(session),
    ] {
        world.input(away, Input::Shard(home, message));
        world.pump();
    }
    assert_eq!(world.close_code(other), None);
    assert_eq!(world.take_frames(other).len(), 1, "one Welcome");
    // A home that answers twice does not welcome twice.
    let again = ShardMessage::Registered(world.conns[other].session);
    world.input(away, Input::Shard(home, again));
    assert_eq!(world.take_frames(other), []);
}

#[test]
fn r13_a_takeover_during_the_opening_leaves_one_session() {
    let mut world = World::new(3);
    let home = world.placement.home(bob().0);
    let away = shard_id((usize::from(home.0) + 1) % 3);
    world.hold_messages = true;
    let first = bob_with(&mut world, away, 1);
    world.hold_messages = false;
    // The first one's Register is still under way when the second registers at home.
    let registers = std::mem::take(&mut world.passing);
    let second = bob_with(&mut world, home, 2);
    world.passing = registers;
    world.pump();
    assert_eq!(world.close_code(first), Some(ErrorCode::SessionReplaced));
    assert_eq!(world.close_code(second), None);
    let holder = Holder {
        shard: home,
        session: world.conns[second].session,
    };
    let directory = &world.shards[usize::from(home.0)].directory;
    assert_eq!(directory.holder(bob().0, bob().1), Some(holder));
}

#[test]
fn r18_a_takeover_flushes_what_the_old_session_acknowledged() {
    let mut world = World::new(3);
    let from = world.connect(alice());
    let old = bob_with(&mut world, ShardId(0), 1);
    world.take_frames(old);
    for number in 1..=3 {
        alice_says(&mut world, from, number);
    }
    let cursors: Vec<Position> = world
        .delivered(old)
        .iter()
        .map(|(_, cursor)| *cursor)
        .collect();
    world.ack(old, cursors[0]);
    world.ack(old, cursors[1]);
    world.pump();
    let new = world.open(ShardId(1));
    world.frame(new, hello(bob(), 2, cursors[1]));
    world.pump();
    assert_eq!(world.store.device(bob()).stored_ack, cursors[1]);
    world.take_frames(new).remove(0);
    world.ack(new, cursors[2]);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.store.device(bob()).inbox.len(), 0);
}

#[test]
fn two_sessions_that_both_believe_to_serve_lose_nothing() {
    // The Replaced is under way for long: both read, both acknowledge, in any order of flushes.
    for new_first in [false, true] {
        let mut world = World::new(2);
        let from = world.connect(alice());
        let home = world.placement.home(bob().0);
        let away = shard_id(1 - usize::from(home.0));
        let old = bob_with(&mut world, away, 1);
        world.take_frames(old);
        for number in 1..=4 {
            alice_says(&mut world, from, number);
        }
        let cursors: Vec<Position> = world.delivered(old).iter().map(|(_, c)| *c).collect();
        world.hold_messages = true;
        let new = bob_with(&mut world, home, 2);
        assert_eq!(world.texts(new).len(), 4);
        world.held.insert(Kind::Flush);
        world.ack(old, cursors[2]);
        world.ack(new, cursors[1]);
        if new_first {
            world.asked.rotate_left(1);
        }
        world.release();
        world.ack(new, cursors[3]);
        world.advance(Duration::from_secs(1));
        assert_eq!(world.store.device(bob()).inbox.len(), 0);
        assert_eq!(world.close_code(old), Some(ErrorCode::SessionReplaced));
        let marks = world.store.receipts[&(chat(alice(), bob()), bob().0)];
        assert_eq!(marks.0, cursors[3]);
    }
}
