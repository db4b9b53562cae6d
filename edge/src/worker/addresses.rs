//! How many sessions an address opens (T11).
//!
//! A session counts when its address is proven, so that nobody can use up what is another's by writing its address
//! on a packet: when the token of a Retry proves it, before the handshake, as whoever has one may finish none;
//! without, when the handshake is complete. Whether there is anything left is asked when an Initial arrives,
//! so that a flood from one address costs a look-up a packet and not a handshake.

use std::net::SocketAddr;
use std::time::Instant;

use roadstead::RateTable;

use crate::clock;
use crate::config::{Limits, Network};

/// Addresses of a shard that are counted at once, 16 bytes each. An address is in the table only until its
/// bucket is full again; when all places of a set are taken, the one nearest to full is forgotten.
const ADDRESSES_MAX: usize = 32 * 1024;

/// Sessions by source address, of one shard.
pub(crate) struct Addresses {
    table: Option<RateTable<Network>>,
    bits_v4: u8,
    bits_v6: u8,
    unlimited: Vec<Network>,
}

impl Addresses {
    /// One of `shards` counters. Connections are spread over the shards by ids that clients choose at
    /// random, so each grants its part.
    pub(crate) fn new(limits: &Limits, shards: u16, key: [u8; 16]) -> Self {
        let rate = limits.sessions().map(|rate| rate.part_of(shards));
        Self {
            table: rate.map(|rate| RateTable::new(rate, ADDRESSES_MAX, key)),
            bits_v4: limits.address_bits_v4,
            bits_v6: limits.address_bits_v6,
            unlimited: limits.unlimited.clone(),
        }
    }

    /// Whether a session from this address would be let in. Changes nothing: the address may be forged.
    pub(super) fn has_room(&self, now: Instant, peer: SocketAddr) -> bool {
        self.is_unlimited(peer)
            || self
                .table
                .as_ref()
                .is_none_or(|table| table.has_token(clock::time_at(now), self.block(peer)))
    }

    /// Counts a session; false if it is one too many.
    pub(super) fn count(&mut self, now: Instant, peer: SocketAddr) -> bool {
        if self.is_unlimited(peer) {
            return true;
        }
        let block = self.block(peer);
        let table = self.table.as_mut();
        table.is_none_or(|table| table.take(clock::time_at(now), block).is_ok())
    }

    /// Addresses forgotten early, because the table was full.
    pub(super) fn forgotten(&self) -> u64 {
        self.table.as_ref().map_or(0, RateTable::forgotten)
    }

    fn block(&self, peer: SocketAddr) -> Network {
        Network::of(peer.ip(), self.bits_v4, self.bits_v6)
    }

    fn is_unlimited(&self, peer: SocketAddr) -> bool {
        let mut unlimited = self.unlimited.iter();
        unlimited.any(|network| network.contains(peer.ip()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn addresses(shards: u16) -> Addresses {
        let limits = Limits {
            sessions_per_s: 2,
            sessions_burst: 4,
            ..Limits::default()
        };
        Addresses::new(&limits, shards, [1; 16])
    }

    fn peer(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// Sessions that an address gets at one moment.
    fn let_in(addresses: &mut Addresses, now: Instant, from: &str) -> usize {
        let from = peer(from);
        (0..100)
            .take_while(|_| addresses.has_room(now, from) && addresses.count(now, from))
            .count()
    }

    #[test]
    fn t11_an_address_opens_its_burst_and_then_its_rate() {
        let mut addresses = addresses(1);
        let now = Instant::now();
        assert_eq!(let_in(&mut addresses, now, "192.0.2.1:1"), 4);
        assert!(!addresses.has_room(now, peer("192.0.2.1:2")), "any port");
        assert!(!addresses.count(now, peer("192.0.2.1:3")));
        assert_eq!(let_in(&mut addresses, now, "192.0.2.2:1"), 4, "another");
        let later = now + Duration::from_secs(1);
        assert_eq!(let_in(&mut addresses, later, "192.0.2.1:1"), 2);
    }

    #[test]
    fn t11_whoever_has_a_network_of_ipv6_has_one_address() {
        let mut addresses = addresses(1);
        let now = Instant::now();
        assert_eq!(let_in(&mut addresses, now, "[2001:db8::1]:1"), 4);
        assert_eq!(let_in(&mut addresses, now, "[2001:db8::2:1]:1"), 0);
        assert_eq!(let_in(&mut addresses, now, "[2001:db8:0:1::1]:1"), 4);
    }

    #[test]
    fn t11_asking_for_an_address_that_may_be_forged_costs_it_nothing() {
        let mut addresses = addresses(1);
        let now = Instant::now();
        assert!((0..1_000).all(|_| addresses.has_room(now, peer("192.0.2.1:1"))));
        assert_eq!(let_in(&mut addresses, now, "192.0.2.1:1"), 4);
    }

    #[test]
    fn loopback_is_not_counted_unless_told() {
        let now = Instant::now();
        assert_eq!(let_in(&mut addresses(1), now, "127.0.0.1:1"), 100);
        assert_eq!(let_in(&mut addresses(1), now, "[::1]:1"), 100);
        let limits = Limits {
            unlimited: Vec::new(),
            ..Limits::default()
        };
        let mut counted = Addresses::new(&limits, 64, [1; 16]);
        assert_eq!(let_in(&mut counted, now, "127.0.0.1:1"), 16);
    }

    #[test]
    fn the_shards_share_the_rate_out() {
        let now = Instant::now();
        assert_eq!(let_in(&mut addresses(2), now, "192.0.2.1:1"), 2);
    }
}
