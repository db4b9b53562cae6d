//! A hierarchical timer wheel: one timer per index, 16 bytes each, O(1) to arm, re-arm and cancel.
//!
//! Time is counted in ticks of a millisecond. Three levels of 256 slots each hold what is due within
//! 256 ticks, within 65 s and within 4.6 hours; later deadlines are cut to the last. A slot is a doubly
//! linked list threaded through the entries. When time reaches the start of a slot of an upper level,
//! its entries move down. An occupancy bitmap per level finds the next slot without stepping through
//! empty ticks, so a wheel of idle sessions costs nothing while nothing is due.
//!
//! Deadlines are rounded up: a timer never fires early, and at most a tick late.

use std::time::{Duration, Instant};

const LEVELS: usize = 3;
const BITS: u32 = 8;
const SLOTS: usize = 1 << BITS;
const WORDS: usize = SLOTS / 64;

/// Longest delay in ticks: within the last level, and short of its own slot.
const TICKS_MAX: u64 = (1 << (BITS * 3)) - (1 << (BITS * 2));

/// No entry: the end of a list.
const NONE: u32 = u32::MAX;

/// Not in any list.
const UNARMED: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    next: u32,
    previous: u32,
    /// The low bits of its tick; the wheel spans far less than 2^32.
    due: u32,
    /// Level and slot of its list, or `UNARMED`.
    list: u32,
}

const IDLE: Entry = Entry {
    next: NONE,
    previous: NONE,
    due: 0,
    list: UNARMED,
};

/// Timers by index.
#[derive(Debug)]
pub struct Wheel {
    epoch: Instant,
    /// Every tick up to and with this one has been served.
    now: u64,
    entries: Vec<Entry>,
    heads: Box<[u32; LEVELS * SLOTS]>,
    occupied: [[u64; WORDS]; LEVELS],
}

impl Wheel {
    /// An empty wheel whose time starts at `epoch`.
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            now: 0,
            entries: Vec::new(),
            heads: Box::new([NONE; LEVELS * SLOTS]),
            occupied: [[0; WORDS]; LEVELS],
        }
    }

    /// When the wheel's time began.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Arms the timer of `index`, or moves it. A deadline in the past is due at the next tick.
    pub fn set(&mut self, index: u32, deadline: Instant) {
        let at = slot_of(index);
        if at >= self.entries.len() {
            self.entries.resize(at + 1, IDLE);
        }
        let since = deadline.saturating_duration_since(self.epoch);
        let tick = u64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let tick = tick.clamp(self.now + 1, self.now + TICKS_MAX);
        let due = low(tick);
        if self.entries[at].list != UNARMED {
            if self.entries[at].due == due {
                return;
            }
            self.unlink(index);
        }
        self.entries[at].due = due;
        self.link(index);
    }

    /// Disarms the timer of `index`, if it is armed.
    pub fn cancel(&mut self, index: u32) {
        if self
            .entries
            .get(slot_of(index))
            .is_some_and(|entry| entry.list != UNARMED)
        {
            self.unlink(index);
        }
    }

    /// Moves time to `now` and appends the indices whose timers were due. They are disarmed.
    pub fn expire(&mut self, now: Instant, due: &mut Vec<u32>) {
        let since = now.saturating_duration_since(self.epoch);
        let target = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        while let Some(tick) = self.next_tick().filter(|tick| *tick <= target) {
            self.now = tick;
            self.cascade();
            self.drain(list_of(0, tick), due);
        }
        self.now = self.now.max(target);
    }

    /// When `expire` has something to do: a timer, or entries to move down.
    pub fn next(&self) -> Option<Instant> {
        self.next_tick()
            .map(|tick| self.epoch + Duration::from_millis(tick))
    }

    fn next_tick(&self) -> Option<u64> {
        (0..LEVELS)
            .filter_map(|level| self.next_tick_of(level))
            .min()
    }

    /// Start of the next occupied slot of a level.
    fn next_tick_of(&self, level: usize) -> Option<u64> {
        let shift = shift_of(level);
        let here = self.now >> shift;
        let distance = next_bit(&self.occupied[level], slot_in_level(here + 1))?;
        Some((here + 1 + distance) << shift)
    }

    /// At the start of a slot of an upper level, moves its entries down, the highest level first.
    fn cascade(&mut self) {
        for level in (1..LEVELS).rev() {
            let shift = shift_of(level);
            if self.now & ((1 << shift) - 1) != 0 {
                continue;
            }
            let list = list_of(level, self.now >> shift);
            let mut index = self.heads[list];
            while index != NONE {
                let next = self.entries[slot_of(index)].next;
                self.unlink(index);
                self.link(index);
                index = next;
            }
        }
    }

    fn drain(&mut self, list: usize, due: &mut Vec<u32>) {
        let mut index = self.heads[list];
        while index != NONE {
            let entry = &mut self.entries[slot_of(index)];
            debug_assert_eq!(entry.due, low(self.now));
            let next = entry.next;
            *entry = IDLE;
            due.push(index);
            index = next;
        }
        self.heads[list] = NONE;
        self.mark(list, false);
    }

    /// Puts an entry into the list that its deadline belongs to. A delay of 0 occurs only while time
    /// stands at that very tick, whose slot is drained next.
    fn link(&mut self, index: u32) {
        let delay = u64::from(self.entries[slot_of(index)].due.wrapping_sub(low(self.now)));
        let tick = self.now + delay;
        let level = (0..LEVELS - 1)
            .find(|l| delay < 1 << shift_of(l + 1))
            .unwrap_or(LEVELS - 1);
        let list = list_of(level, tick >> shift_of(level));
        let head = self.heads[list];
        if head != NONE {
            self.entries[slot_of(head)].previous = index;
        }
        let entry = &mut self.entries[slot_of(index)];
        entry.next = head;
        entry.previous = NONE;
        entry.list = u32::try_from(list).expect("there are 768 lists");
        self.heads[list] = index;
        self.mark(list, true);
    }

    fn unlink(&mut self, index: u32) {
        let Entry {
            next,
            previous,
            list,
            ..
        } = self.entries[slot_of(index)];
        let list = slot_of(list);
        if next != NONE {
            self.entries[slot_of(next)].previous = previous;
        }
        if previous == NONE {
            self.heads[list] = next;
            if next == NONE {
                self.mark(list, false);
            }
        } else {
            self.entries[slot_of(previous)].next = next;
        }
        self.entries[slot_of(index)].list = UNARMED;
    }

    fn mark(&mut self, list: usize, occupied: bool) {
        let (level, slot) = (list / SLOTS, list % SLOTS);
        let bit = 1 << (slot % 64);
        let word = &mut self.occupied[level][slot / 64];
        *word = if occupied { *word | bit } else { *word & !bit };
    }
}

