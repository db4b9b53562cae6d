//! Windows, deadlines and overload: R26, and peers that do not keep up.

use std::time::Duration;

use bytes::Bytes;
use roadstead_proto::v1::{self, client_frame::Body as Up};
use roadstead_proto::{ErrorCode, limits as wire};

use super::frames::{alice, answers, bob, chat, cursor_of, device};
use super::world::{ConnId, Kind, World};
use crate::io::Input;
use crate::limits;
use crate::store::{Command, StoreError};

fn say(world: &mut World, from: ConnId, numbers: std::ops::RangeInclusive<u64>, text: &str) {
    for number in numbers {
        world.send(from, number, chat(alice(), bob()), text);
        world.pump();
    }
}

fn pair() -> (World, ConnId, ConnId) {
    let mut world = World::new(1);
    let to = world.connect(bob());
    let from = world.connect(alice());
    (world, from, to)
}

fn with_deadline(number: u64, deadline_ms: u32) -> Up {
    Up::Send(v1::Send {
        number,
        chat: Bytes::copy_from_slice(chat(alice(), bob()).as_bytes()),
        payload: Bytes::new(),
        deadline_ms,
        after: 0,
    })
}

#[test]
fn r26_a_send_past_its_deadline_is_not_committed() {
    let (mut world, from, to) = pair();
    world.held.insert(Kind::Send);
    world.frame(from, with_deadline(1, 50));
    world.frame(from, with_deadline(2, 0));
    world.advance(Duration::from_millis(51));
    world.release();
    let got = answers(&world.take_frames(from));
    let behind = (2, Err(ErrorCode::EarlierRefused));
    assert_eq!(got, [(1, Err(ErrorCode::DeadlinePassed)), behind]);
    assert_eq!(world.texts(to).len(), 0);
    world.frame(from, with_deadline(1, 50));
    world.frame(from, with_deadline(2, 0));
    world.pump();
    assert_eq!(world.texts(to).len(), 2);
}

#[test]
fn r26_a_deadline_has_a_default_and_a_limit() {
    let (mut world, from, _) = pair();
    world.held.insert(Kind::Send);
    for (number, asked, given) in [
        (1, 0, limits::SEND_DEADLINE),
        (2, 70, Duration::from_millis(70)),
        (3, u32::MAX, limits::SEND_DEADLINE_MAX),
    ] {
        world.frame(from, with_deadline(number, asked));
        let asked = world.take(Kind::Send);
        let Command::Send(sends) = &asked.request.command else {
            unreachable!()
        };
        assert_eq!(sends.items[0].deadline, world.now.at + given);
        let answer = world.execute(asked);
        world.answer(answer);
    }
}

#[test]
fn r26_a_shard_whose_store_is_behind_says_so_and_then_refuses() {
    let mut world = World::with(1, |config| config.inbox_limits.entries_max = 1_000_000);
    world.connect(bob());
    world.held.insert(Kind::Send);
    let per_session = wire::SENDS_IN_FLIGHT_MAX;
    let sessions = limits::STORE_SENDS_REFUSED_ABOVE / per_session + 1;
    let mut conns = Vec::new();
    for user in 0..sessions {
        assert_eq!(
            world.shards[0].is_congested(),
            user * per_session >= limits::STORE_SENDS_CONGESTED
        );
        let sender = device(10 + user as u64, 1);
        let conn = world.connect(sender);
        for number in 1..=per_session as u64 {
            world.send(conn, number, chat(sender, bob()), "x");
        }
        conns.push((conn, sender));
    }
    let (last, sender) = *conns.last().expect("many");
    let got = answers(&world.take_frames(last));
    assert_eq!(got.len(), per_session);
    assert_eq!(got[0], (1, Err(ErrorCode::Overloaded)));
    assert_eq!(
        got[1],
        (2, Err(ErrorCode::EarlierRefused)),
        "R16: behind the first"
    );
    assert_eq!(
        world.shards[0].counters().sends_pending,
        limits::STORE_SENDS_REFUSED_ABOVE as u64
    );
    // Acknowledgements and reads have room all the same.
    let away = device(2, 2);
    world.connect(away);
    world.release();
    assert!(!world.shards[0].is_congested());
    world.send(last, 1, chat(sender, bob()), "x");
    world.pump();
    assert_eq!(answers(&world.take_frames(last)), [(1, Ok(()))]);
    assert_eq!(world.shards[0].counters().sends_pending, 0);
}

