//! Runs without a planted bug break no rule: the seeds that once did, and fresh ones, which are printed.

use std::time::{SystemTime, UNIX_EPOCH};

use roadstead_sim::explore::regressions;
use roadstead_sim::report::{describe, say};
use roadstead_sim::run;

/// Fresh seeds in one run of the tests: some seconds' worth.
const FRESH: u64 = 8;

fn assert_clean(seed: u64) {
    let run = run(seed, None);
    assert!(run.violations.is_empty(), "{}", describe(&run));
}

#[test]
fn seeds_that_once_failed_pass() {
    regressions().for_each(assert_clean);
}

#[test]
fn fresh_seeds_pass() {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let first = since.as_secs() % 1_000_000_000 * 1_000;
    say(&format!("seeds {first} to {}", first + FRESH - 1));
    (first..first + FRESH).for_each(assert_clean);
}
