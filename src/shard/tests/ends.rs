//! Logins that end: devices that are removed, users who are signed out, tokens that somebody else has used.

use bytes::Bytes;
use roadstead_proto::v1::{self, client_frame::Body as Up};
use roadstead_proto::{ErrorCode, Position};

use super::fake_store::Device;
use super::frames::{alice, answers, bob, device, hello, ours, read_mark, shard_id};
use super::world::{Answered, ConnId, ISSUED_S, Kind, World};
use crate::Ended;
use crate::io::Input;
use crate::limits;
use crate::placement::ShardId;
use crate::store::{Completion, Outcome, StoreError};

/// The home of a user, and a shard that is not.
fn home_and_away(world: &World, of: Device) -> (ShardId, ShardId) {
    let home = world.placement.home(of.0);
    (
        home,
        shard_id((usize::from(home.0) + 1) % world.shards.len()),
    )
}

fn end(world: &mut World, ended: Ended) {
    let home = world.placement.home(ended.user());
    world.input(home, Input::Ended(ended));
    world.pump();
}

fn signed_out(valid_after_s: u64) -> Ended {
    Ended::Logins {
        user: bob().0,
        valid_after_s,
    }
}

/// Opens a session of Bob by a resume token, as far as it comes.
fn resume(world: &mut World, token: &Bytes, counter: u64) -> ConnId {
    let conn = world.open(ShardId(0));
    let Up::Hello(hello) = hello(bob(), counter, Position::ZERO) else {
        unreachable!("made so")
    };
    world.frame(
        conn,
        Up::Hello(v1::Hello {
            credential: Some(v1::hello::Credential::ResumeToken(token.clone())),
            ..hello
        }),
    );
    world.pump();
    conn
}

#[test]
fn df18_r13_a_removed_devices_session_ends_at_once_wherever_it_is() {
    let mut world = World::new(3);
    let (home, away) = home_and_away(&world, bob());
    for shard in [home, away] {
        let second = device(2, 2 + u32::from(shard.0));
        let kept = world.connect_on(home, bob(), Position::ZERO);
        let gone = world.connect_on(shard, second, Position::ZERO);
        world.store.remove(second);
        end(&mut world, Ended::Device(second.0, second.1));
        assert_eq!(world.close_code(gone), Some(ErrorCode::DeviceRemoved));
        assert_eq!(world.close_code(kept), None, "another device of the user");
        world.disconnect(kept);
        world.pump();
    }
}

#[test]
fn df18_r13_a_removed_device_that_is_being_opened_gets_no_session() {
    for step in 0..3 {
        let mut world = World::new(3);
        let (_, away) = home_and_away(&world, bob());
        if step == 0 {
            world.held.insert(Kind::Open);
        }
        world.hold_messages = step == 1;
        let conn = world.greet(away, bob(), Position::ZERO);
        world.pump();
        // Its Register is under way, or its device was opened before and the answer is.
        let opened = (step == 0).then(|| {
            let asked = world.take(Kind::Open);
            world.execute(asked)
        });
        world.store.remove(bob());
        world.hold_messages = false;
        world.held.clear();
        let home = world.placement.home(bob().0);
        world.input(home, Input::Ended(Ended::Device(bob().0, bob().1)));
        if let Some(opened) = opened {
            world.answer(opened);
        }
        world.pump();
        assert_eq!(
            world.close_code(conn),
            Some(ErrorCode::DeviceRemoved),
            "{step}"
        );
    }
}

#[test]
fn df18_r13_the_stores_word_that_a_device_is_gone_ends_its_session() {
    // Nobody told the home, as if another node had removed it.
    let mut world = World::new(1);
    let bob_conn = world.connect(bob());
    let from = world.connect(alice());
    world.held.insert(Kind::Send);
    for number in 1..=3 {
        world.send(from, number, ours(), "x");
    }
    world.store.remove(alice());
    world.release();
    assert_eq!(world.close_code(from), Some(ErrorCode::DeviceRemoved));
    let got = answers(&world.take_frames(from));
    let removed = (1, Err(ErrorCode::DeviceRemoved));
    assert_eq!(got, [removed], "the others were not with the store");
    assert_eq!(world.shards[0].counters().sends_pending, 0);
    assert_eq!(world.close_code(bob_conn), None);
}

#[test]
fn df15_p14_what_a_user_who_was_signed_out_sends_goes_unanswered() {
    let mut world = World::new(1);
    world.connect(bob());
    let from = world.connect(alice());
    world.held.insert(Kind::Send);
    world.send(from, 1, ours(), "x");
    world.pump();
    let asked = world.take(Kind::Send);
    let refused = Err(StoreError::SignedOut);
    world.answer(Answered {
        shard: asked.shard,
        completion: Completion {
            id: asked.request.id,
            outcome: Ok(Outcome::Sent {
                answers: vec![refused],
                grown: Vec::new(),
            }),
        },
    });
    assert_eq!(world.close_code(from), Some(ErrorCode::TokenExpired));
    assert_eq!(
        answers(&world.take_frames(from)),
        [],
        "it is sent again after the next login"
    );
}

