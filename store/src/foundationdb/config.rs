//! What the engine on FoundationDB is told when it is opened.

use std::path::PathBuf;
use std::time::Duration;

use roadstead::limits::STORE_SENDS_REFUSED_ABOVE;

use crate::embedded::Clock;

/// What the engine on FoundationDB is told when it is opened.
#[derive(Clone)]
pub struct FoundationConfig {
    /// The cluster file; without one, the client library's own default.
    pub cluster_file: Option<PathBuf>,
    /// Names the deployment: several may share a cluster.
    pub deployment: String,
    /// The number of this node: part of its message ids, and of its lease (R24).
    pub node: u16,
    /// The placement key of a store that is new. A store that is not keeps its own.
    pub placement_key: [u8; 16],
    /// Tells when a send is past its deadline (R26).
    pub clock: Clock,
    /// Bounds of queues and batches.
    pub limits: FoundationLimits,
}

/// Bounds of queues and batches.
#[derive(Debug, Clone, Copy)]
pub struct FoundationLimits {
    /// Commands in one transaction. Their reads go out together, so a few hundred cost one round trip.
    pub batch_commands_max: usize,
    /// Bytes written by one transaction (R16: half a MiB), beyond which no further command joins.
    pub batch_bytes_max: usize,
    /// Of a batch, what acknowledgements, openings and read marks may take before sends get their turn
    /// (R26).
    pub batch_ahead_max: usize,
    /// Transactions of one shard that may be under way at once: a commit takes several milliseconds, in
    /// which the next batches read and commit.
    pub batches_in_flight_max: usize,
    /// Inbox reads that share a read version.
    pub reads_together_max: usize,
    /// Sends waiting in all shards. More are refused: `Overloaded`.
    pub sends_queued_max: usize,
    /// Other commands waiting. A reserve of their own (R26).
    pub others_queued_max: usize,
    /// Inbox reads waiting.
    pub reads_queued_max: usize,
    /// Threads that run transactions; each serves a part of the shards.
    pub workers: u16,
    /// Expiry notes known to be written, per worker: about 100 bytes each.
    pub noted_max: usize,
    /// How often the lease is renewed (R24). It expires after ten seconds.
    pub renew_every: Duration,
    /// How long a command other than a send is tried before it is answered `Unavailable`. A send has its
    /// own deadline.
    pub patience: Duration,
}

impl Default for FoundationLimits {
    fn default() -> Self {
        Self {
            batch_commands_max: 512,
            batch_bytes_max: 512 * 1024,
            batch_ahead_max: 384,
            batches_in_flight_max: 4,
            reads_together_max: 256,
            sends_queued_max: STORE_SENDS_REFUSED_ABOVE,
            others_queued_max: 4 * STORE_SENDS_REFUSED_ABOVE,
            reads_queued_max: 2 * STORE_SENDS_REFUSED_ABOVE,
            workers: 1,
            noted_max: 64 * 1024,
            renew_every: Duration::from_secs(3),
            patience: Duration::from_secs(10),
        }
    }
}

impl std::fmt::Debug for FoundationConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The placement key is a secret.
        f.debug_struct("FoundationConfig")
            .field("cluster_file", &self.cluster_file)
            .field("deployment", &self.deployment)
            .field("node", &self.node)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
