//! The hierarchical timer wheel. Its lists run through the connections themselves (12 bytes each,
//! in the byte budget), so arming a timer allocates nothing.
//!
//! Deadlines are lazy: activity that moves a deadline later does not touch the lists. When an entry
//! fires early its owner computes the true deadline and arms it again.

use crate::slab::{Entry, NIL, Slab};

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 5;

/// An entry whose `prev` has this bit is the first of the list in the slot of the low bits.
/// Slab indices have 24 bits, so they never do.
const HEAD: u32 = 1 << 31;

/// Ticks are milliseconds, modulo 2^32: deadlines lie less than 2^30 ticks (12 days) ahead.
#[derive(Debug)]
pub(crate) struct Wheel {
    now: u32,
    occupied: [u64; LEVELS],
    heads: [[u32; SLOTS]; LEVELS],
}

/// The furthest deadline that the levels can tell apart; later ones are looked at early.
const SPAN: u32 = 1 << 30;

/// How far a tick is shifted for the slots of each level.
const SHIFTS: [u32; LEVELS] = [0, BITS, 2 * BITS, 3 * BITS, 4 * BITS];

const _: () = assert!(SPAN == 1 << (SHIFTS[LEVELS - 1] + BITS));

impl Wheel {
    pub(crate) const fn new(now: u32) -> Self {
        Self {
            now,
            occupied: [0; LEVELS],
            heads: [[NIL; SLOTS]; LEVELS],
        }
    }

    /// Arms an entry for a tick; one that is due goes to the next tick.
    pub(crate) fn arm<E: Entry>(&mut self, slab: &mut Slab<E>, index: u32, deadline: u32) {
        let ahead = deadline.wrapping_sub(self.now);
        // Past deadlines look far ahead in modular arithmetic.
        let ahead = if ahead >= 1 << 31 {
            1
        } else {
            ahead.clamp(1, SPAN - 1)
        };
        slab[index].links().deadline = self.now.wrapping_add(ahead);
        self.link(slab, index);
    }

    fn link<E: Entry>(&mut self, slab: &mut Slab<E>, index: u32) {
        let deadline = slab[index].links().deadline;
        let (level, slot) = self.place(deadline);
        let head = self.heads[level][slot];
        let links = slab[index].links();
        links.next = head;
        links.prev = HEAD | u32::try_from(level * SLOTS + slot).expect("below 2^9");
        if head != NIL {
            slab[head].links().prev = index;
        }
        self.heads[level][slot] = index;
        self.occupied[level] |= 1 << slot;
    }

    /// The level is that of the highest bit in which the deadline differs from now.
    fn place(&self, deadline: u32) -> (usize, usize) {
        let differs = deadline ^ self.now;
        let level = ((31 - (differs | 1).leading_zeros()) / BITS) as usize;
        let level = level.min(LEVELS - 1);
        let slot = (deadline >> SHIFTS[level]) as usize % SLOTS;
        (level, slot)
    }

    /// Takes an entry out of its list, if it is in one.
    pub(crate) fn disarm<E: Entry>(&mut self, slab: &mut Slab<E>, index: u32) {
        let links = *slab[index].links();
        if links.prev == NIL {
            return;
        }
        if links.prev & HEAD != 0 {
            let place = (links.prev & !HEAD) as usize;
            let (level, slot) = (place / SLOTS, place % SLOTS);
            self.heads[level][slot] = links.next;
            if links.next == NIL {
                self.occupied[level] &= !(1 << slot);
            }
        } else {
            slab[links.prev].links().next = links.next;
        }
        if links.next != NIL {
            slab[links.next].links().prev = links.prev;
        }
        let links = slab[index].links();
        (links.next, links.prev) = (NIL, NIL);
    }

    /// A tick not after the earliest deadline, and after now; `None` when nothing is armed.
    pub(crate) fn next_tick(&self) -> Option<u32> {
        (0..LEVELS)
            .filter_map(|level| self.next_in(level))
            .map(|t| t.wrapping_sub(self.now))
            .min()
            .map(|ahead| self.now.wrapping_add(ahead))
    }

    /// When the next occupied slot of a level begins.
    fn next_in(&self, level: usize) -> Option<u32> {
        let shift = SHIFTS[level];
        let current = self.now >> shift;
        let at = current & ((1 << BITS) - 1);
        let turned = self.occupied[level].rotate_right(at);
        // Only the top level can hold entries a whole turn ahead in the current slot. They come last.
        let ahead = match (turned & !1).trailing_zeros() {
            64 if turned == 0 => return None,
            n => n,
        };
        Some(current.wrapping_add(ahead) << shift)
    }

    /// Moves to `now` and pushes every entry whose deadline has come.
    /// Stops early, at a tick's end, once `limit` have: then [`Self::next_tick`] may lie in the past, and
    /// the next call goes on from there.
    pub(crate) fn advance<E: Entry>(
        &mut self,
        slab: &mut Slab<E>,
        now: u32,
        limit: usize,
        fired: &mut Vec<u32>,
    ) {
        while let Some(tick) = self.next_tick() {
            // Modular: `tick` lies beyond `now` when the difference is "negative".
            if now.wrapping_sub(tick) >= 1 << 31 {
                break;
            }
            if fired.len() >= limit {
                return;
            }
            self.now = tick;
            for level in (0..LEVELS).rev() {
                let shift = SHIFTS[level];
                if tick & ((1 << shift) - 1) == 0 {
                    self.expire(slab, level, (tick >> shift) as usize % SLOTS, fired);
                }
            }
        }
        if now.wrapping_sub(self.now) < 1 << 31 {
            self.now = now;
        }
    }

