//! The unsafe code and the queues between threads, watched at run time: AddressSanitizer, ThreadSanitizer, miri.
//!
//! Not in CI: each builds everything again, with a nightly compiler. What ran, and what it found, is in
//! docs/TESTING.md.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::{say, steps};

/// What watches.
#[derive(Debug, Clone, Copy)]
enum Watch {
    Address,
    Thread,
    Miri,
}

/// Tests of `net/` that call no C and no kernel: what miri can run. The rest is in the sanitizers' hands.
const PURE_IN_NET: [&str; 3] = ["queue::", "wheel::", "steer::"];

pub(crate) fn sanitize(options: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = options.iter().map(String::as_str).collect();
    match words[..] {
        [] => [Watch::Address, Watch::Thread, Watch::Miri]
            .into_iter()
            .try_for_each(run),
        ["address"] => run(Watch::Address),
        ["thread"] => run(Watch::Thread),
        ["miri"] => run(Watch::Miri),
        _ => bail!("sanitize [address | thread | miri]"),
    }
}

fn run(watch: Watch) -> anyhow::Result<()> {
    let missing = match watch {
        Watch::Address | Watch::Thread if !works(&["rustc", "--version"]) => {
            "rustup toolchain install nightly"
        }
        Watch::Miri if !works(&["cargo", "miri", "--version"]) => {
            "rustup component add miri rust-src --toolchain nightly"
        }
        Watch::Address | Watch::Thread => return sanitized(watch),
        Watch::Miri => return interpreted(),
    };
    say(&format!("{watch:?} SKIPPED: {missing}"));
    Ok(())
}

/// What the test harness hands from thread to thread through a standard library that ThreadSanitizer does not
/// see into.
const OF_THE_HARNESS: &str =
    "race:test::event::CompletedTest\nrace:test::run_test::{closure#0}>>>\n";

/// All tests of `net/`, the only crate with unsafe code of its own, and the queues between its threads.
/// ThreadSanitizer has to see the standard library too, or it takes the fences of an `Arc` and the insides of a
/// channel for races. Without its sources only the unit tests are left, which use neither between threads.
fn sanitized(watch: Watch) -> anyhow::Result<()> {
    let (flag, name) = match watch {
        Watch::Thread => ("-Zsanitizer=thread", "thread"),
        _ => ("-Zsanitizer=address", "address"),
    };
    let host = host()?;
    let folder = Path::new("target").join("sanitize");
    let mut test = nightly(&["cargo", "test", "--lib"]);
    test.args(["--package", "roadstead-net", "--target", &host])
        .arg("--target-dir")
        .arg(folder.join(name))
        .env("RUSTFLAGS", flag);
    match watch {
        Watch::Thread if has_sources()? => test.args(["--tests", "-Zbuild-std"]),
        Watch::Thread => {
            say("only unit tests; for all: rustup component add rust-src --toolchain nightly");
            let suppressions = std::path::absolute(folder.join("suppressions"))?;
            std::fs::create_dir_all(&folder)?;
            std::fs::write(&suppressions, OF_THE_HARNESS)?;
            let options = format!("suppressions={}", suppressions.display());
            let flags = format!("{flag} -Cunsafe-allow-abi-mismatch=sanitizer");
            test.env("RUSTFLAGS", flags).env("TSAN_OPTIONS", options)
        }
        _ => test.arg("--tests"),
    };
    steps::run(&mut test)
}

fn interpreted() -> anyhow::Result<()> {
    let miri = |package: &str| {
        let mut test = nightly(&["cargo", "miri", "test", "--lib", "--package", package]);
        test.arg("--target-dir").arg("target/sanitize/miri");
        test
    };
    steps::run(&mut miri("roadstead-proto"))?;
    steps::run(miri("roadstead").args(["--", "rate::", "slots::", "message_id::"]))?;
    // The queue's tests wait for other threads by the clock, which miri isolates by default.
    steps::run(
        miri("roadstead-net")
            .arg("--")
            .args(PURE_IN_NET)
            .env("MIRIFLAGS", "-Zmiri-disable-isolation"),
    )
}

/// A command of the nightly toolchain, which cargo itself can not choose from within cargo.
fn nightly(words: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly"]).args(words);
    // Set by the stable cargo that runs this task, and not meant for the other one.
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}

fn works(words: &[&str]) -> bool {
    let output = nightly(words).output();
    output.is_ok_and(|output| output.status.success())
}

/// Whether the standard library can be built.
fn has_sources() -> anyhow::Result<bool> {
    let root = said(&["rustc", "--print", "sysroot"])?;
    Ok(Path::new(&root)
        .join("lib/rustlib/src/rust/library")
        .exists())
}

fn host() -> anyhow::Result<String> {
    said(&["rustc", "--print", "host-tuple"])
}

fn said(words: &[&str]) -> anyhow::Result<String> {
    let output = nightly(words).output().context("rustup")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
