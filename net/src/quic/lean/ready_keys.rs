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
///
/// What tells who lives in a place lies apart from the keys: nearly every look-up is that of a key
/// which comes once, and must touch no more than a table that stays in the first cache.
pub(super) struct ReadyKeys<K> {
    places: Box<[Place]>,
    residents: Box<[Option<Resident<K>>]>,
}

/// Keys are uniform: a part tells them apart well enough to choose whom to keep. Zero is nobody.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Of the last key that was looked for here in vain.
    candidate: u32,
    /// Of the key that lives here.
    resident: u32,
    credit: u8,
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
        Self {
            places: vec![Place::default(); PLACES].into(),
            residents: std::iter::repeat_with(|| None).take(PLACES).collect(),
        }
    }
}

/// The place of a key, and the part of it that tells it apart there.
fn place_of(key: &[u8]) -> (usize, u32) {
    let first = *key.first_chunk::<8>().expect("a key has 16 bytes or more");
    let [a, b, c, d, place @ ..] = first;
    let place = usize::try_from(u32::from_le_bytes(place)).expect("32 bits") % PLACES;
    (place, u32::from_le_bytes([a, b, c, d]).max(1))
}

impl<K> Resident<K> {
    fn is(&self, suite: Suite, key: &[u8]) -> bool {
        self.suite == suite && self.raw[..key.len()] == *key
    }
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
        let (index, mark) = place_of(key);
        let place = &mut self.places[index];
        if place.resident == mark
            && let Some(resident) = &self.residents[index]
            && resident.is(suite, key)
        {
            place.credit = (place.credit + 1).min(CREDIT_MAX);
            return run(&resident.expanded);
        }
        let is_repeated = std::mem::replace(&mut place.candidate, mark) == mark;
        if !is_repeated || place.credit > 0 {
            place.credit = place.credit.saturating_sub(1);
            return run(&expand());
        }
        (place.resident, place.credit) = (mark, 1);
        let mut raw = [0; 32];
        raw[..key.len()].copy_from_slice(key);
        let resident = self.residents[index].insert(Resident {
            suite,
            raw,
            expanded: expand(),
        });
        run(&resident.expanded)
    }

    /// Drops a key whose connection is gone or has updated it.
    pub(super) fn forget(&mut self, key: &[u8]) {
        let (index, mark) = place_of(key);
        let place = &mut self.places[index];
        if place.candidate == mark {
            place.candidate = 0;
        }
        if place.resident == mark {
            (place.resident, place.credit) = (0, 0);
            self.residents[index] = None;
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
        key[4..8].fill(0);
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