/// A u32 as an index: usize has at least 32 bits on every target with io_uring.
fn slot_of(index: u32) -> usize {
    index as usize
}

fn low(tick: u64) -> u32 {
    u32::try_from(tick & u64::from(u32::MAX)).expect("masked")
}

fn shift_of(level: usize) -> u32 {
    BITS * u32::try_from(level).expect("three levels")
}

fn slot_in_level(position: u64) -> usize {
    usize::try_from(position % SLOTS as u64).expect("less than 256")
}

fn list_of(level: usize, position: u64) -> usize {
    level * SLOTS + slot_in_level(position)
}

/// Distance from slot `from` to the next occupied one, around the end.
fn next_bit(words: &[u64; WORDS], from: usize) -> Option<u64> {
    for step in 0..=WORDS {
        let word = (from / 64 + step) % WORDS;
        let mut bits = words[word];
        if step == 0 {
            bits &= u64::MAX << (from % 64);
        } else if step == WORDS {
            bits &= !(u64::MAX << (from % 64));
        }
        if bits != 0 {
            let slot = word * 64 + bits.trailing_zeros() as usize;
            return Some(((slot + SLOTS - from) % SLOTS) as u64);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_has_16_bytes() {
        assert_eq!(size_of::<Entry>(), 16);
    }

    #[test]
    fn a_timer_fires_once_and_never_early() {
        let epoch = Instant::now();
        let mut wheel = Wheel::new(epoch);
        let mut due = Vec::new();
        wheel.set(3, epoch + Duration::from_micros(90_000_500));
        wheel.expire(epoch + Duration::from_micros(90_000_999), &mut due);
        assert!(due.is_empty());
        wheel.expire(epoch + Duration::from_micros(90_001_000), &mut due);
        assert_eq!(due, [3]);
        wheel.expire(epoch + Duration::from_secs(1000), &mut due);
        assert_eq!((due.len(), wheel.next()), (1, None));
    }

    #[test]
    fn a_deadline_beyond_the_span_is_cut() {
        let epoch = Instant::now();
        let mut wheel = Wheel::new(epoch);
        let mut due = Vec::new();
        wheel.set(0, epoch + Duration::from_secs(365 * 24 * 3600));
        wheel.expire(epoch + Duration::from_millis(TICKS_MAX), &mut due);
        assert_eq!(due, [0]);
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Set(u32, u64),
        Cancel(u32),
        Advance(u64),
        Follow,
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let delay = prop_oneof![0..5_u64, 0..600_u64, 0..100_000_u64, 0..20_000_000_u64];
        let step = prop_oneof![0..3_u64, 0..300_u64, 0..70_000_u64, 0..10_000_000_u64];
        prop_oneof![
            4 => (0..40_u32, delay).prop_map(|(index, delay)| Operation::Set(index, delay)),
            1 => (0..40_u32).prop_map(Operation::Cancel),
            2 => step.prop_map(Operation::Advance),
            2 => Just(Operation::Follow),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_an_ordered_map_does(operations in prop::collection::vec(operation(), 1..200)) {
            let epoch = Instant::now();
            let at = |tick: u64| epoch + Duration::from_millis(tick);
            let mut wheel = Wheel::new(epoch);
            let mut model = BTreeMap::new();
            let mut now = 0_u64;
            for operation in operations {
                match operation {
                    Operation::Set(index, delay) => {
                        wheel.set(index, at(now + delay));
                        model.insert(index, (now + delay).clamp(now + 1, now + TICKS_MAX));
                    }
                    Operation::Cancel(index) => {
                        wheel.cancel(index);
                        model.remove(&index);
                    }
                    Operation::Advance(step) => now += step,
                    Operation::Follow => {
                        // The wheel may ask to be called before a timer is due, never after.
                        let next = wheel.next();
                        prop_assert_eq!(next.is_none(), model.is_empty());
                        if let (Some(next), Some(first)) = (next, model.values().min()) {
                            prop_assert!(next <= at(*first));
                            now = u64::try_from((next - epoch).as_millis()).unwrap();
                        }
                    }
                }
                let mut due = Vec::new();
                wheel.expire(at(now), &mut due);
                due.sort_unstable();
                let expected: Vec<u32> =
                    model.iter().filter(|(_, tick)| **tick <= now).map(|(index, _)| *index).collect();
                model.retain(|_, tick| *tick > now);
                prop_assert_eq!(due, expected);
            }
        }
    }
}
