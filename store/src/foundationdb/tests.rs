//! The engine on a made-up cluster: conflicts, unknown outcomes, lost leases.

mod rig;
mod unknown;

use std::time::{Duration, Instant};

use roadstead::store::{Command, EntryBody, StoreError};
use roadstead::time::Time;
use roadstead_proto::Position;

use crate::conformance::{self, ConcurrentEngine};
use crate::embedded::Health;
use crate::keys::Keys;
use crate::records::expiry::minute_of;

use super::cluster::Cluster;
use super::fake::{Fault, World};
use super::{FoundationLimits, Raw, lease};
use rig::{KEYS, Rig, device, item, user};

#[test]
fn the_transaction_conforms() {
    let world = World::default();
    let raw = Raw::of(Cluster::Fake(world.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        conformance::all(&raw).await;
        conformance::conflicts(&raw).await;
        let inject = |happens| {
            world.fail_commits(match happens {
                true => &[Fault::UnknownCommitted],
                false => &[Fault::UnknownLost],
            });
        };
        conformance::unknown_results(&raw, inject).await;
    });
}

#[test]
fn a_message_goes_the_whole_way() {
    let mut rig = Rig::open(World::default());
    let (alice, bob) = rig.alice_and_bob();
    let sent = rig.send_one(alice, bob.0, 1);
    let inbox = rig.read(bob);
    assert_eq!(inbox.entries.len(), 1);
    assert_eq!(inbox.entries[0].cursor, sent.position);
    assert!(inbox.through >= sent.position && !inbox.more);

    let (ack, grown) = rig.flush(bob, sent.position).expect("flushes");
    assert_eq!(ack, sent.position);
    assert_eq!(grown.len(), 1);
    assert!(rig.read(bob).entries.is_empty());
    let receipts = rig.read(alice).entries;
    assert!(matches!(&receipts[..], [entry] if matches!(entry.body, EntryBody::Receipt(_))));
}

#[test]
fn r16_sends_of_a_device_keep_their_order_over_many_transactions() {
    let limits = FoundationLimits {
        batch_bytes_max: 1_000,
        ..FoundationLimits::default()
    };
    let world = World::default();
    let mut rig = Rig::with(world.clone(), limits);
    let (alice, bob) = rig.alice_and_bob();
    let before = world.commits();
    let items = (1..=100)
        .map(|number| item(alice, bob.0, number, &[7; 100]))
        .collect();
    let (answers, grown) = rig.send(alice, items);
    let positions: Vec<Position> = answers
        .iter()
        .map(|answer| answer.expect("committed").position)
        .collect();
    assert!(positions.is_sorted() && positions.len() == 100);
    assert_eq!(grown.len(), 100);
    assert!(
        world.commits() - before >= 10,
        "{} commits",
        world.commits() - before
    );
    assert!(world.largest() < 2_000, "{} bytes", world.largest());
    assert_eq!(rig.read(bob).entries.len(), 100);
}

#[test]
fn r14_sends_to_one_inbox_never_conflict() {
    let world = World::default();
    let limits = FoundationLimits {
        batch_commands_max: 2,
        ..FoundationLimits::default()
    };
    let mut rig = Rig::with(world, limits);
    let bob = (user(1_000), device(1));
    rig.open_device(bob);
    for id in 1..=40 {
        rig.open_device((user(id), device(1)));
    }
    let conflicts = rig.store.handle().counters().conflicts.get();
    for id in 1..=40 {
        let from = (user(id), device(1));
        rig.submit_send(from, vec![item(from, bob.0, 1, b"hello")]);
    }
    rig.wait_for(40);
    assert_eq!(rig.store.handle().counters().conflicts.get(), conflicts);
    assert_eq!(rig.read(bob).entries.len(), 40);
}

#[test]
fn r16_only_what_the_library_names_is_put_off() {
    let world = World::default();
    let mut rig = Rig::open(world.clone());
    let (alice, bob) = rig.alice_and_bob();
    let carol = (user(3), device(1));
    rig.open_device(carol);
    let attempts = rig.store.handle().counters().attempts.get();
    let put_off = rig.store.handle().counters().put_off.get();
    world.fail_commits(&[Fault::Overtaken((*KEYS.versions(carol.0)).to_vec().into())]);
    let both = vec![
        rig.sends(alice, vec![item(alice, bob.0, 1, b"one")]),
        rig.sends(carol, vec![item(carol, bob.0, 1, b"two")]),
    ];
    rig.submit(both);
    rig.wait_for(2);
    let counters = rig.store.handle();
    let counters = counters.counters();
    assert_eq!(counters.put_off.get() - put_off, 1);
    assert_eq!(counters.attempts.get() - attempts, 3);
    assert_eq!(rig.read(bob).entries.len(), 2);
}

