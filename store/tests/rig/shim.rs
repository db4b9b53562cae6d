//! Libraries preloaded into a child, to come between it and its disk.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds `tests/shim/NAME.rs` into a folder; `None` where there is no compiler beside cargo.
pub(crate) fn build(name: &str, folder: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/shim/{name}.rs"));
    let library = folder.join(format!("lib{name}.so"));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-o"])
        .args([&library, &source])
        .status()
        .ok()?;
    assert!(built.success(), "the shim compiles");
    Some(library)
}
