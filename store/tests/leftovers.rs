//! What can not be read, and what nobody else would clean away.

mod rig;

use bytes::Bytes;
use rig::ask::{Ask, Memory};
use rig::rules::{alice, bob, chat, open_all};
use roadstead_store::records::device;
use roadstead_store::records::expiry::{self, Budget, minute_of};
use roadstead_store::records::{Knowledge, held, minutes};
use roadstead_store::txn::{RangeQuery, Read, Txn, ready};

const T0: u64 = 1_800_000_000_000;
const DAY: u64 = 24 * 60 * 60_000;

fn damage(store: &Memory, key: &[u8]) {
    let mut txn = store.engine.begin();
    txn.set(key, Bytes::from_static(b"\xffdamaged"));
    ready(txn.commit()).expect("commits");
}

fn held_of(store: &Memory) -> held::Held {
    let mut knowledge = Knowledge::of_one_among_many(2);
    let scope = store.scope(&mut knowledge);
    let mut txn = store.engine.begin();
    ready(held::load(&scope, &mut txn, bob(), Read::Snapshot)).expect("reads")
}

/// A minute is stamped.
fn stamp(store: &Memory, unix_ms: u64) {
    let mut knowledge = Knowledge::of_one_among_many(2);
    let mut scope = store.scope(&mut knowledge);
    let mut txn = store.engine.begin();
    let minute = minute_of(unix_ms);
    ready(minutes::stamp(&mut scope, &mut txn, minute, true)).expect("stamps");
    ready(txn.commit()).expect("commits");
}

/// What is old enough goes.
fn expire(store: &Memory) {
    let mut knowledge = Knowledge::of_one_among_many(2);
    let mut txn = store.engine.begin();
    let scope = store.scope(&mut knowledge);
    let mut progress = ready(expiry::begin(&scope, &mut txn, None)).expect("begins");
    ready(txn.commit()).expect("commits");
    while !progress.is_done() {
        let mut scope = store.scope(&mut knowledge);
        let mut txn = store.engine.begin();
        let step = expiry::step(&mut scope, &mut txn, progress, Budget::OF_A_BATCH);
        progress = ready(step).expect("steps");
        ready(txn.commit()).expect("commits");
    }
}

/// R16: a damaged receipt record of one chat must not keep a device from acknowledging anything, for ever.
#[test]
fn df1_r18_a_damaged_receipt_holds_up_no_acknowledgement() {
    let mut store = Memory::new();
    open_all(&mut store, &[alice(), bob()]);
    let first = store.send(alice(), bob().0, 1).position;
    store.flush(bob(), first);
    damage(&store, &store.keys.receipt(chat(), bob().0));
    let second = store.send(alice(), bob().0, 2).position;
    let flushed = store.try_flush(bob(), second, None);
    assert!(flushed.is_ok(), "{flushed:?}");
}

/// What expires without being readable is counted for ever, and the inbox is crowded for ever.
#[test]
fn df3_r21_an_unreadable_entry_that_expires_is_counted_off() {
    let mut store = Memory::new();
    open_all(&mut store, &[alice(), bob()]);
    stamp(&store, T0);
    let old = store.send(alice(), bob().0, 1).position;
    damage(&store, &store.keys.entry(bob().0, bob().1, old));
    stamp(&store, T0 + 60_000);
    stamp(&store, T0 + 31 * DAY);
    expire(&store);
    assert!(store.entries(bob()).is_empty());
    assert_eq!(held_of(&store), held::Held::default());
}

/// A crash between the removal of a device and the cleaning of what it left.
#[test]
fn df3_r13_nothing_is_left_of_a_removed_device_when_its_entries_have_expired() {
    let mut store = Memory::new();
    open_all(&mut store, &[alice(), bob()]);
    stamp(&store, T0);
    store.send(alice(), bob().0, 1);
    {
        let mut knowledge = Knowledge::of_one_among_many(2);
        let mut scope = store.scope(&mut knowledge);
        let mut txn = store.engine.begin();
        assert!(ready(device::remove(&mut scope, &mut txn, bob())).expect("removes"));
        ready(txn.commit()).expect("commits");
    }
    stamp(&store, T0 + 60_000);
    stamp(&store, T0 + 31 * DAY);
    expire(&store);
    let mut txn = store.engine.begin();
    let inbox = store.keys.inbox(bob().0, bob().1);
    let left = ready(txn.range(RangeQuery::all(&inbox, &inbox.end_of_prefix()))).expect("reads");
    assert!(left.pairs.is_empty(), "the entries have gone");
    let counter =
        ready(txn.get(&store.keys.held(bob().0, bob().1), Read::Snapshot)).expect("reads");
    assert_eq!(counter, None);
}
