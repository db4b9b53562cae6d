//! A stop in the middle of a checkpoint.

mod rig;

use std::sync::Arc;

use rig::ask::Ask;
use rig::{Rig, config, device, user};

/// A stop left the log of the checkpoint that was under way.
#[test]
fn df10_r18_a_store_that_stops_finishes_its_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store");
    for life in 0..5 {
        let clock = Arc::default();
        let mut config = config(&store, &clock);
        // Every commit begins a checkpoint.
        config.limits.young_bytes_max = 1;
        let mut rig = Rig::with(config, clock);
        let (alice, bob) = ((user(1), device(1)), (user(2), device(2)));
        rig.open(alice);
        rig.open(bob);
        for number in 1..=20 {
            rig.send(alice, bob.0, 20 * life + number);
        }
        drop(rig);
        let logs = std::fs::read_dir(store.join("log")).expect("a folder");
        assert_eq!(logs.count(), 1, "the file that is appended to");
    }
}
