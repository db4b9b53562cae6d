//! Acknowledgements: R18, R19.

use std::time::Duration;

use roadstead_proto::v1::client_frame::Body as Up;
use roadstead_proto::{ErrorCode, Position, v1};

use super::frames::{alice, bob, chat};
use super::world::{ConnId, Kind, World};
use crate::limits;
use crate::store::{Command, Flush, StoreError};

/// Bob's session has been delivered `count` messages, whose cursors are given.
fn delivered(count: u64) -> (World, ConnId, Vec<Position>) {
    let mut world = World::new(1);
    let to = world.connect(bob());
    let from = world.connect(alice());
    for number in 1..=count {
        world.send(from, number, chat(alice(), bob()), &number.to_string());
        world.pump();
    }
    let cursors: Vec<Position> = world
        .delivered(to)
        .iter()
        .map(|(_, cursor)| *cursor)
        .collect();
    assert_eq!(cursors.len() as u64, count);
    (world, to, cursors)
}

fn stored_ack(world: &World) -> Position {
    world.store.device(bob()).stored_ack
}

fn waiting_flush(world: &World) -> &Flush {
    let flush = world
        .asked
        .iter()
        .find_map(|asked| match &asked.request.command {
            Command::Flush(flush) => Some(flush),
            _ => None,
        });
    flush.expect("a flush waits")
}

#[test]
fn r18_the_first_ack_is_flushed_at_once_and_the_next_ones_together_within_a_second() {
    let (mut world, to, cursors) = delivered(10);
    world.ack(to, cursors[0]);
    world.pump();
    assert_eq!(
        stored_ack(&world),
        cursors[0],
        "a single message gets its tick without delay"
    );
    let flushes = world.made[&Kind::Flush];
    for cursor in &cursors[1..] {
        world.ack(to, *cursor);
        world.pump();
    }
    assert_eq!(world.made[&Kind::Flush], flushes);
    world.advance(limits::FLUSH_DELAY);
    assert_eq!(stored_ack(&world), cursors[9]);
    // The receipts' own entries in Alice's inbox are hers to acknowledge.
    assert_eq!(world.made[&Kind::Flush], flushes + 1);
}

#[test]
fn r18_many_acks_do_not_wait() {
    let count = limits::FLUSH_ENTRIES;
    let (mut world, to, cursors) = delivered(count as u64 + 2);
    world.ack(to, cursors[0]);
    world.pump();
    world.ack(to, cursors[count]);
    world.pump();
    assert_eq!(stored_ack(&world), cursors[count]);
}

#[test]
fn r18_one_flush_is_under_way_and_its_list_starts_at_the_stored_acknowledgement() {
    let (mut world, to, cursors) = delivered(6);
    world.held.insert(Kind::Flush);
    world.ack(to, cursors[1]);
    let flush = waiting_flush(&world);
    let known = flush.known.as_ref().expect("the session knows them all");
    assert_eq!(known.from, Position::ZERO);
    assert_eq!(
        known.entries.iter().map(|e| e.cursor).collect::<Vec<_>>(),
        cursors[..2]
    );
    world.ack(to, cursors[3]);
    world.advance(limits::FLUSH_DELAY * 2);
    assert_eq!(world.waiting(Kind::Flush), 1, "one at a time");
    world.complete(Kind::Flush);
    let known = waiting_flush(&world)
        .known
        .as_ref()
        .expect("the session knows them all");
    assert_eq!(known.from, cursors[1]);
    assert_eq!(
        known.entries.iter().map(|e| e.cursor).collect::<Vec<_>>(),
        cursors[2..4]
    );
    world.release();
    assert_eq!(world.store.known_lists_used, 2);
}

