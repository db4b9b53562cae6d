//! What the engine counts: once a batch, so that atomics cost nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that several threads add to.
#[derive(Debug, Default)]
pub struct Sum(AtomicU64);

impl Sum {
    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, more: usize) {
        self.add_u64(u64::try_from(more).unwrap_or(u64::MAX));
    }

    pub(crate) fn add_u64(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Everything that an engine counts.
        #[derive(Debug, Default)]
        pub struct FoundationCounters {
            $($(#[$doc])* pub $name: Sum,)*
        }

        impl FoundationCounters {
            /// Names and values.
            #[must_use]
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Commits that succeeded.
    commits,
    /// Time from the first read to the end of those commits, in microseconds.
    commit_us,
    /// Transactions that were begun for commands, the failed ones among them.
    attempts,
    /// Transactions that failed by a conflict.
    conflicts,
    /// Transactions of unknown outcome, rebuilt through `k/` (R15).
    unknown,
    /// Times that all sessions had to read again, because a command was given up whose outcome stayed
    /// unknown.
    unsettled,
    /// Transactions that failed otherwise: timed out, too old, no quorum.
    failures,
    /// Commands put off to another transaction, by a conflict or a lack of room.
    put_off,
    /// Commands committed.
    commands,
    /// Messages committed.
    sends,
    /// Sends answered with their first answer (R12).
    sends_repeated,
    /// Key-value writes.
    writes,
    /// Bytes of keys and values written.
    written_bytes,
    /// Keys and ranges fetched.
    fetched,
    /// Inboxes read.
    reads,
    /// Entries read.
    read_entries,
    /// Commands refused: their deadline passed.
    deadline_passed,
    /// Commands refused: the cluster did not answer in time.
    unavailable,
    /// Commands refused: anything else.
    refused,
    /// Entries removed by age.
    expired,
}
