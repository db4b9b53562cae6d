//! Rate limits: a token bucket for each of many names, in memory that does not grow.
//!
//! A bucket is one number: the moment at which it will be full again (the generic cell rate algorithm,
//! ITU-T I.371). A token taken moves that moment by the interval between two tokens; there is none while
//! it lies further ahead than the whole burst takes. So a full bucket is a moment that has passed and
//! needs no memory, and whoever is silent is not in the table.
//!
//! The table has a fixed size and is searched like a processor's cache: a name lies in one of the few places
//! of its set. Where all of these are taken, the bucket that is nearest to full is forgotten, which gives its
//! owner the least; one that is nearly empty stays.

use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::time::Duration;

use crate::directory::KeyedState;
use crate::time::Time;

/// Places of a set: their tags lie in one cache line.
const WAYS: usize = 8;

/// Tokens a second above which a rate is none: their interval would be below the clock's microsecond.
pub const PER_SECOND_MAX: u32 = 1_000_000;

/// How fast tokens come back, and how many a bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// From one token to the next, in microseconds.
    interval: u64,
    /// From an empty bucket to a full one, in microseconds.
    burst: u64,
}

impl Rate {
    /// So many tokens a second, at most [`PER_SECOND_MAX`], and so many at once after a pause, at least one.
    /// `None` for no tokens a second, which stands for no limit.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        let interval = 1_000_000_u64.checked_div(per_second.into())?.max(1);
        Some(Self {
            interval,
            burst: interval * u64::from(burst.max(1)),
        })
    }

    /// The part of this rate that one of `parts` counters grants when names are spread over all of them, its burst
    /// rounded up to a whole token.
    #[must_use]
    pub fn part_of(self, parts: u16) -> Self {
        let parts = u64::from(parts.max(1));
        let interval = self.interval * parts;
        Self {
            interval,
            burst: self.burst.next_multiple_of(interval),
        }
    }
}

/// Buckets by name: see the [module](self).
#[derive(Debug)]
pub struct RateTable<N> {
    rate: Rate,
    key: KeyedState,
    /// Keyed hashes of names, by set; 0 is none. They stand for the names: two with the same one would share
    /// a bucket, and nobody who does not know the key can look for such a pair.
    tags: Vec<u64>,
    /// When the bucket of the same place is full again, in microseconds.
    full_at: Vec<u64>,
    forgotten: u64,
    names: PhantomData<fn(N)>,
}

