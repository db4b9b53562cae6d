//! What the engine counts. Each counter has one writer; relaxed atomics let anyone read them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// For the one writer: a plain addition, no locked instruction.
    pub(crate) fn add(&self, more: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// For the one writer: a gauge.
    pub(crate) fn set(&self, value: usize) {
        self.0
            .store(u64::try_from(value).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn add_len(&self, more: usize) {
        self.add(u64::try_from(more).unwrap_or(u64::MAX));
    }
}

/// Upper bounds of the classes of batch sizes; the last class has none.
pub const BATCH_CLASSES: [u64; 7] = [1, 4, 16, 64, 256, 1_024, 4_096];

/// Counted by the committer.
#[derive(Debug, Default)]
pub struct CommitCounters {
    /// Commits, each with one sync.
    pub commits: Count,
    /// Time spent in commits: journal, sync, memory tables. Microseconds.
    pub commit_us: Count,
    /// Commands that took part in commits, by the size of their batch: see [`BATCH_CLASSES`].
    pub batches: [Count; BATCH_CLASSES.len() + 1],
    /// Key-value writes.
    pub writes: Count,
    /// Bytes of keys and values written.
    pub written_bytes: Count,
    /// Messages committed.
    pub sends: Count,
    /// Sends answered with their first answer (R12).
    pub sends_repeated: Count,
    /// Devices opened.
    pub opens: Count,
    /// Acknowledgements.
    pub flushes: Count,
    /// Read marks.
    pub read_marks: Count,
    /// Inboxes checked for their limit.
    pub checks: Count,
    /// Entries appended to inboxes.
    pub appended: Count,
    /// Commands refused: their deadline passed.
    pub deadline_passed: Count,
    /// Commands refused: the engine had failed.
    pub unavailable: Count,
    /// Commands refused: anything else.
    pub refused: Count,
    /// Sends refused because the disk is nearly full.
    pub without_room: Count,
    /// Commands that met an error of their own: what they read is damaged, or they write too much.
    pub own_errors: Count,
    /// Values found in memory.
    pub cache_hits: Count,
    /// Values read from the database.
    pub cache_misses: Count,
    /// Commits that failed, after which the database was reopened.
    pub failures: Count,
    /// Entries removed by age.
    pub expired: Count,
    /// Bytes of keys and values in the log and in memory, not yet in the database: a gauge.
    pub young_bytes: Count,
}

/// Counted by a reader.
#[derive(Debug, Default)]
pub struct ReadCounters {
    /// Inboxes read.
    pub reads: Count,
    /// Entries read.
    pub read_entries: Count,
    /// Bytes of payloads read.
    pub read_bytes: Count,
    /// Time spent reading, in microseconds.
    pub read_us: Count,
    /// Reads refused because the engine had failed.
    pub unavailable: Count,
}

/// All counters of an engine.
#[derive(Debug)]
pub struct Counters {
    /// The committer's.
    pub commit: CommitCounters,
    /// One per reader.
    pub readers: Vec<ReadCounters>,
}

impl Counters {
    pub(crate) fn new(readers: usize) -> Self {
        Self {
            commit: CommitCounters::default(),
            readers: (0..readers).map(|_| ReadCounters::default()).collect(),
        }
    }
}

impl CommitCounters {
    /// Counts a batch of so many commands.
    pub(crate) fn count_batch(&self, commands: usize) {
        let commands = u64::try_from(commands).unwrap_or(u64::MAX);
        let class = BATCH_CLASSES.partition_point(|bound| *bound < commands);
        self.batches[class].add(1);
    }
}