    /// Empties a slot that begins now: due entries fire, others move to a lower level.
    fn expire<E: Entry>(
        &mut self,
        slab: &mut Slab<E>,
        level: usize,
        slot: usize,
        fired: &mut Vec<u32>,
    ) {
        let mut index = std::mem::replace(&mut self.heads[level][slot], NIL);
        self.occupied[level] &= !(1 << slot);
        while index != NIL {
            let links = slab[index].links();
            let next = links.next;
            (links.next, links.prev) = (NIL, NIL);
            if links.deadline == self.now {
                fired.push(index);
            } else {
                self.link(slab, index);
            }
            index = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Links;
    use proptest::prelude::*;

    /// Vacant to the slab all the time, which does not matter to the wheel.
    struct Timer(Links);

    impl Entry for Timer {
        fn vacant() -> Self {
            Self(Links::NONE)
        }
        fn is_vacant(&self) -> bool {
            true
        }
        fn generation(&self) -> u32 {
            0
        }
        fn set_generation(&mut self, _: u32) {}
        fn links(&mut self) -> &mut Links {
            &mut self.0
        }
    }

    /// Idle timers of 300 s, and of weeks: on time as far as the levels reach, early beyond it, so
    /// that the owner can arm again. One a whole turn of the top level ahead must not hide the others.
    #[test]
    fn idle_timers_far_ahead() {
        let mut slab: Slab<Timer> = Slab::new();
        for index in 0..3 {
            assert_eq!(slab.allocate(), Some(index));
        }
        let start = u32::MAX - 1_000;
        let mut wheel = Wheel::new(start);
        wheel.arm(&mut slab, 0, start.wrapping_add(300_000));
        wheel.arm(&mut slab, 1, start.wrapping_add(900_000_000));
        wheel.arm(&mut slab, 2, start.wrapping_add(2_000_000_000));
        let mut due = Vec::new();
        for (ahead, expected) in [
            (299_999, vec![]),
            (300_000, vec![0]),
            (899_999_999, vec![]),
            (900_000_000, vec![1]),
            (SPAN - 1, vec![2]),
        ] {
            due.clear();
            wheel.advance(&mut slab, start.wrapping_add(ahead), usize::MAX, &mut due);
            assert_eq!(due, expected, "{ahead} ms on");
        }
    }

    #[test]
    fn a_crowd_fires_in_parts_and_nobody_is_forgotten() {
        let mut slab: Slab<Timer> = Slab::new();
        let mut wheel = Wheel::new(0);
        for index in 0..1_000 {
            assert_eq!(slab.allocate(), Some(index));
            wheel.arm(&mut slab, index, 10 + index / 4);
        }
        let mut all = Vec::new();
        let mut calls = 0;
        while wheel.next_tick().is_some() {
            let mut fired = Vec::new();
            wheel.advance(&mut slab, 5_000, 100, &mut fired);
            assert!((1..=103).contains(&fired.len()), "{}", fired.len());
            all.extend(fired);
            calls += 1;
        }
        assert_eq!((all.len(), calls), (1_000, 10));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 1_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Every armed timer fires exactly at its tick, also across the wrap of the ticks.
        #[test]
        fn fires_on_time(
            start in prop_oneof![Just(0u32), Just(u32::MAX - 50_000), any::<u32>()],
            ops in prop::collection::vec((0u32..64, 1u32..300_000, 0u32..5_000), 1..200),
        ) {
            let mut slab: Slab<Timer> = Slab::new();
            for index in 0..64 {
                assert_eq!(slab.allocate(), Some(index));
            }
            let mut wheel = Wheel::new(start);
            let mut model = std::collections::BTreeMap::new();
            let mut elapsed = 0u32;
            for (index, ahead, step) in ops {
                wheel.disarm(&mut slab, index);
                wheel.arm(&mut slab, index, start.wrapping_add(elapsed).wrapping_add(ahead));
                model.insert(index, elapsed + ahead);
                elapsed += step;
                let mut fired = Vec::new();
                wheel.advance(&mut slab, start.wrapping_add(elapsed), usize::MAX, &mut fired);
                fired.sort_unstable();
                let due: Vec<u32> = model.iter().filter(|(_, t)| **t <= elapsed).map(|(i, _)| *i).collect();
                prop_assert_eq!(fired, due);
                model.retain(|_, t| *t > elapsed);
                let next = wheel.next_tick().map(|t| t.wrapping_sub(start));
                prop_assert_eq!(next.is_some(), !model.is_empty());
                if let Some(next) = next {
                    prop_assert!(model.values().all(|t| next <= *t) && next > elapsed);
                }
            }
        }
    }
}
