//! A full disk: sends fail and may be tried again, health says so, and nothing answered is lost.
//!
//! Needs a disk that is small, so it mounts one in memory and is skipped where it may not.

mod rig;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rig::ask::Ask;
use rig::{PATIENCE, Rig, config, device, item, user};
use roadstead::store::{Command as Ask_, Outcome, Sends, StoreError};
use roadstead_faulty_disk::SmallDisk;
use roadstead_store::Health;

/// Asks until the answer is as wanted.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what} takes too long");
        // A background thread of the store is waited for, whose progress only asking shows.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that did not run says so")]
fn r10_a_full_disk_refuses_and_recovers() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(folder.path(), 4).expect("a folder") else {
        eprintln!("skipped: not allowed to mount a small disk");
        return;
    };
    let clock = Arc::default();
    let mut rig = Rig::with(config(&disk.path().join("store"), &clock), clock);
    let (alice, bob) = ((user(1), device(1)), (user(2), device(2)));
    rig.open(alice);
    rig.open(bob);
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 2 << 20]).expect("fits");

    let mut answered = Vec::new();
    let mut number = 0;
    let failed = loop {
        number += 1;
        let mut item = item(alice, bob.0, number, b"hello");
        item.envelope.payload = vec![7; 50_000].into();
        let sends = Sends {
            user: alice.0,
            device: alice.1,
            items: vec![item],
        };
        match rig.ask(Ask_::Send(sends)) {
            Ok(Outcome::Sent { answers, .. }) => match answers[0] {
                Ok(sent) => answered.push(sent.position),
                Err(error) => break error,
            },
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
        assert!(number < 1_000, "the disk never fills");
    };
    assert_eq!(failed, StoreError::Unavailable);
    assert!(failed.is_retryable() && !answered.is_empty());
    let handle = rig.store.handle();
    until("noticing", || {
        matches!(handle.health(), Health::Failed { .. })
            || handle.counters().commit.failures.get() > 0
    });

    std::fs::remove_file(&ballast).expect("frees");
    until("recovery", || handle.health() == Health::Ready);
    // The same number again: the first answer, if it was committed after all (R15).
    let again = rig.send(alice, bob.0, number).position;
    assert!(answered.iter().all(|position| *position < again));
    let kept: Vec<_> = rig.entries(bob).iter().map(|entry| entry.cursor).collect();
    assert!(
        answered.iter().all(|position| kept.contains(position)),
        "nothing answered is lost"
    );
    drop(rig);
}
