//! R15: after the store failed every session reads again, at a pace that leaves the store to others.

use std::time::Duration;

use super::frames::{alice, bob, chat, device};
use super::world::{ConnId, Kind, World};
use crate::io::Input;
use crate::limits::{REREAD_EVERY, REREADS_AT_ONCE, REREADS_UNDER_WAY_MAX};
use crate::placement::ShardId;
use crate::store::StoreError;

const SESSIONS: usize = 1_000;

/// Sessions of one shard that have nothing under way.
fn crowd() -> (World, Vec<ConnId>) {
    let mut world = World::new(1);
    let users = 10..10 + SESSIONS as u64;
    let conns = users.map(|user| world.connect(device(user, 1))).collect();
    world.advance(Duration::from_secs(1));
    assert_eq!(owners(&world), 0);
    (world, conns)
}

/// Sessions that own more than themselves.
fn owners(world: &World) -> usize {
    let sessions = world.shards[0].sessions.iter();
    sessions.filter(|(_, it)| it.in_flight.is_some()).count()
}

fn reopen(world: &mut World) {
    world.input(ShardId(0), Input::StoreReopened);
    // Once round for sessions with something under way, and the first of the others.
    world.advance(Duration::from_micros(10));
}

#[test]
fn df16_r15_sessions_read_again_at_a_pace_and_all_of_them() {
    let (mut world, _) = crowd();
    let before = world.made[&Kind::Read];
    world.held.insert(Kind::Read);
    reopen(&mut world);
    assert_eq!(world.waiting(Kind::Read), REREADS_AT_ONCE);
    world.advance(REREAD_EVERY * 3 + Duration::from_millis(1));
    assert_eq!(world.waiting(Kind::Read), REREADS_UNDER_WAY_MAX);
    world.advance(Duration::from_secs(10));
    assert_eq!(
        world.waiting(Kind::Read),
        REREADS_UNDER_WAY_MAX,
        "no store, no more of them"
    );
    assert!(
        owners(&world) <= REREADS_UNDER_WAY_MAX,
        "who waits owns nothing"
    );
    assert_eq!(world.next_timeout(), None, "and no timer runs for it");
    world.held.clear();
    let began = world.now.at;
    while world.made[&Kind::Read] < before + SESSIONS as u64 {
        world.advance(REREAD_EVERY);
        assert!(owners(&world) <= REREADS_UNDER_WAY_MAX);
    }
    let rounds = (SESSIONS - REREADS_UNDER_WAY_MAX) / REREADS_AT_ONCE;
    let least = REREAD_EVERY * u32::try_from(rounds).expect("few") / 2;
    assert!(world.now.at >= began + least, "all at once");
    world.advance(Duration::from_secs(1));
    assert_eq!(
        world.made[&Kind::Read],
        before + SESSIONS as u64,
        "once each"
    );
    world.assert_quiet();
}

#[test]
fn df16_r15_sessions_with_something_under_way_read_first_and_those_written_to_at_once() {
    let (mut world, conns) = crowd();
    let to = world.connect(bob());
    let from = world.connect(alice());
    world.send(from, 1, chat(alice(), bob()), "1");
    world.pump();
    assert_eq!(world.texts(to), ["1"], "and not acknowledged");
    world.advance(Duration::from_secs(1));
    // Durable, answered as unknown.
    world.held.insert(Kind::Send);
    world.send(from, 2, chat(alice(), bob()), "2");
    world.lose_answer(Kind::Send);
    world.held.clear();
    let first = world.made[&Kind::Read];
    reopen(&mut world);
    assert_eq!(world.texts(to), ["2"]);
    assert!(world.made[&Kind::Read] - first < 2 * REREADS_AT_ONCE as u64);
    let last = *conns.last().expect("many");
    let (user, id) = world.session(last).identity();
    world.store.knows_previous = false;
    world.send(from, 3, chat(alice(), (user, id)), "3");
    world.send(from, 2, chat(alice(), bob()), "2");
    world.pump();
    assert_eq!(world.texts(last), [] as [&str; 0], "R16: behind the second");
    world.send(from, 3, chat(alice(), (user, id)), "3");
    world.pump();
    assert_eq!(world.texts(last), ["3"]);
}

#[test]
fn df16_r15_a_store_that_fails_again_is_asked_again_by_all_and_nobody_owns_anything_meanwhile() {
    let (mut world, _) = crowd();
    let before = world.made[&Kind::Read];
    world.held.insert(Kind::Read);
    reopen(&mut world);
    for _ in 0..40 {
        while world.waiting(Kind::Read) > 0 {
            world.fail(Kind::Read, StoreError::Unavailable);
        }
        assert_eq!(owners(&world), 0);
        world.advance(Duration::from_millis(500));
    }
    let tried = world.made[&Kind::Read] - before;
    assert!(
        tried < 20 * 2 * REREADS_AT_ONCE as u64,
        "{tried} tries in 20 s"
    );
    // A second failure is a round more, from where it is.
    reopen(&mut world);
    world.release();
    let from = world.made[&Kind::Read];
    world.advance(Duration::from_secs(2));
    assert!(world.made[&Kind::Read] - from >= (SESSIONS - REREADS_UNDER_WAY_MAX) as u64);
    world.assert_quiet();
}

#[test]
fn df16_r15_a_read_that_fails_when_the_round_is_over_is_tried_again() {
    let mut world = World::new(1);
    // More than one turn reads, so that the round ends in the middle of a slice of slots.
    for user in 0..REREADS_AT_ONCE as u64 + 8 {
        world.connect(device(10 + user, 1));
    }
    let to = world.connect(bob());
    let from = world.connect(alice());
    world.advance(Duration::from_secs(1));
    // Durable, answered as unknown: nobody is told.
    world.held.insert(Kind::Send);
    world.send(from, 1, chat(alice(), bob()), "1");
    world.lose_answer(Kind::Send);
    world.held.insert(Kind::Read);
    reopen(&mut world);
    world.advance(Duration::from_secs(1));
    for _ in 0..3 {
        while world.waiting(Kind::Read) > 0 {
            world.fail(Kind::Read, StoreError::Unavailable);
        }
        world.advance(Duration::from_secs(5));
        assert!(world.waiting(Kind::Read) > 0, "tried again");
    }
    world.release();
    assert_eq!(world.texts(to), ["1"]);
    world.disconnect(from);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.next_timeout(), None);
}
