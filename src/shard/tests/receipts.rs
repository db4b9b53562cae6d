//! Receipts: R20.

use std::time::Duration;

use roadstead_proto::v1::{ReceiptUpdate, client_frame::Body as Up, server_frame::Body as Down};
use roadstead_proto::{ErrorCode, Position, limits as wire_limits, v1};

use super::frames::{alice, bob, chat, device, ours, read_mark, wire};
use super::world::{ConnId, Kind, World};
use crate::rate::Rate;
use crate::store::StoreError;

const SECOND: Duration = Duration::from_secs(1);

fn updates(world: &mut World, conn: ConnId) -> Vec<ReceiptUpdate> {
    let frames = world.take_frames(conn);
    let update = |frame| match frame {
        Down::ReceiptUpdate(update) => Some(update),
        _ => None,
    };
    frames.into_iter().filter_map(update).collect()
}

/// Alice, Bob's first and second device, and the cursors of Alice's messages.
fn conversation(count: u64) -> (World, [ConnId; 3], Vec<Position>) {
    let mut world = World::new(3);
    let conns = [alice(), bob(), device(2, 2)].map(|device| world.connect(device));
    for number in 1..=count {
        world.send(conns[0], number, ours(), "hi");
        world.pump();
    }
    let cursors = world.delivered(conns[1]);
    world.take_frames(conns[0]);
    (
        world,
        conns,
        cursors.into_iter().map(|(_, cursor)| cursor).collect(),
    )
}

#[test]
fn r20_the_first_device_that_acknowledges_makes_the_second_tick_and_the_others_none() {
    let (mut world, [from, first, second], cursors) = conversation(2);
    world.ack(first, cursors[1]);
    world.advance(Duration::from_secs(1));
    let got = updates(&mut world, from);
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].user, &got[0].delivered), (2, &wire(cursors[1])));
    world.ack(second, cursors[1]);
    world.advance(Duration::from_secs(1));
    assert_eq!(updates(&mut world, from), []);
}

#[test]
fn r20_receipts_make_no_receipts() {
    let (mut world, [from, first, _], cursors) = conversation(1);
    world.ack(first, cursors[0]);
    world.advance(Duration::from_secs(1));
    let got = updates(&mut world, from);
    let cursor = Position::from_slice(&got[0].cursor).expect("a cursor");
    let inboxes = |world: &World| {
        world
            .store
            .devices
            .values()
            .map(|d| d.inbox.len())
            .sum::<usize>()
    };
    let before = inboxes(&world);
    world.ack(from, cursor);
    world.advance(Duration::from_secs(1));
    assert_eq!(inboxes(&world), before - 1);
}

#[test]
fn r20_one_message_of_ones_own_other_device_makes_no_receipt() {
    let mut world = World::new(2);
    let (first, second) = (world.connect(alice()), world.connect(device(1, 2)));
    world.connect(bob());
    world.send(first, 1, ours(), "hi");
    world.pump();
    let cursor = world.delivered(second)[0].1;
    world.ack(second, cursor);
    world.advance(Duration::from_secs(1));
    assert!(world.store.receipts.is_empty());
}

#[test]
fn r20_a_read_mark_reaches_the_sender_and_the_readers_other_devices() {
    let (mut world, [from, first, second], cursors) = conversation(3);
    for conn in [first, second] {
        world.ack(conn, cursors[2]);
    }
    world.advance(SECOND);
    for conn in [from, first, second] {
        updates(&mut world, conn);
    }
    world.frame(first, read_mark(ours(), cursors[1]));
    world.pump();
    for conn in [from, second] {
        let got = updates(&mut world, conn);
        assert_eq!(got.len(), 1);
        assert_eq!((got[0].user, &got[0].read), (2, &wire(cursors[1])));
    }
    assert_eq!(updates(&mut world, first), []);
    // It only grows.
    world.frame(first, read_mark(ours(), cursors[0]));
    world.frame(second, read_mark(ours(), cursors[1]));
    world.pump();
    assert_eq!(updates(&mut world, from), []);
    world.frame(second, read_mark(ours(), cursors[2]));
    world.pump();
    assert_eq!(updates(&mut world, from)[0].read, wire(cursors[2]));
}

