//! What a batch adds to numbers, one sum for each: many commands of a batch add to the same one, and none of them has
//! to know what it comes to.
//!
//! Every read and write of a batch asks whether there is a sum of its key, and nearly all keys are of another kind:
//! one look at a key's shape answers most of them.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use crate::recent::Hashed;

use super::small_key::SmallKey;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Sums {
    sums: HashMap<SmallKey, u64, Hashed>,
    /// A bit for each shape that a key here has had.
    shapes: u64,
    /// First bytes that a key here has had: none outside.
    tags: Option<RangeInclusive<u8>>,
}

/// One of 64 shapes of keys, by their length and their last byte.
fn shape(key: &[u8]) -> u64 {
    let last = key.last().copied().map_or(0, usize::from);
    1 << ((key.len() + last) % 64)
}

impl Sums {
    pub(super) fn get(&self, key: &[u8]) -> Option<u64> {
        if self.shapes & shape(key) == 0 {
            return None;
        }
        self.sums.get(key).copied()
    }

    pub(super) fn insert(&mut self, key: SmallKey, sum: u64) {
        self.shapes |= shape(&key);
        let tag = key.first().copied().unwrap_or(0);
        self.tags = Some(match &self.tags {
            None => tag..=tag,
            Some(tags) => tag.min(*tags.start())..=tag.max(*tags.end()),
        });
        self.sums.insert(key, sum);
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<(SmallKey, u64)> {
        if self.shapes & shape(key) == 0 {
            return None;
        }
        self.sums.remove_entry(key)
    }

    /// The keys from one to before another.
    pub(super) fn within(&self, from: &[u8], to: &[u8]) -> Vec<SmallKey> {
        let first = |key: &[u8]| key.first().copied().unwrap_or(0);
        let meets =
            |tags: &RangeInclusive<u8>| first(from) <= *tags.end() && first(to) >= *tags.start();
        if !self.tags.as_ref().is_some_and(meets) {
            return Vec::new();
        }
        let keys = self.sums.keys();
        let mut keys: Vec<SmallKey> = keys
            .filter(|key| (from..to).contains(&&key[..]))
            .cloned()
            .collect();
        keys.sort_unstable();
        keys
    }

    /// All of them, in no order.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (SmallKey, u64)> + use<> {
        std::mem::take(self).sums.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_shape_are_told_apart() {
        let mut sums = Sums::default();
        let key = |text: &str| SmallKey::from(text.as_bytes());
        sums.insert(key("d1n"), 1);
        sums.insert(key("d2n"), 2);
        sums.insert(key("f2m"), 3);
        assert_eq!(sums.get(b"d1n"), Some(1));
        assert_eq!(sums.get(b"d3n"), None);
        assert_eq!(sums.get(b"d1"), None);
        assert_eq!(sums.within(b"d1n", b"d2n"), [key("d1n")]);
        assert_eq!(
            sums.within(b"d", b"g"),
            [key("d1n"), key("d2n"), key("f2m")]
        );
        assert_eq!(sums.within(b"a", b"c"), []);
        assert_eq!(sums.within(b"e", b"a"), []);
        assert_eq!(sums.remove(b"d1n"), Some((key("d1n"), 1)));
        assert_eq!(sums.remove(b"d1n"), None);
        let mut left: Vec<_> = sums.take().collect();
        left.sort_unstable();
        assert_eq!(left, [(key("d2n"), 2), (key("f2m"), 3)]);
        assert_eq!(sums.get(b"d2n"), None);
    }
}
