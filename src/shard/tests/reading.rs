//! Register, read, deliver: R3, R4, R5, R7.

use std::time::Duration;

use roadstead_proto::Position;
use roadstead_proto::v1::server_frame::Body as Down;

use super::frames::{alice, bob, chat, cursor_of, device, shard_id, text_of};
use super::world::{ConnId, Kind, World};
use crate::io::Input;
use crate::limits;
use crate::peer::ShardMessage;
use crate::placement::ShardId;
use crate::store::StoreError;

/// Alice and Bob, each on one shard of three, Bob away from his home.
fn pair(world: &mut World) -> (ConnId, ConnId, ShardId) {
    let home = world.placement.home(bob().0);
    let away = shard_id((usize::from(home.0) + 1) % world.shards.len());
    let to = world.connect_on(away, bob(), Position::ZERO);
    let from = world.connect(alice());
    (from, to, away)
}

fn say(world: &mut World, from: ConnId, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        world.send(from, number, chat(alice(), bob()), &number.to_string());
        world.pump();
    }
}

#[test]
fn r4_a_notify_with_proof_is_delivered_without_a_read() {
    let mut world = World::new(3);
    let (from, to, away) = pair(&mut world);
    let reads = world.made[&Kind::Read];
    say(&mut world, from, 1..=5);
    assert_eq!(world.texts(to), ["1", "2", "3", "4", "5"]);
    assert_eq!(world.made[&Kind::Read], reads);
    let counters = world.shards[usize::from(away.0)].counters();
    assert_eq!(
        (counters.delivered, counters.delivered_without_read),
        (5, 5)
    );
}

#[test]
fn r15_a_commit_of_unknown_outcome_is_read_after_the_store_was_reopened() {
    let mut world = World::new(3);
    let (from, to, away) = pair(&mut world);
    world.held.insert(Kind::Send);
    world.send(from, 1, chat(alice(), bob()), "1");
    world.pump();
    // Durable, answered as unknown; the retry finds its answer and names no inbox.
    world.lose_answer(Kind::Send);
    world.held.clear();
    world.send(from, 1, chat(alice(), bob()), "1");
    world.pump();
    assert!(world.texts(to).is_empty(), "nobody told this session");
    world.input(away, Input::StoreReopened);
    world.advance(limits::REREAD_EVERY);
    assert_eq!(world.texts(to), ["1"]);
}

#[test]
fn r4_a_notify_without_proof_causes_a_read() {
    let mut world = World::new(3);
    world.store.knows_previous = false;
    let (from, to, _) = pair(&mut world);
    let reads = world.made[&Kind::Read];
    say(&mut world, from, 1..=3);
    assert_eq!(world.texts(to), ["1", "2", "3"]);
    assert_eq!(world.made[&Kind::Read], reads + 3);
}

#[test]
fn r4_notifies_out_of_order_leave_no_gap_and_repeat_nothing() {
    // Every order of three notifies.
    for order in [
        [0, 0, 0],
        [0, 1, 0],
        [1, 0, 0],
        [1, 1, 0],
        [2, 0, 0],
        [2, 1, 0],
    ] {
        for hold_reads in [false, true] {
            let mut world = World::new(3);
            let (from, to, _) = pair(&mut world);
            world.hold_messages = true;
            say(&mut world, from, 1..=3);
            // Alice may be away from Bob's home or on it: gather the three at his session's door.
            let notifies = notifies_of(&mut world, 3);
            let mut notifies = notifies.into_iter().collect::<Vec<_>>();
            if hold_reads {
                world.held.insert(Kind::Read);
            }
            for index in order {
                let (shard, message) = notifies.remove(index);
                world.input(shard, Input::Shard(ShardId(0), message));
                world.pump();
            }
            world.release();
            assert_eq!(world.texts(to), ["1", "2", "3"], "{order:?} {hold_reads}");
        }
    }
}

/// Passes messages on until `count` notifies wait, and takes those out.
fn notifies_of(world: &mut World, count: usize) -> Vec<(ShardId, ShardMessage)> {
    let mut notifies = Vec::new();
    while notifies.len() < count {
        let is_notify = matches!(world.passing[0].message, ShardMessage::Notify(..));
        if is_notify {
            let passing = world.passing.pop_front().expect("looked at");
            notifies.push((passing.to, passing.message));
        } else {
            world.pass(0);
            world.pump();
        }
    }
    notifies
}

#[test]
fn r4_a_lost_notify_is_made_good_by_the_next() {
    let mut world = World::new(3);
    let (from, to, _) = pair(&mut world);
    world.hold_messages = true;
    say(&mut world, from, 1..=2);
    let mut notifies = notifies_of(&mut world, 2);
    let (shard, second) = notifies.pop().expect("two");
    world.input(shard, Input::Shard(ShardId(0), second));
    world.release();
    assert_eq!(world.texts(to), ["1", "2"]);
}

