//! A bounded map that keeps what was used recently.
//!
//! Two generations: what is used moves to the young one; when that is full it becomes the old one, and
//! what was in the old one and not used since is gone. So it holds between half of its limit and all of
//! it, and costs nothing but the two maps.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash};

use siphasher::sip::SipHasher13;

/// Keys are ids that peers choose, but no table here grows beyond its limit, and a flood of collisions
/// would need hashes of 64 bits; a fixed key keeps runs repeatable (the simulator uses these too).
pub(crate) type Hashed = BuildHasherDefault<SipHasher13>;

/// See the [module](self).
#[derive(Debug)]
pub struct Recent<K, V> {
    young: HashMap<K, V, Hashed>,
    old: HashMap<K, V, Hashed>,
    half: usize,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    /// An empty map of at most `entries_max` entries.
    ///
    /// # Panics
    /// If that is less than 2.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        assert!(entries_max >= 2, "one entry for each generation");
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
            half: entries_max / 2,
        }
    }

    /// The value of a key, which is now used.
    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_mut(key).map(|value| &*value)
    }

    /// The value of a key, which is now used.
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        if !self.old.is_empty() && !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// Keeps a value.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        } else if !self.old.is_empty() {
            self.old.remove(&key);
        }
        self.young.insert(key, value);
    }

    /// Forgets a key.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// How many entries it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays() {
        let mut recent = Recent::new(8);
        recent.insert(0, "kept");
        for key in 1..1_000 {
            recent.insert(key, "passing");
            assert_eq!(recent.get(&0), Some(&"kept"));
            assert!(recent.len() <= 8);
        }
        assert_eq!(recent.get(&1), None);
    }

    #[test]
    fn what_is_written_again_has_one_value() {
        let mut recent = Recent::new(4);
        recent.insert(1, 'a');
        recent.insert(2, 'b');
        recent.insert(3, 'c');
        recent.insert(1, 'd');
        assert_eq!(recent.get(&1), Some(&'d'));
        recent.remove(&1);
        assert_eq!(recent.get(&1), None);
    }
}
