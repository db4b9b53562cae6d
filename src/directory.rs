//! The home of a user: which sessions serve its devices, and how its inboxes fill.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use roadstead_proto::{DeviceId, Position, UserId};
use siphasher::sip::SipHasher13;

use crate::limits;
use crate::peer::Holder;

/// Hashes ids under a key, so that chosen ids can not collide and every run iterates alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyedState([u8; 16]);

impl KeyedState {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self(key)
    }
}

impl BuildHasher for KeyedState {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}

/// A registered session.
#[derive(Debug, Clone, Copy)]
struct Registration {
    user: UserId,
    connect_counter: u64,
    device: DeviceId,
    holder: Holder,
}

/// What a registration costs, beside one byte of control and the empty places of its table.
const _: () = assert!(size_of::<Registration>() <= 32);

/// What came of a registration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// It serves the device now, perhaps in the place of another session.
    Accepted {
        /// The session that it took over from.
        replaced: Option<Holder>,
    },
    /// A later connection of the device is registered already (R13).
    Stale,
}

/// Tables that the directory is split into, so that none is large: one that grows moves all it has, and a
/// million entries would hold the shard up for a tenth of a second.
const TABLES: usize = 256;

/// The sessions of the users whose home this shard is. Those of one user have one hash, and so they lie
/// in one table, near each other.
#[derive(Debug)]
pub(crate) struct Directory {
    key: KeyedState,
    tables: Vec<HashTable<Registration>>,
    users: usize,
}

impl Directory {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self {
            key: KeyedState::new(key),
            tables: (0..TABLES).map(|_| HashTable::new()).collect(),
            users: 0,
        }
    }

    /// Users with at least one session.
    pub(crate) fn users(&self) -> usize {
        self.users
    }

    /// Bytes of the tables.
    pub(crate) fn bytes(&self) -> usize {
        self.tables.iter().map(HashTable::allocation_size).sum()
    }

    /// R13: the higher connect counter wins; an equal one is a client that lost its counter, and the
    /// newcomer wins.
    pub(crate) fn register(
        &mut self,
        user: UserId,
        device: DeviceId,
        connect_counter: u64,
        holder: Holder,
    ) -> Registered {
        let new = Registration {
            user,
            connect_counter,
            device,
            holder,
        };
        let (key, hash) = (self.key, self.key.hash_one(user));
        let table = &mut self.tables[table_of(hash)];
        match table.find_mut(hash, |old| (old.user, old.device) == (user, device)) {
            None => {
                self.users += usize::from(of_user(table, hash, user).next().is_none());
                table.insert_unique(hash, new, |old| key.hash_one(old.user));
                Registered::Accepted { replaced: None }
            }
            Some(old) if old.connect_counter > connect_counter => Registered::Stale,
            Some(old) => {
                let replaced = (old.holder != holder).then_some(old.holder);
                *old = new;
                Registered::Accepted { replaced }
            }
        }
    }

    /// Removes a session, if it is still the one registered.
    pub(crate) fn unregister(&mut self, user: UserId, device: DeviceId, holder: Holder) {
        let hash = self.key.hash_one(user);
        let table = &mut self.tables[table_of(hash)];
        let found = table.find_entry(hash, |old| {
            (old.user, old.device, old.holder) == (user, device, holder)
        });
        if let Ok(found) = found {
            found.remove();
            self.users -= usize::from(of_user(table, hash, user).next().is_none());
        }
    }

    /// The session that serves a device.
    pub(crate) fn holder(&self, user: UserId, device: DeviceId) -> Option<Holder> {
        self.of(user)
            .find(|session| session.device == device)
            .map(|session| session.holder)
    }

    /// Every session of a user.
    pub(crate) fn holders(&self, user: UserId) -> impl Iterator<Item = Holder> + '_ {
        self.of(user).map(|session| session.holder)
    }

    fn of(&self, user: UserId) -> impl Iterator<Item = &Registration> {
        let hash = self.key.hash_one(user);
        of_user(&self.tables[table_of(hash)], hash, user)
    }
}

/// The sessions of a user in the table of its hash.
fn of_user(
    table: &HashTable<Registration>,
    hash: u64,
    user: UserId,
) -> impl Iterator<Item = &Registration> {
    table
        .iter_hash(hash)
        .filter(move |session| session.user == user)
}

/// By bits that the tables themselves do not look at: they take the lowest and the highest.
fn table_of(hash: u64) -> usize {
    usize::from(hash.to_be_bytes()[2])
}

/// Decides by lot when an inbox is worth counting (R21): one in so many appends, whichever inbox it is. A
/// table of counts would have to forget some, and a flood to one inbox among many could hide in that.
#[derive(Debug)]
pub(crate) struct InboxWatch {
    key: KeyedState,
    check_every: u64,
}

