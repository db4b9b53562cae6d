//! The first test: a seed is a run.

use roadstead_sim::run;

#[test]
fn the_same_seed_twice_gives_the_same_trace() {
    for seed in 1..=4 {
        let (first, second) = (run(seed, None), run(seed, None));
        assert_eq!(first.tally, second.tally, "seed {seed}");
        assert_eq!(first.violations, second.violations, "seed {seed}");
        assert!(first.tally.steps > 100, "seed {seed} does nothing");
    }
}

#[test]
fn seeds_differ() {
    assert_ne!(run(1, None).tally.trace, run(2, None).tally.trace);
}