#[test]
fn sessions_that_end_with_sends_waiting_leave_no_count_behind() {
    for ends_by_close in [false, true] {
        let (mut world, from, _) = pair();
        world.held.insert(Kind::Send);
        for number in 1..=9 {
            world.send(from, number, chat(alice(), bob()), "x");
        }
        assert_eq!(world.shards[0].counters().sends_pending, 9);
        if ends_by_close {
            world.frame(from, Up::Hello(v1::Hello::default()));
            assert_eq!(
                world.shards[0].counters().sends_pending,
                1,
                "the one in the batch"
            );
        }
        world.disconnect(from);
        world.release();
        assert_eq!(world.shards[0].counters().sends_pending, 0);
    }
}

#[test]
fn deliveries_stop_at_the_window_and_go_on_with_each_ack() {
    let (mut world, from, to) = pair();
    let max = limits::DELIVER_WINDOW_ENTRIES_MAX as u64;
    say(&mut world, from, 1..=max + 20, "x");
    let first = world.delivered(to);
    assert_eq!(first.len() as u64, max);
    world.ack(to, first[9].1);
    world.pump();
    assert_eq!(world.delivered(to).len(), 10);
    world.ack(to, first[255].1);
    world.pump();
    assert_eq!(world.delivered(to).len(), 10);
}

#[test]
fn large_entries_fill_the_window_by_their_bytes() {
    let (mut world, from, to) = pair();
    let large = "x".repeat(wire::PAYLOAD_BYTES_MAX);
    say(&mut world, from, 1..=6, &large);
    let mut seen = 0;
    while seen < 6 {
        let frames = world.take_frames(to);
        assert!((1..=3).contains(&frames.len()), "{} at once", frames.len());
        seen += frames.len();
        let last = cursor_of(&frames[frames.len() - 1]).expect("a delivery");
        world.ack(to, last);
        world.pump();
    }
    // The same from the store.
    world.disconnect(to);
    world.pump();
    say(&mut world, from, 7..=12, &large);
    let to = world.connect(bob());
    assert!((1..=3).contains(&world.take_frames(to).len()));
}

#[test]
fn a_consumer_that_stops_with_its_window_full_is_closed() {
    let (mut world, from, to) = pair();
    let max = limits::DELIVER_WINDOW_ENTRIES_MAX as u64;
    say(&mut world, from, 1..=max + 1, "x");
    let delivered = world.delivered(to);
    world.advance(limits::SLOW_CONSUMER_AFTER - Duration::from_secs(1));
    assert_eq!(world.close_code(to), None);
    // Any progress gives it another interval.
    world.ack(to, delivered[0].1);
    world.pump();
    say(&mut world, from, max + 2..=max + 2, "x");
    world.advance(limits::SLOW_CONSUMER_AFTER - Duration::from_secs(1));
    assert_eq!(world.close_code(to), None);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.close_code(to), Some(ErrorCode::SlowConsumer));
    world.disconnect(to);
    let to = world.connect_from(bob(), delivered[0].1);
    assert_eq!(world.texts(to).len() as u64, max);
}

#[test]
fn df25_r26_no_time_passes_for_a_consumer_that_is_not_heard() {
    let (mut world, from, to) = pair();
    let max = limits::DELIVER_WINDOW_ENTRIES_MAX as u64;
    say(&mut world, from, 1..=max + 1, "x");
    let delivered = world.delivered(to);
    let (shard, session) = (world.conns[to].shard, world.conns[to].session);
    world.advance(Duration::from_secs(20));
    // Its Ack is on its way, behind sends that the store has no room for.
    world.input(shard, Input::Paused(session));
    world.input(shard, Input::Paused(session));
    world.advance(limits::SLOW_CONSUMER_AFTER * 5);
    assert_eq!(world.close_code(to), None);
    world.input(shard, Input::Resumed(session));
    world.advance(limits::SLOW_CONSUMER_AFTER - Duration::from_secs(21));
    assert_eq!(world.close_code(to), None);
    world.ack(to, delivered[0].1);
    world.pump();
    say(&mut world, from, max + 2..=max + 2, "x");
    world.advance(limits::SLOW_CONSUMER_AFTER - Duration::from_secs(1));
    assert_eq!(world.close_code(to), None);
    // One that has the time and says nothing is as slow as ever, however often it is paused.
    for _ in 0..10 {
        world.input(shard, Input::Paused(session));
        world.advance(Duration::from_secs(60));
        world.input(shard, Input::Resumed(session));
        world.advance(Duration::from_millis(99));
    }
    assert_eq!(world.close_code(to), None);
    world.advance(Duration::from_millis(10));
    assert_eq!(world.close_code(to), Some(ErrorCode::SlowConsumer));
    world.disconnect(to);
    world.input(shard, Input::Resumed(session));
}

