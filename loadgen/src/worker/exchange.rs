//! Messages: when they are due, who sends them, who is away meanwhile.

use roadstead_net::{Engine, Io};
use roadstead_proto::UserId;

use super::slot::Millis;
use super::sweep::Sweep;
use super::{Alarm, Worker};
use crate::clock::Micros;
use crate::control::Stage;
use crate::ledger::Ledger;
use crate::plan::{Step, Who};
use crate::profile::{Profile, to_micros};
use crate::rng::{Rng, Shuffle, chosen};
use crate::schedule::{Arrivals, Schedule};
use crate::talk;

/// Sessions that come back per second at least, at the end of a run whose ramp ended slowly.
const RETURNS_MIN: f64 = 100.0;

/// A send that starts later than this after its intended time is late: a tick of an ordinary kernel,
/// and little beside the 100 ms in which a message shall arrive.
const LATE: Micros = 10_000;

/// Tries to find a sender who is there. All but the last few users would have to be away to miss.
const PICKS_MAX: u32 = 64;

/// One of so many messages has another beside it, to a user whose inbox is full.
const OUTSIDE_ONE_IN: u32 = 8;

/// Makes the choice of who goes away independent of other choices by the same seed.
const AWAY: u64 = 0x6177_6179;

/// How long a session stays away in churn, on average: an app in a pocket comes back sooner or later.
const CHURN_AWAY: Micros = 5_000_000;

/// Makes the order of churn independent of other choices by the same seed.
const CHURN: u64 = 0x6368_7572;

impl Worker {
    pub(super) fn start_exchange(&mut self, step: usize, from: Micros, until: Micros, scale: f64) {
        self.stage = Stage::Exchange;
        let (Step::Exchange(exchange) | Step::FindMax { exchange, .. }) = &self.plan.steps[step]
        else {
            panic!("step {step} is no exchange");
        };
        self.traffic = exchange.clone();
        // Conversations are those of one exchange: a later one would wait for their end.
        self.talks.clear();
        if self.is_control {
            return;
        }
        let exchange = &self.traffic;
        let share = self.share();
        let count = match exchange.who {
            Who::Sample(_) => u64::from(self.sample_size()),
            _ => u64::MAX,
        };
        let messages = match exchange.who {
            Who::Talk => talk::MESSAGES_MEAN,
            _ => 1.0,
        };
        let rate = exchange.rate.scaled(share * scale / messages);
        let rng = Rng::new(self.rng.next());
        self.schedule = Schedule::new(exchange.arrivals, rate, from, until, count, rng);
        self.until = until;
        self.sampled = 0;
        self.churn = match exchange.churn {
            churn if churn > 0.0 => {
                Sweep::endless(from, to_micros(1.0 / churn), self.roster.sessions())
            }
            _ => Sweep::none(),
        };
        self.plan_absences(from, until);
    }

    /// A control group's own messages, while the others are cut.
    pub(super) fn start_control(&mut self, rate: f64, now: Micros) {
        let rng = Rng::new(self.rng.next());
        let rate = Profile::constant(rate);
        self.traffic.who = Who::Anyone;
        self.until = Micros::MAX;
        self.schedule = Schedule::new(Arrivals::Poisson, rate, now, Micros::MAX, u64::MAX, rng);
    }

    pub(super) fn end_control(&mut self) {
        if self.is_control {
            self.schedule = Schedule::empty();
        }
    }

    /// This thread's part of what all but the control group do.
    pub(super) fn share(&self) -> f64 {
        f64::from(self.roster.sessions()) / f64::from(self.plan.sessions_at_large().max(1))
    }

    /// Sessions leave one after the other, in an order drawn by lot, and come back after a while.
    pub(super) fn go_on_churning<E: Engine>(&mut self, io: &mut Io<'_, E>, now: Micros) {
        if now >= self.until {
            return;
        }
        while let Some(place) = self.churn.take(now) {
            let order = Shuffle::new(self.plan.topology.seed ^ CHURN, self.roster.sessions());
            let session = order.at(place);
            if self.leave(io, session) {
                self.status.churned += 1;
                let back = now + self.rng.jitter(CHURN_AWAY);
                self.set_alarm(back, session, Alarm::Return);
            }
        }
    }

    /// This thread's part of a sample.
    fn sample_size(&self) -> u32 {
        let Who::Sample(wanted) = self.traffic.who else {
            return 0;
        };
        let all = self.plan.sessions_at_large() / self.plan.topology.devices;
        let part = u64::from(wanted.min(all)) * u64::from(self.roster.users());
        let all = u64::from(all);
        u32::try_from(part.div_ceil(all.max(1)))
            .expect("not more than all")
            .min(self.roster.users())
    }

