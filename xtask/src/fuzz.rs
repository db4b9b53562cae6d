//! Fuzzing with cargo-fuzz, time-boxed: see docs/TESTING.md.
//!
//! Without a nightly compiler or cargo-fuzz nothing runs here; the corpora are then still replayed by the
//! tests of `fuzz/bodies`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, bail, ensure};

use crate::{say, steps};

/// Seconds per target when none are named.
const SECONDS: u32 = 60;

/// Seconds per target in CI, where the point is that targets build, start and find nothing at once.
const SECONDS_IN_CI: u32 = 4;

/// No sanitizer: all but the crates behind the seams is safe Rust, and a build with one takes twice as
/// long. `cargo +nightly fuzz run TARGET` runs with AddressSanitizer.
const BUILD: [&str; 2] = ["--sanitizer", "none"];

/// An input that takes longer than this is a finding, in seconds.
const TIMEOUT: u32 = 20;

/// A process larger than this is a finding, in MiB.
const MEMORY_MIB: u32 = 1_024;

/// Inputs are no longer than this, in bytes.
const INPUT_MAX: u32 = 4_096;

/// Characters of a line that are shown: an input printed by a panic may be long.
const LINE_MAX: usize = 400;

/// What a run of a target came to.
struct Ran {
    executions: u64,
    per_second: u64,
    failed: bool,
}

pub(crate) fn fuzz(options: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = options.iter().map(String::as_str).collect();
    match words[..] {
        ["seeds"] => seeds(),
        ["keep", ref targets @ ..] => named(targets)?.iter().try_for_each(|target| keep(target)),
        ["--seconds", seconds, ref targets @ ..] => {
            let seconds = seconds.parse().context("--seconds takes a number")?;
            run_all(&named(targets)?, seconds)
        }
        ref targets => run_all(&named(targets)?, SECONDS),
    }
}

/// A few seconds of everything, where it can run.
pub(crate) fn smoke() -> anyhow::Result<()> {
    if !is_installed() {
        say(
            "fuzzing SKIPPED: no nightly compiler with cargo-fuzz (the tests replayed the corpora)",
        );
        return Ok(());
    }
    run_all(&named(&[])?, SECONDS_IN_CI)
}

fn is_installed() -> bool {
    let found = cargo_fuzz("list").output();
    found.is_ok_and(|output| output.status.success())
}

/// `cargo fuzz` on a nightly compiler, which cargo itself can not choose from within cargo.
fn cargo_fuzz(command: &str) -> Command {
    let mut cargo = Command::new("rustup");
    cargo.args(["run", "nightly", "cargo", "fuzz", command]);
    cargo
}

/// These targets, or all.
fn named(targets: &[&str]) -> anyhow::Result<Vec<String>> {
    let output = cargo_fuzz("list").output().context("rustup")?;
    ensure!(
        output.status.success(),
        "a nightly compiler and cargo-fuzz are needed: rustup toolchain install nightly; cargo install \
         cargo-fuzz"
    );
    let known = String::from_utf8(output.stdout).context("names")?;
    let known: Vec<String> = known.lines().map(String::from).collect();
    if targets.is_empty() {
        return Ok(known);
    }
    for target in targets {
        ensure!(
            known.iter().any(|name| name == target),
            "no target {target}"
        );
    }
    Ok(targets.iter().copied().map(String::from).collect())
}

/// Writes the inputs to begin with.
fn seeds() -> anyhow::Result<()> {
    let example = [
        "run",
        "--package",
        "roadstead-fuzz-bodies",
        "--example",
        "seeds",
    ];
    steps::run(steps::cargo().args(example))
}

fn run_all(targets: &[String], seconds: u32) -> anyhow::Result<()> {
    let mut build = cargo_fuzz("build");
    build.args(BUILD);
    if let [target] = targets {
        build.arg(target);
    }
    steps::run(&mut build)?;
    let mut failed = Vec::new();
    let mut total = 0;
    for target in targets {
        let ran = run_one(target, seconds)?;
        total += ran.executions;
        let verdict = if ran.failed { "FAILED" } else { "ok" };
        say(&format!(
            "{target:<16} {:>12} executions {:>9}/s  {verdict}",
            ran.executions, ran.per_second
        ));
        if ran.failed {
            failed.push(target.as_str());
        }
    }
    say(&format!("{} targets, {total} executions", targets.len()));
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// New inputs go to `fuzz/found`; `keep` takes them over.
fn run_one(target: &str, seconds: u32) -> anyhow::Result<Ran> {
    let found = folder("found", target);
    fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
    let output = cargo_fuzz("run")
        .args(BUILD)
        .arg(target)
        .args([&found, &folder("corpus", target)])
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-max_len={INPUT_MAX}"))
        .args(["-print_final_stats=1", "-verbosity=0"])
        .output()
        .context("cargo fuzz run")?;
    if !output.status.success() {
        explain(target, &output);
    }
    let log = String::from_utf8_lossy(&output.stderr);
    Ok(Ran {
        executions: stat(&log, "number_of_executed_units"),
        per_second: stat(&log, "average_exec_per_sec"),
        failed: !output.status.success(),
    })
}

/// What broke, and the command that shows it again.
fn explain(target: &str, output: &Output) {
    let log = String::from_utf8_lossy(&output.stderr);
    let told: Vec<&str> = log.lines().collect();
    let panic = told.iter().position(|line| line.contains("panicked at"));
    let from = panic.unwrap_or(told.len().saturating_sub(30));
    let short = |line: &str| line.chars().take(LINE_MAX).collect::<String>();
    told[from..]
        .iter()
        .take(30)
        .for_each(|line| say(&short(line)));
    let input = log
        .lines()
        .find_map(|line| line.split_once("Test unit written to "));
    if let Some((_, input)) = input {
        say(&format!(
            "again: cargo +nightly fuzz run --sanitizer none {target} {input}"
        ));
    }
}

/// A figure of libFuzzer's last words.
fn stat(log: &str, name: &str) -> u64 {
    let figures = log.lines().filter_map(|line| line.strip_prefix("stat::"));
    let mut figures = figures.filter_map(|figure| figure.split_once(':'));
    let value = figures.find(|(of, _)| *of == name);
    value
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Takes over into the corpus what a target found and the corpus does not reach.
fn keep(target: &str) -> anyhow::Result<()> {
    let (found, corpus) = (folder("found", target), folder("corpus", target));
    if !found.exists() {
        bail!("{target} has found nothing: run it first");
    }
    let folders = [&corpus, &found];
    steps::run(
        cargo_fuzz("run")
            .args(BUILD)
            .arg(target)
            .args(folders)
            .args(["--", "-merge=1", "-verbosity=0"])
            .arg(format!("-max_len={INPUT_MAX}")),
    )?;
    steps::run(cargo_fuzz("cmin").args(BUILD).arg(target).arg(&corpus))
}

fn folder(kind: &str, target: &str) -> PathBuf {
    let root = std::env::current_dir().unwrap_or_default();
    root.join(Path::new("fuzz")).join(kind).join(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_among_the_last_words() {
        let log =
            "Done 12 runs\nstat::number_of_executed_units: 12\nstat::average_exec_per_sec: 6\n";
        assert_eq!(stat(log, "number_of_executed_units"), 12);
        assert_eq!(stat(log, "average_exec_per_sec"), 6);
        assert_eq!(stat(log, "peak_rss_mb"), 0);
    }
}
