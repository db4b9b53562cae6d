//! Messages: when they are due, who sends them, who is away meanwhile.

use roadstead_net::{Engine, Io};

use super::slot::Millis;
use super::{Alarm, Worker};
use crate::clock::Micros;
use crate::control::Stage;
use crate::plan::Who;
use crate::rng::chosen;
use crate::schedule::Schedule;

/// A send that starts later than this after its intended time is late: a tick of an ordinary kernel,
/// and little beside the 100 ms in which a message shall arrive.
const LATE: Micros = 10_000;

/// Tries to find a sender who is there. All but the last few users would have to be away to miss.
const PICKS_MAX: u32 = 64;

/// Makes the choice of who goes away independent of other choices by the same seed.
const AWAY: u64 = 0x6177_6179;

impl Worker {
    pub(super) fn start_exchange(&mut self, from: Micros, until: Micros) {
        self.stage = Stage::Exchange;
        let exchange = &self.plan.exchange;
        let share = f64::from(self.roster.sessions()) / f64::from(self.plan.topology.sessions());
        let count = match exchange.who {
            Who::Anyone => u64::MAX,
            Who::Sample(_) => u64::from(self.sample_size()),
        };
        let (rate, arrivals) = (exchange.rate * share, exchange.arrivals);
        self.schedule = Schedule::new(arrivals, rate, from, until, count, self.rng.clone());
        self.plan_absences(from, until);
    }

    /// This thread's part of a sample.
    fn sample_size(&self) -> u32 {
        let Who::Sample(wanted) = self.plan.exchange.who else {
            return 0;
        };
        let all = u64::from(self.plan.topology.users);
        let part = u64::from(wanted.min(self.plan.topology.users)) * u64::from(self.roster.users());
        u32::try_from(part.div_ceil(all.max(1)))
            .expect("not more than all")
            .min(self.roster.users())
    }

    /// Some users go away in the first half and come back later; every fourth only when all has been
    /// sent.
    fn plan_absences(&mut self, from: Micros, until: Micros) {
        let (seed, fraction) = (self.plan.topology.seed, self.plan.exchange.offline_fraction);
        let tenth = u32::try_from((until - from) / 10)
            .unwrap_or(u32::MAX)
            .max(1);
        for user in 0..self.roster.users() {
            if !chosen(seed ^ AWAY, self.roster.user_id(user).get(), fraction) {
                continue;
            }
            let tenths = |n: u64| from + n * u64::from(tenth);
            let leave = tenths(1) + u64::from(self.rng.below(tenth.saturating_mul(3).max(1)));
            let back = tenths(5) + u64::from(self.rng.below(tenth.saturating_mul(4).max(1)));
            let stays_away = self.rng.below(4) == 0;
            for session in self.roster.sessions_of(user) {
                self.set_alarm(leave, session, Alarm::Leave);
                if !stays_away {
                    self.set_alarm(back, session, Alarm::Return);
                }
            }
        }
    }

    pub(super) fn leave<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32) {
        let slot = &mut self.slots[session as usize];
        if self.stage == Stage::Exchange && slot.can_send() {
            slot.away = true;
            self.status.away += 1;
            self.hang_up(io, session);
        }
    }

    pub(super) fn come_back<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32, now: Micros) {
        let slot = &mut self.slots[session as usize];
        if slot.away {
            slot.away = false;
            slot.online_since = Millis::default();
            self.status.away -= 1;
            self.connect(io, session, now);
        }
    }

    /// Everyone comes back, at the pace of the ramp, and every connection is asked whether it lives.
    pub(super) fn start_drain(&mut self, now: Micros) {
        self.stage = Stage::Drain;
        self.schedule = Schedule::empty();
        let share = f64::from(self.roster.sessions()) / f64::from(self.plan.topology.sessions());
        let gap = 1e6 / (self.plan.ramp * share).max(1.0);
        let away: Vec<u32> = (0..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.away)
            .map(|(s, _)| s)
            .collect();
        for (place, session) in (0u32..).zip(away) {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a positive time within the run"
            )]
            let wait = (gap * f64::from(place)) as Micros;
            self.set_alarm(now + wait, session, Alarm::Return);
        }
        self.probe_all(now);
    }

    /// Takes over the messages whose time has come; the flush at the end of the turn writes them.
    pub(super) fn send_due(&mut self, now: Micros) {
        while let Some(intended) = self.schedule.take(now) {
            let lag = now - intended;
            self.status.late_sends += u64::from(lag > LATE);
            self.status.latest_send = self.status.latest_send.max(lag);
            let Some((sender, recipient)) = self.pick() else {
                self.status.unsendable += 1;
                continue;
            };
            let number = self.slots[sender as usize].session.next_number();
            let message = self.ledger.book(sender, recipient, number, intended);
            self.slots[sender as usize].session.enqueue(message);
            self.mark_dirty(sender);
        }
    }

    /// A sending session and a receiving user.
    fn pick(&mut self) -> Option<(u32, u32)> {
        match self.plan.exchange.who {
            Who::Anyone => self.pick_anyone(),
            Who::Sample(_) => self.pick_next_of_sample(),
        }
    }

    fn pick_anyone(&mut self) -> Option<(u32, u32)> {
        for _ in 0..PICKS_MAX {
            let sender = self.rng.below(self.roster.sessions());
            let user = self.roster.user(sender);
            let circle = self.roster.circle(user);
            let others = circle.end - circle.start - 1;
            let other = circle.start + self.rng.below(others);
            let recipient = if other >= user { other + 1 } else { other };
            if self.slots[sender as usize].can_send() && self.is_known(recipient) {
                return Some((sender, recipient));
            }
        }
        None
    }

    /// Whether all devices of a user have been registered: each of them has to get the message.
    fn is_known(&self, user: u32) -> bool {
        let slots = &self.slots;
        self.roster
            .sessions_of(user)
            .all(|session| slots[session as usize].welcomed)
    }

    /// The next user of the sample, drawn by lot, gets a message from a neighbour in the circle.
    fn pick_next_of_sample(&mut self) -> Option<(u32, u32)> {
        let recipient = self.lots.at(self.sampled % self.roster.users());
        self.sampled += 1;
        let circle = self.roster.circle(recipient);
        let neighbours = (recipient + 1..circle.end).chain(circle.start..recipient);
        for user in neighbours {
            let mut sessions = self.roster.sessions_of(user);
            let sender = sessions.find(|s| self.slots[*s as usize].can_send());
            if let Some(sender) = sender.filter(|_| self.is_known(recipient)) {
                return Some((sender, recipient));
            }
        }
        None
    }
}
