//! What exploring found, for people and for programs. The one place that prints.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::explore::Run;

/// What many runs found.
#[derive(Debug, Default)]
pub struct Report {
    seeds: u64,
    steps: u64,
    committed: u64,
    delivered: u64,
    receipts: u64,
    faults: BTreeMap<&'static str, u64>,
    violations: Vec<Value>,
    failing_seeds: Vec<u64>,
}

impl Report {
    /// Adds a run.
    pub fn add(&mut self, run: &Run) {
        self.seeds += 1;
        self.steps += run.tally.steps;
        self.committed += run.tally.committed;
        self.delivered += run.tally.delivered;
        self.receipts += run.tally.receipts;
        for (fault, count) in &run.tally.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        if !run.violations.is_empty() {
            self.failing_seeds.push(run.seed);
        }
        for violation in &run.violations {
            self.violations.push(json!({
                "seed": run.seed,
                "rule": violation.rule,
                "at_us": violation.at.as_micros(),
                "what": violation.what,
            }));
        }
    }

    /// Whether no rule was broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failing_seeds.is_empty()
    }

    /// The whole report.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "verdict": if self.is_clean() { "pass" } else { "fail" },
            "seeds": self.seeds,
            "steps": self.steps,
            "messages_committed": self.committed,
            "entries_delivered": self.delivered,
            "receipts": self.receipts,
            "faults": self.faults,
            "violations": self.violations,
            "failing_seeds": self.failing_seeds,
        })
    }

    /// One line.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} seeds, {} steps, {} messages, {} entries delivered, {} failing seeds {:?}",
            self.seeds,
            self.steps,
            self.committed,
            self.delivered,
            self.failing_seeds.len(),
            self.failing_seeds,
        )
    }
}

/// What a run came to, in lines.
#[must_use]
pub fn describe(run: &Run) -> String {
    let tally = &run.tally;
    let mut text = format!(
        "seed {}: {} steps, {} messages, {} entries, {} receipts, trace {:016x}",
        run.seed, tally.steps, tally.committed, tally.delivered, tally.receipts, tally.trace
    );
    for violation in &run.violations {
        text.push_str("\n  ");
        text.push_str(&violation.to_string());
    }
    text
}

/// Prints a line.
#[allow(
    clippy::print_stdout,
    reason = "a program that people start tells them what it found"
)]
pub fn say(text: &str) {
    println!("{text}");
}
