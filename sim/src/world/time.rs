//! How time passes for the store: minutes are stamped, days pass in a moment, entries go by age (R25).

use std::time::Duration;

use roadstead_store::records::expiry::{Progress, minute_of};
use roadstead_store::records::minutes::Doubt;

use super::World;
use super::events::{Event, Wake};
use super::faults::TICK;
use crate::rng::Rng;

/// How often the clock tells its minute.
const STAMP_EVERY: Duration = Duration::from_secs(1);

/// How long the expiry job rests.
const EXPIRE_EVERY: Duration = Duration::from_secs(3);

/// Between two of its steps others commit.
const STEP_EVERY: Duration = Duration::from_millis(20);

/// A store that is busy is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(3);

const MS_PER_MINUTE: u64 = 60_000;
const MINUTES_PER_DAY: u64 = 24 * 60;

/// More than entries are kept.
const DAYS_AT_ONCE_MAX: u64 = 40;

/// Of so many phones one is off while days pass, for so long: what waits for it grows old.
const AWAY_ONE_IN: u64 = 4;
const AWAY: Duration = Duration::from_secs(8);

/// What a run keeps of it.
#[derive(Debug)]
pub(super) struct Days {
    /// Chance of its own: a seed without days is the same run as before there were any.
    rng: Rng,
    doubt: Doubt,
    job: Option<Progress>,
}

impl Days {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed ^ 0xda75),
            doubt: Doubt::default(),
            job: None,
        }
    }

    /// A process that ends forgets what it was about.
    pub(super) fn end_process(&mut self) {
        self.doubt = Doubt::default();
        self.job = None;
    }
}

impl World {
    /// A life of the node begins to look after its store.
    pub(super) fn begin_time(&mut self) {
        if self.plan.faults.days > 0 {
            let life = self.node.life;
            self.after(Duration::ZERO, Event::Stamp(life));
            self.after(EXPIRE_EVERY, Event::Expire(life));
        }
    }

    /// Chance has its turn: some time passes that nobody waits for, and some are away meanwhile.
    pub(super) fn pass_days(&mut self) {
        let micros = u64::try_from(TICK.as_micros()).expect("short");
        if !self.days.rng.ppm(self.plan.faults.days * micros / 1_000) {
            return;
        }
        self.count("days passed");
        let days = match self.days.rng.below(2) {
            0 => 3,
            _ => DAYS_AT_ONCE_MAX,
        };
        let minutes = self.days.rng.between(1, days * MINUTES_PER_DAY);
        self.skew_ms += i64::try_from(minutes * MS_PER_MINUTE).expect("weeks");
        for index in 0..self.clients.len() {
            if let Some(conn) = self.clients[index].conn()
                && self.days.rng.one_in(AWAY_ONE_IN)
            {
                self.client_leaves(index, conn);
                let wait = self.days.rng.around(AWAY);
                let epoch = self.clients[index].epoch;
                self.after(wait, Event::Client(index, Wake::Connect(epoch)));
            }
        }
    }

    pub(super) fn stamp_minute(&mut self, life: u32) {
        if life != self.node.life {
            return;
        }
        let minute = minute_of(self.clock().unix_ms);
        let mut doubt = std::mem::take(&mut self.days.doubt);
        self.with_store(|store, step| store.stamp_minute(step, &mut doubt, minute));
        self.days.doubt = doubt;
        let wait = self.days.rng.around(STAMP_EVERY);
        self.after(wait, Event::Stamp(life));
    }

    pub(super) fn expire(&mut self, life: u32) {
        if life != self.node.life {
            return;
        }
        let progress = match self.days.job {
            None => self.with_store(|store, step| store.begin_expiry(step)),
            Some(job) => self.with_store(|store, step| store.step_expiry(step, job)),
        };
        let wait = match progress {
            None => RETRY_AFTER,
            Some(progress) if progress.is_done() => EXPIRE_EVERY,
            Some(_) => self.days.rng.around(STEP_EVERY),
        };
        if progress.is_some() {
            self.days.job = progress.filter(|progress| !progress.is_done());
        }
        self.after(wait, Event::Expire(life));
    }

    pub(super) fn count_expired(&mut self, entries: usize) {
        if entries > 0 {
            *self.tally.faults.entry("entries expired").or_default() += entries as u64;
        }
    }
}
