//! Rounds with attackers and without.

use anyhow::{Context, Result};

use super::Conductor;
use crate::clock::Micros;
use crate::control::Stage;
use crate::hostile::{Attackers, Campaign};
use crate::latency::Latency;
use crate::plan::Exchange;

impl Conductor<'_> {
    /// An exchange by itself: nothing of it is left when it ends, so that the next has its own latencies.
    pub(super) fn round(
        &mut self,
        step: usize,
        exchange: &Exchange,
        campaign: &Campaign,
    ) -> Result<Micros> {
        let plan = self.plan.clone();
        let attackers = match exchange.victim {
            Some(victim) => {
                let started = Attackers::start(&plan, campaign, victim);
                Some(started.context("the attackers")?)
            }
            None => None,
        };
        self.trial = (Latency::new(), Latency::new());
        let took = self.exchange(step, exchange, 1.0)?;
        let rows = attackers.map(Attackers::stop).transpose();
        self.drain()?;
        let (now, sum) = (self.clock.now(), self.sum());
        self.record(now, Stage::Drain, sum)?;
        let deliver = self.trial.1.corrected();
        self.hostile
            .add_round(rows.context("the attackers")?, deliver);
        Ok(took)
    }
}
