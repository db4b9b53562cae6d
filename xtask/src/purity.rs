//! The sans-IO crates name no socket, thread, file, clock, randomness or async runtime.
//!
//! A build for a target that has none of these would prove it, where such a target is installed. This
//! looks for the names in the sources, and for runtimes in what the crates depend on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::say;

/// Folder and package of each pure crate.
const PURE: [(&str, &str); 3] = [
    ("proto", "roadstead-proto"),
    ("src", "roadstead"),
    ("quic", "roadstead-quic"),
];

const FORBIDDEN_NAMES: [&str; 14] = [
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::fs",
    "std::process",
    "std::env",
    "Instant::now",
    "SystemTime",
    "RandomState",
    "std::sync::Mutex",
    "thread_rng",
    "getrandom",
    "async fn",
    "unsafe {",
];

const FORBIDDEN_PACKAGES: [&str; 8] = [
    "tokio",
    "mio",
    "libc",
    "getrandom",
    "rand",
    "socket2",
    "io-uring",
    "futures",
];

pub(crate) fn check() -> anyhow::Result<()> {
    for (folder, package) in PURE {
        let sources = PathBuf::from(folder).join(if folder == "src" { "" } else { "src" });
        let found = forbidden_names(&sources)?;
        ensure!(
            found.is_empty(),
            "{package} must stay pure:\n{}",
            found.join("\n")
        );
        let found = forbidden_packages(package)?;
        ensure!(
            found.is_empty(),
            "{package} must not depend on {}",
            found.join(", ")
        );
        say(&format!("{package} is pure"));
    }
    Ok(())
}

fn forbidden_names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            // Tests run on a host and may say so.
            continue;
        }
        if path.is_dir() {
            found.extend(forbidden_names(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.extend(names_in(&path, &fs::read_to_string(&path)?));
        }
    }
    Ok(found)
}

fn names_in(path: &Path, source: &str) -> Vec<String> {
    let code = source
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"));
    code.flat_map(|(number, line)| {
        let names = FORBIDDEN_NAMES
            .iter()
            .filter(move |name| line.contains(**name));
        names.map(move |name| format!("{}:{}: {name}", path.display(), number + 1))
    })
    .collect()
}

fn forbidden_packages(package: &str) -> anyhow::Result<Vec<String>> {
    let arguments = [
        "tree",
        "--package",
        package,
        "--edges",
        "normal",
        "--prefix",
        "none",
    ];
    let output = Command::new("cargo")
        .args(arguments)
        .output()
        .context("cargo tree")?;
    ensure!(
        output.status.success(),
        "cargo tree --package {package} failed"
    );
    let tree = String::from_utf8(output.stdout).context("cargo tree prints text")?;
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    Ok(names
        .filter(|name| FORBIDDEN_PACKAGES.contains(name))
        .map(String::from)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_noticed_and_a_comment_is_not() {
        let found = names_in(
            Path::new("a.rs"),
            "// Instant::now()\nlet t = Instant::now();",
        );
        assert_eq!(found, ["a.rs:2: Instant::now"]);
    }
}
