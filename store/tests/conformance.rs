//! The engines of this process against the conformance suite.

mod rig;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use roadstead_store::conformance;
use roadstead_store::embedded::SerialEngine;
use roadstead_store::memory::{Fault, MemoryEngine};
use roadstead_store::txn::{Txn, ready};

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