#[test]
fn r4_a_notify_that_comes_twice_is_delivered_once() {
    let mut world = World::new(3);
    let (from, to, _) = pair(&mut world);
    world.hold_messages = true;
    say(&mut world, from, 1..=1);
    let (shard, message) = notifies_of(&mut world, 1).remove(0);
    for _ in 0..3 {
        world.input(shard, Input::Shard(ShardId(0), message.clone()));
    }
    world.release();
    assert_eq!(world.texts(to), ["1"]);
}

#[test]
fn r5_the_read_starts_after_the_home_has_answered() {
    let mut world = World::new(3);
    world.connect(bob());
    let from = world.connect(alice());
    let bob_again = device(2, 2);
    let away = shard_id((usize::from(world.placement.home(bob_again.0).0) + 1) % 3);
    world.hold_messages = true;
    world.held.insert(Kind::Read);
    let to = world.greet(away, bob_again, Position::ZERO);
    world.pump();
    assert_eq!(world.waiting(Kind::Read), 0, "Register is under way");
    // Committed while nobody is registered: no notify, so the read has to find it.
    say(&mut world, from, 1..=1);
    world.hold_messages = false;
    world.pump();
    assert_eq!(world.waiting(Kind::Read), 1);
    world.release();
    assert_eq!(world.texts(to), ["1"]);
}

#[test]
fn r5_a_notify_during_a_read_causes_one_more_however_many_come() {
    for knows_previous in [false, true] {
        let mut world = World::new(3);
        world.store.knows_previous = knows_previous;
        let from = world.connect(alice());
        world.held.insert(Kind::Read);
        let home = world.placement.home(bob().0);
        let to = world.greet(home, bob(), Position::ZERO);
        world.pump();
        // The read is carried out before anything is sent, and answered after.
        let asked = world.take(Kind::Read);
        let old_answer = world.execute(asked);
        say(&mut world, from, 1..=9);
        assert_eq!(world.waiting(Kind::Read), 0, "one read at a time");
        world.answer(old_answer);
        assert_eq!(
            world.waiting(Kind::Read),
            1,
            "R7: nine notifies are one bit"
        );
        world.release();
        assert_eq!(
            world.texts(to),
            (1..=9).map(|n| n.to_string()).collect::<Vec<_>>()
        );
        assert!(!world.session(to).dirty);
    }
}

#[test]
fn a_read_whose_page_already_holds_what_a_late_notify_names_repeats_nothing() {
    let mut world = World::new(3);
    let (from, to, _) = pair(&mut world);
    world.hold_messages = true;
    say(&mut world, from, 1..=2);
    let mut notifies = notifies_of(&mut world, 2);
    world.hold_messages = false;
    // The second comes first and makes a read that finds both; then the first comes.
    let (shard, second) = notifies.pop().expect("two");
    world.input(shard, Input::Shard(ShardId(0), second));
    world.pump();
    let reads = world.made[&Kind::Read];
    let (shard, first) = notifies.pop().expect("two");
    world.input(shard, Input::Shard(ShardId(0), first));
    world.pump();
    assert_eq!(world.texts(to), ["1", "2"]);
    assert_eq!(world.made[&Kind::Read], reads);
}