/// D-F13: a client says that it has read when it does, and that it has stored a little later. Nothing is read that
/// is on no device.
#[test]
fn df13_r20_a_read_mark_waits_until_what_it_covers_is_acknowledged() {
    let (mut world, [from, first, _], cursors) = conversation(2);
    world.frame(first, read_mark(ours(), cursors[1]));
    world.advance(SECOND);
    assert_eq!(world.made.get(&Kind::Mark), None);
    assert_eq!(updates(&mut world, from), []);
    world.ack(first, cursors[0]);
    world.advance(SECOND);
    assert_eq!(
        world.made.get(&Kind::Mark),
        None,
        "the second is not stored"
    );
    world.ack(first, cursors[1]);
    world.advance(SECOND);
    assert_eq!(world.store.receipts[&(ours(), bob().0)].1, cursors[1]);
    let told = updates(&mut world, from).pop().expect("a receipt");
    assert_eq!(told.read, wire(cursors[1]));
}

/// D-F13: the store knows of a delivery when the flush is done, which may take several pieces or tries.
#[test]
fn df13_r20_a_read_mark_waits_for_the_flush_that_is_under_way() {
    let (mut world, [_, first, _], cursors) = conversation(2);
    world.held.insert(Kind::Flush);
    world.ack(first, cursors[1]);
    world.frame(first, read_mark(ours(), cursors[1]));
    world.pump();
    assert_eq!(world.made.get(&Kind::Mark), None, "it would overtake it");
    world.fail(Kind::Flush, StoreError::Unavailable);
    world.frame(first, read_mark(ours(), cursors[1]));
    world.pump();
    assert_eq!(world.made.get(&Kind::Mark), None, "it comes again");
    world.held.clear();
    world.advance(Duration::from_secs(10));
    assert_eq!(world.store.receipts[&(ours(), bob().0)].1, cursors[1]);
}

#[test]
fn r20_a_read_mark_beyond_what_was_given_marks_what_was_given() {
    let (mut world, [_, first, second], cursors) = conversation(1);
    world.ack(first, cursors[0]);
    world.advance(SECOND);
    let beyond = Position::new(1, [0xee; 10], 0);
    world.frame(first, read_mark(ours(), beyond));
    world.pump();
    assert_eq!(world.close_code(first), None);
    assert_eq!(world.store.receipts[&(ours(), bob().0)].1, cursors[0]);
    world.frame(
        second,
        Up::Read(v1::Read {
            chat: ours().as_bytes().to_vec().into(),
            position: vec![1].into(),
        }),
    );
    assert_eq!(world.close_code(second), Some(ErrorCode::PositionInvalid));
    assert_eq!(world.made[&Kind::Mark], 1);
}

#[test]
fn r20_a_read_mark_for_somebody_elses_chat_ends_the_session() {
    let (mut world, [_, first, _], cursors) = conversation(1);
    world.frame(first, read_mark(chat(alice(), device(3, 1)), cursors[0]));
    assert_eq!(world.close_code(first), Some(ErrorCode::ChatInvalid));
    assert_eq!(world.made.get(&Kind::Mark), None);
}

/// D-F13: the sender of a message has read nothing by it, neither that one nor what the other said before it.
#[test]
fn df13_r20_ones_own_message_reads_nothing_of_the_other() {
    let (mut world, [from, to, _], cursors) = conversation(1);
    world.frame(from, read_mark(ours(), cursors[0]));
    world.advance(SECOND);
    assert_eq!(world.close_code(from), None);
    assert_eq!(world.store.receipts.get(&(ours(), alice().0)), None);
    // Bob answers before he has stored what he answers, and marks up to his own.
    world.send(to, 1, ours(), "ha");
    world.pump();
    let own = world.store.committed[&(bob(), 1)];
    world.frame(to, read_mark(ours(), own));
    world.advance(SECOND);
    assert_eq!(world.store.receipts.get(&(ours(), bob().0)), None);
    world.ack(to, cursors[0]);
    world.advance(SECOND);
    assert_eq!(world.store.receipts[&(ours(), bob().0)].1, cursors[0]);
}

