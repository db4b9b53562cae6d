//! The server's door: who is let in, who has to prove an address first, who has to wait (T11).

use std::{
    collections::{BTreeMap, HashSet, VecDeque, btree_map::Entry},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn_proto::Incoming;
use roadstead_quic::{
    Block, Blocks,
    limits::{HALF_OPEN_BLOCK_MAX, HALF_OPEN_PARTS},
};

use crate::{
    config::INITIAL_BACKLOG_MAX,
    counters::Counters,
    quic::{Datagram, ServerSide, ids, ids::IdLink, wire::is_initial},
};

/// How long a Retry token is good for. A client answers within a round trip.
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(15);

/// An Initial that waits for its turn.
pub(super) struct Waiting {
    pub(super) socket: u16,
    pub(super) peer: SocketAddr,
    pub(super) data: Box<[u8]>,
}

/// What happens to a newcomer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Accept,
    /// Its address is proven, by a token that is not used up yet.
    AcceptProven,
    /// It must come back with a token, to this shard.
    Retry(u16),
    TooMany,
    TokenReused,
}

/// What a half-open handshake is counted by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// The tail of its id.
    tail: u64,
    /// The block of its address.
    block: Option<Block>,
}

pub(super) struct Door {
    retry_half_open: usize,
    half_open_max: usize,
    blocks: Blocks,
    /// Half-open handshakes of each block that has any (T11).
    held: BTreeMap<Block, usize>,
    link: Arc<IdLink>,
    all: Vec<Arc<Counters>>,
    waiting: VecDeque<Waiting>,
    /// Tails of the ids of half-open handshakes: their packets need not wait with the newcomers'.
    half_open: HashSet<u64>,
    /// Tokens that were used: each is good once per shard.
    used: Recent,
    /// Newcomers that were sent a Retry. A copy of their first Initial must not start a handshake that
    /// nobody will finish.
    retried: Recent,
    resets: Budget,
}

impl Door {
    pub(super) fn new(
        side: ServerSide,
        link: Arc<IdLink>,
        all: Vec<Arc<Counters>>,
        now: Instant,
    ) -> Self {
        Self {
            retry_half_open: side.retry_half_open,
            half_open_max: side.half_open_max,
            blocks: side.blocks,
            held: BTreeMap::new(),
            link,
            all,
            waiting: VecDeque::new(),
            half_open: HashSet::new(),
            used: Recent::new(now),
            retried: Recent::new(now),
            resets: Budget::new(side.resets_per_second, now),
        }
    }

    pub(super) fn link(&self) -> &IdLink {
        &self.link
    }

    /// Whether a datagram begins with the Initial of a newcomer. A handshake costs as much as a hundred
    /// messages, so established sessions are served first.
    pub(super) fn must_wait(&self, packet: &[u8]) -> bool {
        is_initial(packet)
            && !destination(packet)
                .and_then(ids::tail)
                .is_some_and(|tail| self.half_open.contains(&tail))
    }

    /// Puts an Initial aside. Returns how many that waited longer had to go for it.
    pub(super) fn put_aside(&mut self, datagram: &Datagram<'_>) -> u64 {
        let full = self.waiting.len() >= INITIAL_BACKLOG_MAX;
        if full {
            self.waiting.pop_front();
        }
        let Datagram { socket, peer, .. } = *datagram;
        self.waiting.push_back(Waiting {
            socket,
            peer,
            data: (&*datagram.data).into(),
        });
        u64::from(full)
    }

    pub(super) fn next_waiting(&mut self) -> Option<Waiting> {
        self.waiting.pop_front()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Judges a newcomer. A backlog means that handshakes take all the CPU there is, so it counts like
    /// half-open ones: a Retry costs a fiftieth of a handshake.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        incoming: &Incoming,
        half_open: usize,
    ) -> Admission {
        let (peer, id) = (incoming.remote_address(), incoming.orig_dst_cid());
        let proven = incoming.remote_address_validated();
        if proven && self.used.contains(peer, id) {
            return Admission::TokenReused;
        }
        let block_is_full = self.block_is_full(peer);
        if half_open >= self.half_open_max || (proven && block_is_full) {
            return Admission::TooMany;
        }
        if proven {
            return Admission::AcceptProven;
        }
        let busy = block_is_full || half_open.max(self.waiting.len()) >= self.retry_half_open;
        if incoming.may_retry() && (busy || self.retried.contains(peer, id)) {
            self.retried.insert(now, peer, id);
            return Admission::Retry(self.least_loaded());
        }
        Admission::Accept
    }

