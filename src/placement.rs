//! Where users live: slots, shards, and the hint that steers a connection to its home.

use std::hash::Hasher;

use roadstead_proto::{UserId, v1::HomePrefix};
use siphasher::sip::SipHasher13;

/// A shard of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// The unit of placement: 16 bits of a keyed hash of the user id. The key is known to servers only, so
/// that nobody can choose users who all live on one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// Maps users to slots and slots to the shards of this node.
#[derive(Debug, Clone, Copy)]
pub struct Placement {
    key: [u8; 16],
    shards: u16,
}

impl Placement {
    /// A placement on `shards` shards under a secret key.
    ///
    /// # Panics
    /// If there are no shards.
    #[must_use]
    pub fn new(key: [u8; 16], shards: u16) -> Self {
        assert!(shards > 0, "a node has at least one shard");
        Self { key, shards }
    }

    /// How many shards the node has.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The slot of a user.
    #[must_use]
    pub fn slot(&self, user: UserId) -> Slot {
        slot(&self.key, user)
    }

    /// The shard that keeps the directory entry of a user.
    #[must_use]
    pub fn home(&self, user: UserId) -> ShardId {
        self.shard_of_bits(self.slot(user).0)
    }

    /// The shard to which 16 steering bits lead: each shard owns a range of equal size.
    #[must_use]
    pub fn shard_of_bits(&self, bits: u16) -> ShardId {
        let shard = (u32::from(bits) * u32::from(self.shards)) >> 16;
        ShardId(u16::try_from(shard).expect("below the number of shards"))
    }

    /// The prefix that leads a first connection id to a user's home (T9): as few bits as tell the shards
    /// apart, so that it identifies nobody. With a number of shards that is no power of two some of the
    /// ids under a prefix lead next door, one queue hop away.
    #[must_use]
    pub fn home_prefix(&self, user: UserId) -> HomePrefix {
        let length = u32::from(self.shards).next_power_of_two().trailing_zeros();
        let home = u32::from(self.home(user).0);
        let shards = u32::from(self.shards);
        // The middle of the shard's range lies in its prefix for any number of shards.
        let middle = ((home << 16) + (1 << 15)) / shards;
        let bits = if length == 0 {
            0
        } else {
            middle >> (16 - length) << (16 - length)
        };
        HomePrefix { bits, length }
    }
}

/// The slot of a user under a deployment's placement key.
#[must_use]
pub fn slot(key: &[u8; 16], user: UserId) -> Slot {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write_u64(user.get());
    Slot(u16::try_from(hasher.finish() >> 48).expect("16 bits are left"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: u64) -> UserId {
        UserId::new(id).expect("not 0")
    }

    #[test]
    fn users_spread_over_shards() {
        for shards in [1, 2, 3, 8, 64] {
            let placement = Placement::new([7; 16], shards);
            let mut count = vec![0u32; usize::from(shards)];
            for id in 1..=64_000 {
                count[usize::from(placement.home(user(id)).0)] += 1;
            }
            let fair = 64_000 / u32::from(shards);
            assert!(
                count.iter().all(|n| n.abs_diff(fair) < fair / 5 + 1),
                "{count:?}"
            );
        }
    }

    #[test]
    fn the_key_decides_the_slot() {
        let moved = (1..=1_000).filter(|id| slot(&[1; 16], user(*id)) != slot(&[2; 16], user(*id)));
        assert!(moved.count() > 990);
    }

    #[test]
    fn t9_the_home_prefix_leads_home_where_shards_are_a_power_of_two() {
        for shards in [1, 2, 4, 16] {
            let placement = Placement::new([3; 16], shards);
            for id in 1..=200 {
                let prefix = placement.home_prefix(user(id));
                assert_eq!(1 << prefix.length, u32::from(shards));
                for rest in [0, (1u32 << (16 - prefix.length)) - 1] {
                    let bits = u16::try_from(prefix.bits | rest).expect("16 bits");
                    assert_eq!(placement.shard_of_bits(bits), placement.home(user(id)));
                }
            }
        }
    }

    #[test]
    fn t9_a_prefix_touches_its_home_for_any_number_of_shards() {
        for shards in 1..=40 {
            let placement = Placement::new([3; 16], shards);
            for id in 1..=100 {
                let prefix = placement.home_prefix(user(id));
                let home = placement.home(user(id));
                let count = 1u32 << (16 - prefix.length);
                let at_home = (0..count)
                    .filter(|rest| {
                        let bits = u16::try_from(prefix.bits | rest).expect("16 bits");
                        placement.shard_of_bits(bits) == home
                    })
                    .count();
                assert!(
                    at_home * 2 >= usize::try_from(count).expect("small"),
                    "{shards} shards"
                );
            }
        }
    }
}
