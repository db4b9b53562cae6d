//! Connection ids: a server's steer to its shard, a client's tell its sessions apart.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn_proto::{ConnectionId, ConnectionIdGenerator};

use crate::{event::HomePrefix, quic::IdPolicy, steer};

/// Length of a server's ids: two bytes of steering and ten that nobody can guess.
pub(crate) const SERVER_ID_BYTES: usize = 12;

/// Length of the first id that a client makes up for the server (RFC 9000 section 7.2: at least 8).
const FIRST_ID_BYTES: usize = 8;

/// Random bytes fetched at once: the library's generator costs more per call than per byte.
const ENTROPY_BYTES: usize = 512;

/// Random bytes in small portions.
struct Entropy {
    bytes: [u8; ENTROPY_BYTES],
    used: usize,
}

impl Entropy {
    fn new() -> Self {
        Self {
            bytes: [0; ENTROPY_BYTES],
            used: ENTROPY_BYTES,
        }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > ENTROPY_BYTES {
            self.bytes = crate::tls::random_bytes();
            self.used = 0;
        }
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[self.used..self.used + N]);
        self.used += N;
        out
    }
}

/// What an engine and the id generator inside its endpoint tell each other. Both run on one thread.
#[derive(Debug, Default)]
pub(crate) struct IdLink {
    /// Which shard the next ids steer to, plus one; 0 for the own shard.
    steer_to: AtomicU32,
    /// The tail of the last id made.
    last: AtomicU64,
}

impl IdLink {
    /// Lets the ids made by `make` steer to another shard: those of Retry packets (T11).
    pub(crate) fn steering_to<T>(&self, shard: u16, make: impl FnOnce() -> T) -> T {
        self.steer_to.store(u32::from(shard) + 1, Ordering::Relaxed);
        let made = make();
        self.steer_to.store(0, Ordering::Relaxed);
        made
    }

    /// The tail of the last id made.
    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }
}

/// The last eight bytes of a server's id, which tell it from all others.
pub(crate) fn tail(id: &[u8]) -> Option<u64> {
    id.last_chunk().map(|tail| u64::from_be_bytes(*tail))
}

/// Makes the ids of one thread's endpoint.
pub(crate) struct Ids {
    policy: IdPolicy,
    entropy: Entropy,
    link: Arc<IdLink>,
}

impl Ids {
    pub(crate) fn new(policy: IdPolicy, link: Arc<IdLink>) -> Self {
        Self {
            policy,
            entropy: Entropy::new(),
            link,
        }
    }

    fn steered(&mut self, shard: u16, shards: u16) -> ConnectionId {
        let shard = match self.link.steer_to.load(Ordering::Relaxed) {
            0 => shard,
            other => u16::try_from(other - 1).unwrap_or(shard),
        };
        let (first, count) = steer::prefixes_of(shard, shards);
        // Four bytes scaled down are uniform enough over any range; two would prefer some prefixes.
        let random = u64::from(u32::from_ne_bytes(self.entropy.take()));
        let offset = (random * u64::from(count)) >> 32;
        let prefix = u64::from(first) + offset;
        let mut id = [0; SERVER_ID_BYTES];
        id[..2].copy_from_slice(&prefix.to_be_bytes()[6..]);
        id[2..].copy_from_slice(&self.entropy.take::<{ SERVER_ID_BYTES - 2 }>());
        if let Some(tail) = tail(&id) {
            self.link.last.store(tail, Ordering::Relaxed);
        }
        ConnectionId::new(&id)
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        match self.policy {
            IdPolicy::Steered { shard, shards } => self.steered(shard, shards),
            IdPolicy::Random { length } => {
                ConnectionId::new(&self.entropy.take::<8>()[..usize::from(length)])
            }
        }
    }

    fn cid_len(&self) -> usize {
        match self.policy {
            IdPolicy::Steered { .. } => SERVER_ID_BYTES,
            IdPolicy::Random { length } => usize::from(length),
        }
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Makes the first destination ids of a client's connections, random but for the home hint (T9).
pub(crate) struct FirstIds {
    home: AtomicU32,
    entropy: Mutex<Entropy>,
}

impl FirstIds {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            home: AtomicU32::new(0),
            entropy: Mutex::new(Entropy::new()),
        })
    }

    /// The hint for the next id.
    pub(crate) fn aim(&self, home: Option<HomePrefix>) {
        let packed = home.map_or(0, |h| {
            (u32::from(h.bits.min(16)) << 16) | u32::from(h.prefix)
        });
        self.home.store(packed, Ordering::Relaxed);
    }

    pub(crate) fn make(&self) -> ConnectionId {
        let mut id: [u8; FIRST_ID_BYTES] = self
            .entropy
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .take();
        let home = self.home.load(Ordering::Relaxed);
        let mask = u16::MAX.checked_shl(16 - (home >> 16)).unwrap_or(0);
        let prefix = home.to_be_bytes();
        for (at, mask) in mask.to_be_bytes().into_iter().enumerate() {
            id[at] = (prefix[at + 2] & mask) | (id[at] & !mask);
        }
        ConnectionId::new(&id)
    }
}

impl fmt::Debug for FirstIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstIds").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_ids_steer_to_their_shard_and_use_all_of_its_range() {
        for shards in [1, 2, 3, 7, 64, 1000] {
            for shard in [0, shards / 2, shards - 1] {
                let link = Arc::new(IdLink::default());
                let mut ids = Ids::new(IdPolicy::Steered { shard, shards }, link.clone());
                let (first, count) = steer::prefixes_of(shard, shards);
                let (mut low, mut high) = (u32::MAX, 0);
                for _ in 0..2000 {
                    let id = ids.generate_cid();
                    let prefix = u16::from_be_bytes([id[0], id[1]]);
                    assert_eq!(steer::shard_of_prefix(prefix, shards), shard);
                    assert_eq!(tail(&id), Some(link.last()));
                    low = low.min(u32::from(prefix) - first);
                    high = high.max(u32::from(prefix) - first);
                }
                assert!(
                    low <= count / 20 && high >= count - 1 - count / 20,
                    "{low} {high} {count}"
                );
            }
        }
    }

    #[test]
    fn a_retry_id_can_steer_elsewhere() {
        let link = Arc::new(IdLink::default());
        let mut ids = Ids::new(
            IdPolicy::Steered {
                shard: 0,
                shards: 4,
            },
            link.clone(),
        );
        let id = link.steering_to(3, || ids.generate_cid());
        assert_eq!(id[0] >> 6, 3);
        assert_eq!(ids.generate_cid()[0] >> 6, 0);
    }

    #[test]
    fn a_first_id_has_the_bits_of_its_home_and_no_more() {
        let ids = FirstIds::new();
        ids.aim(Some(HomePrefix {
            prefix: 0b1010_0000_0000_0000,
            bits: 3,
        }));
        let made: Vec<_> = (0..200).map(|_| ids.make()).collect();
        assert!(made.iter().all(|id| id.len() >= 8 && id[0] >> 5 == 0b101));
        assert!(made.iter().any(|id| id[0] & 0b1_0000 != 0));
        ids.aim(None);
        assert!((0..200).map(|_| ids.make()).any(|id| id[0] >> 5 != 0b101));
        ids.aim(Some(HomePrefix {
            prefix: 0xabcd,
            bits: 16,
        }));
        assert_eq!(ids.make()[..2], [0xab, 0xcd]);
    }
}
