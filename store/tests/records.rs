//! The rules of delivery on every engine of this process, each test named after its rule.

mod rig;

use rig::ask::{Ask, Memory};
use rig::rules::{self, alice, bob, bob_tablet, chat, cursors, open_all};
use rig::{Rig, user};
use roadstead_proto::Position;

/// Runs a check on both engines; on the embedded one with everything young, and with every commit
/// followed by a checkpoint.
macro_rules! on_every_engine {
    ($($name:ident),* $(,)?) => {
        mod in_memory { $(#[test] fn $name() {
            super::rules::$name(&mut super::Memory::new());
        })* }
        mod embedded { $(#[test] fn $name() {
            let folder = tempfile::tempdir().expect("a folder");
            super::rules::$name(&mut super::Rig::open(folder.path()));
        })* }
        mod embedded_in_the_database { $(#[test] fn $name() {
            let folder = tempfile::tempdir().expect("a folder");
            let clock = std::sync::Arc::default();
            let mut config = super::rig::config(folder.path(), &clock);
            config.limits.young_bytes_max = 1;
            super::rules::$name(&mut super::Rig::with(config, clock));
        })* }
    };
}

rules::for_every_rule!(on_every_engine);

/// R3, R4: what was imported keeps its positions. It is read page by page, acknowledged, marked as read
/// and superseded by them, although only a Hello's cursor of the new generation would acknowledge anything.
#[test]
fn r3_entries_of_an_earlier_generation_are_read_and_acknowledged() {
    let mut store = Memory::new();
    open_all(&mut store, &[alice(), bob(), bob_tablet()]);
    for number in 1..=5 {
        store.send(alice(), user(2), number);
    }
    let old = cursors(&mut store, bob());
    store.flush(bob_tablet(), old[1]);
    store.mark_read(bob_tablet(), chat(), old[0]);
    store.generation += 1;
    let opened = store.open_at(bob(), old[3]).expect("opens");
    assert!(opened.resync);
    assert_eq!(opened.stored_ack, Position::ZERO);

    let mut read = Vec::new();
    let mut after = opened.stored_ack;
    loop {
        let page = store.page(bob(), after, (2, 1 << 20));
        after = page.through;
        read.extend(page.entries.iter().map(|entry| entry.cursor));
        if !page.more {
            break;
        }
    }
    assert!(
        read.is_sorted_by(|a, b| a < b),
        "cursors only grow: {read:?}"
    );
    assert_eq!(read[..5], old);
    assert_eq!(read.len(), 6, "and the receipt of the tablet's Read");

    store.mark_read(bob_tablet(), chat(), old[1]);
    assert_eq!(
        store.receipts(bob()).len(),
        1,
        "the one before is taken back"
    );
    store.flush(bob(), old[4]);
    let left = cursors(&mut store, bob());
    assert!(left.iter().all(|cursor| *cursor > old[4]), "{left:?}");
    let (_, grown) = store.try_flush(bob(), old[4], None).expect("answers");
    assert!(grown.is_empty());
}