impl InboxWatch {
    pub(crate) fn new(key: [u8; 16], check_every: u32) -> Self {
        Self {
            key: KeyedState::new(key),
            check_every: u64::from(check_every),
        }
    }

    /// Whether the inbox is due for a look, now that an entry of so many bytes has been appended: a large one
    /// draws as often as the small ones in whose place it stands.
    pub(crate) fn is_due(
        &self,
        user: UserId,
        device: DeviceId,
        cursor: Position,
        bytes: u32,
    ) -> bool {
        let drawn = self.key.hash_one((user, device, cursor)) % self.check_every;
        drawn <= u64::from(bytes / limits::INBOX_CHECK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SessionId, ShardId};

    fn ids() -> (UserId, DeviceId) {
        (
            UserId::new(1).expect("not 0"),
            DeviceId::new(1).expect("not 0"),
        )
    }

    fn holder(index: u32) -> Holder {
        Holder {
            shard: ShardId(0),
            session: SessionId {
                index,
                generation: 0,
            },
        }
    }

    #[test]
    fn r13_the_higher_counter_takes_over() {
        let mut directory = Directory::new([0; 16]);
        let (user, device) = ids();
        let accepted = |replaced| Registered::Accepted { replaced };
        assert_eq!(
            directory.register(user, device, 5, holder(1)),
            accepted(None)
        );
        assert_eq!(
            directory.register(user, device, 4, holder(2)),
            Registered::Stale
        );
        assert_eq!(
            directory.register(user, device, 6, holder(3)),
            accepted(Some(holder(1)))
        );
        assert_eq!(directory.holder(user, device), Some(holder(3)));
    }

    #[test]
    fn r13_a_late_unregister_removes_nobody_else() {
        let mut directory = Directory::new([0; 16]);
        let (user, device) = ids();
        directory.register(user, device, 1, holder(1));
        directory.register(user, device, 2, holder(2));
        directory.unregister(user, device, holder(1));
        assert_eq!(directory.holder(user, device), Some(holder(2)));
        directory.unregister(user, device, holder(2));
        assert_eq!(directory.users(), 0);
    }

    #[test]
    fn devices_of_a_user_are_found_among_many_users() {
        let mut directory = Directory::new([7; 16]);
        let id = |user: u64, device: u32| {
            let user = UserId::new(user).expect("not 0");
            (user, DeviceId::new(device).expect("not 0"))
        };
        for user in 1..=5_000 {
            for device in 1..=2 {
                let (user_id, device_id) = id(user, device);
                let index = u32::try_from(user).expect("small") * 2 + device;
                directory.register(user_id, device_id, 1, holder(index));
            }
        }
        assert_eq!(directory.users(), 5_000);
        let bytes = directory.bytes() / 10_000;
        assert!((33..=96).contains(&bytes), "{bytes} bytes a session");
        for user in 1..=5_000 {
            let (user_id, device_id) = id(user, 2);
            let mut holders: Vec<Holder> = directory.holders(user_id).collect();
            holders.sort_unstable();
            let index = u32::try_from(user).expect("small") * 2;
            assert_eq!(holders, [holder(index + 1), holder(index + 2)]);
            assert_eq!(
                directory.holder(user_id, device_id),
                Some(holder(index + 2))
            );
            directory.unregister(user_id, device_id, holder(index + 2));
            assert_eq!(directory.holder(user_id, device_id), None);
        }
        assert_eq!(directory.users(), 5_000);
    }

    #[test]
    fn r21_one_in_so_many_appends_is_due_whichever_inbox_it_is() {
        let watch = InboxWatch::new([0; 16], 50);
        let (user, device) = ids();
        let cursor = |count: u64| {
            let mut stamp = [0; 10];
            stamp[..8].copy_from_slice(&count.to_be_bytes());
            Position::new(1, stamp, 0)
        };
        let is_due = |count: &u64| watch.is_due(user, device, cursor(*count), 100);
        let due = (0..10_000).filter(is_due).count();
        assert!((150..250).contains(&due), "{due} of 10,000");
        // No flood goes unnoticed for long: the longest run without a count.
        let due: Vec<u64> = (0..10_000).filter(is_due).collect();
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] < 50 * 10));
        let always = InboxWatch::new([0; 16], 1);
        assert!((0..100).all(|count| always.is_due(user, device, cursor(count), 0)));
        let large = |count: &u64| watch.is_due(user, device, cursor(*count), 9 * 4_096);
        let due = (0..10_000).filter(large).count();
        assert!((1_700..2_300).contains(&due), "{due}: ten times as often");
    }
}