#[test]
fn r18_a_failed_flush_is_tried_again_without_a_list() {
    for committed in [false, true] {
        let (mut world, to, cursors) = delivered(6);
        world.held.insert(Kind::Flush);
        world.ack(to, cursors[1]);
        if committed {
            world.lose_answer(Kind::Flush);
        } else {
            world.fail(Kind::Flush, StoreError::Unavailable);
        }
        world.ack(to, cursors[2]);
        world.advance(Duration::from_secs(1));
        let flush = waiting_flush(&world);
        assert_eq!((flush.upto, flush.known.is_some()), (cursors[2], false));
        world.complete(Kind::Flush);
        assert_eq!(stored_ack(&world), cursors[2]);
        // From there on the list is whole again.
        world.ack(to, cursors[4]);
        world.advance(Duration::from_secs(1));
        let known = waiting_flush(&world).known.as_ref().expect("whole again");
        assert_eq!(known.from, cursors[2]);
        world.release();
        assert_eq!(stored_ack(&world), cursors[4]);
        assert_eq!(
            world.store.receipts[&(chat(alice(), bob()), bob().0)].0,
            cursors[4]
        );
    }
}

#[test]
fn r18_a_flush_that_keeps_failing_is_tried_again_and_again() {
    let (mut world, to, cursors) = delivered(2);
    world.held.insert(Kind::Flush);
    world.ack(to, cursors[1]);
    for _ in 0..10 {
        world.fail(Kind::Flush, StoreError::Unavailable);
        world.advance(limits::STORE_RETRY_MAX);
        assert_eq!(world.waiting(Kind::Flush), 1);
    }
    world.release();
    assert_eq!(stored_ack(&world), cursors[1]);
    // The next failure starts with a short wait again.
    world.advance(Duration::from_secs(1));
    assert!(world.session(to).in_flight.is_none());
}

#[test]
fn the_wait_after_a_failed_flush_is_short_again_after_one_that_succeeded() {
    let (mut world, to, cursors) = delivered(3);
    world.held.insert(Kind::Flush);
    world.ack(to, cursors[0]);
    for _ in 0..6 {
        world.fail(Kind::Flush, StoreError::Unavailable);
        world.advance(limits::STORE_RETRY_MAX);
    }
    world.complete(Kind::Flush);
    world.ack(to, cursors[1]);
    world.advance(limits::FLUSH_DELAY);
    world.fail(Kind::Flush, StoreError::Unavailable);
    world.advance(limits::STORE_RETRY);
    assert_eq!(world.waiting(Kind::Flush), 1);
}

#[test]
fn r18_an_ack_is_flushed_when_its_session_ends() {
    for ends in [
        (|world, conn| world.disconnect(conn)) as fn(&mut World, ConnId),
        |world, conn| world.frame(conn, Up::Hello(v1::Hello::default())),
    ] {
        let (mut world, to, cursors) = delivered(4);
        world.ack(to, cursors[0]);
        world.pump();
        world.ack(to, cursors[2]);
        world.pump();
        assert_eq!(stored_ack(&world), cursors[0], "collected");
        ends(&mut world, to);
        world.pump();
        assert_eq!(stored_ack(&world), cursors[2]);
        assert_eq!(world.store.device(bob()).inbox.len(), 1);
    }
}

#[test]
fn r18_two_flushes_that_change_places_are_as_good_as_in_order() {
    let (mut world, to, cursors) = delivered(4);
    world.held.insert(Kind::Flush);
    world.ack(to, cursors[0]);
    world.ack(to, cursors[2]);
    world.disconnect(to);
    assert_eq!(
        world.waiting(Kind::Flush),
        2,
        "the end does not wait for the one under way"
    );
    world.asked.rotate_left(1);
    world.release();
    assert_eq!(stored_ack(&world), cursors[2]);
    assert_eq!(
        world.store.receipts[&(chat(alice(), bob()), bob().0)].0,
        cursors[2]
    );
}

#[test]
fn r18_a_flush_that_fails_as_the_session_closes_is_tried_again_while_the_connection_lasts() {
    let (mut world, to, cursors) = delivered(2);
    world.held.insert(Kind::Flush);
    world.ack(to, cursors[1]);
    world.frame(to, Up::Hello(v1::Hello::default()));
    assert!(world.close_code(to).is_some());
    world.fail(Kind::Flush, StoreError::Unavailable);
    world.held.clear();
    world.advance(limits::STORE_RETRY);
    assert_eq!(stored_ack(&world), cursors[1]);
    world.disconnect(to);
    world.pump();
}

