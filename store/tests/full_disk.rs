//! A full disk: sends fail and may be tried again, health says so, and nothing answered is lost.
//!
//! Needs a disk that is small, so it mounts one in memory and is skipped where it may not.

mod rig;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rig::ask::Ask;
use rig::{PATIENCE, Rig, config, device, item, user};
use roadstead::store::{Command as Ask_, InboxLimits, Outcome, Sends, StoreError};
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
            limits: InboxLimits::DEFAULT,
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
        matches!(handle.health(), Health::Failed { .. } | Health::Full)
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

/// D-F12: with a full disk nothing could be acknowledged and nothing expired, so nothing ever freed it.
#[test]
#[allow(clippy::print_stderr, reason = "a test that did not run says so")]
fn df12_r21_a_full_disk_goes_on_with_what_frees_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(folder.path(), 48).expect("a folder") else {
        eprintln!("skipped: not allowed to mount a small disk");
        return;
    };
    // So little is free from the start that the store looks at the disk with each send: where there is plenty it looks
    // four times a second, and this test fills a disk in less.
    let others = std::fs::File::create(disk.path().join("others")).expect("creates");
    let mut written = 32 << 20;
    std::io::Write::write_all(&mut &others, &vec![1; 32 << 20]).expect("fits");
    let clock = Arc::default();
    let mut config = config(&disk.path().join("store"), &clock);
    config.limits.young_bytes_max = 1024 * 1024;
    config.limits.reserve_bytes_max = 8 * 1024 * 1024;
    let mut rig = Rig::with(config, clock);
    let (alice, bob) = ((user(1), device(1)), (user(2), device(2)));
    rig.open(alice);
    rig.open(bob);
    let handle = rig.store.handle();
    assert_eq!(handle.stamp_minute(1_800_000_000_000), Ok(true));
    let mut number = 0;
    let mut send = |rig: &mut Rig| {
        number += 1;
        let mut item = item(alice, bob.0, number, b"hello");
        item.envelope.payload = vec![7; 1_000].into();
        let sends = Sends {
            user: alice.0,
            device: alice.1,
            limits: InboxLimits::DEFAULT,
            items: vec![item],
        };
        match rig.ask(Ask_::Send(sends)) {
            Ok(Outcome::Sent { answers, .. }) => answers[0].map(|sent| sent.position),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    };
    let mut sent = vec![send(&mut rig).expect("it is empty")];
    // Somebody else fills what is left, down to what the store had kept for itself. The store's own data are few: what
    // its tables need to be merged is not what is asked here.
    while handle.health() == Health::Ready {
        use std::os::unix::fs::FileExt;
        written += others.write_at(&[1; 65_536], written).unwrap_or(0) as u64;
        assert!(written < 100 << 20, "the disk never fills");
        sent.extend(send(&mut rig));
    }
    until("fullness", || {
        sent.extend(send(&mut rig));
        handle.health() == Health::Full
    });
    let before = handle.counters().commit.failures.get();
    assert_eq!(send(&mut rig), Err(StoreError::Unavailable));
    // All of it is full now, to the last byte.
    while {
        use std::os::unix::fs::FileExt;
        let more = others.write_at(&[1; 4_096], written).unwrap_or(0) as u64;
        written += more;
        more > 0
    } {}
    // Acknowledgements, minutes and the expiry go on, whatever of the reserve that takes.
    for (count, position) in sent.iter().enumerate() {
        let flushed = || rig.try_flush(bob, *position, None);
        let mut flushed = flushed;
        until(
            "an acknowledgement",
            || matches!(flushed(), Ok((stored, _)) if stored >= *position),
        );
        until("a minute", || {
            let minute = 60_000 * (count as u64 + 1);
            handle.stamp_minute(1_800_000_000_000 + minute).is_ok()
        });
    }
    assert!(rig.entries(bob).is_empty());
    assert!(handle.expire(None).is_ok());
    let failures = handle.counters().commit.failures.get() - before;
    // One write finds no room and gives the reserve back.
    assert!((1..=2).contains(&failures), "reopened {failures} times");
    // There is room again.
    drop(others);
    std::fs::remove_file(disk.path().join("others")).expect("frees");
    until("room", || send(&mut rig).is_ok());
    assert_eq!(handle.health(), Health::Ready);
    let kept = disk.path().join("store/reserve");
    until("the reserve", || {
        let _ = handle.reserve_message_ids(1_800_000_000_000);
        kept.exists()
    });
}