#[test]
fn r16_without_names_a_batch_is_halved_until_it_passes() {
    let world = World::default();
    let mut rig = Rig::open(world.clone());
    let (alice, bob) = rig.alice_and_bob();
    let key = (*KEYS.versions(bob.0)).to_vec();
    world.fail_commits(&[
        Fault::OvertakenUnnamed(key.clone().into()),
        Fault::OvertakenUnnamed(key.into()),
    ]);
    rig.send_one(alice, bob.0, 1);
    assert_eq!(rig.read(bob).entries.len(), 1);
    assert_eq!(world.back_offs(), [1020, 1020]);
}

#[test]
fn what_passes_is_tried_again_by_the_librarys_rules() {
    let world = World::default();
    let mut rig = Rig::open(world.clone());
    let (alice, bob) = rig.alice_and_bob();
    world.fail_reads(&[1031, 1037]);
    world.fail_commits(&[Fault::Code(1007), Fault::Code(1051)]);
    rig.send_one(alice, bob.0, 1);
    assert_eq!(world.back_offs(), [1031, 1037, 1007, 1051]);
}

#[test]
fn r26_a_send_past_its_deadline_is_not_committed() {
    let world = World::default();
    let mut rig = Rig::open(world.clone());
    let (alice, bob) = rig.alice_and_bob();
    rig.set_clock(100);
    let mut late = item(alice, bob.0, 1, b"late");
    late.deadline = Time::from_micros(99);
    let before = world.commits();
    let (answers, _) = rig.send(alice, vec![late]);
    assert_eq!(answers, [Err(StoreError::DeadlinePassed)]);
    assert_eq!(world.commits(), before);
}

#[test]
fn r24_a_node_that_was_taken_over_commits_nothing() {
    let world = World::default();
    let mut first = Rig::open(world.clone());
    let (alice, bob) = first.alice_and_bob();
    let mut second = Rig::open(world);
    let refused = first.ask(first.sends(alice, vec![item(alice, bob.0, 1, b"too late")]));
    let answers = Rig::answers_of(refused);
    assert_eq!(answers, [Err(StoreError::Unavailable)]);
    assert_eq!(first.store.handle().health(), Health::Fenced);
    second.send_one(alice, bob.0, 1);
    assert_eq!(second.read(bob).entries.len(), 1);
}

/// Nothing is sent: the lease keeper is the one that can find out.
#[test]
fn r24_an_idle_node_learns_that_it_was_taken_over() {
    let world = World::default();
    let first = Rig::open(world.clone());
    let _second = Rig::open(world);
    let began = Instant::now();
    while first.store.handle().health() != Health::Fenced {
        assert!(began.elapsed() < Duration::from_secs(60), "it never learns");
        // The keeper has a thread of its own, whose progress only asking shows.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn r24_blocks_of_message_ids_lie_one_above_the_other() {
    let rig = Rig::open(World::default());
    let handle = rig.store.handle();
    let (from, until) = handle.reserve_message_ids(0).expect("reserved");
    let (next, end) = handle.reserve_message_ids(0).expect("reserved");
    assert!(from < until && until <= next && next < end);
}

#[test]
fn r25_entries_leave_by_age_and_notes_are_written_once() {
    let world = World::default();
    let mut rig = Rig::open(world.clone());
    let (alice, bob) = rig.alice_and_bob();
    let handle = rig.store.handle();
    let writes = |rig: &Rig| rig.store.handle().counters().writes.get();
    let before = writes(&rig);
    rig.send_one(alice, bob.0, 1);
    let first = writes(&rig) - before;
    rig.send_one(alice, bob.0, 2);
    assert_eq!(
        writes(&rig) - before - first,
        first - 1,
        "the note is known by now"
    );
    let day_ms = 86_400_000;
    assert_eq!(handle.stamp_minute(rig::NOW_MS), Ok(true));
    let later = rig::NOW_MS + 31 * day_ms;
    leases_tell(&world, &[minute_of(rig::NOW_MS)]);
    assert_eq!(handle.stamp_minute(later), Ok(false));
    let removed = || handle.expire(None).map(|expired| expired.removed);
    assert_eq!(removed(), Ok(0), "not by a clock alone");
    leases_tell(&world, &[minute_of(later)]);
    assert_eq!(handle.stamp_minute(later), Ok(true));
    assert_eq!(removed(), Ok(2));
    assert!(rig.read(bob).entries.is_empty());
}

/// The minutes that the living leases tell, once they are these.
fn leases_tell(world: &World, expected: &[u32]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let raw = Raw::of(Cluster::Fake(world.clone()));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let told = runtime.block_on(async {
            let mut txn = raw.begin().await.expect("begins");
            lease::alive(&mut txn).await.expect("reads")
        });
        if told == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{told:?}");
    }
}

