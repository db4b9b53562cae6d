//! What the kernel says of this host's memory and of processes: `proc(5)` and `cgroups(7)`, read in one
//! place for both ends.

mod memory;
mod process;

pub use memory::{Limit, bytes_of, group_files, memory, memory_free, set_huge_pages};
pub use process::{ThreadUsage, Usage, resident_bytes, thread_usage, usage};
