//! Compiles a library for `LD_PRELOAD`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable of the dynamic linker that names a library to preload (ld.so(8)).
pub const PRELOAD: &str = "LD_PRELOAD";

/// Compiles the library that keeps what a power cut would leave of a folder; its source names the
/// variables that it wants. `None` where there is no compiler.
///
/// # Errors
///
/// It can not be written to `folder`, or does not compile.
pub fn power_cut(folder: &Path) -> io::Result<Option<PathBuf>> {
    build("powercut", include_str!("preload/powercut.rs"), folder)
}

/// `None` where there is no compiler.
pub(crate) fn build(name: &str, text: &str, folder: &Path) -> io::Result<Option<PathBuf>> {
    let source = folder.join(format!("{name}.rs"));
    let library = folder.join(format!("lib{name}.so"));
    std::fs::write(&source, text)?;
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-o"])
        .args([&library, &source])
        .output();
    let output = match built {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        built => built?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{name} does not compile: {said}")));
    }
    Ok(Some(library))
}