#[test]
fn offline_messages_come_in_order_page_by_page() {
    let mut world = World::new(2);
    let to = world.connect(bob());
    world.disconnect(to);
    let from = world.connect(alice());
    let count = 2 * limits::DELIVER_WINDOW_ENTRIES_MAX as u64 + 10;
    say(&mut world, from, 1..=count);
    let to = world.connect(bob());
    let mut all = Vec::new();
    loop {
        let delivered = world.delivered(to);
        let Some((_, cursor)) = delivered.last() else {
            break;
        };
        assert!(delivered.len() <= limits::DELIVER_WINDOW_ENTRIES_MAX);
        let cursor = *cursor;
        all.extend(delivered.into_iter().map(|(text, _)| text));
        world.ack(to, cursor);
        world.pump();
    }
    assert_eq!(all, (1..=count).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn r4_every_device_but_the_sending_one_gets_a_message() {
    let mut world = World::new(3);
    let conns = [device(1, 1), device(1, 2), device(2, 1), device(2, 2)].map(|d| world.connect(d));
    say(&mut world, conns[0], 1..=2);
    for conn in &conns[1..] {
        assert_eq!(world.texts(*conn), ["1", "2"]);
    }
    let frames = world.take_frames(conns[0]);
    assert!(frames.iter().all(|frame| text_of(frame).is_none()));
}

#[test]
fn a_failed_read_is_tried_again_with_growing_waits() {
    let mut world = World::new(1);
    world.store.knows_previous = false;
    let (from, to) = (world.connect(alice()), world.connect(bob()));
    world.held.insert(Kind::Read);
    say(&mut world, from, 1..=1);
    let mut wait = limits::STORE_RETRY;
    for _ in 0..8 {
        world.fail(Kind::Read, StoreError::Unavailable);
        assert_eq!(world.waiting(Kind::Read), 0);
        world.advance(wait - Duration::from_micros(1));
        assert_eq!(world.waiting(Kind::Read), 0, "not before {wait:?}");
        // A notify in between does not shorten the wait.
        world.advance(Duration::from_micros(1));
        assert_eq!(world.waiting(Kind::Read), 1);
        wait = (wait * 2).min(limits::STORE_RETRY_MAX);
    }
    world.complete(Kind::Read);
    assert_eq!(world.texts(to), ["1"]);
}

#[test]
fn a_notify_does_not_hurry_a_read_that_failed() {
    let mut world = World::new(1);
    let (from, to) = (world.connect(alice()), world.connect(bob()));
    world.store.knows_previous = false;
    world.held.insert(Kind::Read);
    say(&mut world, from, 1..=1);
    world.fail(Kind::Read, StoreError::Overloaded);
    world.store.knows_previous = true;
    say(&mut world, from, 2..=3);
    assert_eq!(world.waiting(Kind::Read), 0);
    assert_eq!(world.texts(to), <[String; 0]>::default());
    world.held.clear();
    world.advance(limits::STORE_RETRY);
    assert_eq!(world.texts(to), ["1", "2", "3"]);
}

#[test]
fn a_read_that_can_never_succeed_ends_the_session() {
    let mut world = World::new(1);
    world.held.insert(Kind::Read);
    let conn = world.connect(alice());
    world.fail(Kind::Read, StoreError::DeviceRemoved);
    assert_eq!(
        world.close_code(conn),
        Some(roadstead_proto::ErrorCode::DeviceRemoved)
    );
}

#[test]
fn r3_a_hello_of_another_generation_acknowledges_nothing() {
    let mut world = World::new(2);
    let (from, to) = (world.connect(alice()), world.connect(bob()));
    say(&mut world, from, 1..=3);
    let delivered = world.delivered(to);
    world.ack(to, delivered[0].1);
    world.pump();
    world.disconnect(to);
    world.store.generation = 2;
    for cursor in [delivered[2].1, Position::new(7, [0; 10], 0)] {
        let to = world.connect_from(bob(), cursor);
        assert!(world.welcome(to).resync);
        assert_eq!(
            world.texts(to),
            ["2", "3"],
            "from the stored acknowledgement"
        );
        assert_eq!(world.store.device(bob()).stored_ack, delivered[0].1);
        world.disconnect(to);
    }
    // A cursor of this generation is as good as ever, and so are the entries kept from the old one.
    say(&mut world, from, 4..=4);
    let to = world.connect(bob());
    let delivered = world.delivered(to);
    assert_eq!(delivered.len(), 3);
    world.ack(to, delivered[1].1);
    world.pump();
    assert_eq!(world.store.device(bob()).stored_ack, delivered[1].1);
    world.ack(to, delivered[2].1);
    world.advance(limits::FLUSH_DELAY);
    assert_eq!(world.store.device(bob()).inbox.len(), 0);
}

#[test]
fn r3_an_ack_of_another_generation_acknowledges_nothing_and_harms_nobody() {
    let old = Position::new(1, [7; 10], 0);
    for has_deliveries in [true, false] {
        let mut world = World::new(2);
        world.store.generation = 2;
        let from = world.connect(alice());
        let to = world.connect(bob());
        if has_deliveries {
            say(&mut world, from, 1..=1);
        }
        // Late words about what the device had before the store was restored, and after a switch back.
        for cursor in [old, Position::new(3, [7; 10], 0)] {
            world.ack(to, cursor);
            world.pump();
            assert_eq!(world.close_code(to), None, "{cursor:?}");
        }
        assert_eq!(world.store.device(bob()).stored_ack, Position::ZERO);
        assert_eq!(world.texts(to).len(), usize::from(has_deliveries));
        say(&mut world, from, 2..=2);
        assert_eq!(world.texts(to), ["2"]);
    }
}

#[test]
fn an_expired_part_is_told_as_a_gap_that_can_be_acknowledged() {
    let mut world = World::new(2);
    let (from, to) = (world.connect(alice()), world.connect(bob()));
    world.disconnect(to);
    say(&mut world, from, 1..=3);
    let cursors: Vec<Position> = world.store.device(bob()).inbox.keys().copied().collect();
    world.store.expire(bob(), cursors[1]);
    let to = world.connect(bob());
    let frames = world.take_frames(to);
    assert!(matches!(&frames[0], Down::Gap(gap) if gap.cursor == cursors[1].as_bytes()[..]));
    assert_eq!(text_of(&frames[1]).as_deref(), Some("3"));
    // A client stores the gap and says so, perhaps before it has stored the next entry.
    world.ack(to, cursor_of(&frames[0]).expect("a gap"));
    world.pump();
    assert_eq!(world.close_code(to), None);
    assert_eq!(world.store.device(bob()).stored_ack, cursors[1]);
    world.ack(to, cursors[2]);
    world.advance(limits::FLUSH_DELAY);
    assert_eq!(world.store.device(bob()).stored_ack, cursors[2]);
}

#[test]
fn a_gap_at_the_end_of_an_inbox_can_be_acknowledged() {
    let mut world = World::new(2);
    let (from, to) = (world.connect(alice()), world.connect(bob()));
    world.disconnect(to);
    say(&mut world, from, 1..=1);
    let end = world.store.committed_through();
    world.store.expire(bob(), end);
    let to = world.connect(bob());
    world.ack(to, end);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.close_code(to), None);
    assert_eq!(world.store.device(bob()).stored_ack, end);
    say(&mut world, from, 2..=2);
    assert_eq!(world.texts(to), ["2"]);
}

#[test]
fn what_a_session_waits_for_is_timed_and_what_waited_for_it_is_not() {
    let mut world = World::new(1);
    let from = world.connect(alice());
    let away = world.connect(bob());
    world.disconnect(away);
    say(&mut world, from, 1..=3);
    world.advance(Duration::from_secs(3_600));
    let timed = |world: &World| world.shards[0].counters().deliver;
    let to = world.connect(bob());
    assert_eq!(world.texts(to).len(), 3);
    assert_eq!(timed(&world).counts().iter().sum::<u64>(), 0, "it was away");
    // 300 ms with the store, handed over with the notify; then one that has to be read.
    for (number, knows_previous) in [(4, true), (5, false)] {
        world.store.knows_previous = knows_previous;
        world.held.insert(Kind::Send);
        world.send(from, number, chat(alice(), bob()), "x");
        world.advance(Duration::from_millis(300));
        world.release();
    }
    assert_eq!(timed(&world).counts()[9], 2, "257 to 512 ms");
    assert_eq!(timed(&world).sum_ms(), 600);
    // One that does not acknowledge gets no more, and what comes when it does has waited for it.
    world.store.knows_previous = true;
    let max = limits::DELIVER_WINDOW_ENTRIES_MAX as u64;
    say(&mut world, from, 6..=max + 10);
    let in_time = timed(&world).counts().iter().sum::<u64>();
    let last = world.delivered(to).pop().expect("many").1;
    world.advance(limits::SLOW_CONSUMER_AFTER / 2);
    world.ack(to, last);
    world.pump();
    assert_eq!(world.texts(to).len(), 10);
    assert_eq!(timed(&world).counts().iter().sum::<u64>(), in_time);
    say(&mut world, from, max + 11..=max + 11);
    assert_eq!(timed(&world).counts().iter().sum::<u64>(), in_time + 1);
}

#[test]
fn df17_r3_a_gap_of_what_expired_is_told_after_a_resync_too() {
    for is_suspended in [false, true] {
        let mut world = World::new(2);
        let (from, to) = (world.connect(alice()), world.connect(bob()));
        world.disconnect(to);
        say(&mut world, from, 1..=3);
        let cursors: Vec<Position> = world.store.device(bob()).inbox.keys().copied().collect();
        // All that it had, and the Gap of its suspension with it; or the first two.
        let through = if is_suspended { cursors[2] } else { cursors[1] };
        if is_suspended {
            world.store.suspend(bob());
        }
        world.store.expire(bob(), through);
        // The store is moved: what it holds keeps its positions (R3).
        world.store.generation = 2;
        let to = world.connect_from(bob(), cursors[0]);
        assert!(world.welcome(to).resync);
        let frames = world.take_frames(to);
        assert!(
            matches!(&frames[0], Down::Gap(gap) if gap.cursor == through.as_bytes()[..]),
            "{frames:?}"
        );
        assert_eq!(frames.len(), if is_suspended { 1 } else { 2 });
        world.ack(to, through);
        world.advance(limits::FLUSH_DELAY);
        assert_eq!(world.store.device(bob()).stored_ack, through);
        assert_eq!(world.close_code(to), None);
    }
}
