//! A disk of a few MiB in memory (tmpfs).

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// See the [module](self). Unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one. `None` where that is not allowed.
    ///
    /// # Errors
    ///
    /// The folder is not there and can not be made.
    pub fn mount(path: &Path, mib: u32) -> io::Result<Option<Self>> {
        std::fs::create_dir_all(path)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(path)
            .stderr(Stdio::null())
            .status();
        let is_mounted = mounted.is_ok_and(|status| status.success());
        Ok(is_mounted.then(|| Self(path.to_owned())))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Mounts it again with other options: `size=256m`, `ro`, `rw`.
    ///
    /// # Errors
    ///
    /// `mount` refuses.
    pub fn remount(&self, options: &str) -> io::Result<()> {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0)
            .status()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "mount -o remount,{options}: {status}"
            ))),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
