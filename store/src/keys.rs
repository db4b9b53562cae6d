//! Where everything is kept: the key layout of DESIGN 6.
//!
//! A key is a tag, 16 slot bits and the rest, all big-endian, so that keys sort as their parts do. The
//! slot bits are a keyed hash: they spread each key space over all shards of a cluster, so that no
//! append heats one end of it (R17).
//!
//! ```text
//! i slot user device position   inbox entry         u slot user           versions and devices (uv/)
//! d slot user device            device              r slot chat user      receipt positions (rp/)
//! d slot user device 'a'        stored ack          x slot day user device expiry index
//! d slot user device 'n'        what it holds       n 0 node              lease, ceiling of message ids
//! d slot user device 'n' sender share of a sender   t 0 minute            time to stamp
//! k slot user device n%256      answer to a send    g 0 name              generation, ceiling of stamps, …
//! ```
//! The last three are a handful of keys, written once a minute or less: they have no slot.

use std::hash::Hasher;
use std::ops::Deref;

use bytes::Bytes;
use roadstead::placement::slot;
use roadstead_proto::limits::SEND_ANSWERS_KEPT;
use roadstead_proto::{ChatId, DeviceId, Position, UserId};
use siphasher::sip::SipHasher13;

/// The longest key of the layout.
const KEY_CAPACITY: usize = 32;

/// Bytes of a device's prefix in any key space that has one: tag, slot, user, device.
const DEVICE_PREFIX: usize = 1 + 2 + 8 + 4;

/// A key, built without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    bytes: [u8; KEY_CAPACITY],
    len: usize,
}

impl Key {
    fn tagged(tag: u8, slot: [u8; 2]) -> Self {
        let mut key = Self {
            bytes: [0; KEY_CAPACITY],
            len: 0,
        };
        key.push(&[tag]);
        key.push(&slot);
        key
    }

    fn push(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }

    fn with(mut self, bytes: &[u8]) -> Self {
        self.push(bytes);
        self
    }

    /// The first key behind all keys that start with this one.
    #[must_use]
    pub fn end_of_prefix(mut self) -> Self {
        while self.len > 0 {
            self.len -= 1;
            if let Some(next) = self.bytes[self.len].checked_add(1) {
                self.bytes[self.len] = next;
                self.len += 1;
                return self;
            }
        }
        unreachable!("tags are letters, so no key is all 0xff")
    }

    /// The key directly behind this one.
    #[must_use]
    pub fn successor(self) -> Self {
        self.with(&[0])
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.escape_ascii())
    }
}

/// Builds keys under a deployment's placement key.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    placement_key: [u8; 16],
}

impl Keys {
    /// Keys under this placement key.
    #[must_use]
    pub const fn new(placement_key: [u8; 16]) -> Self {
        Self { placement_key }
    }

    fn user(&self, tag: u8, user: UserId) -> Key {
        let slot = slot(&self.placement_key, user).0.to_be_bytes();
        Key::tagged(tag, slot).with(&user.get().to_be_bytes())
    }

    fn device_in(&self, tag: u8, user: UserId, device: DeviceId) -> Key {
        self.user(tag, user).with(&device.get().to_be_bytes())
    }

    /// All inbox entries of a device.
    #[must_use]
    pub fn inbox(&self, user: UserId, device: DeviceId) -> Key {
        self.device_in(b'i', user, device)
    }

    /// One inbox entry.
    #[must_use]
    pub fn entry(&self, user: UserId, device: DeviceId, position: Position) -> Key {
        self.inbox(user, device).with(position.as_bytes())
    }

    /// An inbox entry's key up to the stamp.
    #[must_use]
    pub fn entry_prefix(&self, user: UserId, device: DeviceId, generation: u32) -> Key {
        self.inbox(user, device).with(&generation.to_be_bytes())
    }

    /// A device.
    #[must_use]
    pub fn device(&self, user: UserId, device: DeviceId) -> Key {
        self.device_in(b'd', user, device)
    }

