//! What proves that nothing is lost: the simulator, real faults, and the model of the wake-ups.

use std::path::{Path, PathBuf};

use crate::steps::{binary, build, cargo, run};

/// How long CI explores with seeds that were never run before.
const EXPLORE: [&str; 2] = ["--minutes", "0.5"];

/// Faults that take a few seconds each and need nothing but a compiler. They mostly wait, so they do it
/// together.
const QUICK: [&str; 16] = [
    "--seconds",
    "8",
    "--at-once",
    "3",
    "--only",
    "kill-loop",
    "--only",
    "full-disk",
    "--only",
    "freeze",
    "--only",
    "packet-loss",
    "--only",
    "failed-sync",
    "--only",
    "failed-write",
];

/// Explores with the simulator; it prints its seeds.
pub(crate) fn sim(options: &[String]) -> anyhow::Result<()> {
    let package = ["--package", "roadstead-sim"];
    run(cargo().args(["build", "--release"]).args(package))?;
    let mut command = std::process::Command::new(binary("roadstead-sim"));
    match options {
        [] => run(command.args(EXPLORE)),
        options => run(command.args(options)),
    }
}

/// Breaks things under real processes, and leaves its report in the target folder.
pub(crate) fn faults(options: &[String]) -> anyhow::Result<()> {
    build()?;
    let package = ["--package", "roadstead-faults"];
    run(cargo().args(["build", "--release"]).args(package))?;
    let mut command = std::process::Command::new(binary("faults"));
    if !options.iter().any(|option| option == "--json") {
        command.arg("--json").arg(report());
    }
    run(command.args(options))
}

pub(crate) fn quick_faults() -> anyhow::Result<()> {
    faults(&QUICK.map(String::from))
}

/// Tests of minutes, by crate and binary.
const LONG_TESTS: [&[&str]; 2] = [
    &["--package", "roadstead", "--lib"],
    &["--package", "roadstead-store", "--test", "fairness"],
];

/// What takes too long for every change: the tests of minutes, half an hour of the simulator, and half an hour of load
/// with a leak check.
pub(crate) fn long() -> anyhow::Result<()> {
    for tests in LONG_TESTS {
        run(cargo()
            .args(["test", "--release"])
            .args(tests)
            .args(["--", "--ignored"]))?;
    }
    sim(&["--minutes", "30"].map(String::from))?;
    faults(&["--minutes", "30"].map(String::from))
}

/// Beside the folder of the release build.
fn report() -> PathBuf {
    let release = binary("faults");
    let target = release.parent().and_then(Path::parent);
    target.unwrap_or(Path::new(".")).join("faults.json")
}

/// Every interleaving of the wake-up; a folder of its own, because all of it is built for the model.
pub(crate) fn model() -> anyhow::Result<()> {
    let target = binary("loom");
    run(cargo()
        .args([
            "test",
            "--manifest-path",
            "net/loom/Cargo.toml",
            "--target-dir",
        ])
        .arg(target)
        .env("RUSTFLAGS", "--cfg loom"))
}
