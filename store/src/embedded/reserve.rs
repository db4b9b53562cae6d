//! Room on disk that is kept for a disk that is full: acknowledgements and the expiry go on with it, and they
//! are what frees a disk.
//!
//! The room is a file. While it is there the disk is not full for this store, whoever else writes to it. Sends
//! are refused once less than the same again is free, and taken again when there is twice as much; should the disk
//! fill up all the same, because others write to it, the file is given back and the acknowledgements have its place.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::log;

/// A reserve is at most one part in so many of its file system.
const PART_OF_DISK: u64 = 20;

/// How often the disk is asked how much is free, while that is far more than is kept.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// So many times what is kept is near: then the disk is asked each time, for a microsecond.
const NEAR: u64 = 8;

/// What is kept free, and whether it is wanted now.
#[derive(Debug)]
pub(crate) struct Reserve {
    place: Place,
    /// Sends are refused.
    tight: bool,
    /// The file system can not set room aside: nothing is kept.
    cannot: bool,
    /// When the disk was asked last, if it had plenty then.
    looked_at: Option<Instant>,
}

/// The file of a reserve, and how large it should be.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    path: PathBuf,
    bytes: u64,
}

impl Place {
    /// In the folder of a store, which is there: so many bytes, or fewer where the whole disk is small.
    pub(crate) fn new(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        log::make_folder(folder)?;
        let disk = statvfs(folder)?;
        let whole = disk.f_blocks.saturating_mul(disk.f_frsize);
        Ok(Self {
            path: folder.join("reserve"),
            bytes: bytes_max.min(whole / PART_OF_DISK),
        })
    }

    /// Bytes that are free beside it.
    fn free(&self) -> io::Result<u64> {
        let disk = statvfs(self.path.parent().unwrap_or(Path::new(".")))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn is_taken(&self) -> bool {
        self.bytes == 0 || std::fs::metadata(&self.path).is_ok_and(|file| file.len() >= self.bytes)
    }

    /// Takes the room.
    fn take(&self) -> io::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.path)?;
        let taken = fallocate(&file, FallocateFlags::empty(), 0, self.bytes);
        if let Err(error) = taken
            .map_err(io::Error::from)
            .and_then(|()| file.sync_all())
        {
            self.give_back();
            return Err(error);
        }
        Ok(())
    }

    /// Gives the room back; `false` if there was none.
    pub(crate) fn give_back(&self) -> bool {
        let was_there = std::fs::remove_file(&self.path).is_ok();
        // What was removed is free once the folder says so; a failure of that is met again at the next write.
        let folder = self.path.parent().map(File::open);
        if let Some(Ok(folder)) = folder {
            let _ = folder.sync_all();
        }
        was_there
    }
}

impl Reserve {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            tight: false,
            cannot: false,
            looked_at: None,
        }
    }

    /// A write found no room: lets no send in before the disk was looked at again, and gives the room back where
    /// it was not for sends that it was wanted.
    pub(crate) fn yield_room(&mut self, to_sends: bool) {
        if !to_sends {
            self.place.give_back();
        }
        self.tight = self.place.bytes > 0;
        self.look_again();
    }

    /// The disk is to be looked at, however lately it was.
    pub(crate) fn look_again(&mut self) {
        self.looked_at = None;
    }

    /// Where it lies, for who gives it back.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the disk has no room for more than what frees it.
    pub(crate) fn is_tight(&mut self) -> bool {
        let due = self.looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if due && self.place.bytes > 0 {
            let has_plenty = self.look() >= NEAR * self.place.bytes;
            self.looked_at = has_plenty.then(Instant::now);
        }
        self.tight
    }

    /// Looks at the disk: what is free.
    fn look(&mut self) -> u64 {
        let bytes = self.place.bytes;
        let free = match self.place.free() {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "the disk does not say what is free");
                return u64::MAX;
            }
        };
        let was_tight = self.tight;
        let taken = self.place.is_taken();
        self.tight = if !taken || was_tight {
            free < 2 * bytes + if taken { 0 } else { bytes }
        } else {
            free < bytes
        };
        if !self.tight
            && !taken
            && !self.cannot
            && let Err(error) = self.place.take()
        {
            if is_full(&error) {
                // There is less than the disk says: a quota.
                self.tight = true;
            } else {
                // A file system without this call: nothing is kept, and sends are refused early all the same.
                self.cannot = true;
                tracing::warn!(%error, "no room can be reserved on this file system");
            }
        }
        if self.tight != was_tight {
            match self.tight {
                true => tracing::error!(free, "the disk is nearly full: messages are refused"),
                false => tracing::info!(free, "the disk has room again"),
            }
        }
        free
    }

    /// How large it is.
    pub(crate) fn bytes(&self) -> u64 {
        self.place.bytes
    }
}

/// Whether an error says that there is no room.
pub(crate) fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(
                io.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        {
            return true;
        }
        cause = error.source();
    }
    false
}
