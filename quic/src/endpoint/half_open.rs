//! Handshakes that are not complete, by the block of addresses that holds them (T11).
//!
//! A Retry proves an address and no more: whoever has one may begin handshakes and finish none. So each
//! block has a bound of its own, and a full table gives up what the largest holder began first.
//!
//! What a block gives up first are handshakes of addresses that proved nothing, which may be of somebody
//! else, then the oldest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::blocks::Block;
use crate::limits::DISPLACED_AFTER_MS;
use crate::time::Time;

/// The order in which handshakes of a block are given up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank {
    proven: bool,
    begun: Time,
    /// Counts handshakes: many begin in one moment.
    number: u64,
}

/// A handshake that is not complete.
#[derive(Clone, Copy, Debug)]
struct Entry {
    block: Option<Block>,
    rank: Rank,
}

/// What could be given up for a newcomer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct First {
    /// Its place in the slab.
    pub(super) index: u32,
    pub(super) begun: Time,
    /// How many its block holds.
    pub(super) held: usize,
}

impl First {
    /// Its next packet should have come by now.
    pub(super) fn is_old(&self, now: Time) -> bool {
        now.since(self.begun) >= DISPLACED_AFTER_MS * 1_000
    }
}

/// All of them; at most as many as the endpoint permits.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    entries: BTreeMap<u32, Entry>,
    /// By block; what it gives up first is its first.
    order: BTreeSet<(Block, Rank, u32)>,
    held: BTreeMap<Block, usize>,
    /// The largest holders are last, among equals the one whose first is given up first.
    holders: BTreeSet<(usize, Reverse<Rank>, Block)>,
    begun: u64,
}

impl HalfOpen {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many a block holds.
    pub(super) fn held_by(&self, block: Block) -> usize {
        self.held.get(&block).copied().unwrap_or(0)
    }

    /// A handshake began, of an address that has proven itself or not.
    pub(super) fn insert(&mut self, now: Time, index: u32, block: Option<Block>, proven: bool) {
        self.begun += 1;
        let rank = Rank {
            proven,
            begun: now,
            number: self.begun,
        };
        self.entries.insert(index, Entry { block, rank });
        if let Some(block) = block {
            self.change(block, |order| order.insert((block, rank, index)));
        }
    }

    /// A handshake is complete, or gone.
    pub(super) fn remove(&mut self, index: u32) {
        let Some(Entry { block, rank }) = self.entries.remove(&index) else {
            return;
        };
        if let Some(block) = block {
            self.change(block, |order| order.remove(&(block, rank, index)));
        }
    }

    /// What a block gives up first.
    pub(super) fn first_of(&self, block: Block) -> Option<First> {
        let (rank, index) = self.first(block)?;
        Some(First {
            index,
            begun: rank.begun,
            held: self.held_by(block),
        })
    }

    /// What the largest holder gives up first.
    pub(super) fn first_of_largest(&self) -> Option<First> {
        let (_, _, block) = self.holders.last()?;
        self.first_of(*block)
    }

    fn first(&self, block: Block) -> Option<(Rank, u32)> {
        let lowest = Rank {
            proven: false,
            begun: Time::ZERO,
            number: 0,
        };
        let mut from = self.order.range((block, lowest, 0)..);
        let (of, rank, index) = from.next()?;
        (*of == block).then_some((*rank, *index))
    }

    /// Changes what a block holds by one, and its place among the holders with it.
    fn change(
        &mut self,
        block: Block,
        change: impl FnOnce(&mut BTreeSet<(Block, Rank, u32)>) -> bool,
    ) {
        let held = self.held_by(block);
        if let Some((rank, _)) = self.first(block) {
            self.holders.remove(&(held, Reverse(rank), block));
        }
        let before = self.order.len();
        change(&mut self.order);
        let held = held + self.order.len() - before;
        match self.first(block) {
            Some((rank, _)) => {
                self.held.insert(block, held);
                self.holders.insert((held, Reverse(rank), block));
            }
            None => drop(self.held.remove(&block)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Blocks;
    use proptest::prelude::*;

    fn block(host: u8) -> Block {
        let address = [192, 0, 2, host].into();
        Blocks::default().of(address).expect("counted")
    }

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn tf2_t11_the_largest_holder_gives_up_its_oldest_unproven_first() {
        let mut table = HalfOpen::default();
        assert_eq!(table.first_of_largest(), None);
        table.insert(at(1), 10, Some(block(1)), true);
        table.insert(at(2), 20, Some(block(2)), true);
        table.insert(at(3), 21, Some(block(2)), true);
        table.insert(at(4), 22, Some(block(2)), false);
        table.insert(at(5), 23, Some(block(2)), false);
        let first = |table: &HalfOpen| table.first_of_largest().map(|f| (f.index, f.held));
        assert_eq!(first(&table), Some((22, 4)));
        table.remove(22);
        assert_eq!(first(&table), Some((23, 3)));
        table.remove(23);
        assert_eq!(first(&table), Some((20, 2)));
        table.remove(20);
        // One each: the oldest of all goes, wherever its address sorts.
        assert_eq!(first(&table), Some((10, 1)));
        assert_eq!(
            table.first_of(block(2)).map(|f| (f.index, f.begun)),
            Some((21, at(3)))
        );
        table.remove(10);
        table.remove(10);
        table.remove(21);
        assert_eq!((table.len(), table.first_of_largest()), (0, None));
        assert!(table.held.is_empty() && table.holders.is_empty() && table.order.is_empty());
    }

    #[test]
    fn tf2_t11_who_is_not_counted_holds_nothing() {
        let mut table = HalfOpen::default();
        table.insert(at(1), 1, None, false);
        assert_eq!((table.len(), table.first_of_largest()), (1, None));
        table.remove(1);
        assert_eq!(table.len(), 0);
    }

    proptest! {
        /// Against a plain list, searched whole.
        #[test]
        fn tf2_t11_the_first_to_go_agrees_with_a_search(
            script in prop::collection::vec((any::<bool>(), 0u32..40, 0u8..4, any::<bool>()), 1..200),
        ) {
            let mut table = HalfOpen::default();
            let mut model: Vec<(u32, u8, Rank)> = Vec::new();
            for (n, (insert, index, host, proven)) in (1u64..).zip(script) {
                let known = model.iter().any(|(i, ..)| *i == index);
                if insert && !known {
                    table.insert(at(n / 3), index, Some(block(host)), proven);
                    let rank = Rank { proven, begun: at(n / 3), number: table.begun };
                    model.push((index, host, rank));
                } else {
                    table.remove(index);
                    model.retain(|(i, ..)| *i != index);
                }
                let held = |host: u8| model.iter().filter(|(_, h, _)| *h == host).count();
                let firsts = (0..4).filter_map(|host| {
                    let of = model.iter().filter(|(_, h, _)| *h == host);
                    of.min_by_key(|(_, _, rank)| *rank).map(|m| (held(host), Reverse(m.2), m.0))
                });
                let expected = firsts.max().map(|(held, _, index)| (index, held));
                prop_assert_eq!(table.first_of_largest().map(|f| (f.index, f.held)), expected);
                prop_assert_eq!(table.len(), model.len());
                for host in 0..4 {
                    prop_assert_eq!(table.held_by(block(host)), held(host));
                }
            }
        }
    }
}
