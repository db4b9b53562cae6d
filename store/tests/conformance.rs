//! The engines of this process against the conformance suite.

mod rig;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use roadstead_store::conformance;
use roadstead_store::embedded::SerialEngine;
use roadstead_store::memory::{Fault, MemoryEngine};
use roadstead_store::txn::{Engine, Read, Txn, TxnError, VALUE_BYTES_MAX, ready};

#[test]
fn the_engine_in_memory_conforms() {
    let engine = MemoryEngine::new();
    ready(conformance::all(&engine));
    ready(conformance::conflicts(&engine));
}

#[test]
fn the_embedded_engine_conforms_with_everything_young() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = rig::config(folder.path(), &Arc::new(AtomicU64::new(0)));
    let engine = SerialEngine::open(&config).expect("opens");
    ready(conformance::all(&engine));
}

#[test]
fn the_embedded_engine_conforms_with_everything_in_the_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = rig::config(folder.path(), &Arc::new(AtomicU64::new(0)));
    // Every commit begins a checkpoint.
    config.limits.young_bytes_max = 1;
    let engine = SerialEngine::open(&config).expect("opens");
    ready(conformance::all(&engine));
    drop(engine);
    let engine = SerialEngine::open(&config).expect("opens again");
    ready(conformance::all(&engine));
}

#[test]
fn a_commit_of_unknown_result_happened_or_did_not() {
    let engine = MemoryEngine::new();
    ready(conformance::unknown_results(&engine, |happens| {
        engine.inject(match happens {
            true => Fault::LostAfter,
            false => Fault::LostBefore,
        });
    }));
}

#[test]
fn a_transaction_that_is_too_old_is_refused() {
    let engine = MemoryEngine::new();
    ready(conformance::too_old(&engine, async || {
        for _ in 0..2_000 {
            let mut txn = engine.begin();
            txn.set(b"key", bytes::Bytes::new());
            ready(txn.commit()).expect("commits");
        }
    }));
}

/// As in the embedded engine: a transaction that will be refused does not read back what it is refused for.
#[test]
fn a_write_that_is_too_large_is_not_read_back() {
    let engine = MemoryEngine::new();
    let body = async |txn: &mut <MemoryEngine as Engine>::Txn<'_>| {
        txn.set(b"large", Bytes::from(vec![0; VALUE_BYTES_MAX + 1]));
        txn.get(b"large", Read::Snapshot).await
    };
    let (seen, refused) = ready(engine.transact(body));
    assert_eq!(seen, Ok(None));
    assert_eq!(refused, Err(TxnError::TooLarge));
}