    /// A device's stored acknowledgement: a record of its own, so that an ack does not rewrite the
    /// device.
    #[must_use]
    pub fn ack(&self, user: UserId, device: DeviceId) -> Key {
        self.device(user, device).with(b"a")
    }

    /// What a device's inbox holds, in messages and bytes (R21).
    #[must_use]
    pub fn held(&self, user: UserId, device: DeviceId) -> Key {
        self.device(user, device).with(b"n")
    }

    /// The same of one sender, while the inbox is crowded.
    #[must_use]
    pub fn share(&self, user: UserId, device: DeviceId, sender: UserId) -> Key {
        self.held(user, device).with(&sender.get().to_be_bytes())
    }

    /// All answers kept for a device.
    #[must_use]
    pub fn answers(&self, user: UserId, device: DeviceId) -> Key {
        self.device_in(b'k', user, device)
    }

    /// The answer to a send (R12).
    #[must_use]
    pub fn answer(&self, user: UserId, device: DeviceId, number: u64) -> Key {
        let slot = u8::try_from(number % SEND_ANSWERS_KEPT).expect("256 answers are kept");
        self.answers(user, device).with(&[slot])
    }

    /// The version of a user's devices and blocks (R14).
    #[must_use]
    pub fn versions(&self, user: UserId) -> Key {
        self.user(b'u', user)
    }

    /// How far a user has got in a chat (R20). The chat's slot, so that a group's are neighbours.
    #[must_use]
    pub fn receipt(&self, chat: ChatId, user: UserId) -> Key {
        let mut hasher = SipHasher13::new_with_key(&self.placement_key);
        hasher.write(chat.as_bytes());
        let [a, b, ..] = hasher.finish().to_be_bytes();
        Key::tagged(b'r', [a, b])
            .with(chat.as_bytes())
            .with(&user.get().to_be_bytes())
    }

    /// The note that entries were appended to a device on a day (R25).
    #[must_use]
    pub fn expiry(&self, day: u32, user: UserId, device: DeviceId) -> Key {
        let slot = slot(&self.placement_key, user).0;
        Self::expiry_day(slot, day)
            .with(&user.get().to_be_bytes())
            .with(&device.get().to_be_bytes())
    }

    /// All notes of a slot and a day.
    #[must_use]
    pub fn expiry_day(slot: u16, day: u32) -> Key {
        Key::tagged(b'x', slot.to_be_bytes()).with(&day.to_be_bytes())
    }

    /// A node's lease.
    #[must_use]
    pub fn node(node: u16) -> Key {
        Key::tagged(b'n', [0, 0]).with(&node.to_be_bytes())
    }

    /// The stamp of a minute (R25).
    #[must_use]
    pub fn minute(minute: u32) -> Key {
        Key::tagged(b't', [0, 0]).with(&minute.to_be_bytes())
    }

    /// The generation (R3).
    #[must_use]
    pub fn generation() -> Key {
        Key::tagged(b'g', [0, 0]).with(b"generation")
    }

    /// The placement key.
    #[must_use]
    pub fn placement() -> Key {
        Key::tagged(b'g', [0, 0]).with(b"placement")
    }

    /// Says that what every inbox holds has been counted.
    #[must_use]
    pub fn counted() -> Key {
        Key::tagged(b'g', [0, 0]).with(b"counted")
    }

    /// The ceiling under which the embedded engine takes its stamps (R9).
    #[must_use]
    pub fn stamp_ceiling() -> Key {
        Key::tagged(b'g', [0, 0]).with(b"stamps")
    }
}

/// The position at the end of an inbox entry's key.
#[must_use]
pub fn entry_position(key: &[u8]) -> Option<Position> {
    Position::from_slice(key.get(DEVICE_PREFIX..)?)
}

