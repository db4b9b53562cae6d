//! Running seeds, one or many.

use crate::canary::Canary;
use crate::check::Violation;
use crate::swarm::Plan;
use crate::world::{Tally, World};

/// A seed and what came of it.
#[derive(Debug, Clone)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// What happened.
    pub tally: Tally,
    /// What was broken.
    pub violations: Vec<Violation>,
}

/// Runs a seed, with a planted bug or without.
#[must_use]
pub fn run(seed: u64, canary: Option<Canary>) -> Run {
    run_plan(Plan::draw(seed, canary))
}

/// Runs a plan that was drawn, and perhaps changed by a test.
#[must_use]
pub fn run_plan(plan: Plan) -> Run {
    let seed = plan.seed;
    let (tally, violations) = World::new(plan).run();
    Run {
        seed,
        tally,
        violations,
    }
}

/// Looks for a planted bug: the first run that notices it, among at most `seeds_max` from `from` on.
#[must_use]
pub fn find(canary: Canary, from: u64, seeds_max: u64) -> Option<Run> {
    let seeds = from..from + seeds_max;
    seeds
        .map(|seed| run(seed, Some(canary)))
        .find(|run| !run.violations.is_empty())
}

/// Seeds that once failed: one a line, with what they found.
pub const REGRESSIONS: &str = include_str!("../regressions.txt");

/// The seeds of [`REGRESSIONS`].
pub fn regressions() -> impl Iterator<Item = u64> {
    let seeds = REGRESSIONS
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    seeds.filter_map(|seed| seed.parse().ok())
}

/// One seed for each finding of [`REGRESSIONS`]: those beside it are more of the same.
pub fn findings() -> impl Iterator<Item = u64> {
    let first = |line: &&str| !line.ends_with("the same");
    let seeds = REGRESSIONS.lines().filter(first);
    seeds.filter_map(|line| line.split_whitespace().next()?.parse().ok())
}
