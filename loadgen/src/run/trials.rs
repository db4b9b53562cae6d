//! The trials of a search: rate after rate on the same sessions.

use anyhow::Result;

use super::Conductor;
use crate::assertion::Assertion;
use crate::clock::Micros;
use crate::control::{Stage, Status};
use crate::latency::Latency;
use crate::plan::Exchange;
use crate::report;
use crate::search::{self, GENERATOR, Measured, Trial};

impl Conductor<'_> {
    /// Tries rate after rate on the same sessions.
    pub(super) fn find_max(
        &mut self,
        step: usize,
        exchange: &Exchange,
        limits: &[Assertion],
    ) -> Result<Micros> {
        let start = exchange.rate.peak();
        let mut took = 0;
        while let Some(rate) = self.search.next(start) {
            let before = self.sum();
            let busy_before = self.busiest;
            (self.busiest, self.trial) = (0.0, (Latency::new(), Latency::new()));
            let time = self.exchange(step, exchange, rate / start)?;
            took += time;
            // What a rate too high has left behind must not burden the next.
            let (_, drained) = self.drain()?;
            let trial = self.judge(rate, &before, drained, limits)?;
            self.observer.remark(&trial_line(&trial));
            self.search.add(trial);
            self.busiest = self.busiest.max(busy_before);
        }
        Ok(took)
    }

    fn judge(
        &mut self,
        rate: f64,
        before: &Status,
        drained: bool,
        limits: &[Assertion],
    ) -> Result<Trial> {
        let (now, sum) = (self.clock.now(), self.sum());
        self.record(now, Stage::Drain, sum.clone())?;
        let (ack, deliver) = &self.trial;
        let sent = sum.tally.sent - before.tally.sent;
        let late = sum.late_sends - before.late_sends;
        let measured = Measured {
            latency_ms: search::Latencies {
                ack: ack.corrected(),
                deliver: deliver.corrected(),
            },
            latency_uncorrected_ms: search::Latencies {
                ack: ack.uncorrected(),
                deliver: deliver.uncorrected(),
            },
            generator: search::Generator {
                late_sends: late,
                busiest_thread: self.busiest,
            },
            sessions: search::Sessions {
                disconnected: sum.disconnected - before.disconnected,
            },
        };
        let broke = if report::is_saturated(late, sent, self.busiest) {
            Some(GENERATOR.into())
        } else if !drained {
            Some("everything arrives within --drain-timeout".into())
        } else {
            measured.breaks(limits)
        };
        Ok(Trial {
            rate,
            broke,
            ack_ms: measured.latency_ms.ack,
            deliver_ms: measured.latency_ms.deliver,
        })
    }
}

fn trial_line(trial: &Trial) -> String {
    let (ack, deliver) = (trial.ack_ms.p99, trial.deliver_ms.p99);
    let verdict = trial.broke.as_deref().unwrap_or("kept");
    format!(
        "  {:.0}/s: ack p99 {ack:.2} ms, deliver p99 {deliver:.2} ms: {verdict}",
        trial.rate
    )
}
