//! How sessions end, and what a drain does.

use std::time::Duration;

use roadstead_proto::v1::server_frame::Body as Down;
use roadstead_proto::{ErrorCode, Position};

use super::frames::{chat, device, hello};
use super::world::{Kind, World};
use crate::io::Input;
use crate::limits;
use crate::placement::ShardId;

const HOME: ShardId = ShardId(0);

#[test]
fn a_drain_sends_everybody_away_each_at_its_own_moment() {
    let mut world = World::new(1);
    let conns: Vec<usize> = (1..=40)
        .map(|user| world.connect(device(user, 1)))
        .collect();
    let silent = world.open(HOME);
    world.input(HOME, Input::Drain);
    let mut delays = Vec::new();
    for conn in &conns {
        let frames = world.take_frames(*conn);
        let [Down::GoAway(go_away)] = &frames[..] else {
            panic!("{frames:?}");
        };
        let delay = Duration::from_millis(go_away.reconnect_after_ms.into());
        assert!(delay < limits::DRAIN_SPREAD);
        delays.push(delay);
    }
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > 30, "they do not come back as one");
    world.advance(limits::DRAIN_GRACE - Duration::from_millis(1));
    assert!(conns.iter().all(|conn| world.close_code(*conn).is_none()));
    world.advance(Duration::from_millis(1));
    for conn in conns.into_iter().chain([silent]) {
        assert_eq!(world.close_code(conn), Some(ErrorCode::Draining));
        world.disconnect(conn);
    }
    world.pump();
    assert!(world.shards[0].is_idle());
    world.assert_quiet();
}

#[test]
fn a_draining_shard_takes_no_more_sessions() {
    let mut world = World::new(1);
    world.input(HOME, Input::Drain);
    let conn = world.open(HOME);
    world.frame(conn, hello(device(1, 1), 1, Position::ZERO));
    assert_eq!(world.close_code(conn), Some(ErrorCode::Draining));
    world.disconnect(conn);
    assert!(world.shards[0].is_idle());
}

#[test]
fn a_session_that_was_opening_when_the_drain_began_does_not_escape_it() {
    for held in [Some(Kind::Open), None] {
        let mut world = World::new(2);
        let home = world.placement.home(device(1, 1).0);
        let away = ShardId(1 - home.0);
        world.held.extend(held);
        world.hold_messages = held.is_none();
        let conn = world.greet(away, device(1, 1), Position::ZERO);
        world.pump();
        world.input(away, Input::Drain);
        world.release();
        world.advance(limits::DRAIN_GRACE);
        assert_eq!(
            world.close_code(conn),
            Some(ErrorCode::Draining),
            "{held:?}"
        );
        world.disconnect(conn);
        world.advance(Duration::from_secs(1));
        assert!(world.shards[usize::from(away.0)].is_idle());
        assert_eq!(world.shards[usize::from(home.0)].counters().users, 0);
    }
}

#[test]
fn a_session_that_was_closed_before_the_drain_is_not_closed_again() {
    let mut world = World::new(1);
    let conn = world.connect(device(1, 1));
    world.frame(conn, hello(device(1, 1), 2, Position::ZERO));
    assert_eq!(world.close_code(conn), Some(ErrorCode::FrameUnexpected));
    world.input(HOME, Input::Drain);
    world.advance(limits::DRAIN_GRACE * 2);
    world.disconnect(conn);
    assert!(world.shards[0].is_idle());
}

#[test]
fn r18_a_drain_flushes_what_was_acknowledged() {
    let mut world = World::new(1);
    let (alice, bob) = (device(1, 1), device(2, 1));
    let (from, to) = (world.connect(alice), world.connect(bob));
    for number in 1..=3 {
        world.send(from, number, chat(alice, bob), "x");
    }
    world.pump();
    let cursors = world.delivered(to);
    world.ack(to, cursors[0].1);
    world.pump();
    world.advance(limits::FLUSH_DELAY);
    world.ack(to, cursors[1].1);
    world.input(HOME, Input::Drain);
    world.ack(to, cursors[2].1);
    world.advance(limits::DRAIN_GRACE);
    assert_eq!(world.store.device(bob).stored_ack, cursors[2].1);
}

#[test]
fn a_send_that_arrives_during_the_grace_is_served() {
    let mut world = World::new(1);
    let (alice, bob) = (device(1, 1), device(2, 1));
    let (from, to) = (world.connect(alice), world.connect(bob));
    world.input(HOME, Input::Drain);
    world.take_frames(to);
    world.send(from, 1, chat(alice, bob), "last words");
    world.pump();
    assert_eq!(world.texts(to), ["last words"]);
}

#[test]
fn answers_for_sessions_that_are_gone_reach_nobody() {
    for kind in [Kind::Open, Kind::Send, Kind::Read, Kind::Flush, Kind::Mark] {
        let mut world = World::new(1);
        let (alice, bob) = (device(1, 1), device(2, 1));
        world.connect(bob);
        let from = world.connect(alice);
        world.send(from, 1, chat(alice, bob), "x");
        world.pump();
        world.held.insert(kind);
        let to = world.greet(HOME, device(2, 2), Position::ZERO);
        world.pump();
        world.send(from, 2, chat(alice, bob), "y");
        world.pump();
        for conn in [from, to] {
            world.disconnect(conn);
        }
        // Their slots have new owners by the time of the answers.
        let others = [world.open(HOME), world.open(HOME)];
        world.release();
        for conn in others {
            assert_eq!(world.take_frames(conn), [], "{kind:?}");
            assert_eq!(world.close_code(conn), None);
        }
    }
}

#[test]
fn a_drain_of_many_sends_them_away_slice_by_slice() {
    let mut world = World::new(1);
    let many = limits::SWEEP_SLICE + 500;
    let conns: Vec<_> = (1..=many)
        .map(|user| world.connect(device(u64::from(user), 1)))
        .collect();
    world.advance(limits::HELLO_TIMEOUT);
    for conn in &conns {
        world.take_frames(*conn);
    }
    world.input(HOME, Input::Drain);
    let told = |world: &mut World, conns: &[_]| {
        let told = conns.iter().filter(|conn| {
            let frames = world.take_frames(**conn);
            matches!(&frames[..], [Down::GoAway(_)])
        });
        told.count()
    };
    let first = told(&mut world, &conns);
    assert_eq!(first, limits::SWEEP_SLICE as usize, "one slice at once");
    world.advance(Duration::from_millis(1));
    assert_eq!(first + told(&mut world, &conns), conns.len());
    world.advance(limits::DRAIN_GRACE);
    for conn in conns {
        assert_eq!(world.close_code(conn), Some(ErrorCode::Draining));
    }
}