#[test]
fn df18_r13_a_mark_of_a_removed_device_ends_its_session() {
    let mut world = World::new(1);
    let to = world.connect(bob());
    let from = world.connect(alice());
    world.send(from, 1, ours(), "x");
    world.pump();
    let (_, cursor) = world.delivered(to).remove(0);
    world.ack(to, cursor);
    world.advance(limits::FLUSH_DELAY);
    world.store.remove(bob());
    world.frame(to, read_mark(ours(), cursor));
    world.pump();
    assert_eq!(world.close_code(to), Some(ErrorCode::DeviceRemoved));
}

#[test]
fn df15_p14_a_user_who_is_signed_out_loses_every_session_of_before() {
    let mut world = World::new(3);
    let (home, away) = home_and_away(&world, bob());
    let one = world.connect_on(home, bob(), Position::ZERO);
    let two = world.connect_on(away, device(2, 2), Position::ZERO);
    let other = world.connect(alice());
    end(&mut world, signed_out(ISSUED_S));
    assert_eq!(
        world.close_code(one),
        None,
        "it goes back to a token of that moment"
    );
    world.store.valid_after_s.insert(bob().0, ISSUED_S + 1);
    end(&mut world, signed_out(ISSUED_S + 1));
    for conn in [one, two] {
        assert_eq!(world.close_code(conn), Some(ErrorCode::TokenExpired));
    }
    assert_eq!(world.close_code(other), None);
    let token = world.welcome(one).resume_token.clone();
    let again = resume(&mut world, &token, 50);
    assert_eq!(world.close_code(again), Some(ErrorCode::TokenExpired));
    let fresh = format!("2 1 {}", ISSUED_S + 1).into();
    let again = resume(&mut world, &fresh, 51);
    assert_eq!(world.close_code(again), None);
}

#[test]
fn df15_p14_a_login_that_is_being_opened_when_its_user_is_signed_out_gets_no_session() {
    let mut world = World::new(3);
    let (home, away) = home_and_away(&world, bob());
    world.hold_messages = true;
    let conn = world.greet(away, bob(), Position::ZERO);
    world.pump();
    world.input(home, Input::Ended(signed_out(ISSUED_S + 1)));
    world.release();
    assert_eq!(world.close_code(conn), Some(ErrorCode::TokenExpired));
    // What ended so long ago is with the store alone.
    world.advance(limits::HELLO_TIMEOUT * 2);
    let later = world.greet(away, bob(), Position::ZERO);
    world.pump();
    assert_eq!(world.close_code(later), None);
}

#[test]
fn df15_p14_a_resume_token_needs_a_counter_above_the_one_it_was_issued_with() {
    let mut world = World::new(1);
    let first = world.connect(bob());
    let token = world.welcome(first).resume_token.clone();
    assert_eq!(token, format!("2 1 {ISSUED_S}"));
    for counter in [0, 1] {
        let copy = resume(&mut world, &token, counter);
        assert_eq!(world.close_code(copy), Some(ErrorCode::TokenInvalid));
    }
    assert_eq!(world.close_code(first), None);
    let next = resume(&mut world, &token, 2);
    assert_eq!(world.close_code(next), None);
    assert_eq!(world.close_code(first), Some(ErrorCode::SessionReplaced));
}

#[test]
fn df15_p14_an_older_token_does_not_take_the_session_of_a_later_one() {
    let mut world = World::new(3);
    let first = world.connect(bob());
    let stolen = world.welcome(first).resume_token.clone();
    world.disconnect(first);
    world.pump();
    let second = resume(&mut world, &stolen, 2);
    let token = world.welcome(second).resume_token.clone();
    world.disconnect(second);
    world.pump();
    let third = resume(&mut world, &token, 3);
    assert_eq!(world.close_code(third), None);
    let thief = resume(&mut world, &stolen, 99);
    assert_eq!(world.close_code(thief), Some(ErrorCode::TokenInvalid));
    assert_eq!(world.close_code(third), None, "it serves on");
    let overtaken = |shard: &crate::Shard| shard.counters().tokens_overtaken;
    assert_eq!(world.shards.iter().map(overtaken).sum::<u64>(), 1);
    // A Welcome that is lost leaves its client with the token of before, as often as that happens.
    let again = resume(&mut world, &token, 4);
    let again_lost = resume(&mut world, &token, 5);
    assert_eq!(world.close_code(again), Some(ErrorCode::SessionReplaced));
    assert_eq!(world.close_code(again_lost), None);
}
