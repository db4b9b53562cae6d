//! What the embedded engine is told when it is opened.

use std::path::PathBuf;
use std::sync::Arc;

use roadstead::limits::STORE_SENDS_REFUSED_ABOVE;
use roadstead::time::Time;

/// The clock of the process, which the deadlines of sends are told by.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// What the embedded engine is told when it is opened.
#[derive(Clone)]
pub struct EmbeddedConfig {
    /// The folder of the database; made if it is not there.
    pub path: PathBuf,
    /// The number of this node, part of its message ids.
    pub node: u16,
    /// The placement key of a store that is new. A store that is not keeps its own.
    pub placement_key: [u8; 16],
    /// Tells when a send is past its deadline (R26).
    pub clock: Clock,
    /// Bounds of queues, batches and caches.
    pub limits: EmbeddedLimits,
}

/// Bounds of queues, batches and caches.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedLimits {
    /// Commands in one commit. One sync costs as much as a few hundred commands, and a larger batch only
    /// makes the first of it wait.
    pub batch_commands_max: usize,
    /// Bytes written by one commit (R16: half a MiB), beyond which no further command joins.
    pub batch_bytes_max: usize,
    /// Of a batch's commands, what acknowledgements, openings and read marks may take before sends get their
    /// turn (R26): they have room ahead of sends, but can not starve them.
    pub batch_ahead_max: usize,
    /// The same of its bytes.
    pub batch_ahead_bytes_max: usize,
    /// Sends waiting for the committer. More are refused: `Overloaded`.
    pub sends_queued_max: usize,
    /// Other commands waiting for the committer. A reserve of their own (R26).
    pub others_queued_max: usize,
    /// Inbox reads waiting for a reader.
    pub reads_queued_max: usize,
    /// Threads that read inboxes.
    pub read_threads: usize,
    /// Values of small keys kept in memory: about 150 bytes each.
    pub cached_keys_max: usize,
    /// Devices whose last number and last entry are kept in memory: about 100 bytes each.
    pub known_devices_max: usize,
    /// What was committed last and waits in memory to be written into the database, in bytes. Twice as
    /// much while that happens. More of it means that more entries are acknowledged before the database
    /// ever sees them.
    pub young_bytes_max: usize,
    /// Room on disk kept for acknowledgements and the expiry of a disk that is full, in bytes, and at most a
    /// twentieth of the disk. Sends are refused while less than that is free. 0 keeps none.
    pub reserve_bytes_max: u64,
    /// Blocks of the database kept in memory, in bytes.
    pub block_cache_bytes: u64,
    /// Table files of the database kept open, each with a descriptor of the process. Those that are written or
    /// merged come on top, some dozens.
    pub open_files_max: usize,
}

impl Default for EmbeddedLimits {
    fn default() -> Self {
        Self {
            batch_commands_max: 2_048,
            batch_bytes_max: 512 * 1024,
            batch_ahead_max: 1_536,
            batch_ahead_bytes_max: 384 * 1024,
            sends_queued_max: STORE_SENDS_REFUSED_ABOVE,
            others_queued_max: 4 * STORE_SENDS_REFUSED_ABOVE,
            reads_queued_max: 2 * STORE_SENDS_REFUSED_ABOVE,
            read_threads: 1,
            cached_keys_max: 128 * 1024,
            known_devices_max: 128 * 1024,
            young_bytes_max: 32 * 1024 * 1024,
            reserve_bytes_max: 128 * 1024 * 1024,
            block_cache_bytes: 64 * 1024 * 1024,
            // With the rest it fits the usual limit of 1,024.
            open_files_max: 700,
        }
    }
}

impl std::fmt::Debug for EmbeddedConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The placement key is a secret.
        f.debug_struct("EmbeddedConfig")
            .field("path", &self.path)
            .field("node", &self.node)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
