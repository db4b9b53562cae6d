//! Typing and Ping: passed on, never stored.

use roadstead_proto::v1::{self, client_frame::Body as Up, server_frame::Body as Down};
use roadstead_proto::{ErrorCode, Position};

use super::frames::{chat, device, shard_id, typing};
use super::world::World;
use crate::limits;

#[test]
fn typing_reaches_every_device_of_the_other_user_and_names_the_sender() {
    let mut world = World::new(3);
    let alice = device(1, 1);
    let from = world.connect(alice);
    let to: Vec<usize> = (0..3u16)
        .map(|shard| {
            world.connect_on(
                shard_id(usize::from(shard)),
                device(2, 1 + u32::from(shard)),
                Position::ZERO,
            )
        })
        .collect();
    let Up::Typing(forged) = typing(chat(alice, device(2, 1))) else {
        unreachable!("it is a Typing");
    };
    world.frame(from, Up::Typing(v1::Typing { user: 77, ..forged }));
    world.pump();
    for conn in to {
        let frames = world.take_frames(conn);
        assert!(
            matches!(&frames[..], [Down::Typing(typing)] if typing.user == 1),
            "{frames:?}"
        );
    }
    assert_eq!(world.take_frames(from), []);
    assert!(world.asked.is_empty());
}

#[test]
fn typing_to_nobody_there_is_dropped() {
    let mut world = World::new(2);
    let from = world.connect(device(1, 1));
    world.frame(from, typing(chat(device(1, 1), device(2, 1))));
    world.pump();
    assert!(world.asked.is_empty() && world.passing.is_empty());
}

#[test]
fn typing_is_limited_to_a_burst_in_each_interval() {
    let mut world = World::new(1);
    let (alice, bob) = (device(1, 1), device(2, 1));
    let (from, to) = (world.connect(alice), world.connect(bob));
    let burst = usize::from(limits::TYPING_BURST);
    for round in 1..=3 {
        for _ in 0..burst + 6 {
            world.frame(from, typing(chat(alice, bob)));
        }
        world.pump();
        assert_eq!(world.take_frames(to).len(), burst);
        assert_eq!(world.shards[0].counters().typing_dropped, round * 6);
        world.advance(limits::TYPING_INTERVAL);
    }
    assert!(world.session(from).in_flight.is_none());
    assert_eq!(world.close_code(from), None);
}

#[test]
fn typing_in_somebody_elses_chat_ends_the_session() {
    let mut world = World::new(1);
    let from = world.connect(device(1, 1));
    world.frame(from, typing(chat(device(2, 1), device(3, 1))));
    assert_eq!(world.close_code(from), Some(ErrorCode::ChatInvalid));
}

#[test]
fn a_ping_is_answered_with_its_nonce() {
    let mut world = World::new(1);
    let conn = world.connect(device(1, 1));
    world.frame(conn, Up::Ping(v1::Ping { nonce: 42 }));
    let frames = world.take_frames(conn);
    assert!(matches!(&frames[..], [Down::Pong(pong)] if pong.nonce == 42));
    assert!(world.session(conn).in_flight.is_none());
}
