//! Who takes part: users, their devices, and the circles in which they talk.
//!
//! Users are dealt into circles of a few who chat with each other, every two of a circle in a chat of
//! their own. A thread gets whole circles, so both ends of every message, and all that has to be
//! checked of it, belong to one thread: no lock and no queue between threads on the message path.
//!
//! Within a thread users and sessions are numbered from 0: session = user * devices + device.

use std::ops::Range;

use roadstead_proto::{DeviceId, UserId};

use crate::rng::mix;

/// Devices that one user may have. The ledger keeps one bit each; the server allows as many by default.
pub(crate) const DEVICES_MAX: u32 = 4;

/// All users of a run.
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    /// The first user's id.
    pub(crate) users_from: u64,
    pub(crate) users: u32,
    /// Devices, hence sessions, of each user.
    pub(crate) devices: u32,
    /// Users in a circle.
    pub(crate) circle: u32,
    pub(crate) seed: u64,
}

/// The users of one thread.
#[derive(Debug, Clone)]
pub(crate) struct Roster {
    topology: Topology,
    users: Range<u32>,
}

impl Topology {
    pub(crate) fn sessions(&self) -> u32 {
        self.users * self.devices
    }

    /// Deals whole circles to `threads` threads, as evenly as they go. Before that each of `groups`
    /// takes so many sessions, rounded up to whole circles, from the end; their rosters come last.
    pub(crate) fn rosters(&self, threads: u32, groups: &[u32]) -> Vec<Roster> {
        let per_circle = self.circle * self.devices;
        let taken: Vec<u32> = groups.iter().map(|s| s.div_ceil(per_circle)).collect();
        let even = self.circles().saturating_sub(taken.iter().sum());
        let share = |thread: u32| {
            let circle = u64::from(even) * u64::from(thread) / u64::from(threads);
            u32::try_from(circle).expect("at most the number of circles")
        };
        let mut starts: Vec<u32> = (0..=threads).map(share).collect();
        for circles in taken {
            starts.push((starts[starts.len() - 1] + circles).min(self.circles()));
        }
        starts
            .windows(2)
            .map(|pair| Roster {
                topology: self.clone(),
                users: self.circle_start(pair[0])..self.circle_start(pair[1]),
            })
            .collect()
    }

    /// At least one; the last takes in the remainder, so that nobody is alone.
    fn circles(&self) -> u32 {
        (self.users / self.circle).max(1)
    }

    fn circle_start(&self, circle: u32) -> u32 {
        if circle >= self.circles() {
            self.users
        } else {
            circle * self.circle
        }
    }

    fn circle_of(&self, user: u32) -> Range<u32> {
        let circle = (user / self.circle).min(self.circles() - 1);
        self.circle_start(circle)..self.circle_start(circle + 1)
    }
}

impl Roster {
    pub(crate) fn users(&self) -> u32 {
        self.users.end - self.users.start
    }

    pub(crate) fn devices(&self) -> u32 {
        self.topology.devices
    }

    pub(crate) fn sessions(&self) -> u32 {
        self.users() * self.devices()
    }

    pub(crate) fn seed(&self) -> u64 {
        self.topology.seed
    }

    pub(crate) fn user(&self, session: u32) -> u32 {
        session / self.devices()
    }

    pub(crate) fn device(&self, session: u32) -> u32 {
        session % self.devices()
    }

    /// The sessions of a user, one per device.
    pub(crate) fn sessions_of(&self, user: u32) -> Range<u32> {
        user * self.devices()..(user + 1) * self.devices()
    }

    /// The users with whom a user talks, itself among them.
    pub(crate) fn circle(&self, user: u32) -> Range<u32> {
        let circle = self.topology.circle_of(self.users.start + user);
        circle.start - self.users.start..circle.end - self.users.start
    }

    /// The place of a user in its circle.
    pub(crate) fn seat(&self, user: u32) -> usize {
        (user - self.circle(user).start) as usize
    }

    pub(crate) fn user_id(&self, user: u32) -> UserId {
        let id = self.topology.users_from + u64::from(self.users.start + user);
        UserId::new(id).expect("users are numbered from 1 or higher")
    }

