//! A disk whose calls fail on order, by a library preloaded into the server.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

const SOURCE: &str = include_str!("../../store/tests/shim/failing_disk.rs");

/// Input/output error, no space left on device, read-only file system (Linux).
pub(crate) const EIO: i32 = 5;
pub(crate) const EROFS: i32 = 30;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Shim {
    library: PathBuf,
    order: PathBuf,
}

impl Shim {
    /// Compiles the library; `None` where there is no compiler.
    pub(crate) fn build(scratch: &Path) -> Result<Option<Self>> {
        let source = scratch.join("failing_disk.rs");
        let library = scratch.join("libfailing_disk.so");
        std::fs::write(&source, SOURCE)?;
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let built = Command::new(rustc)
            .args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-o"])
            .args([&library, &source])
            .output();
        let Ok(built) = built else { return Ok(None) };
        let said = String::from_utf8_lossy(&built.stderr);
        ensure!(built.status.success(), "the shim does not compile: {said}");
        Ok(Some(Self {
            library,
            order: scratch.join("order"),
        }))
    }

    /// What the server is started with.
    pub(crate) fn environment(&self, root: &Path) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("LD_PRELOAD", self.library.clone()),
            ("FAILING_DISK_ROOT", root.to_owned()),
            ("FAILING_DISK_ORDER", self.order.clone()),
        ]
    }

    /// From now on these calls fail with this error.
    pub(crate) fn fail(&self, calls: &str, error: i32) -> Result<()> {
        let next = self.order.with_extension("next");
        std::fs::write(&next, format!("{calls} {error}"))?;
        Ok(std::fs::rename(next, &self.order)?)
    }

    /// From now on nothing fails.
    pub(crate) fn mend(&self) -> Result<()> {
        Ok(std::fs::remove_file(&self.order)?)
    }
}
