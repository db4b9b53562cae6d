//! The service API of the embedded engine, end to end.

mod rig;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rig::ask::Ask;
use rig::{PATIENCE, Rig, SHARD, config, device, item, user};
use roadstead::ShardId;
use roadstead::store::{
    Command, Completion, EntryBody, OpenDevice, Request, RequestId, StoreError,
};
use roadstead_proto::Position;
use roadstead_store::{EmbeddedStore, Health};

#[test]
fn a_message_goes_the_whole_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    let (alice, bob) = ((user(1), device(1)), (user(2), device(2)));
    rig.open(alice);
    rig.open(bob);

    let sent = rig.send(alice, bob.0, 1);
    let inbox = rig.page(bob, Position::ZERO, (100, 1 << 20));
    assert_eq!(inbox.entries.len(), 1);
    assert_eq!(inbox.entries[0].cursor, sent.position);
    assert!(inbox.through >= sent.position && !inbox.more);

    let (ack, grown) = rig.try_flush(bob, sent.position, None).expect("flushes");
    assert_eq!(ack, sent.position);
    assert_eq!(grown.len(), 1);
    assert!(rig.entries(bob).is_empty());

    let receipts = rig.entries(alice);
    let [entry] = &receipts[..] else {
        panic!("{receipts:?}")
    };
    let EntryBody::Receipt(update) = &entry.body else {
        panic!("{entry:?}")
    };
    assert_eq!(update.delivered, &sent.position.as_bytes()[..]);
    assert!(update.read.is_empty());
}

#[test]
fn r9_stamps_grow_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (alice, bob) = ((user(1), device(1)), (user(2), device(2)));
    let mut before = Position::ZERO;
    for number in 1..=3 {
        let mut rig = Rig::open(folder.path());
        rig.open(alice);
        rig.open(bob);
        let sent = rig.send(alice, bob.0, number);
        assert!(sent.position > before);
        before = sent.position;
        rig.store.stop();
    }
    let mut rig = Rig::open(folder.path());
    assert_eq!(rig.entries(bob).len(), 3);
}

#[test]
fn a_user_without_devices_is_unknown() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    let alice = (user(1), device(1));
    rig.open(alice);
    let (answers, grown) = rig.sends(alice, vec![item(alice, user(2), 1, b"anyone?")]);
    assert_eq!(answers, [Err(StoreError::UserUnknown)]);
    assert!(grown.is_empty());
}

/// R10: a release build aborts; any other one must not look healthy while nobody commits.
#[test]
fn r10_a_committer_that_panics_turns_health_red() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = Arc::new(|_: ShardId, _: Vec<Completion>| panic!("whoever is answered panics"));
    let store = EmbeddedStore::open(config(folder.path(), &Arc::default()), sink).expect("opens");
    let handle = store.handle();
    assert_eq!(handle.health(), Health::Ready);
    let open = |id| {
        let command = Command::OpenDevice(OpenDevice {
            user: user(1),
            device: device(1),
            cursor: Position::ZERO,
            want_highest_number: false,
            unix_ms: 1,
            issued_s: 0,
        });
        let id = RequestId(id);
        vec![Request { id, command }]
    };
    assert!(handle.submit(SHARD, open(1)).is_empty(), "taken");
    let began = Instant::now();
    while !matches!(handle.health(), Health::Failed { .. }) {
        assert!(
            began.elapsed() < PATIENCE,
            "health stays {:?}",
            handle.health()
        );
        // A thread that panics is waited for, which only its trace shows.
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let refused = handle.submit(SHARD, open(2));
    let outcomes: Vec<_> = refused
        .iter()
        .map(|one| one.outcome.clone().err())
        .collect();
    assert_eq!(outcomes, [Some(StoreError::Unavailable)]);
}