#[test]
fn r18_a_flush_that_can_never_succeed_ends_the_session() {
    let (mut world, to, cursors) = delivered(1);
    world.held.insert(Kind::Flush);
    world.ack(to, cursors[0]);
    world.fail(Kind::Flush, StoreError::DeviceRemoved);
    assert_eq!(world.close_code(to), Some(ErrorCode::DeviceRemoved));
    world.advance(Duration::from_secs(100));
    assert_eq!(world.waiting(Kind::Flush), 0);
}

#[test]
fn r19_the_cursor_of_a_hello_is_an_acknowledgement() {
    let (mut world, to, cursors) = delivered(5);
    world.disconnect(to);
    let to = world.connect_from(bob(), cursors[2]);
    assert_eq!(stored_ack(&world), cursors[2]);
    assert_eq!(
        world.store.receipts[&(chat(alice(), bob()), bob().0)].0,
        cursors[2]
    );
    assert_eq!(world.texts(to), ["4", "5"]);
    // An older cursor does not bring back what is acknowledged.
    world.disconnect(to);
    let to = world.connect_from(bob(), cursors[0]);
    assert_eq!(world.texts(to), ["4", "5"]);
    assert_eq!(stored_ack(&world), cursors[2]);
}

#[test]
fn r19_the_cursor_of_a_hello_survives_a_store_that_is_away() {
    let (mut world, to, cursors) = delivered(5);
    world.disconnect(to);
    world.held.insert(Kind::Flush);
    let to = world.connect_from(bob(), cursors[2]);
    world.fail(Kind::Flush, StoreError::Unavailable);
    let texts = world.texts(to);
    assert_eq!(texts, ["4", "5"], "reading does not wait for it");
    world.ack(to, cursors[3]);
    world.held.clear();
    world.advance(Duration::from_secs(1));
    assert_eq!(stored_ack(&world), cursors[3]);
    world.ack(to, cursors[4]);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.store.device(bob()).inbox.len(), 0);
}

#[test]
fn r19_a_hello_beyond_everything_committed_is_refused() {
    let (mut world, to, _) = delivered(1);
    world.disconnect(to);
    let end = world.store.committed_through();
    let beyond = Position::new(end.generation(), [0xff; 10], 0);
    let to = world.greet(world.placement.home(bob().0), bob(), beyond);
    world.pump();
    assert_eq!(world.close_code(to), Some(ErrorCode::CursorInvalid));
}

#[test]
fn r19_an_ack_beyond_what_was_delivered_is_refused() {
    let (mut world, to, cursors) = delivered(2);
    let beyond = Position::new(1, [0xee; 10], 0);
    assert!(beyond > cursors[1]);
    world.ack(to, beyond);
    assert_eq!(world.close_code(to), Some(ErrorCode::CursorInvalid));
    world.pump();
    assert_eq!(stored_ack(&world), Position::ZERO);
    let (mut world, to, _) = delivered(1);
    world.frame(
        to,
        Up::Ack(v1::Ack {
            cursor: vec![0; 15].into(),
        }),
    );
    assert_eq!(world.close_code(to), Some(ErrorCode::CursorInvalid));
}

#[test]
fn r19_acks_are_cumulative_and_never_go_back() {
    let (mut world, to, cursors) = delivered(4);
    for index in [2, 0, 1, 2] {
        world.ack(to, cursors[index]);
        world.advance(Duration::from_secs(1));
        assert_eq!(stored_ack(&world), cursors[2]);
    }
    assert_eq!(
        world.made[&Kind::Flush],
        1,
        "what is acknowledged already costs nothing"
    );
    assert_eq!(world.store.device(bob()).inbox.len(), 1);
}

#[test]
fn r19_what_was_not_acknowledged_comes_again_in_the_next_session() {
    let (mut world, to, cursors) = delivered(3);
    world.ack(to, cursors[0]);
    world.pump();
    world.disconnect(to);
    let to = world.connect(bob());
    assert_eq!(world.texts(to), ["2", "3"]);
}
