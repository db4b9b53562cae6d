//! The home of a user: which sessions serve its devices, and how its inboxes fill.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use roadstead_proto::{DeviceId, Position, UserId};
use siphasher::sip::SipHasher13;

use crate::io::{Proof, SessionId};
use crate::limits;
use crate::peer::{Claim, Holder};
use crate::placement::ShardId;

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
    version: u64,
    device: DeviceId,
    session: SessionId,
    shard: ShardId,
    /// How far below its connect counter that of the token lies which let it in. `u16::MAX`: so far or farther.
    token_below: u16,
}

/// What a registration costs, beside one byte of control and the empty places of its table.
const _: () = assert!(size_of::<Registration>() <= 40);

impl Registration {
    fn new((user, device): (UserId, DeviceId), claim: Claim, holder: Holder) -> Self {
        let counter = match claim.proof {
            Proof::Signed => claim.connect_counter,
            Proof::Resumed { counter } => counter.unwrap_or(0),
        };
        let below = claim.connect_counter.saturating_sub(counter);
        Self {
            user,
            connect_counter: claim.connect_counter,
            version: claim.version,
            device,
            session: holder.session,
            shard: holder.shard,
            token_below: u16::try_from(below).unwrap_or(u16::MAX),
        }
    }

    /// What decides between two sessions of a device.
    fn order(&self) -> (u64, u64) {
        (self.connect_counter, self.version)
    }

    fn holder(&self) -> Holder {
        Holder {
            shard: self.shard,
            session: self.session,
        }
    }

    /// Whether a resume token was issued before the one that let this session in. A device shows its latest, or the
    /// same again if it never saw the Welcome that brought a later one.
    fn overtakes(&self, proof: Proof) -> bool {
        let Proof::Resumed {
            counter: Some(shown),
        } = proof
        else {
            return false;
        };
        let own = self.connect_counter - u64::from(self.token_below);
        self.token_below < u16::MAX && shown < own
    }
}

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
    /// It was let in by a resume token that is older than the one of the session that is registered.
    Overtaken,
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

    /// R13: the higher connect counter wins. An equal one is a client that lost its counter: then the one wins
    /// whose device was opened when the store had committed more, in whatever order they register; where nothing was
    /// committed between the two, the newcomer.
    pub(crate) fn register(
        &mut self,
        (user, device): (UserId, DeviceId),
        claim: Claim,
        holder: Holder,
    ) -> Registered {
        let new = Registration::new((user, device), claim, holder);
        let (key, hash) = (self.key, self.key.hash_one(user));
        let table = &mut self.tables[table_of(hash)];
        match table.find_mut(hash, |old| (old.user, old.device) == (user, device)) {
            None => {
                self.users += usize::from(of_user(table, hash, user).next().is_none());
                table.insert_unique(hash, new, |old| key.hash_one(old.user));
                Registered::Accepted { replaced: None }
            }
            Some(old) if old.overtakes(claim.proof) => Registered::Overtaken,
            Some(old) if old.order() > new.order() => Registered::Stale,
            Some(old) => {
                let replaced = (old.holder() != holder).then_some(old.holder());
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
            (old.user, old.device, old.holder()) == (user, device, holder)
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
            .map(Registration::holder)
    }

    /// Every session of a user.
    pub(crate) fn holders(&self, user: UserId) -> impl Iterator<Item = Holder> + '_ {
        self.of(user).map(Registration::holder)
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

    fn claim(connect_counter: u64) -> Claim {
        Claim {
            connect_counter,
            version: 0,
            proof: Proof::Signed,
            issued_s: 0,
        }
    }

    #[test]
    fn r13_the_higher_counter_takes_over() {
        let mut directory = Directory::new([0; 16]);
        let (user, device) = ids();
        let accepted = |replaced| Registered::Accepted { replaced };
        assert_eq!(
            directory.register((user, device), claim(5), holder(1)),
            accepted(None)
        );
        assert_eq!(
            directory.register((user, device), claim(4), holder(2)),
            Registered::Stale
        );
        assert_eq!(
            directory.register((user, device), claim(6), holder(3)),
            accepted(Some(holder(1)))
        );
        assert_eq!(directory.holder(user, device), Some(holder(3)));
    }

    #[test]
    fn df26_r13_of_equal_counters_the_later_opening_serves_in_any_order() {
        let (user, device) = ids();
        let early = Claim {
            version: 7,
            ..claim(5)
        };
        let late = Claim {
            version: 8,
            ..claim(5)
        };
        let mut directory = Directory::new([0; 16]);
        directory.register((user, device), late, holder(1));
        let stale = directory.register((user, device), early, holder(2));
        assert_eq!(stale, Registered::Stale, "it was opened first");
        assert_eq!(directory.holder(user, device), Some(holder(1)));
        let mut directory = Directory::new([0; 16]);
        directory.register((user, device), early, holder(2));
        directory.register((user, device), late, holder(1));
        assert_eq!(directory.holder(user, device), Some(holder(1)));
        // Nothing was committed between them.
        directory.register((user, device), late, holder(3));
        assert_eq!(directory.holder(user, device), Some(holder(3)));
    }

    #[test]
    fn df15_p14_a_token_before_the_one_that_serves_is_overtaken() {
        let (user, device) = ids();
        let resumed = |connect_counter, token| Claim {
            proof: Proof::Resumed { counter: token },
            ..claim(connect_counter)
        };
        let mut directory = Directory::new([0; 16]);
        directory.register((user, device), resumed(10, Some(9)), holder(1));
        let mut register = |claim, index| directory.register((user, device), claim, holder(index));
        assert_eq!(register(resumed(99, Some(8)), 2), Registered::Overtaken);
        let replaces = |index| Registered::Accepted {
            replaced: Some(holder(index)),
        };
        // The Welcome of the tenth was lost, or it was not.
        assert_eq!(register(resumed(11, Some(9)), 3), replaces(1));
        assert_eq!(register(resumed(12, Some(11)), 4), replaces(3));
        assert_eq!(register(resumed(13, Some(10)), 5), Registered::Overtaken);
        // A signed token, or one that does not say when it was issued.
        assert_eq!(register(resumed(14, None), 6), replaces(4));
        assert_eq!(register(claim(15), 7), replaces(6));
        assert_eq!(register(resumed(16, Some(14)), 8), Registered::Overtaken);
        // One that counts by the clock after it had lost its counter.
        let by_clock = u64::from(u32::MAX);
        assert_eq!(register(resumed(by_clock, Some(15)), 9), replaces(7));
        assert_eq!(register(resumed(by_clock + 1, Some(3)), 10), replaces(9));
    }

    #[test]
    fn r13_a_late_unregister_removes_nobody_else() {
        let mut directory = Directory::new([0; 16]);
        let (user, device) = ids();
        directory.register((user, device), claim(1), holder(1));
        directory.register((user, device), claim(2), holder(2));
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
                directory.register((user_id, device_id), claim(1), holder(index));
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
