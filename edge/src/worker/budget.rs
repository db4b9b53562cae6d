//! What a shard may hold for peers, and what it may promise them (T8).
//!
//! Flow control advertised is memory promised. Every session starts with a small window; one that has logged in
//! and is in the middle of a large frame gets a larger one while the budget lasts, and otherwise sends that frame
//! more slowly.
//!
//! Above the budget connections are closed until it holds: first those that have not logged in, then those
//! that hold most. Who that is comes from an ordered set, so that closing one costs as much whether
//! there are a hundred sessions or millions.

use std::collections::BTreeSet;

/// Bytes of raised windows that a shard promises: 4,096 sessions in the middle of the largest frame.
const PROMISED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes that a shard holds in incomplete frames and for peers that do not read. Above it the connection
/// that holds most is closed.
const HELD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Holders are compared in units of so many bytes, so that one changes its place seldom; with less than one unit
/// a connection is none, and most chats never are.
const UNIT_BITS: u32 = 10;

/// What a connection holds, and whether it has logged in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) bytes: usize,
    pub(super) known: bool,
}

/// The place of a connection among the holders: the last one is closed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Holder {
    stranger: bool,
    units: usize,
    index: u32,
}

impl Holder {
    fn of(index: u32, held: Held) -> Option<Self> {
        let units = held.bytes >> UNIT_BITS;
        let stranger = !held.known;
        (units > 0).then_some(Self {
            stranger,
            units,
            index,
        })
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Budget {
    promised: u64,
    held: usize,
    held_max: usize,
    holders: BTreeSet<Holder>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::holding(HELD_BYTES_MAX)
    }
}

impl Budget {
    /// One for so many bytes held.
    pub(super) const fn holding(held_max: usize) -> Self {
        Self {
            promised: 0,
            held: 0,
            held_max,
            holders: BTreeSet::new(),
        }
    }

    /// Promises a window, if there is room for it.
    pub(super) fn promise(&mut self, window: u32) -> bool {
        let fits = self.promised + u64::from(window) <= PROMISED_BYTES_MAX;
        if fits {
            self.promised += u64::from(window);
        }
        fits
    }

    /// A window that was promised is no more.
    pub(super) fn take_back(&mut self, window: u32) {
        self.promised -= u64::from(window);
    }

    /// What is held for a connection has changed, or that it has logged in.
    pub(super) fn changed(&mut self, index: u32, before: Held, after: Held) {
        self.held = self.held + after.bytes - before.bytes;
        let (old, new) = (Holder::of(index, before), Holder::of(index, after));
        if old != new {
            if let Some(old) = old {
                self.holders.remove(&old);
            }
            self.holders.extend(new);
        }
    }

    /// The connection to close, while too much is held.
    pub(super) fn to_shed(&self) -> Option<u32> {
        let exceeded = self.held > self.held_max;
        let last = self.holders.last().filter(|_| exceeded);
        last.map(|holder| holder.index)
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Held = Held {
        bytes: 0,
        known: false,
    };

    fn stranger(bytes: usize) -> Held {
        Held {
            bytes,
            known: false,
        }
    }

    fn known(bytes: usize) -> Held {
        Held { bytes, known: true }
    }

    #[test]
    fn t8_no_more_is_promised_than_there_is() {
        let mut budget = Budget::default();
        let window = 64 * 1024;
        let promised = (0..10_000).filter(|_| budget.promise(window)).count();
        assert_eq!(promised as u64, PROMISED_BYTES_MAX / u64::from(window));
        budget.take_back(window);
        assert!(budget.promise(window));
    }

    #[test]
    fn t8_pressure_is_noticed_and_passes() {
        let mut budget = Budget::default();
        budget.changed(3, NONE, known(HELD_BYTES_MAX + 1));
        assert_eq!(budget.to_shed(), Some(3));
        budget.changed(3, known(HELD_BYTES_MAX + 1), NONE);
        assert_eq!((budget.to_shed(), budget.held()), (None, 0));
    }

    /// An honest reader in bad coverage holds half a megabyte of answers; half-sent frames of strangers hold a few
    /// kilobytes each, and go before it.
    #[test]
    fn tf7_t8_who_has_not_logged_in_is_shed_first() {
        let mut budget = Budget::default();
        budget.changed(1, NONE, known(512 << 10));
        budget.changed(2, NONE, stranger(2 << 10));
        budget.changed(3, NONE, stranger(8 << 10));
        budget.changed(4, NONE, known(HELD_BYTES_MAX));
        let mut shed = Vec::new();
        while let Some(index) = budget.to_shed() {
            let held = [
                known(512 << 10),
                stranger(2 << 10),
                stranger(8 << 10),
                known(HELD_BYTES_MAX),
            ];
            budget.changed(index, held[index as usize - 1], NONE);
            shed.push(index);
        }
        assert_eq!(shed, [3, 2, 4]);
        // Who logs in changes its place.
        budget.changed(5, NONE, stranger(HELD_BYTES_MAX));
        budget.changed(6, NONE, stranger(4 << 10));
        assert_eq!(budget.to_shed(), Some(5));
        budget.changed(5, stranger(HELD_BYTES_MAX), known(HELD_BYTES_MAX));
        assert_eq!(budget.to_shed(), Some(6));
    }

    /// Against a search of all of them, whatever changes in whatever order.
    #[test]
    fn tf7_t8_the_first_to_go_agrees_with_a_search() {
        let mut budget = Budget::default();
        let mut model = std::collections::BTreeMap::from([(99, known(HELD_BYTES_MAX))]);
        budget.changed(99, NONE, known(HELD_BYTES_MAX));
        let mut dice = 1_u64;
        let mut draw = |below: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (dice >> 33) % below
        };
        for _ in 0..20_000 {
            let index = u32::try_from(draw(20)).expect("small");
            let after = Held {
                bytes: usize::try_from(draw(4 << 10)).expect("small"),
                known: draw(2) == 0,
            };
            let before = model.insert(index, after).unwrap_or_default();
            budget.changed(index, before, after);
            let all = model.iter();
            let all = all.map(|(index, held)| (!held.known, held.bytes >> UNIT_BITS, *index));
            let first = all.filter(|(_, units, _)| *units > 0).max();
            let sum: usize = model.values().map(|held| held.bytes).sum();
            assert_eq!(budget.held(), sum);
            let first = first.filter(|_| sum > HELD_BYTES_MAX);
            assert_eq!(budget.to_shed(), first.map(|(_, _, index)| index));
        }
    }
}
