//! A store is moved from one engine to another and back.

use std::sync::Arc;

use bytes::Bytes;
use roadstead::time::Time;
use roadstead_proto::Position;
use roadstead_store::embedded::SerialEngine;
use roadstead_store::keys::Keys;
use roadstead_store::memory::{Fault, MemoryEngine};
use roadstead_store::records::meta::{self, Meta};
use roadstead_store::records::minutes;
use roadstead_store::records::node::{self, Lease};
use roadstead_store::transfer::{Summary, TransferError, export, import, remove};
use roadstead_store::txn::{Engine, Read, Txn, ready};
use roadstead_store::{EmbeddedConfig, EmbeddedLimits};

const BORN: Meta = Meta {
    generation: 3,
    placement_key: [9; 16],
};

/// A store with so many keys in it.
fn filled(keys: u32) -> MemoryEngine {
    let engine = MemoryEngine::new();
    let fill = async |txn: &mut <MemoryEngine as Engine>::Txn<'_>| {
        meta::load_or_init(txn, BORN).await.expect("is born");
        for number in 0..keys {
            let key = [b"d", &number.to_be_bytes()[..]].concat();
            txn.set(&key, Bytes::from(vec![7; 100]));
        }
    };
    ready(engine.transact(fill)).1.expect("commits");
    engine
}

fn exported(engine: &impl Engine) -> (Vec<u8>, Summary) {
    let mut file = Vec::new();
    let summary = ready(export(engine, &mut file)).expect("exports");
    (file, summary)
}

fn meta_of<E: Engine>(engine: &E) -> Meta {
    let load = async |txn: &mut E::Txn<'_>| meta::load_or_init(txn, BORN).await;
    ready(engine.transact(load)).0.expect("loads")
}

/// Node 1 begins once more.
fn take_lease(engine: &MemoryEngine) -> Lease {
    let mut txn = engine.begin();
    let lease = ready(node::take(&mut txn, 1)).expect("taken");
    ready(txn.commit()).expect("commits");
    lease
}

#[test]
fn r3_a_store_survives_the_move_in_a_generation_of_its_own() {
    let source = filled(10_000);
    let (file, out) = exported(&source);
    assert_eq!(out.keys, 10_000);
    let target = MemoryEngine::new();
    assert_eq!(
        ready(import(&target, &mut &file[..])).expect("imports"),
        out
    );
    let born = meta_of(&target);
    assert_eq!(
        (born.generation, born.placement_key),
        (4, BORN.placement_key)
    );
    let (_, again) = exported(&target);
    assert_eq!(again, out);
}

/// R25: the store's time does not go back with a move, or what was noted on a day would be visited late.
#[test]
fn r25_the_newest_minute_moves_along() {
    let source = filled(1);
    let stamp = Position::new(3, [4; 10], 5);
    let value = [&[1][..], stamp.as_bytes()].concat();
    let fill = async |txn: &mut <MemoryEngine as Engine>::Txn<'_>| {
        for minute in [70, 80] {
            txn.set(&Keys::minute(minute), Bytes::from(value.clone()));
        }
    };
    ready(source.transact(fill)).1.expect("commits");
    let target = MemoryEngine::new();
    ready(import(&target, &mut &exported(&source).0[..])).expect("imports");
    let newest = async |txn: &mut <MemoryEngine as Engine>::Txn<'_>, minute| {
        let newest = minutes::last_at_or_before(txn, minute, Read::Snapshot);
        newest.await.expect("reads")
    };
    let found = ready(target.transact(async |txn: &mut _| newest(txn, u32::MAX).await)).0;
    assert_eq!(found, Some((80, stamp)));
    let older = ready(target.transact(async |txn: &mut _| newest(txn, 79).await)).0;
    assert_eq!(older, None, "stamps of another engine say nothing");
}