#[test]
fn r20_marks_that_wait_when_the_session_ends_are_not_lost() {
    let (mut world, [_, first, _], cursors) = conversation(2);
    world.ack(first, cursors[1]);
    world.advance(SECOND);
    world.held.insert(Kind::Mark);
    world.frame(first, read_mark(chat(bob(), device(3, 1)), cursors[0]));
    world.frame(first, read_mark(ours(), cursors[1]));
    world.disconnect(first);
    world.release();
    assert_eq!(world.store.receipts[&(ours(), bob().0)].1, cursors[1]);
}

/// The session ends between the acknowledgement and its flush.
#[test]
fn r20_a_mark_that_waits_for_a_flush_when_the_session_ends_is_not_lost() {
    let (mut world, [_, first, _], cursors) = conversation(2);
    world.ack(first, cursors[0]);
    world.ack(first, cursors[1]);
    world.frame(first, read_mark(ours(), cursors[1]));
    world.disconnect(first);
    world.pump();
    assert_eq!(world.store.receipts[&(ours(), bob().0)].1, cursors[1]);
}

#[test]
fn r20_a_read_mark_survives_a_store_that_is_away() {
    for known in [false, true] {
        let (mut world, [from, first, _], cursors) = conversation(2);
        world.ack(first, cursors[1]);
        world.advance(SECOND);
        updates(&mut world, from);
        world.held.insert(Kind::Mark);
        world.frame(first, read_mark(ours(), cursors[0]));
        if known {
            world.frame(first, read_mark(ours(), cursors[1]));
        }
        world.fail(Kind::Mark, StoreError::Unavailable);
        world.held.clear();
        world.advance(Duration::from_secs(10));
        let marks = world.store.receipts[&(ours(), bob().0)];
        assert_eq!(marks.1, cursors[usize::from(known)]);
        assert!(!updates(&mut world, from).is_empty());
    }
}

/// D-F5: marks are work like sends, and count like them.
#[test]
fn df5_r20_read_marks_count_against_the_rate_of_their_user_and_wait_for_it() {
    let mut world = World::with(1, |config| config.send_rate = Rate::new(1, 3));
    let reader = world.connect(bob());
    let marks = 8;
    for peer in 0..marks {
        let mark = read_mark(chat(bob(), device(3 + peer, 1)), Position::MAX);
        world.frame(reader, mark);
    }
    world.pump();
    assert_eq!(world.made[&Kind::Mark], 3, "as many as may be at once");
    world.advance(SECOND);
    assert_eq!(world.made[&Kind::Mark], 4, "and one a second after that");
    world.advance(10 * SECOND);
    assert_eq!(world.made[&Kind::Mark], marks, "and none is lost");
    assert_eq!(world.shards[0].counters().read_marks_dropped, 0);
}

/// Logins without end make no more marks than a user may.
#[test]
fn df5_r20_marks_that_wait_at_the_end_of_a_session_count_too() {
    let mut world = World::with(1, |config| config.send_rate = Rate::new(1, 3));
    let marks = 8;
    for life in 0..10 {
        let reader = world.connect(bob());
        for peer in 0..marks {
            let mark = read_mark(chat(bob(), device(3 + peer, 1)), Position::MAX);
            world.frame(reader, mark);
        }
        world.pump();
        world.disconnect(reader);
        // A bucket, and as much again that can not wait.
        assert_eq!(world.made[&Kind::Mark], 6, "life {life}");
    }
    assert_eq!(
        world.shards[0].counters().read_marks_dropped,
        10 * marks - 6
    );
    world.advance(7 * SECOND);
    let reader = world.connect(bob());
    for peer in 0..marks {
        let mark = read_mark(chat(bob(), device(3 + peer, 1)), Position::MAX);
        world.frame(reader, mark);
    }
    world.pump();
    assert_eq!(world.made[&Kind::Mark], 6 + 3, "and it is mended");
}

