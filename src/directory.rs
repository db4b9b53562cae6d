//! The home of a user: which sessions serve its devices, and how its inboxes fill.

use std::collections::HashMap;
use std::hash::BuildHasher;

use roadstead_proto::{DeviceId, Position, UserId};
use siphasher::sip::SipHasher13;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Registration {
    device: DeviceId,
    connect_counter: u64,
    holder: Holder,
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
}

/// The sessions of the users whose home this shard is.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Most users have one session: the list is short.
    users: HashMap<UserId, Vec<Registration>, KeyedState>,
}

impl Directory {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self {
            users: HashMap::with_hasher(KeyedState::new(key)),
        }
    }

    /// Users with at least one session.
    pub(crate) fn len(&self) -> usize {
        self.users.len()
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
        let sessions = self.users.entry(user).or_default();
        let new = Registration {
            device,
            connect_counter,
            holder,
        };
        match sessions.iter_mut().find(|session| session.device == device) {
            None => {
                sessions.reserve_exact(1);
                sessions.push(new);
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
        let Some(sessions) = self.users.get_mut(&user) else {
            return;
        };
        sessions.retain(|session| (session.device, session.holder) != (device, holder));
        if sessions.is_empty() {
            self.users.remove(&user);
        }
    }

    /// The session that serves a device.
    pub(crate) fn holder(&self, user: UserId, device: DeviceId) -> Option<Holder> {
        let sessions = self.users.get(&user)?;
        sessions
            .iter()
            .find(|session| session.device == device)
            .map(|session| session.holder)
    }

    /// Every session of a user.
    pub(crate) fn holders(&self, user: UserId) -> impl Iterator<Item = Holder> + '_ {
        self.users
            .get(&user)
            .into_iter()
            .flatten()
            .map(|session| session.holder)
    }
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

    /// Whether the inbox is due for a count, now that this entry has been appended.
    pub(crate) fn is_due(&self, user: UserId, device: DeviceId, cursor: Position) -> bool {
        let drawn = self.key.hash_one((user, device, cursor));
        drawn.is_multiple_of(self.check_every)
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
        assert_eq!(directory.len(), 0);
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
        let is_due = |count: &u64| watch.is_due(user, device, cursor(*count));
        let due = (0..10_000).filter(is_due).count();
        assert!((150..250).contains(&due), "{due} of 10,000");
        // No flood goes unnoticed for long: the longest run without a count.
        let due: Vec<u64> = (0..10_000).filter(is_due).collect();
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] < 50 * 10));
        let always = InboxWatch::new([0; 16], 1);
        assert!((0..100).all(|count| always.is_due(user, device, cursor(count))));
    }
}
