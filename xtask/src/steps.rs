//! The tasks, as calls of cargo and of what it built.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::{foundationdb, fuzz, interop, proof, purity, say};

pub(crate) fn demo(options: &[String]) -> anyhow::Result<()> {
    build()?;
    run(Command::new(binary("loadgen")).arg("demo").args(options))
}

/// Everything that the default features leave out and that needs nothing but a compiler.
const FEATURES: [&str; 2] = ["--features", "roadstead-client/chat"];

pub(crate) fn test() -> anyhow::Result<()> {
    run(cargo().args(["test", "--workspace"]).args(FEATURES))
}

pub(crate) fn lint() -> anyhow::Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets"];
    run(cargo()
        .args(clippy)
        .args(FEATURES)
        .args(["--", "-D", "warnings"]))?;
    purity::check()?;
    deny()
}

/// Every workspace of the repository.
const WORKSPACES: [&str; 4] = [
    "Cargo.toml",
    "fuzz/Cargo.toml",
    "interop/Cargo.toml",
    "net/loom/Cargo.toml",
];

/// Licences, bans and sources; advisories need a database from outside. Skipped, in words, without the
/// tool: installing it costs more than everything else here.
fn deny() -> anyhow::Result<()> {
    let installed = cargo().args(["deny", "--version"]).output();
    if !installed.is_ok_and(|output| output.status.success()) {
        say("cargo-deny is not installed: licences, bans and sources were not checked");
        return Ok(());
    }
    let checks = ["licenses", "bans", "sources"];
    WORKSPACES.into_iter().try_for_each(|manifest| {
        run(cargo()
            .args(["deny", "--workspace", "--log-level", "error"])
            .args(["--manifest-path", manifest, "--config", "deny.toml"])
            .arg("check")
            .args(checks))
    })
}

/// Fewer sessions than the demo, the same checks.
pub(crate) fn smoke() -> anyhow::Result<()> {
    let options = ["--sessions", "2000", "--rate", "500", "--duration", "10"];
    demo(&options.map(String::from))
}

/// Attackers of every kind beside a few honest users: late and lost messages, and refusals, are counted. Latencies are
/// not: in CI they are those of its machine.
pub(crate) fn hostile() -> anyhow::Result<()> {
    let load = ["--sessions", "100", "--rate", "100", "--duration", "12s"];
    run(Command::new(binary("loadgen"))
        .args(["hostile", "--start-edge", "--quiet"])
        .args(load))
}

pub(crate) fn ci() -> anyhow::Result<()> {
    lint()?;
    test()?;
    proof::sim(&[])?;
    smoke()?;
    interop::walk(&[])?;
    hostile()?;
    proof::quick_faults()?;
    proof::model()?;
    foundationdb::check_in_ci()?;
    fuzz::smoke()
}

pub(crate) fn build() -> anyhow::Result<()> {
    let packages = ["roadstead-edge", "roadstead-loadgen", "roadstead-client"];
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    run(cargo()
        .args(["build", "--release", "--bins"])
        .args(packages)
        .args(FEATURES))
}

pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A binary of the release build: beside this one, which was built the same way.
pub(crate) fn binary(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a running program has a path");
    this.with_file_name(name)
}

pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = format!("{command:?}").replace('"', "");
    say(&format!("> {line}"));
    let started = Instant::now();
    let status = command.status().with_context(|| line.clone())?;
    say(&format!("< {:.1} s", started.elapsed().as_secs_f64()));
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_fails_the_task() {
        let error = run(&mut Command::new("false"))
            .expect_err("it fails")
            .to_string();
        assert!(error.contains("false"), "{error}");
    }
}
