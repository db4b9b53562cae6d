//! The steps of a run, one function each.

use std::thread;

use anyhow::{Context, Result, ensure};

use super::{Conductor, LOOK_EVERY, SETTLE};
use crate::clock::Micros;
use crate::control::{Command, Stage, Status};
use crate::edge;
use crate::plan::{Exchange, Who};
use crate::profile::to_micros;

/// An exchange may end so much late.
const EXCHANGE_GRACE: Micros = 60_000_000;

/// Beside the time that was planned: asking every session of millions takes as long.
const REBIND_GRACE: Micros = 600_000_000;

/// From the announcement of an exchange to its first message.
const LEAD: Micros = 100_000;

impl Conductor<'_> {
    /// The first silence has passed in [`Conductor::settle`].
    pub(super) fn hold(&mut self, time: Micros) -> Result<()> {
        if self.has_held {
            self.crew.tell(Command::Hold);
            self.pass(Stage::Hold, time)?;
        }
        self.has_held = true;
        Ok(())
    }

    pub(super) fn exchange(
        &mut self,
        step: usize,
        exchange: &Exchange,
        scale: f64,
    ) -> Result<Micros> {
        let from = self.clock.now() + LEAD;
        let until = from.saturating_add(exchange.duration);
        if self.server.exchange_began.is_none() {
            self.server.exchange_began = self.target.sample();
        }
        let before = self.cpu();
        self.crew.tell(Command::Exchange {
            step,
            from,
            until,
            scale,
        });
        // A sample ends with its last message; whatever happens, not more than a minute late.
        let deadline = match exchange.who {
            Who::Sample(size) => {
                let time = exchange.rate.time_of(f64::from(size));
                from.saturating_add(to_micros(time))
            }
            _ => until,
        };
        self.watch(Stage::Exchange, deadline.saturating_add(EXCHANGE_GRACE))?;
        self.server.exchange_ended = self.target.sample();
        let took = self.clock.now() - from;
        self.busiest = self.busiest.max(self.busiest_since(&before, took));
        Ok(took)
    }

    pub(super) fn cpu(&self) -> Vec<Micros> {
        let statuses = self.crew.statuses();
        statuses.iter().map(|status| status.cpu).collect()
    }

    /// The share of its time that the busiest thread worked.
    pub(super) fn busiest_since(&self, before: &[Micros], took: Micros) -> f64 {
        let pairs = before.iter().zip(self.cpu());
        pairs
            .map(|(before, after)| ratio(after.saturating_sub(*before), took))
            .fold(0.0, f64::max)
    }

    pub(super) fn storm(
        &mut self,
        spread: Micros,
        control_rate: f64,
        patience: Micros,
    ) -> Result<()> {
        self.crew.tell(Command::Cut {
            spread,
            control_rate,
        });
        let deadline = self.clock.now() + spread.saturating_add(patience);
        self.watch(Stage::Storm, deadline)?;
        self.crew.tell(Command::Hold);
        Ok(())
    }

    pub(super) fn rebind(&mut self, over: Micros) -> Result<()> {
        self.crew.tell(Command::Rebind { over });
        let deadline = self.clock.now() + over.saturating_add(REBIND_GRACE);
        self.watch(Stage::Rebind, deadline)?;
        // Packets lost with the old ports are sent again within this.
        self.crew.tell(Command::Hold);
        self.pass(Stage::Hold, SETTLE)
    }

    pub(super) fn restart(&mut self, patience: Micros) -> Result<()> {
        self.crew.tell(Command::Restart);
        self.until_all_expect_the_restart()?;
        let edge = self
            .edge
            .as_mut()
            .context("only an edge of its own can be restarted")?;
        edge.terminate()?;
        let deadline = self.clock.now() + edge::STOP_PATIENCE;
        while !self.edge.as_mut().is_some_and(|edge| edge.has_ended()) {
            ensure!(
                self.clock.now() < deadline,
                "the edge did not end after SIGTERM"
            );
            thread::sleep(LOOK_EVERY);
            self.look(Stage::Restart)?;
        }
        let edge = self.edge.as_mut().context("it was there")?;
        edge.start_again()?;
        let deadline = self.clock.now() + patience;
        self.watch(Stage::Restart, deadline)?;
        self.crew.tell(Command::Hold);
        Ok(())
    }

    /// A thread that hears of the restart from a GoAway before it hears of it from here would take its
    /// sessions for cut.
    fn until_all_expect_the_restart(&mut self) -> Result<()> {
        let deadline = self.clock.now() + edge::STOP_PATIENCE;
        let expects = |status: &Status| status.stage == Stage::Restart;
        while !self.crew.statuses().iter().all(expects) {
            ensure!(
                self.clock.now() < deadline,
                "a thread of this end does not turn"
            );
            thread::sleep(LOOK_EVERY);
            self.look(Stage::Restart)?;
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, reason = "times of a run")]
fn ratio(part: Micros, whole: Micros) -> f64 {
    part as f64 / whole.max(1) as f64
}
