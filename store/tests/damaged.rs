//! Records that can not be read: what one of them costs, and what it must not cost (R16).

mod rig;

use bytes::Bytes;
use rig::ask::{Ask, Memory};
use rig::rules::{alice, bob, open_all};
use rig::{device, item, user};
use roadstead::store::{Command, OpenDevice, Outcome, StoreError};
use roadstead_proto::Position;
use roadstead_store::txn::{Txn, ready};

const DAMAGED: StoreError = StoreError::RecordDamaged;

fn damage(store: &Memory, key: &[u8]) {
    let mut txn = store.engine.begin();
    txn.set(key, Bytes::from_static(b"\xffdamaged"));
    ready(txn.commit()).expect("commits");
}

/// D-F1: the recipient's devices are unreadable. Who writes to it hears so, for good, and goes on elsewhere.
#[test]
fn df1_r16_an_unreadable_recipient_is_refused_for_good_and_holds_nothing() {
    let mut store = Memory::new();
    let carol = (user(3), device(3));
    open_all(&mut store, &[alice(), bob(), carol]);
    damage(&store, &store.keys.versions(bob().0));
    let items = vec![
        item(alice(), user(2), 1, b"one"),
        item(alice(), user(3), 2, b"two"),
    ];
    let (answers, _) = store.sends(alice(), items.clone());
    assert_eq!(answers[0], Err(DAMAGED));
    assert!(answers[1].is_ok(), "{answers:?}");
    assert!(!DAMAGED.is_retryable());
    // It is the number's answer from now on, also once somebody has mended the record.
    assert_eq!(store.sends(alice(), items).0[0], Err(DAMAGED));
}

/// An answer that can not be read may have been any: its number is not executed, those beside it are.
#[test]
fn df1_r12_a_number_whose_answer_is_unreadable_is_never_executed() {
    let mut store = Memory::new();
    open_all(&mut store, &[alice(), bob()]);
    store.send(alice(), user(2), 300);
    damage(&store, &store.keys.answer(alice().0, alice().1, 300));
    for number in [300, 44] {
        assert_eq!(store.try_send(alice(), user(2), number), Err(DAMAGED));
    }
    store.send(alice(), user(2), 301);
    assert_eq!(store.entries(bob()).len(), 2, "300 once, and 301");
}

/// R13: whoever asks for the highest number gets one that no unreadable answer can be above.
#[test]
fn df1_r13_the_highest_number_is_above_what_can_not_be_read() {
    let mut store = Memory::new();
    open_all(&mut store, &[alice(), bob()]);
    for number in [10, 20, 200] {
        store.send(alice(), user(2), number);
    }
    damage(&store, &store.keys.answer(alice().0, alice().1, 200));
    let open = OpenDevice {
        user: alice().0,
        device: alice().1,
        cursor: Position::ZERO,
        want_highest_number: true,
        unix_ms: 0,
        issued_s: 0,
    };
    let Ok(Outcome::DeviceOpened(opened)) = store.ask(Command::OpenDevice(open)) else {
        panic!("opens");
    };
    let highest = opened.highest_number.expect("asked for");
    assert!(highest >= 200, "{highest}");
    store.send(alice(), user(2), highest + 1);
}
