//! A device that never acknowledges: R21.

use std::time::Duration;

use roadstead_proto::ErrorCode;
use roadstead_proto::v1::{GapReason, server_frame::Body as Down};

use super::frames::{alice, answers, bob, chat, cursor_of, device};
use super::world::{Kind, World};
use crate::store::StoreError;

const INBOX_MAX: u64 = 8;

/// Small inboxes, whose homes count at every append.
fn world() -> World {
    World::with(3, |config| config.inbox_limits.entries_max = INBOX_MAX)
}

#[test]
fn r21_a_full_inbox_is_suspended_with_a_gap_and_resumes_once_that_is_acknowledged() {
    let mut world = world();
    let to = world.connect(bob());
    world.disconnect(to);
    let from = world.connect(alice());
    for number in 1..=12 {
        world.send(from, number, chat(alice(), bob()), "x");
        world.pump();
    }
    let got = answers(&world.take_frames(from));
    assert!(got[..9].iter().all(|(_, answer)| answer.is_ok()));
    assert_eq!(got[9], (10, Err(ErrorCode::RecipientFull)));
    assert_eq!(
        world.store.device(bob()).inbox.len(),
        10,
        "one more, and the gap"
    );
    let to = world.connect(bob());
    let frames = world.take_frames(to);
    let Some(Down::Gap(gap)) = frames.last() else {
        panic!("{frames:?}");
    };
    assert_eq!(gap.reason(), GapReason::InboxLimit);
    world.ack(
        to,
        cursor_of(&frames[frames.len() - 1]).expect("it has one"),
    );
    world.pump();
    assert!(!world.store.device(bob()).suspended);
    world.take_frames(from);
    for number in 13..=15 {
        world.send_after(from, number, 12, chat(alice(), bob()), "x");
    }
    world.pump();
    assert_eq!(world.delivered(to).len(), 3);
}

#[test]
fn r21_a_send_fails_only_if_all_devices_of_the_recipient_are_suspended() {
    let mut world = world();
    let (silent, lively) = (world.connect(bob()), world.connect(device(2, 2)));
    world.disconnect(silent);
    let from = world.connect(alice());
    for number in 1..=30 {
        world.send(from, number, chat(alice(), bob()), "x");
        world.pump();
        let cursor = world.delivered(lively)[0].1;
        world.ack(lively, cursor);
        world.advance(Duration::from_secs(1));
    }
    assert!(
        answers(&world.take_frames(from))
            .iter()
            .all(|(_, answer)| answer.is_ok())
    );
    assert!(world.store.device(bob()).suspended);
    assert!(!world.store.device(device(2, 2)).suspended);
}

#[test]
fn r21_the_home_counts_once_in_an_interval() {
    let mut world = World::with(3, |config| config.inbox_limits.entries_max = 320);
    let to = world.connect(bob());
    world.disconnect(to);
    let from = world.connect(alice());
    for number in 1..=60 {
        world.send(from, number, chat(alice(), bob()), "x");
        world.pump();
    }
    let checks = world.made[&Kind::Check];
    assert!((1..=15).contains(&checks), "{checks} of 60 appends");
}

#[test]
fn r21_a_count_that_fails_is_made_again_later() {
    let mut world = world();
    let to = world.connect(bob());
    world.disconnect(to);
    let from = world.connect(alice());
    world.held.insert(Kind::Check);
    for number in 1..=12 {
        world.send(from, number, chat(alice(), bob()), "x");
        world.pump();
        world.fail(Kind::Check, StoreError::Unavailable);
    }
    world.held.clear();
    world.send(from, 13, chat(alice(), bob()), "x");
    world.pump();
    assert!(world.store.device(bob()).suspended);
}
