//! What the conductor orders, and what it is told of how the worker stands.

use roadstead_net::{Engine, Io};

use super::{PUBLISH_EVERY, Worker};
use crate::clock::Micros;
use crate::control::{Command, Stage};
use crate::process;

impl Worker {
    pub(super) fn obey<E: Engine>(&mut self, io: &Io<'_, E>, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Hold => {
                self.stage = Stage::Hold;
                self.end_control();
                self.start_heartbeats(now);
            }
            Command::Exchange {
                step,
                from,
                until,
                scale,
            } => self.start_exchange(step, from, until, scale),
            Command::Cut {
                spread,
                control_rate,
            } => self.cut(spread, control_rate, now),
            Command::Rebind { over } => self.start_rebind(io, over, now),
            Command::Restart => self.expect_restart(now),
            Command::Drain => self.start_drain(now),
            Command::Stop => self.stop(),
        }
        self.publish_at = now;
    }

    pub(super) fn publish(&mut self, now: Micros) {
        self.ledger.retire();
        self.status.tally = self.ledger.tally();
        self.status.settled = self.is_settled();
        self.status.stage = self.stage;
        let usage = process::thread_usage();
        (self.status.cpu, self.status.waited) = (usage.cpu, usage.waited);
        let mut view = self.window.view();
        view.status.clone_from(&self.status);
        view.ack.merge(&self.recent.0);
        view.deliver.merge(&self.recent.1);
        drop(view);
        self.recent.0.clear();
        self.recent.1.clear();
        self.publish_at = now + PUBLISH_EVERY;
    }

    pub(super) fn is_settled(&self) -> bool {
        let status = &self.status;
        let everyone = status.active + status.gave_up == self.roster.sessions();
        // Who was away before an upset is none of those who must come back from it.
        let others = status.active + status.gave_up + status.away == self.roster.sessions();
        match self.stage {
            Stage::Ramp => everyone,
            Stage::Hold | Stage::Stopped => true,
            Stage::Exchange => self.next_send().is_none(),
            Stage::Storm if self.is_control => true,
            Stage::Storm => self.severing.is_none() && others,
            Stage::Rebind => self.has_rebound(),
            Stage::Restart => others && self.is_back(),
            Stage::Drain => everyone && self.ledger.is_complete(),
        }
    }
}