/// The first key of all inboxes, and the first behind them.
#[must_use]
pub fn all_inboxes() -> (Key, Key) {
    let first = Key::tagged(b'i', [0, 0]);
    let last = Key::tagged(b'i', [0xff, 0xff]);
    (first, last.end_of_prefix())
}

/// The user and the device of an inbox entry's key.
#[must_use]
pub fn entry_device(key: &[u8]) -> Option<(UserId, DeviceId)> {
    let user = UserId::new(u64::from_be_bytes(key.get(3..11)?.try_into().ok()?)).ok()?;
    let device = DeviceId::new(u32::from_be_bytes(key.get(11..15)?.try_into().ok()?)).ok()?;
    Some((user, device))
}

/// Slot, day, user and device of an expiry note.
#[must_use]
pub fn expiry_parts(key: &[u8]) -> Option<(u16, u32, UserId, DeviceId)> {
    let parts: &[u8; 19] = key.try_into().ok()?;
    let slot = u16::from_be_bytes(parts[1..3].try_into().ok()?);
    let day = u32::from_be_bytes(parts[3..7].try_into().ok()?);
    let user = UserId::new(u64::from_be_bytes(parts[7..15].try_into().ok()?)).ok()?;
    let device = DeviceId::new(u32::from_be_bytes(parts[15..].try_into().ok()?)).ok()?;
    Some((slot, day, user, device))
}

/// Whether a key is small and often used again, so that the embedded engine keeps its value in memory.
#[must_use]
pub fn is_hot(key: &[u8]) -> bool {
    match key.first() {
        Some(b'u' | b'r' | b'n') => true,
        Some(b'd') => key.len() > DEVICE_PREFIX,
        _ => false,
    }
}

impl From<Key> for Bytes {
    fn from(key: Key) -> Self {
        Bytes::copy_from_slice(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: Keys = Keys::new([7; 16]);

    fn user(id: u64) -> UserId {
        UserId::new(id).expect("not 0")
    }

    fn device(id: u32) -> DeviceId {
        DeviceId::new(id).expect("not 0")
    }

    #[test]
    fn r1_entries_of_a_device_sort_by_position() {
        let at = |position| KEYS.entry(user(1), device(2), position);
        let stamp = |n: u8| Position::new(1, [0, 0, 0, 0, 0, 0, 0, n, 0, 0], 3);
        assert!(at(stamp(1)) < at(stamp(2)));
        assert!(at(Position::MAX) < KEYS.inbox(user(1), device(2)).end_of_prefix());
        assert_eq!(entry_position(&at(stamp(9))), Some(stamp(9)));
    }

    #[test]
    fn r17_users_spread_over_the_slots_of_every_key_space() {
        for build in [
            |id| KEYS.versions(user(id)),
            |id| KEYS.inbox(user(id), device(1)),
            |id| KEYS.answers(user(id), device(1)),
            |id| KEYS.expiry(20_000, user(id), device(1)),
            |id| KEYS.receipt(ChatId::pair(user(id), user(id)), user(id)),
        ] {
            let low = (1..=1_000).filter(|id| build(*id)[1] < 128).count();
            assert!((400..600).contains(&low), "{low} of 1000 in the lower half");
        }
    }

    #[test]
    fn an_expiry_note_names_its_device() {
        let key = KEYS.expiry(20_000, user(5), device(6));
        let (_, day, user_id, device_id) = expiry_parts(&key).expect("well formed");
        assert_eq!((day, user_id, device_id), (20_000, user(5), device(6)));
        assert_eq!(expiry_parts(&key[1..]), None);
    }

    #[test]
    fn numbers_share_a_slot_every_256() {
        let at = |n| KEYS.answer(user(1), device(2), n);
        assert_eq!(at(1), at(257));
        assert_ne!(at(1), at(256));
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_of_it() {
        let key = Key::tagged(b'x', [0xff, 0xff]);
        assert_eq!(&*key.end_of_prefix(), b"y");
        assert!(key.successor() > key);
    }
}
