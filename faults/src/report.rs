//! What came of the scenarios, for people and for programs. The one place that prints.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How a scenario ended, if it could be run at all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With everything accounted for; and what was seen, in words.
    Pass(String),
    /// It can not be run on this machine, and why.
    Skip(String),
}

#[derive(Debug)]
struct Line {
    name: &'static str,
    verdict: &'static str,
    took: Duration,
    seen: String,
}

impl Line {
    fn of(name: &'static str, run: impl FnOnce() -> anyhow::Result<End>) -> Self {
        say(&format!("{name} …"));
        let began = Instant::now();
        let (verdict, seen) = match run() {
            Ok(End::Pass(seen)) => ("pass", seen),
            Ok(End::Skip(why)) => ("skip", why),
            Err(error) => ("FAIL", format!("{error:#}")),
        };
        let took = began.elapsed();
        say(&format!(
            "{name}: {verdict} after {:.1} s: {seen}",
            took.as_secs_f64()
        ));
        Self {
            name,
            verdict,
            took,
            seen,
        }
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Runs a scenario and takes down what came of it.
    pub(crate) fn add(&mut self, name: &'static str, run: impl Fn() -> anyhow::Result<End> + Sync) {
        self.add_all(&[(name, run)], 1);
    }

    /// Runs so many scenarios at once, and takes down what came of them in the order given.
    pub(crate) fn add_all<F>(&mut self, scenarios: &[(&'static str, F)], at_once: usize)
    where
        F: Fn() -> anyhow::Result<End> + Sync,
    {
        let next = AtomicUsize::new(0);
        let run_some = || {
            let mine = || scenarios.get(next.fetch_add(1, Ordering::Relaxed));
            let lines = std::iter::from_fn(mine).map(|(name, run)| Line::of(name, run));
            lines.collect::<Vec<_>>()
        };
        let mut lines: Vec<Line> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..at_once.max(1)).map(|_| scope.spawn(run_some)).collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended
                .flat_map(|lines| lines.expect("scenarios do not panic"))
                .collect()
        });
        let place = |line: &Line| scenarios.iter().position(|(name, _)| *name == line.name);
        lines.sort_by_key(place);
        self.lines.extend(lines);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether nothing failed, and something was run.
    pub(crate) fn passed(&self) -> bool {
        let any = |verdict| self.lines.iter().any(|line| line.verdict == verdict);
        any("pass") && !any("FAIL")
    }

    pub(crate) fn table(&self) -> String {
        let mut table = format!("\n{:<20} {:<7} {:>7}  seen", "scenario", "verdict", "s");
        for line in &self.lines {
            let seen = line.seen.lines().next().unwrap_or_default();
            let seconds = line.took.as_secs_f64();
            let _ = write!(
                table,
                "\n{:<20} {:<7} {seconds:>7.1}  {seen}",
                line.name, line.verdict
            );
        }
        table
    }

    pub(crate) fn json(&self) -> Value {
        let lines = self.lines.iter().map(|line| {
            json!({
                "scenario": line.name,
                "verdict": line.verdict.to_lowercase(),
                "seconds": line.took.as_secs_f64(),
                "seen": line.seen,
            })
        });
        json!({
            "verdict": if self.passed() { "pass" } else { "fail" },
            "version": env!("CARGO_PKG_VERSION"),
            "scenarios": lines.collect::<Vec<_>>(),
        })
    }
}

/// Prints a line.
#[allow(
    clippy::print_stdout,
    reason = "a program that people start tells them what it found"
)]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_and_skips_alone_pass_nothing() {
        let mut report = Report::default();
        report.add("one", || Ok(End::Skip("not here".into())));
        assert!(!report.passed());
        report.add("two", || Ok(End::Pass("all of it".into())));
        assert!(report.passed());
        report.add("three", || Err(anyhow::anyhow!("lost")));
        assert!(!report.passed());
        assert_eq!(report.json()["verdict"], "fail");
        assert!(report.table().contains("FAIL"));
    }

    #[test]
    fn scenarios_at_once_are_told_in_their_order() {
        let both = std::sync::Barrier::new(2);
        let run = || {
            both.wait();
            Ok(End::Pass("met the other".into()))
        };
        let mut report = Report::default();
        report.add_all(&[("one", run), ("two", run)], 2);
        let names: Vec<_> = report.lines.iter().map(|line| line.name).collect();
        assert_eq!(names, ["one", "two"]);
    }
}
