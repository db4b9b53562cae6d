//! The service API of the embedded engine, end to end.

mod rig;

use rig::{Rig, device, item, user};
use roadstead::store::{EntryBody, StoreError};
use roadstead_proto::Position;

#[test]
fn a_message_goes_the_whole_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    let (alice, bob) = ((user(1), device(1)), (user(2), device(2)));
    rig.open_device(alice).expect("opens");
    rig.open_device(bob).expect("opens");

    let sent = rig.send_one(alice, bob.0, 1);
    let inbox = rig.read(bob, Position::ZERO);
    assert_eq!(inbox.entries.len(), 1);
    assert_eq!(inbox.entries[0].cursor, sent.position);
    assert!(inbox.through >= sent.position && !inbox.more);

    let (ack, grown) = rig.flush(bob, sent.position, None).expect("flushes");
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
        rig.open_device(alice).expect("opens");
        rig.open_device(bob).expect("opens");
        let sent = rig.send_one(alice, bob.0, number);
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
    rig.open_device(alice).expect("opens");
    let (answers, grown) = rig.send(alice, vec![item(alice, user(2), 1, b"anyone?")]);
    assert_eq!(answers, [Err(StoreError::UserUnknown)]);
    assert!(grown.is_empty());
}