    /// The token of an incoming connection is good for no other.
    pub(super) fn use_up(&mut self, now: Instant, incoming: &Incoming) {
        let (peer, id) = (incoming.remote_address(), incoming.orig_dst_cid());
        self.used.insert(now, peer, id);
    }

    fn block_is_full(&self, peer: SocketAddr) -> bool {
        let part = (self.half_open_max / HALF_OPEN_PARTS).max(1);
        let block = self.blocks.of(peer.ip());
        let held = block.and_then(|block| self.held.get(&block));
        held.is_some_and(|held| *held >= part.min(HALF_OPEN_BLOCK_MAX))
    }

    fn least_loaded(&self) -> u16 {
        let loads = (0_u16..)
            .zip(&self.all)
            .map(|(shard, c)| (c.half_open.get(), shard));
        loads.min().map_or(0, |(_, shard)| shard)
    }

    /// A handshake began: remembers its id, which was the last one made, and its address.
    pub(super) fn opened(&mut self, peer: SocketAddr) -> Place {
        let tail = self.link.last();
        self.half_open.insert(tail);
        let block = self.blocks.of(peer.ip());
        if let Some(block) = block {
            *self.held.entry(block).or_default() += 1;
        }
        Place { tail, block }
    }

    /// A handshake is complete, or gone.
    pub(super) fn settled(&mut self, place: Place) {
        self.half_open.remove(&place.tail);
        let Some(block) = place.block else { return };
        if let Entry::Occupied(mut held) = self.held.entry(block) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }

    pub(super) fn may_reset(&mut self, now: Instant) -> bool {
        self.resets.take(now)
    }
}

pub(super) fn is_long(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0x80 != 0)
}

fn destination(packet: &[u8]) -> Option<&[u8]> {
    let length = usize::from(*packet.get(5)?);
    packet.get(6..6 + length)
}

/// Entries that `Recent` keeps per generation: what a full-rate flood of Retries makes in some seconds.
const RECENT_MAX: usize = 64 * 1024;

/// Pairs of address and original id, kept for at least as long as a token is good.
struct Recent {
    hasher: RandomState,
    recent: HashSet<u64>,
    older: HashSet<u64>,
    since: Instant,
}

impl Recent {
    fn new(now: Instant) -> Self {
        Self {
            hasher: RandomState::new(),
            recent: HashSet::new(),
            older: HashSet::new(),
            since: now,
        }
    }

    fn contains(&self, peer: SocketAddr, id: &[u8]) -> bool {
        let key = self.hasher.hash_one((peer, id));
        self.older.contains(&key) || self.recent.contains(&key)
    }

    /// Answers whether the pair is new.
    fn insert(&mut self, now: Instant, peer: SocketAddr, id: &[u8]) -> bool {
        let full = self.recent.len() >= RECENT_MAX;
        if full || now.duration_since(self.since) >= TOKEN_LIFETIME {
            self.older = std::mem::take(&mut self.recent);
            self.since = now;
        }
        let key = self.hasher.hash_one((peer, id));
        !self.older.contains(&key) && self.recent.insert(key)
    }
}

/// A rate with a burst of a second.
struct Budget {
    per_second: u32,
    left: f64,
    refilled: Instant,
}

impl Budget {
    fn new(per_second: u32, now: Instant) -> Self {
        Self {
            per_second,
            left: f64::from(per_second),
            refilled: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let rate = f64::from(self.per_second);
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.left = (self.left + elapsed * rate).min(rate);
        self.refilled = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_refilled() {
        let start = Instant::now();
        let mut budget = Budget::new(10, start);
        assert_eq!((0..20).filter(|_| budget.take(start)).count(), 10);
        let later = start + Duration::from_millis(500);
        assert_eq!((0..20).filter(|_| budget.take(later)).count(), 5);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| budget.take(much_later)).count(), 10);
    }

    #[test]
    fn a_pair_is_new_once_while_a_token_is_good() {
        let start = Instant::now();
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut used = Recent::new(start);
        assert!(used.insert(start, peer, b"id"));
        assert!(!used.insert(start, peer, b"id"));
        assert!(used.insert(start, peer, b"other"));
        assert!(!used.insert(start + TOKEN_LIFETIME, peer, b"id"));
        assert!(used.insert(start + 3 * TOKEN_LIFETIME, peer, b"another"));
        assert_eq!(
            used.older.len() + used.recent.len(),
            1,
            "the old ones are forgotten"
        );
    }

    #[test]
    fn the_destination_of_a_long_header_is_found() {
        let initial = [0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0];
        assert_eq!(destination(&initial), Some(&[1, 2, 3, 4, 5, 6, 7, 8][..]));
        assert_eq!(destination(&[0xc3, 0, 0, 0, 1, 8, 1]), None);
    }
}
