//! File descriptors: how many this process may have, and who gets how many of them.
//!
//! A store that gets none for its next file fails, and with it every send. So everything else that takes
//! descriptors has a bound, the sum is compared with the limit before anything is served, and the store gets the
//! rest. Sessions take none: they share the sockets of their shard.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::admin::CONNECTIONS_MAX;

/// Of the process: standard streams, the runtime with its signals, the admin listener, the lock of the data directory,
/// and one file each that is read or written for a moment: a key, a certificate, /proc. A fresh server has 15.
const PROCESS: u64 = 32;

/// Of a shard, beside one socket for each address: its ring and what wakes it.
const SHARD: u64 = 2;

/// Of the admin address: its connections, and the one that takes another's place.
const ADMIN: u64 = CONNECTIONS_MAX as u64 + 1;

/// Of the store, beside files that it keeps open: logs that are written, begun and read back, locks and versions (16),
/// tables that are being written (16), and tables that a merge or a reader still holds after they were closed to make
/// room for others (64).
const STORE: u64 = 96;

/// Table files that the store keeps open, at least: with fewer, nearly every read would open one.
const STORE_OPEN_MIN: u64 = 64;

/// And at most: more makes nothing faster.
const STORE_OPEN_MAX: u64 = 900;

/// Of the client of a FoundationDB cluster: one for each process of it, of which there are at most some 500.
#[cfg(feature = "foundationdb")]
const CLUSTER: u64 = 600;

/// Who takes descriptors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Takers {
    shards: u64,
    /// Addresses that each shard has a socket for.
    addresses: u64,
    store: u64,
    /// Files that the store keeps open, at least and at most.
    open: (u64, u64),
}

impl Takers {
    pub(crate) fn embedded(shards: u64, addresses: usize) -> Self {
        Self {
            shards,
            addresses: addresses as u64,
            store: STORE,
            open: (STORE_OPEN_MIN, STORE_OPEN_MAX),
        }
    }

    #[cfg(feature = "foundationdb")]
    pub(crate) fn foundationdb(shards: u64, addresses: usize) -> Self {
        Self {
            store: CLUSTER,
            open: (0, 0),
            ..Self::embedded(shards, addresses)
        }
    }

    /// All but the files that the store keeps open.
    fn fixed(&self) -> u64 {
        PROCESS + self.shards * (SHARD + self.addresses) + ADMIN + self.store
    }

    /// What makes everything as fast as it can be.
    pub(crate) fn wanted(&self) -> u64 {
        self.fixed() + self.open.1
    }

    /// How many files the store may keep open under a limit.
    pub(crate) fn share_out(&self, limit: u64) -> anyhow::Result<u64> {
        let (least, most) = self.open;
        let needed = self.fixed() + least;
        anyhow::ensure!(
            limit >= needed,
            "the limit of open files is {limit}, and {needed} are needed: {PROCESS} for the process, {} for \
             {} shards with {} addresses, {ADMIN} for the admin address and {} for the store; raise the hard \
             limit (LimitNOFILE= of the unit, `ulimit -n`)",
            self.shards * (SHARD + self.addresses),
            self.shards,
            self.addresses,
            self.store + least,
        );
        Ok((limit - self.fixed()).min(most))
    }
}

/// Takes what the hard limit gives, for which nobody has to be asked, and answers it.
pub(crate) fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            limit.current
        }
    };
    current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fc3_the_store_gets_what_nobody_else_can_take() {
        let takers = Takers::embedded(2, 3);
        let others = 32 + 2 * 5 + 65;
        assert_eq!(takers.wanted(), others + 96 + 900);
        for (limit, open) in [
            (others + 96 + 64, 64),
            (others + 96 + 300, 300),
            (u64::MAX, 900),
        ] {
            let shared = takers.share_out(limit).expect("enough");
            assert_eq!(shared, open);
            assert!(others + 96 + shared <= limit);
        }
    }

    #[test]
    fn fc3_a_limit_that_is_too_low_is_said_with_what_takes_how_many() {
        let takers = Takers::embedded(2, 3);
        let needed = 32 + 2 * 5 + 65 + 96 + 64;
        let error = takers.share_out(needed - 1).expect_err("one too few");
        let error = error.to_string();
        for part in ["is 266", "267 are needed", "10 for 2 shards", "LimitNOFILE"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
