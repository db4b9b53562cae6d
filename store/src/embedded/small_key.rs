//! Keys of the maps in memory: in place, so that a comparison follows no pointer and a key costs no
//! allocation. Every key of the layout fits; longer ones are kept aside.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// Bytes that fit in place: the longest key of the layout, an inbox entry's, has 31.
const IN_PLACE: usize = 38;

/// See the [module](self).
#[derive(Clone)]
pub(crate) struct SmallKey(Repr);

#[derive(Clone)]
enum Repr {
    InPlace(u8, [u8; IN_PLACE]),
    Aside(Bytes),
}

impl From<&[u8]> for SmallKey {
    fn from(key: &[u8]) -> Self {
        let mut bytes = [0; IN_PLACE];
        match (u8::try_from(key.len()), bytes.get_mut(..key.len())) {
            (Ok(length), Some(place)) => {
                place.copy_from_slice(key);
                Self(Repr::InPlace(length, bytes))
            }
            _ => Self(Repr::Aside(Bytes::copy_from_slice(key))),
        }
    }
}

impl From<&SmallKey> for Bytes {
    fn from(key: &SmallKey) -> Self {
        match &key.0 {
            Repr::InPlace(..) => Bytes::copy_from_slice(key),
            Repr::Aside(bytes) => bytes.clone(),
        }
    }
}

impl Deref for SmallKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::InPlace(length, bytes) => &bytes[..usize::from(*length)],
            Repr::Aside(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for SmallKey {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for SmallKey {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SmallKey {}

impl PartialOrd for SmallKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SmallKey {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for SmallKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As the slice does, so that a slice finds it.
        (**self).hash(state);
    }
}

impl std::fmt::Debug for SmallKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_compare_as_their_bytes_wherever_they_are_kept() {
        let long = [b'a'; 100];
        let lengths = [0, 1, IN_PLACE - 1, IN_PLACE, IN_PLACE + 1, 100];
        for a in lengths {
            for b in lengths {
                let (left, right) = (SmallKey::from(&long[..a]), SmallKey::from(&long[..b]));
                assert_eq!(left.cmp(&right), a.cmp(&b));
                assert_eq!(Bytes::from(&left).len(), a);
            }
        }
    }
}
