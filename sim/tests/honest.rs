//! Runs without a planted bug break no rule: seeds that once did, and fresh ones, which are printed. The
//! rest, and worlds of hundreds of users, are for a release build: `cargo xtask sim`.

use std::time::{SystemTime, UNIX_EPOCH};

use roadstead_sim::explore::findings;
use roadstead_sim::report::{describe, say};
use roadstead_sim::run;
use roadstead_sim::swarm::Plan;

/// Fresh seeds in one run of the tests: some seconds' worth.
const FRESH: usize = 8;

fn is_small(seed: &u64) -> bool {
    !Plan::draw(*seed, None).is_large()
}

fn assert_clean(seed: u64) {
    let run = run(seed, None);
    assert!(run.violations.is_empty(), "{}", describe(&run));
}

#[test]
fn seeds_that_once_failed_pass() {
    findings().filter(is_small).for_each(assert_clean);
}

#[test]
fn fresh_seeds_pass() {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let first = since.as_secs() % 1_000_000_000 * 1_000;
    for seed in (first..).filter(is_small).take(FRESH) {
        say(&format!("seed {seed}"));
        assert_clean(seed);
    }
}