impl<N: Hash> RateTable<N> {
    /// A table for about `names` buckets that are not full, rounded up to a power of two: 16 bytes each,
    /// which the system provides as they are used. The key is one that nobody outside can guess.
    #[must_use]
    pub fn new(rate: Rate, names: usize, key: [u8; 16]) -> Self {
        let places = names.next_power_of_two().max(WAYS);
        Self {
            rate,
            key: KeyedState::new(key),
            tags: vec![0; places],
            full_at: vec![0; places],
            forgotten: 0,
            names: PhantomData,
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// There is none: how long until there is. Then nothing has changed.
    pub fn take(&mut self, now: Time, name: N) -> Result<(), Duration> {
        self.take_within(now, name, self.rate.burst)
    }

    /// Takes a token for what can not wait, if need be one that is still to come: as many of those as a bucket
    /// holds.
    ///
    /// # Errors
    /// There is none: how long until there is. Then nothing has changed.
    pub fn borrow(&mut self, now: Time, name: N) -> Result<(), Duration> {
        self.take_within(now, name, 2 * self.rate.burst)
    }

    fn take_within(&mut self, now: Time, name: N, burst: u64) -> Result<(), Duration> {
        let (tag, set) = self.find(name);
        let now = now.as_micros();
        let known = set.clone().find(|place| self.tags[*place] == tag);
        let full_at = known.map_or(now, |place| self.full_at[place].max(now)) + self.rate.interval;
        if full_at > now + burst {
            return Err(Duration::from_micros(full_at - now - burst));
        }
        let place = known.unwrap_or_else(|| self.make_room(now, set));
        (self.tags[place], self.full_at[place]) = (tag, full_at);
        Ok(())
    }

    /// Whether a token could be taken.
    #[must_use]
    pub fn has_token(&self, now: Time, name: N) -> bool {
        let (tag, mut set) = self.find(name);
        let until = now.as_micros() + self.rate.burst;
        set.find(|place| self.tags[*place] == tag)
            .is_none_or(|place| self.full_at[place] + self.rate.interval <= until)
    }

    /// Buckets forgotten before they were full, because the table was.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The tag of a name and the places where it may be.
    fn find(&self, name: N) -> (u64, std::ops::Range<usize>) {
        let tag = self.key.hash_one(name).max(1);
        let sets = self.tags.len() / WAYS;
        // Any bits will do: the tag is compared whole.
        let set = usize::try_from(tag >> 32).expect("64 bits") & (sets - 1);
        (tag, set * WAYS..(set + 1) * WAYS)
    }

    /// The place of the set whose bucket is full, or nearest to it.
    fn make_room(&mut self, now: u64, set: std::ops::Range<usize>) -> usize {
        let place = set.min_by_key(|place| self.full_at[*place]);
        let place = place.expect("a set has places");
        self.forgotten += u64::from(self.full_at[place] > now);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn table(per_second: u32, burst: u32, names: usize) -> RateTable<u64> {
        let rate = Rate::new(per_second, burst).expect("not 0");
        RateTable::new(rate, names, [1; 16])
    }

    /// Tokens that a name gets at one moment.
    fn drain(table: &mut RateTable<u64>, now: Time, name: u64) -> usize {
        (0..).take_while(|_| table.take(now, name).is_ok()).count()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut table = table(10, 25, 64);
        let start = Time::from_micros(5_000_000);
        assert_eq!(drain(&mut table, start, 7), 25);
        assert_eq!(table.take(start, 7), Err(SECOND / 10));
        assert!(!table.has_token(start, 7));
        assert_eq!(drain(&mut table, start, 8), 25, "another name");
        assert_eq!(drain(&mut table, start + SECOND / 10, 7), 1);
        assert_eq!(drain(&mut table, start + SECOND, 7), 9);
        assert_eq!(drain(&mut table, start + 60 * SECOND, 7), 25, "no more");
    }

    #[test]
    fn a_refusal_costs_nothing_and_says_when_to_come_back() {
        let mut table = table(2, 1, 64);
        let start = Time::from_micros(1);
        assert_eq!(table.take(start, 7), Ok(()));
        let mut at = start;
        for _ in 0..100 {
            let wait = table.take(at, 7).expect_err("too early");
            assert_eq!(at + wait, start + SECOND / 2);
            at = at + Duration::from_millis(4);
        }
        assert!(table.has_token(start + SECOND / 2, 7));
        assert_eq!(table.take(start + SECOND / 2, 7), Ok(()));
    }

    #[test]
    fn a_full_table_forgets_who_took_least() {
        let mut table = table(1, 100, WAYS);
        let now = Time::from_micros(1);
        assert_eq!(drain(&mut table, now, 0), 100);
        for name in 1..1_000 {
            assert_eq!(table.take(now, name), Ok(()));
        }
        assert!(table.take(now, 0).is_err(), "the heaviest is remembered");
        assert_eq!(table.forgotten(), 1_000 - WAYS as u64);
    }

    #[test]
    fn a_bucket_that_is_full_again_makes_room() {
        let mut table = table(1, 5, WAYS);
        let mut now = Time::from_micros(1);
        for name in 0..1_000 {
            assert_eq!(table.take(now, name), Ok(()));
            now = now + SECOND;
        }
        assert_eq!(table.forgotten(), 0);
    }

    #[test]
    fn parts_together_grant_the_whole() {
        let rate = Rate::new(100, 40).expect("not 0").part_of(4);
        let mut table = RateTable::new(rate, 64, [1; 16]);
        let start = Time::from_micros(1);
        assert_eq!(drain(&mut table, start, 7), 10);
        assert_eq!(drain(&mut table, start + SECOND, 7), 10);
        assert_eq!(drain(&mut table, start + SECOND + SECOND / 25, 7), 1);
        // A burst smaller than the number of parts leaves one to each.
        let rate = Rate::new(100, 1).expect("not 0").part_of(4);
        assert_eq!(drain(&mut RateTable::new(rate, 64, [1; 16]), start, 7), 1);
    }

    #[test]
    fn what_is_borrowed_is_missing_later() {
        let mut table = table(10, 20, 64);
        let start = Time::from_micros(1);
        assert_eq!(drain(&mut table, start, 7), 20);
        let borrowed = (0..).take_while(|_| table.borrow(start, 7).is_ok());
        assert_eq!(borrowed.count(), 20);
        assert_eq!(table.take(start, 7), Err(2 * SECOND + SECOND / 10));
        assert_eq!(drain(&mut table, start + 3 * SECOND, 7), 10);
        assert_eq!(drain(&mut table, start + 60 * SECOND, 7), 20, "no more");
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert_eq!(Rate::new(0, 5), None);
        assert_eq!(drain(&mut table(PER_SECOND_MAX, 0, 64), Time::ZERO, 7), 1);
    }
}
