//! Idle sessions own nothing, and timers do not spin.
//!
//! [`World::advance`] fails a test whose timers fire more often than sessions could want.

use std::time::Duration;

use roadstead_proto::v1::{self, client_frame::Body as Up};
use roadstead_proto::{ErrorCode, Position};

use super::frames::{alice, bob, chat, device, hello, typing};
use super::world::{ConnId, Kind, World};
use crate::limits;
use crate::store::StoreError;

fn pair() -> (World, ConnId, ConnId) {
    let mut world = World::new(2);
    let to = world.connect(bob());
    let from = world.connect(alice());
    (world, from, to)
}

/// Ends a session from the server's side, while its connection goes on.
fn offend(world: &mut World, conn: ConnId) {
    world.frame(conn, Up::Hello(v1::Hello::default()));
    assert_eq!(world.close_code(conn), Some(ErrorCode::FrameUnexpected));
}

#[test]
fn sessions_that_have_done_everything_own_nothing() {
    let (mut world, from, to) = pair();
    for number in 1..=20 {
        world.send(from, number, chat(alice(), bob()), "x");
        world.frame(from, typing(chat(alice(), bob())));
        world.pump();
    }
    let cursors = world.delivered(to);
    world.ack(to, cursors[19].1);
    world.advance(Duration::from_secs(2));
    let receipts = world.take_frames(from);
    let last = receipts
        .iter()
        .rev()
        .find_map(super::frames::cursor_of)
        .expect("a receipt");
    world.ack(from, last);
    world.advance(limits::HELLO_TIMEOUT);
    world.assert_quiet();
}

#[test]
fn a_fresh_session_owns_nothing_once_its_inbox_is_read() {
    let (mut world, _, _) = pair();
    world.advance(limits::HELLO_TIMEOUT);
    world.assert_quiet();
}

#[test]
fn a_session_that_is_closed_while_it_waits_to_read_again_does_not_spin() {
    let (mut world, from, to) = pair();
    world.store.knows_previous = false;
    world.held.insert(Kind::Read);
    world.send(from, 1, chat(alice(), bob()), "x");
    world.pump();
    world.fail(Kind::Read, StoreError::Unavailable);
    offend(&mut world, to);
    world.advance(Duration::from_secs(5));
}

#[test]
fn a_session_that_is_closed_with_entries_waiting_does_not_spin() {
    let (mut world, from, to) = pair();
    for number in 1..=300 {
        world.send(from, number, chat(alice(), bob()), "x");
        world.pump();
    }
    offend(&mut world, to);
    world.advance(limits::SLOW_CONSUMER_AFTER * 2);
}

#[test]
fn a_session_that_is_closed_owns_nothing_once_it_is_flushed() {
    let (mut world, from, to) = pair();
    for number in 1..=300 {
        world.send(from, number, chat(alice(), bob()), "x");
        world.pump();
    }
    let cursors = world.delivered(to);
    world.ack(to, cursors[0].1);
    world.ack(to, cursors[1].1);
    offend(&mut world, to);
    world.advance(Duration::from_secs(2));
    assert_eq!(world.store.device(bob()).stored_ack, cursors[1].1);
    assert!(world.session(to).in_flight.is_none());
}

#[test]
fn a_failed_send_is_remembered_without_a_timer() {
    let (mut world, from, _) = pair();
    world.held.insert(Kind::Send);
    world.send(from, 1, chat(alice(), bob()), "x");
    world.fail(Kind::Send, StoreError::Unavailable);
    world.held.clear();
    world.advance(Duration::from_secs(3_600));
    assert_eq!(world.next_timeout(), None);
    world.send(from, 1, chat(alice(), bob()), "x");
    world.advance(Duration::from_secs(1));
    assert!(world.session(from).in_flight.is_none());
}

#[test]
fn a_store_that_never_answers_makes_no_timer_fire_often() {
    let (mut world, from, to) = pair();
    world.send(from, 1, chat(alice(), bob()), "x");
    world.pump();
    let cursors = world.delivered(to);
    world.store.knows_previous = false;
    world.held.extend(Kind::ALL);
    for number in 2..=5 {
        world.send(from, number, chat(alice(), bob()), "x");
        world.pump();
    }
    world.ack(to, cursors[0].1);
    world.frame(from, typing(chat(alice(), bob())));
    world.greet(world.placement.home(bob().0), device(2, 2), Position::ZERO);
    world.advance(Duration::from_secs(300));
}

#[test]
fn a_timer_of_a_session_that_is_gone_is_gone() {
    let (mut world, _, to) = pair();
    let opened = world.open(world.placement.home(bob().0));
    world.disconnect(opened);
    world.disconnect(to);
    let again = world.open(world.placement.home(bob().0));
    world.advance(Duration::from_secs(1));
    world.frame(again, hello(bob(), 9, Position::ZERO));
    world.advance(limits::HELLO_TIMEOUT * 2);
    assert_eq!(world.close_code(again), None);
    world.assert_quiet();
}
