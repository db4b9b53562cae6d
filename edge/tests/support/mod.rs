//! A real edge process and a client that can say anything to it.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

pub(crate) mod bold;
pub(crate) mod client;
pub(crate) mod edge;

pub(crate) use client::{Client, Expect, chat};
pub(crate) use edge::Edge;

use std::time::Duration;

/// The longest that anything in a test may take before it counts as hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// A binary of another package of this workspace, built like the one under test.
pub(crate) fn sibling(name: &str, package: &str) -> std::path::PathBuf {
    let path = std::path::Path::new(env!("CARGO_BIN_EXE_roadstead")).with_file_name(name);
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = std::process::Command::new(cargo);
        build.args(["build", "--package", package]);
        if cfg!(not(debug_assertions)) {
            build.arg("--release");
        }
        assert!(
            build.status().expect("cargo runs").success(),
            "{package} does not build"
        );
    }
    path
}
