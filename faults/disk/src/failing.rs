//! A disk whose calls fail on order.

use std::io;
use std::path::{Path, PathBuf};

use crate::preload::{PRELOAD, build};

/// Input/output error (Linux).
pub const EIO: i32 = 5;

/// Read-only file system (Linux).
pub const EROFS: i32 = 30;

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct FailingDisk {
    library: PathBuf,
    order: PathBuf,
}

impl FailingDisk {
    /// Compiles the library into a folder, where the order will be as well. `None` where there is no
    /// compiler.
    ///
    /// # Errors
    ///
    /// It can not be written there, or does not compile.
    pub fn build(folder: &Path) -> io::Result<Option<Self>> {
        let source = include_str!("preload/failing_disk.rs");
        let library = build("failing_disk", source, folder)?;
        Ok(library.map(|library| Self {
            library,
            order: folder.join("order"),
        }))
    }

    /// What a process is started with, so that its calls on what is below `root` fail.
    #[must_use]
    pub fn environment(&self, root: &Path) -> Vec<(&'static str, PathBuf)> {
        vec![
            (PRELOAD, self.library.clone()),
            ("FAILING_DISK_ROOT", root.to_owned()),
            ("FAILING_DISK_ORDER", self.order.clone()),
        ]
    }

    /// From now on these calls (`sync`, `write`, `open`, in any number) fail with this error.
    ///
    /// # Errors
    ///
    /// The order can not be written.
    pub fn fail(&self, calls: &str, error: i32) -> io::Result<()> {
        let next = self.order.with_extension("next");
        std::fs::write(&next, format!("{calls} {error}"))?;
        std::fs::rename(next, &self.order)
    }

    /// From now on nothing fails.
    ///
    /// # Errors
    ///
    /// The order can not be removed.
    pub fn mend(&self) -> io::Result<()> {
        std::fs::remove_file(&self.order)
    }
}