#[test]
fn a_store_moves_into_the_embedded_engine_and_out_of_it() {
    let (file, out) = exported(&filled(3_000));
    let folder = tempfile::tempdir().expect("a folder");
    let config = EmbeddedConfig {
        path: folder.path().to_path_buf(),
        node: 1,
        placement_key: [1; 16],
        clock: Arc::new(|| Time::ZERO),
        limits: EmbeddedLimits::default(),
    };
    let engine = SerialEngine::open(&config).expect("opens");
    assert_eq!(
        ready(import(&engine, &mut &file[..])).expect("imports"),
        out
    );
    drop(engine);
    let engine = SerialEngine::open(&config).expect("opens again");
    assert_eq!(meta_of(&engine).placement_key, BORN.placement_key);
    let (file, back) = exported(&engine);
    assert_eq!(back, out);
    let target = MemoryEngine::new();
    assert_eq!(
        ready(import(&target, &mut &file[..])).expect("imports"),
        out
    );
    assert_eq!(meta_of(&target).generation, 5);
}

#[test]
fn a_target_that_holds_users_is_left_alone() {
    let (file, _) = exported(&filled(10));
    let target = filled(1);
    let refused = ready(import(&target, &mut &file[..]));
    assert!(
        matches!(refused, Err(TransferError::NotEmpty)),
        "{refused:?}"
    );
    assert_eq!(exported(&target).1.keys, 1);
}

#[test]
fn a_damaged_file_is_refused_and_never_panics() {
    let (file, _) = exported(&filled(3));
    for length in 0..file.len() {
        let refused = ready(import(&MemoryEngine::new(), &mut &file[..length]));
        assert!(
            matches!(refused, Err(TransferError::Damaged(_))),
            "{length}: {refused:?}"
        );
    }
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        assert!(
            ready(import(&MemoryEngine::new(), &mut &damaged[..])).is_err(),
            "{at}"
        );
    }
}

#[test]
fn an_import_that_broke_off_is_no_store_until_it_is_done_again() {
    let (file, out) = exported(&filled(10_000));
    let target = MemoryEngine::new();
    let half = &file[..file.len() / 2];
    let broken = ready(import(&target, &mut &half[..]));
    assert!(
        matches!(broken, Err(TransferError::Damaged(_))),
        "{broken:?}"
    );
    let load = async |txn: &mut <MemoryEngine as Engine>::Txn<'_>| {
        meta::load_or_init(txn, BORN).await.is_err()
    };
    assert!(ready(target.transact(load)).0, "no server opens it");
    let refused = ready(export(&target, &mut Vec::new()));
    assert!(matches!(refused, Err(TransferError::NoStore)));
    let refused = ready(import(&target, &mut &file[..]));
    assert!(matches!(refused, Err(TransferError::NotEmpty)));
    ready(remove(&target)).expect("removes");
    assert_eq!(
        ready(import(&target, &mut &file[..])).expect("imports"),
        out
    );
    assert_eq!(meta_of(&target).placement_key, BORN.placement_key);
}

#[test]
fn r24_nobody_goes_on_with_a_lease_of_before_the_move() {
    let source = filled(3);
    take_lease(&source);
    let mut txn = source.begin();
    let block = ready(node::reserve_ids(&mut txn, (1, 1), 5_000)).expect("reserved");
    ready(txn.commit()).expect("commits");
    let target = MemoryEngine::new();
    for _ in 0..3 {
        take_lease(&target);
    }
    let (file, _) = exported(&source);
    ready(import(&target, &mut &file[..])).expect("imports");
    let mut txn = target.begin();
    let lease = ready(node::load(&mut txn, 1)).expect("loads");
    assert_eq!((lease.incarnation, lease.ids_below_ms), (4, block.1));
}

/// A file at whose first bytes a server begins.
struct Disturbed<'a>(&'a MemoryEngine, bool);

impl std::io::Write for Disturbed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if !std::mem::replace(&mut self.1, true) {
            take_lease(self.0);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_export_says_that_a_server_was_at_work() {
    let source = filled(3);
    let met = ready(export(&source, &mut Disturbed(&source, false)));
    assert!(matches!(met, Err(TransferError::AtWork)), "{met:?}");
}

#[test]
fn commits_of_unknown_outcome_are_made_again() {
    let (file, out) = exported(&filled(5_000));
    let target = MemoryEngine::new();
    for fault in [Fault::LostBefore, Fault::LostAfter] {
        for _ in 0..4 {
            target.inject(fault);
        }
    }
    assert_eq!(
        ready(import(&target, &mut &file[..])).expect("imports"),
        out
    );
}