#[test]
fn r25_a_jump_of_the_clock_is_believed_when_most_leases_agree() {
    let world = World::default();
    let rigs = [1, 2, 3].map(|node| Rig::of_node(world.clone(), node));
    let [one, two, three] = rigs.each_ref().map(|rig| rig.store.handle());
    let (now, later) = (rig::NOW_MS, rig::NOW_MS + 3_600_000);
    let (at_now, at_later) = (minute_of(now), minute_of(later));
    for handle in [&one, &two, &three] {
        assert_eq!(handle.stamp_minute(now), Ok(true));
    }
    leases_tell(&world, &[at_now, at_now, at_now]);
    assert_eq!(one.stamp_minute(later), Ok(false), "a jump");
    leases_tell(&world, &[at_later, at_now, at_now]);
    assert_eq!(one.stamp_minute(later), Ok(false), "one of three");
    assert_eq!(two.stamp_minute(later), Ok(false));
    leases_tell(&world, &[at_later, at_later, at_now]);
    assert_eq!(two.stamp_minute(later), Ok(true), "most agree");
    assert_eq!(three.stamp_minute(now), Ok(false), "back");
}

#[test]
fn r25_a_node_that_is_alone_believes_itself_when_it_is_asked_again() {
    let world = World::default();
    let rig = Rig::of_node(world.clone(), 1);
    let handle = rig.store.handle();
    assert_eq!(handle.stamp_minute(rig::NOW_MS), Ok(true));
    let later = rig::NOW_MS + 3_600_000;
    leases_tell(&world, &[minute_of(rig::NOW_MS)]);
    assert_eq!(handle.stamp_minute(later), Ok(false));
    leases_tell(&world, &[minute_of(later)]);
    assert_eq!(handle.stamp_minute(later), Ok(true));
}

#[test]
fn a_stopped_store_refuses() {
    let rig = Rig::open(World::default());
    let handle = rig.store.handle();
    rig.store.stop();
    assert_eq!(handle.health(), Health::Stopped);
    assert_eq!(handle.reserve_message_ids(0), Err(StoreError::Unavailable));
    let read = rig::read_command((user(1), device(1)));
    assert_eq!(
        handle.submit(rig::SHARD, vec![rig::request(1, read)]).len(),
        1
    );
}

#[test]
fn r24_a_server_at_work_is_known_by_its_renewals() {
    let world = World::default();
    let raw = Raw::of(Cluster::Fake(world.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let is_served = || runtime.block_on(raw.is_served());
    assert_eq!(is_served(), Ok(false));
    let mut rig = Rig::open(world.clone());
    rig.alice_and_bob();
    while is_served() != Ok(true) {
        std::thread::yield_now();
    }
    rig.store.stop();
    world.pass(9_000_000);
    assert_eq!(is_served(), Ok(true));
    world.pass(1_000_000);
    assert_eq!(is_served(), Ok(false));
}

#[test]
fn the_keys_of_the_rig_are_the_stores() {
    let rig = Rig::open(World::default());
    let keys = Keys::new(rig.store.placement_key());
    assert_eq!(keys.versions(user(1)), KEYS.versions(user(1)));
    assert!(matches!(
        rig::read_command((user(1), device(1))),
        Command::ReadInbox(_)
    ));
}