    /// The thread's number of a user; `None` for users of other threads or runs.
    pub(crate) fn user_of(&self, id: UserId) -> Option<u32> {
        let global = u32::try_from(id.get().checked_sub(self.topology.users_from)?).ok()?;
        self.users
            .contains(&global)
            .then(|| global - self.users.start)
    }

    /// A device id that the same seed gives again, so that a later run finds its devices (R13).
    pub(crate) fn device_id(&self, session: u32) -> DeviceId {
        let user = self.user_id(self.user(session)).get();
        let hash = mix(self.topology.seed ^ mix(user)) >> 32;
        // The low bits tell a user's devices apart whatever the hash; the top bit keeps the id above 0.
        let id = (hash & 0x7fff_fffc) | 0x8000_0000 | u64::from(self.device(session));
        DeviceId::new(u32::try_from(id).expect("32 bits")).expect("the top bit is set")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn topology(users: u32, devices: u32, circle: u32) -> Topology {
        Topology {
            users_from: 101,
            users,
            devices,
            circle,
            seed: 9,
        }
    }

    #[test]
    fn everyone_has_company_and_circles_stay_on_one_thread() {
        for (users, circle, threads) in [(10, 4, 2), (2, 4, 1), (3, 2, 2), (1_000, 4, 7), (9, 8, 3)]
        {
            let topology = topology(users, 1, circle);
            let rosters = topology.rosters(threads, &[]);
            assert_eq!(rosters.iter().map(Roster::users).sum::<u32>(), users);
            for roster in &rosters {
                for user in 0..roster.users() {
                    let circle = roster.circle(user);
                    assert!(circle.len() >= 2 && circle.end <= roster.users());
                    assert!(circle.contains(&user));
                    assert_eq!(circle.start as usize + roster.seat(user), user as usize);
                    assert!(circle.clone().all(|peer| roster.circle(peer) == circle));
                }
            }
        }
    }

    #[test]
    fn threads_get_fair_shares() {
        let rosters = topology(10_000, 1, 4).rosters(3, &[]);
        assert!(
            rosters
                .iter()
                .all(|roster| roster.users().abs_diff(3_333) < 8)
        );
    }

    #[test]
    fn groups_take_their_sessions_from_the_end() {
        let rosters = topology(1_003, 2, 4).rosters(2, &[100, 9]);
        let sessions: Vec<u32> = rosters.iter().map(Roster::sessions).collect();
        // 250 circles, 13 and 2 of them taken; the last has the three users that are left over.
        assert_eq!(sessions, [936, 944, 104, 22]);
        assert_eq!(rosters[3].users.end, 1_003);
        let all = topology(8, 1, 4).rosters(1, &[8]);
        assert_eq!([all[0].users(), all[1].users()], [0, 8]);
    }

    #[test]
    fn ids_lead_back_to_their_users_and_only_theirs() {
        let rosters = topology(20, 2, 4).rosters(2, &[]);
        assert_eq!(rosters[0].user_id(0).get(), 101);
        for roster in &rosters {
            for user in 0..roster.users() {
                assert_eq!(roster.user_of(roster.user_id(user)), Some(user));
                assert!(
                    roster
                        .sessions_of(user)
                        .all(|session| roster.user(session) == user)
                );
            }
        }
        assert_eq!(rosters[0].user_of(rosters[1].user_id(0)), None);
        assert_eq!(rosters[0].user_of(UserId::new(1).expect("not 0")), None);
    }

    #[test]
    fn r13_device_ids_differ_within_a_user_and_come_back_with_the_seed() {
        let roster = &topology(500, 4, 4).rosters(1, &[])[0];
        let again = &topology(500, 4, 4).rosters(1, &[])[0];
        for user in 0..500 {
            let ids: HashSet<_> = roster
                .sessions_of(user)
                .map(|s| roster.device_id(s))
                .collect();
            assert_eq!(ids.len(), 4);
        }
        assert!((0..2_000).all(|s| roster.device_id(s) == again.device_id(s)));
    }
}
