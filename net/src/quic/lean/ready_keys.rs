//! Keys that are expanded already, of the connections that speak often.
//!
//! An idle session keeps its keys raw (T4): expanding one takes a fraction of a microsecond, its result
//! half a kilobyte. For a session that speaks all the time that is the wrong trade, so each shard keeps
//! the expanded keys of some hundred of them, in a table that neither a million heartbeats nor a storm of
//! handshakes washes away: a key takes a place when it is seen twice without another between, and gives
//! it up after as many strangers as it had uses.

use roadstead_quic::crypto::{Suite, wipe};

/// Places in the table. Full, it takes about 0.7 MiB with packet keys.
const PLACES: usize = 1 << 10;

/// Strangers that a key outlasts at most.
const CREDIT_MAX: u8 = 32;

/// A direct-mapped table from raw keys to expanded ones.
pub(super) struct ReadyKeys<K> {
    places: Box<[Place<K>]>,
}

struct Place<K> {
    /// Of the last key that was looked for here in vain. Keys are uniform: a part tells them apart
    /// well enough to choose whom to keep.
    candidate: u64,
    credit: u8,
    resident: Option<Resident<K>>,
}

struct Resident<K> {
    suite: Suite,
    raw: [u8; 32],
    expanded: K,
}

impl<K> Drop for Resident<K> {
    fn drop(&mut self) {
        wipe(&mut self.raw);
    }
}

impl<K> Default for ReadyKeys<K> {
    fn default() -> Self {
        let empty = || Place {
            candidate: 0,
            credit: 0,
            resident: None,
        };
        Self {
            places: std::iter::repeat_with(empty).take(PLACES).collect(),
        }
    }
}

/// A key padded to the longest, and the part of it that tells it apart.
fn padded(key: &[u8]) -> ([u8; 32], u64) {
    let mut raw = [0; 32];
    raw[..key.len()].copy_from_slice(key);
    let first = raw.first_chunk().expect("32 bytes");
    (raw, u64::from_le_bytes(*first))
}

fn place_of(mark: u64) -> usize {
    usize::try_from(mark).unwrap_or(usize::MAX) % PLACES
}

impl<K> ReadyKeys<K> {
    /// Uses the key, from the table or expanded for this once.
    pub(super) fn with<R>(
        &mut self,
        suite: Suite,
        key: &[u8],
        expand: impl FnOnce() -> K,
        run: impl FnOnce(&K) -> R,
    ) -> R {
        let (raw, mark) = padded(key);
        let place = &mut self.places[place_of(mark)];
        if let Some(resident) = &place.resident
            && resident.raw == raw
            && resident.suite == suite
        {
            place.credit = (place.credit + 1).min(CREDIT_MAX);
            return run(&resident.expanded);
        }
        let is_repeated = std::mem::replace(&mut place.candidate, mark) == mark;
        if !is_repeated || place.credit > 0 {
            place.credit = place.credit.saturating_sub(1);
            return run(&expand());
        }
        let resident = place.resident.insert(Resident {
            suite,
            raw,
            expanded: expand(),
        });
        place.credit = 1;
        run(&resident.expanded)
    }

    /// Drops a key whose connection is gone or has updated it.
    pub(super) fn forget(&mut self, key: &[u8]) {
        let (raw, mark) = padded(key);
        let place = &mut self.places[place_of(mark)];
        if place.candidate == mark {
            place.candidate = 0;
        }
        if place.resident.as_ref().is_some_and(|r| r.raw == raw) {
            place.resident = None;
            place.credit = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITE: Suite = Suite::Aes128Gcm;

    /// Looks a key up; whether it had to be expanded.
    fn look(keys: &mut ReadyKeys<[u8; 16]>, key: [u8; 16]) -> bool {
        let mut expanded = false;
        let expand = || {
            expanded = true;
            key
        };
        assert_eq!(keys.with(SUITE, &key, expand, |found| *found), key);
        expanded
    }

    /// Keys of one place.
    fn key(n: u8) -> [u8; 16] {
        let mut key = [n; 16];
        key[..2].fill(0);
        key
    }

    #[test]
    fn a_key_is_kept_from_its_second_use_on() {
        let mut keys = ReadyKeys::default();
        let expanded = [0; 4].map(|_| look(&mut keys, key(1)));
        assert_eq!(expanded, [true, true, false, false]);
    }

    #[test]
    fn keys_that_come_once_displace_none() {
        let mut keys = ReadyKeys::default();
        for _ in 0..8 {
            look(&mut keys, key(1));
        }
        for n in 2..200 {
            assert!(look(&mut keys, key(n)), "a stranger");
        }
        assert!(!look(&mut keys, key(1)));
    }

    #[test]
    fn a_busier_key_takes_the_place_over() {
        let mut keys = ReadyKeys::default();
        for _ in 0..100 {
            look(&mut keys, key(1));
        }
        let expanded = (0..100).filter(|_| look(&mut keys, key(2))).count();
        assert_eq!(expanded, usize::from(CREDIT_MAX) + 1);
    }

    #[test]
    fn the_same_bytes_of_another_suite_are_another_key() {
        let mut keys = ReadyKeys::default();
        let bytes = [7; 32];
        for _ in 0..3 {
            keys.with(Suite::Aes256Gcm, &bytes, || 1, |_| ());
        }
        let found = keys.with(Suite::ChaCha20Poly1305, &bytes, || 2, |found| *found);
        assert_eq!(found, 2);
    }

    #[test]
    fn a_forgotten_key_is_gone() {
        let mut keys = ReadyKeys::default();
        for _ in 0..3 {
            look(&mut keys, key(1));
        }
        keys.forget(&key(1));
        assert!(look(&mut keys, key(1)));
    }
}