#[test]
fn df25_r26_a_session_that_is_paused_with_nothing_under_way_owns_nothing_after() {
    let (mut world, from, _) = pair();
    let (shard, session) = (world.conns[from].shard, world.conns[from].session);
    world.input(shard, Input::Paused(session));
    world.advance(Duration::from_secs(1));
    world.input(shard, Input::Resumed(session));
    world.advance(Duration::from_secs(1));
    world.assert_quiet();
}

#[test]
fn a_consumer_with_room_in_its_window_is_not_closed_for_what_the_store_delays() {
    let (mut world, from, to) = pair();
    say(&mut world, from, 1..=1, "x");
    assert_eq!(world.texts(to).len(), 1);
    // It has something to acknowledge and takes its time; nothing waits for that.
    world.advance(limits::SLOW_CONSUMER_AFTER * 2);
    world.store.knows_previous = false;
    world.held.insert(Kind::Read);
    say(&mut world, from, 2..=4, "x");
    world.advance(Duration::from_secs(1));
    assert_eq!(world.close_code(to), None, "it is the store that is slow");
    world.fail(Kind::Read, StoreError::Unavailable);
    world.release();
    world.advance(Duration::from_secs(1));
    assert_eq!(world.texts(to).len(), 3);
    assert_eq!(world.close_code(to), None);
}

#[test]
fn a_consumer_whose_window_has_just_filled_has_the_whole_interval() {
    let (mut world, from, to) = pair();
    say(&mut world, from, 1..=1, "x");
    world.advance(limits::SLOW_CONSUMER_AFTER * 2);
    let max = limits::DELIVER_WINDOW_ENTRIES_MAX as u64;
    say(&mut world, from, 2..=max + 5, "x");
    world.advance(limits::SLOW_CONSUMER_AFTER - Duration::from_secs(1));
    assert_eq!(world.close_code(to), None);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.close_code(to), Some(ErrorCode::SlowConsumer));
}

/// A payload as large as they get, again and again: what waits for the store is bounded by its bytes too,
/// for a session and for a shard.
#[test]
fn r26_sends_that_wait_are_bounded_by_their_bytes() {
    let mut world = World::with(1, |config| config.inbox_limits.entries_max = 1_000_000);
    world.connect(bob());
    world.held.insert(Kind::Send);
    let text = "x".repeat(wire::PAYLOAD_BYTES_MAX);
    let per_session = wire::SENDS_IN_FLIGHT_BYTES_MAX.div_ceil(text.len());
    let mut conns = Vec::new();
    while !world.shards[0].is_congested() {
        let sender = device(10 + conns.len() as u64, 1);
        let conn = world.connect(sender);
        for number in 1..=per_session as u64 + 1 {
            world.send(conn, number, chat(sender, bob()), &text);
        }
        let refused = (per_session as u64 + 1, Err(ErrorCode::InFlightLimit));
        assert_eq!(answers(&world.take_frames(conn)), [refused]);
        conns.push(conn);
    }
    let counters = world.shards[0].counters();
    let most = limits::STORE_SEND_BYTES_CONGESTED + per_session * text.len();
    assert!(counters.send_bytes_pending <= most as u64);
    while world.shards[0].counters().send_bytes_pending
        < limits::STORE_SEND_BYTES_REFUSED_ABOVE as u64
    {
        let sender = device(10 + conns.len() as u64, 1);
        let conn = world.connect(sender);
        for number in 1..=per_session as u64 {
            world.send(conn, number, chat(sender, bob()), &text);
        }
        conns.push(conn);
    }
    let late = world.connect(device(9, 1));
    world.send(late, 1, chat(device(9, 1), bob()), "small");
    let got = answers(&world.take_frames(late));
    assert_eq!(got, [(1, Err(ErrorCode::Overloaded))]);
    // Some are gone before their answers come: their bytes are given back all the same.
    world.disconnect(conns[0]);
    world.disconnect(conns[1]);
    world.release();
    assert_eq!(world.shards[0].counters().send_bytes_pending, 0);
    assert!(!world.shards[0].is_congested());
}
