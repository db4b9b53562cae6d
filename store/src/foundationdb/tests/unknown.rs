//! R15: commits of unknown outcome are found out through the records.

use std::time::{Duration, Instant};

use roadstead::store::{Outcome, Sent, StoreError};
use roadstead::time::Time;

use super::super::fake::{Fault, World};
use super::rig::{Rig, item};

fn send_through(faults: &[Fault]) -> (World, Rig, Sent, usize) {
    let world = World::default();
    let mut rig = Rig::open(world.clone());
    let (alice, bob) = rig.alice_and_bob();
    world.fail_commits(faults);
    let (answers, grown) = rig.send(alice, vec![item(alice, bob.0, 1, b"hello")]);
    let sent = answers[0].expect("committed");
    assert_eq!(
        rig.read(bob).entries.len(),
        1,
        "one message, whatever was unknown"
    );
    assert_eq!(rig.read(bob).entries[0].cursor, sent.position);
    let told = grown
        .iter()
        .filter(|grown| (grown.user, grown.device) == bob)
        .count();
    assert!(grown.iter().all(|grown| grown.cursor >= sent.position));
    (world, rig, sent, told)
}

#[test]
fn a_commit_that_happened_is_found_and_its_readers_are_told() {
    let (_, _, sent, told) = send_through(&[Fault::UnknownCommitted]);
    assert!(sent.repeated);
    assert_eq!(told, 1, "the first attempt never told them");
}

#[test]
fn a_commit_that_was_lost_is_made_again() {
    let (_, _, sent, told) = send_through(&[Fault::UnknownLost]);
    assert!(!sent.repeated);
    assert_eq!(told, 1);
}

#[test]
fn a_commit_that_arrives_late_conflicts_with_the_one_made_meanwhile() {
    let (world, mut rig, _, _) = send_through(&[Fault::UnknownLate]);
    let (alice, bob) = rig.alice_and_bob();
    rig.send_one(alice, bob.0, 2);
    assert_eq!(rig.read(bob).entries.len(), 2);
    assert_eq!(world.back_offs(), [1031]);
}

#[test]
fn many_unknown_outcomes_in_a_row_make_one_message() {
    let faults = [
        Fault::UnknownLost,
        Fault::UnknownLate,
        Fault::UnknownCommitted,
        Fault::UnknownLost,
    ];
    let (_, rig, sent, told) = send_through(&faults);
    assert!(sent.repeated);
    assert_eq!(told, 1);
    let counters = rig.store.handle();
    assert_eq!(
        counters.counters().unknown.get(),
        3,
        "the fourth try had nothing to commit"
    );
}

#[test]
fn a_flush_that_happened_still_tells_the_sender() {
    let world = World::default();
    let mut rig = Rig::open(world.clone());
    let (alice, bob) = rig.alice_and_bob();
    let sent = rig.send_one(alice, bob.0, 1);
    world.fail_commits(&[Fault::UnknownCommitted]);
    let (ack, grown) = rig.flush(bob, sent.position).expect("flushes");
    assert_eq!(ack, sent.position);
    assert!(
        grown
            .iter()
            .any(|grown| (grown.user, grown.device) == alice)
    );
    assert_eq!(rig.read(alice).entries.len(), 1);
}

#[test]
fn what_may_be_committed_is_never_called_uncommitted() {
    let world = World::default();
    let mut rig = Rig::open(world.clone());
    let (alice, bob) = rig.alice_and_bob();
    let mut urgent = item(alice, bob.0, 1, b"urgent");
    urgent.deadline = Time::from_micros(10);
    world.fail_commits(&[Fault::UnknownCommitted]);
    world.fail_reads(&[]);
    rig.late_after_back_off(11);
    let sends = rig.sends(alice, vec![urgent]);
    let Ok(Outcome::Sent { answers, .. }) = rig.ask(sends) else {
        panic!("sends are answered one by one");
    };
    assert_eq!(answers, [Err(StoreError::Unavailable)]);
    assert_eq!(rig.read(bob).entries.len(), 1);
    // Nobody told bob; so everybody is told to look.
    let deadline = Instant::now() + Duration::from_secs(60);
    while rig.store.handle().counters().unsettled.get() == 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}