/// F-C6: "all read" in more chats than wait at once.
#[test]
fn fc6_p32_marks_in_many_chats_all_reach_the_store() {
    let (mut world, [_, first, _], cursors) = conversation(2);
    world.held.insert(Kind::Mark);
    for _ in 0..1_000 {
        world.frame(first, read_mark(ours(), cursors[0]));
        world.frame(first, read_mark(ours(), cursors[1]));
    }
    assert!(
        world.waiting(Kind::Mark) <= 1,
        "marks of one chat are one mark"
    );
    let mut marked = 0;
    for user in 3..2_000 {
        while world.holds(first) {
            // The driver leaves the session's frames where they are, until the store has taken one.
            world.complete(Kind::Mark);
        }
        world.frame(first, read_mark(chat(bob(), device(user, 1)), cursors[0]));
        marked += 1;
    }
    assert!(world.waiting(Kind::Mark) <= 1);
    assert_eq!(world.close_code(first), None);
    world.held.clear();
    world.release();
    world.ack(first, cursors[1]);
    world.advance(Duration::from_secs(10));
    assert_eq!(world.made[&Kind::Mark], marked + 1);
    assert_eq!(world.shards[0].counters().read_marks_dropped, 0);
    assert_eq!(world.store.receipts[&(ours(), bob().0)].1, cursors[1]);
    assert!(world.session(first).in_flight.is_none());
}

/// Marks that wait for an acknowledgement do not keep that acknowledgement from being heard.
#[test]
fn fc6_r20_marks_of_a_full_window_do_not_hold_their_own_acknowledgement() {
    let mut world = World::new(1);
    let to = world.connect(bob());
    let mut cursors = Vec::new();
    for peer in 0..u32::try_from(wire_limits::DELIVER_WINDOW_ENTRIES_MAX).expect("small") {
        let sender = device(10 + u64::from(peer), 1);
        let from = world.connect(sender);
        world.send(from, 1, chat(sender, bob()), "x");
        world.pump();
        cursors.push((chat(sender, bob()), world.delivered(to)[0].1));
    }
    for (of, cursor) in &cursors {
        assert!(!world.holds(to), "none of them is with the store");
        world.frame(to, read_mark(*of, *cursor));
    }
    assert_eq!(world.made.get(&Kind::Mark), None);
    assert!(!world.holds(to));
    world.ack(to, cursors[cursors.len() - 1].1);
    world.advance(Duration::from_secs(10));
    assert_eq!(world.made[&Kind::Mark], cursors.len() as u64);
    for (of, cursor) in cursors {
        assert_eq!(world.store.receipts[&(of, bob().0)].1, cursor);
    }
}

/// The store refuses a mark for now while as many as may wait do: it comes back to a full place and is lost.
#[test]
fn fc6_r20_a_mark_that_failed_is_not_lost_where_all_places_are_taken() {
    let (mut world, [_, first, _], cursors) = conversation(1);
    world.ack(first, cursors[0]);
    world.advance(SECOND);
    world.held.insert(Kind::Mark);
    // The one that matters is under way, and others wait until the session is held.
    world.frame(first, read_mark(ours(), cursors[0]));
    assert_eq!(world.waiting(Kind::Mark), 1);
    for user in 3.. {
        if world.holds(first) {
            break;
        }
        world.frame(first, read_mark(chat(bob(), device(user, 1)), cursors[0]));
    }
    world.fail(Kind::Mark, StoreError::Overloaded);
    world.held.clear();
    world.release();
    world.advance(Duration::from_secs(60));
    let marks = world.store.receipts.get(&(ours(), bob().0)).copied();
    assert_eq!(marks.map(|marks| marks.1), Some(cursors[0]));
}
