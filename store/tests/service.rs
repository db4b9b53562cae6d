//! The service API of the embedded engine, end to end.

mod rig;

use rig::ask::Ask;
use rig::{Rig, device, item, user};
use roadstead::store::{EntryBody, StoreError};
use roadstead_proto::Position;

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
