//! Disks that fail on purpose, for tests and for the faults of real processes.
//!
//! - [`SmallDisk`]: a few MiB in memory, to be filled.
//! - [`FailingDisk`]: calls that fail on order, by a library preloaded into the process under test.
//! - [`power_cut`]: a library that keeps what a power cut would leave.
//!
//! The sources of the libraries are in `preload/`. They are compiled by whoever needs one, when it is
//! needed: what hooks the C library is part of no build.

mod failing;
mod preload;
mod small;

pub use failing::{EIO, EROFS, FailingDisk};
pub use preload::{PRELOAD, power_cut};
pub use small::SmallDisk;
