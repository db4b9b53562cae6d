//! What commands read and write blindly: who conflicts with whom on an engine where others write too.

mod rig;

use bytes::Bytes;
use rig::ask::{Ask, Memory, Who};
use rig::{device, item, user};
use roadstead::store::{Command, Flush, InboxLimits, Outcome, Sends, StoreError};
use roadstead_proto::UserId;
use roadstead_store::memory::Fault;
use roadstead_store::txn::{Txn, TxnError, ready};

fn alice() -> Who {
    (user(1), device(1))
}

fn bob() -> Who {
    (user(2), device(2))
}

fn send(from: Who, to: UserId, number: u64) -> Command {
    Command::Send(Sends {
        user: from.0,
        device: from.1,
        limits: InboxLimits::DEFAULT,
        items: vec![item(from, to, number, b"hello")],
    })
}

fn open(devices: &[Who]) -> Memory {
    let mut store = Memory::new();
    for who in devices {
        store.open(*who);
    }
    store
}

#[test]
fn r14_a_device_added_between_check_and_commit_is_seen() {
    let mut store = open(&[alice(), bob()]);
    let (txn, outcome) = store.prepare(&send(alice(), bob().0, 1)).expect("runs");
    assert!(outcome.is_ok());
    store.open((user(2), device(22)));
    assert_eq!(ready(txn.commit()), Err(TxnError::Conflict));
    store.send(alice(), bob().0, 1);
    assert_eq!(store.entries((user(2), device(22))).len(), 1);
}

#[test]
fn r14_two_senders_to_one_inbox_never_conflict() {
    let carol = (user(3), device(3));
    let store = open(&[alice(), bob(), carol]);
    let (one, _) = store.prepare(&send(alice(), bob().0, 1)).expect("runs");
    let (two, _) = store.prepare(&send(carol, bob().0, 1)).expect("runs");
    let (three, _) = store.prepare(&send(bob(), alice().0, 1)).expect("runs");
    for txn in [two, one, three] {
        ready(txn.commit()).expect("commits");
    }
}

#[test]
fn r12_one_number_sent_twice_at_once_is_executed_once() {
    let mut store = open(&[alice(), bob()]);
    let (one, _) = store.prepare(&send(alice(), bob().0, 1)).expect("runs");
    let (two, _) = store.prepare(&send(alice(), bob().0, 1)).expect("runs");
    ready(one.commit()).expect("commits");
    assert_eq!(ready(two.commit()), Err(TxnError::Conflict));
    assert!(store.send(alice(), bob().0, 1).repeated);
    assert_eq!(store.entries(bob()).len(), 1);
}

/// Two copies of a send, as two sessions of a device may leave them behind: once its sender was told that
/// nobody has that id, the other one must not be committed.
#[test]
fn r12_a_send_refused_for_good_is_not_executed_by_its_other_copy() {
    let mut store = open(&[alice()]);
    let (refused, outcome) = store.prepare(&send(alice(), bob().0, 1)).expect("runs");
    match outcome {
        Ok(Outcome::Sent { answers, .. }) => assert_eq!(answers, [Err(StoreError::UserUnknown)]),
        other => panic!("{other:?}"),
    }
    store.open(bob());
    assert_eq!(ready(refused.commit()), Err(TxnError::Conflict), "R14");

    let carol = (user(3), device(3));
    let (copy, _) = store.prepare(&send(alice(), carol.0, 2)).expect("runs");
    let unknown = Err(StoreError::UserUnknown);
    assert_eq!(store.try_send(alice(), carol.0, 2), unknown);
    store.open(carol);
    assert_eq!(ready(copy.commit()), Err(TxnError::Conflict));
    assert_eq!(store.try_send(alice(), carol.0, 2), unknown);
    assert!(store.entries(carol).is_empty());
}

#[test]
fn r15_an_unknown_outcome_is_found_out_through_the_answers() {
    for (fault, repeated) in [(Fault::LostBefore, false), (Fault::LostAfter, true)] {
        let mut store = open(&[alice(), bob()]);
        store.engine.inject(fault);
        let unknown = store.attempt(&send(alice(), bob().0, 1));
        assert!(matches!(unknown, Err(TxnError::UnknownResult)));
        assert_eq!(store.send(alice(), bob().0, 1).repeated, repeated);
        assert_eq!(store.entries(bob()).len(), 1);
    }
}

#[test]
fn r18_two_flushes_of_one_device_conflict_and_a_send_to_it_does_not() {
    let mut store = open(&[alice(), bob()]);
    let upto = store.send(alice(), bob().0, 1).position;
    let flush = Command::Flush(Flush {
        user: bob().0,
        device: bob().1,
        upto,
        known: None,
    });
    let (one, _) = store.prepare(&flush).expect("runs");
    let (two, _) = store.prepare(&flush).expect("runs");
    store.send(alice(), bob().0, 2);
    ready(one.commit()).expect("commits beside the send");
    assert_eq!(ready(two.commit()), Err(TxnError::Conflict));
    assert_eq!(store.receipts(alice()).len(), 1, "one receipt, by one door");
}

#[test]
fn damaged_records_are_reported_and_never_panic() {
    let mut store = open(&[alice(), bob()]);
    store.send(alice(), bob().0, 1);
    let keys = store.keys;
    for key in [
        keys.versions(bob().0),
        keys.answer(alice().0, alice().1, 2),
        keys.ack(bob().0, bob().1),
    ] {
        let mut txn = store.engine.begin();
        txn.set(&key, Bytes::from_static(b"\xffnonsense"));
        ready(txn.commit()).expect("commits");
    }
    let sent = store.attempt(&send(alice(), bob().0, 2)).expect("runs");
    match sent {
        Ok(Outcome::Sent { answers, .. }) => assert_eq!(answers, [Err(StoreError::RecordDamaged)]),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        store.open_at(bob(), Default::default()),
        Err(StoreError::Corrupt)
    );
}