    /// Some users go away in the first half and come back later; every fourth only when all has been
    /// sent.
    fn plan_absences(&mut self, from: Micros, until: Micros) {
        let (seed, fraction) = (self.plan.topology.seed, self.traffic.offline_fraction);
        if fraction <= 0.0 {
            return;
        }
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

    /// Lets a session go away, and answers whether it could.
    pub(super) fn leave<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32) -> bool {
        let slot = &mut self.slots[session as usize];
        let can = self.stage == Stage::Exchange && slot.can_send();
        if can {
            slot.away = true;
            self.status.away += 1;
            self.hang_up(io, session);
        }
        can
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
        self.talks.clear();
        self.churn = Sweep::none();
        let share = f64::from(self.roster.sessions()) / f64::from(self.plan.topology.sessions());
        let gap = 1e6 / (self.plan.ramp.last().max(RETURNS_MIN) * share).max(1.0);
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
        self.probe.want();
        for session in 0..self.roster.sessions() {
            self.give_up_outside(session);
        }
    }

    /// What waits for somebody outside, who may never take it, is taken back (P113).
    pub(super) fn give_up_outside(&mut self, session: u32) {
        let slot = &mut self.slots[session as usize];
        for message in slot.session.give_up(Ledger::is_outside) {
            self.ledger.given_up(message);
        }
    }

    /// Takes over the messages whose time has come; the flush at the end of the turn writes them.
    pub(super) fn send_due(&mut self, now: Micros) {
        while let Some(intended) = self.schedule.take(now) {
            self.send_outside(intended);
            match (self.pick(), self.traffic.who) {
                (None, _) => self.status.unsendable += 1,
                (Some((sender, recipient)), Who::Talk) => {
                    let other = self.roster.sessions_of(recipient).start;
                    self.talks.begin(intended, sender, other, &mut self.rng);
                }
                (Some((sender, recipient)), Who::Fanout(width)) => {
                    self.send_to_many(sender, recipient, width, intended, now);
                }
                (Some((sender, recipient)), _) => self.send(sender, recipient, intended, now),
            }
        }
        while let Some(line) =
            self.talks
                .take(now.min(self.until), self.traffic.think, &mut self.rng)
        {
            let recipient = self.roster.user(line.to);
            match self.slots[line.from as usize].can_send() && self.is_known(recipient) {
                true => self.send(line.from, recipient, line.at, now),
                false => self.status.unsendable += 1,
            }
        }
    }

    /// When the next message is due.
    pub(super) fn next_send(&self) -> Option<Micros> {
        let line = self.talks.due().filter(|at| *at < self.until);
        [self.schedule.due(), line].into_iter().flatten().min()
    }

    fn send(&mut self, sender: u32, recipient: u32, intended: Micros, now: Micros) {
        self.note_lag(intended, now);
        let message = self.ledger.book(sender, recipient, intended);
        self.enqueue(sender, message);
    }

    /// Now and then somebody writes to the user whose inbox is full: no other chat may be held up by it.
    fn send_outside(&mut self, intended: Micros) {
        // Without users who fill it there is no inbox, and no such user.
        let campaign = self.plan.campaign.as_ref();
        let is_filled = campaign.is_some_and(|campaign| campaign.attacks.fillers > 0);
        let Some(victim) = self.traffic.victim.filter(|_| is_filled) else {
            return;
        };
        if self.rng.below(OUTSIDE_ONE_IN) > 0 {
            return;
        }
        let victim = UserId::new(victim).expect("users are numbered from 1");
        if let Some((sender, _)) = self.pick() {
            let message = self.ledger.book_outside(sender, victim, intended);
            self.enqueue(sender, message);
        }
    }

    fn enqueue(&mut self, sender: u32, message: u64) {
        let chat = self.ledger.chat_name(message);
        self.slots[sender as usize].session.enqueue(message, chat);
        self.mark_dirty(sender);
    }

    /// To so many users of the circle, from `first` on.
    fn send_to_many(&mut self, sender: u32, first: u32, width: u32, intended: Micros, now: Micros) {
        self.note_lag(intended, now);
        let user = self.roster.user(sender);
        let circle = self.roster.circle(user);
        let others = (first..circle.end)
            .chain(circle.start..first)
            .filter(|other| *other != user && self.is_known(*other))
            .take(width as usize);
        let others: Vec<u32> = others.collect();
        for message in self.ledger.book_fanout(sender, others, intended) {
            self.enqueue(sender, message);
        }
    }

    fn note_lag(&mut self, intended: Micros, now: Micros) {
        let lag = now - intended;
        self.status.late_sends += u64::from(lag > LATE);
        self.status.latest_send = self.status.latest_send.max(lag);
    }

    /// A sending session and a receiving user.
    fn pick(&mut self) -> Option<(u32, u32)> {
        match self.traffic.who {
            Who::Sample(_) => self.pick_next_of_sample(),
            _ => self.pick_anyone(),
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
