//! A run from beginning to end: ramp, silence, exchange, drain.
//!
//! The conductor owns no session. It tells the workers what stage it is, watches them, and measures the
//! server between the stages.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::clock::{Clock, Micros};
use crate::control::{Command, Stage, Status};
use crate::crew::Crew;
use crate::findings::Findings;
use crate::latency::Latency;
use crate::plan::{Plan, Who};
use crate::process;
use crate::record::{self, Point, Recorder};
use crate::report::{Moment, Progress};
use crate::target::{Sample, Target};
use crate::worker::Latencies;

/// How often the workers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often latencies are taken from the workers, and the screen is drawn.
const RECORD_EVERY: Micros = 250_000;

/// Between the last session of the ramp and the measurement of the server's memory: what a handshake
/// needs and a session does not is gone by then.
const SETTLE: Micros = 2_000_000;

/// A ramp goes on as long as sessions are established; without any for so long it is over.
const RAMP_PATIENCE: Micros = 30_000_000;

/// An exchange may end so much late.
const EXCHANGE_GRACE: Micros = 60_000_000;

/// Nobody home: a run ends if no session at all is established in this time.
const FIRST_SESSION_TIMEOUT: Micros = 15_000_000;

/// So many refusals before the first success mean that the next ones will be refused too.
const REFUSALS_MAX: u32 = 10;

/// From the announcement of an exchange to its first message.
const LEAD: Micros = 100_000;

/// After everything has come: a message that comes twice does so within this.
const LINGER: Micros = 1_000_000;

/// What a run measured.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) status: Status,
    pub(crate) latencies: Latencies,
    pub(crate) findings: Findings,
    pub(crate) started_unix_ms: u64,
    /// From the first connection to the last Welcome of the ramp.
    pub(crate) ramp: Micros,
    pub(crate) exchange: Micros,
    pub(crate) drain: Micros,
    pub(crate) drained: bool,
    pub(crate) server: ServerUse,
    pub(crate) generator: GeneratorUse,
    pub(crate) points: Vec<Point>,
}

/// What the server used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ServerUse {
    pub(crate) empty: Option<Sample>,
    /// With all sessions open and silent.
    pub(crate) held: Option<Sample>,
    pub(crate) exchange_began: Option<Sample>,
    pub(crate) exchange_ended: Option<Sample>,
    pub(crate) last: Option<Sample>,
    pub(crate) sessions_held: u32,
    pub(crate) restarts: u32,
}

/// What this end used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct GeneratorUse {
    pub(crate) rss_bytes: u64,
    pub(crate) rss_bytes_empty: u64,
    /// With all sessions open and silent.
    pub(crate) rss_bytes_held: u64,
    pub(crate) cpu: Micros,
    /// Waiting for a CPU, all threads.
    pub(crate) waited: Micros,
    /// CPU of the busiest thread in the exchange, as a share of its time.
    pub(crate) busiest: f64,
}

/// Makes a run.
pub(crate) fn conduct(
    plan: &Arc<Plan>,
    target: &mut Target,
    progress: &mut Progress,
) -> Result<Raw> {
    let mut conductor = Conductor::start(plan, target, progress)?;
    match conductor.perform() {
        Ok(stages) => conductor.end(stages),
        Err(error) => {
            // Let the server's sessions go before the complaint is printed.
            let _ = conductor.crew.dismiss();
            Err(error)
        }
    }
}

struct Conductor<'a> {
    plan: Arc<Plan>,
    clock: Clock,
    target: &'a mut Target,
    progress: &'a mut Progress,
    crew: Crew,
    recorder: Recorder,
    server: ServerUse,
    own_empty: Option<process::Usage>,
    own_held: Option<process::Usage>,
    started_unix_ms: u64,
    busiest: f64,
    record_at: Micros,
}

/// How long the stages took.
struct Stages {
    ramp: Micros,
    exchange: Micros,
    drain: Micros,
    drained: bool,
}

impl<'a> Conductor<'a> {
    fn start(plan: &Arc<Plan>, target: &'a mut Target, progress: &'a mut Progress) -> Result<Self> {
        let empty = target.sample();
        let own_empty = process::usage(std::process::id());
        let clock = Clock::start();
        Ok(Self {
            plan: plan.clone(),
            clock,
            target,
            progress,
            crew: Crew::hire(plan, clock)?,
            recorder: Recorder::new(),
            server: ServerUse {
                empty,
                ..ServerUse::default()
            },
            own_empty,
            own_held: None,
            started_unix_ms: plan.counter_base,
            busiest: 0.0,
            record_at: 0,
        })
    }

    fn perform(&mut self) -> Result<Stages> {
        let ramp = self.ramp()?;
        self.hold()?;
        let exchange = self.exchange()?;
        let (drain, drained) = self.drain()?;
        Ok(Stages {
            ramp,
            exchange,
            drain,
            drained,
        })
    }

    fn ramp(&mut self) -> Result<Micros> {
        let began = self.clock.now();
        let ramp = f64::from(self.plan.topology.sessions()) / self.plan.ramp * 1e6;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive time"
        )]
        let planned = began + ramp as Micros;
        loop {
            let last = planned.max(self.sum().last_established_at);
            if self.watch(Stage::Ramp, last + RAMP_PATIENCE)? {
                break;
            }
            if self.clock.now() > self.sum().last_established_at + RAMP_PATIENCE {
                break;
            }
        }
        Ok(self.sum().last_established_at.saturating_sub(began))
    }

    fn hold(&mut self) -> Result<()> {
        self.crew.tell(Command::Hold);
        self.pass(Stage::Hold, SETTLE.max(self.plan.hold))?;
        self.server.held = self.target.sample();
        self.own_held = process::usage(std::process::id());
        self.server.sessions_held = self.sum().active;
        Ok(())
    }

    fn exchange(&mut self) -> Result<Micros> {
        let exchange = &self.plan.exchange;
        let (who, duration) = (exchange.who, exchange.duration);
        let from = self.clock.now() + LEAD;
        let until = from.saturating_add(duration);
        self.server.exchange_began = self.target.sample();
        let before: Vec<Micros> = self
            .crew
            .statuses()
            .iter()
            .map(|status| status.cpu)
            .collect();
        self.crew.tell(Command::Exchange { from, until });
        // A sample ends with its last message; whatever happens, not more than a minute late.
        let deadline = match who {
            Who::Anyone => until,
            Who::Sample(size) => from + sample_time(size, self.plan.exchange.rate),
        };
        self.watch(Stage::Exchange, deadline + EXCHANGE_GRACE)?;
        self.server.exchange_ended = self.target.sample();
        let took = self.clock.now() - from;
        let after = self.crew.statuses();
        self.busiest = before
            .iter()
            .zip(&after)
            .map(|(before, after)| ratio(after.cpu.saturating_sub(*before), took))
            .fold(0.0, f64::max);
        Ok(took)
    }

    fn drain(&mut self) -> Result<(Micros, bool)> {
        let began = self.clock.now();
        self.crew.tell(Command::Drain);
        let drained = self.watch(Stage::Drain, began + self.plan.drain_timeout)?;
        let took = self.clock.now() - began;
        self.pass(Stage::Drain, LINGER)?;
        self.server.last = self.target.sample();
        Ok((took, drained))
    }

    fn end(mut self, stages: Stages) -> Result<Raw> {
        let own = process::usage(std::process::id());
        let mut latencies = Latencies::new();
        let mut findings = Findings::new(self.plan.details_max);
        let mut statuses = Vec::new();
        for outcome in self.crew.dismiss()? {
            latencies.merge(&outcome.latencies);
            findings.merge(outcome.findings);
            statuses.push(outcome.status);
        }
        let status = Status::sum(&statuses);
        self.server.restarts = self.target.restarts();
        Ok(Raw {
            generator: GeneratorUse {
                rss_bytes: own.map_or(0, |own| own.rss_bytes),
                rss_bytes_empty: self.own_empty.map_or(0, |own| own.rss_bytes),
                rss_bytes_held: self.own_held.map_or(0, |own| own.rss_bytes),
                cpu: own.map_or(0, |own| own.cpu),
                waited: status.waited,
                busiest: self.busiest,
            },
            status,
            latencies,
            findings,
            started_unix_ms: self.started_unix_ms,
            ramp: stages.ramp,
            exchange: stages.exchange,
            drain: stages.drain,
            drained: stages.drained,
            server: self.server,
            points: self.recorder.into_points(),
        })
    }

    /// Waits until every worker has settled in `stage`; false if that took too long.
    fn watch(&mut self, stage: Stage, deadline: Micros) -> Result<bool> {
        loop {
            thread::sleep(LOOK_EVERY);
            let statuses = self.look(stage)?;
            if statuses
                .iter()
                .all(|status| status.stage == stage && status.settled)
            {
                return Ok(true);
            }
            if self.clock.now() > deadline {
                return Ok(false);
            }
            if stage == Stage::Ramp {
                self.check_hope(&Status::sum(&statuses))?;
            }
        }
    }

    /// Lets time pass.
    fn pass(&mut self, stage: Stage, time: Micros) -> Result<()> {
        let until = self.clock.now().saturating_add(time);
        while self.clock.now() < until {
            thread::sleep(LOOK_EVERY);
            self.look(stage)?;
        }
        Ok(())
    }

    /// Records and shows how it goes, and notices a worker that ended.
    fn look(&mut self, stage: Stage) -> Result<Vec<Status>> {
        self.crew.check()?;
        let statuses = self.crew.statuses();
        let now = self.clock.now();
        if now >= self.record_at {
            self.record_at = now + RECORD_EVERY;
            self.record(now, stage, Status::sum(&statuses));
        }
        Ok(statuses)
    }

    fn record(&mut self, now: Micros, stage: Stage, status: Status) {
        let (mut ack, mut deliver) = (Latency::new(), Latency::new());
        self.crew.visit(|view| {
            ack.merge(&view.ack);
            deliver.merge(&view.deliver);
            view.ack.clear();
            view.deliver.clear();
        });
        let server = self.target.sample();
        self.recorder.take(&ack, &deliver);
        if self.recorder.is_due(now) {
            self.recorder.add(record::Now {
                at: now,
                stage,
                status: status.clone(),
                server,
                own: process::usage(std::process::id()),
            });
        }
        self.progress.take(&Moment {
            now,
            stage,
            status,
            server,
            ack: &ack,
            deliver: &deliver,
        });
    }

    /// Ends a run that can not succeed, with the reasons.
    fn check_hope(&self, status: &Status) -> Result<()> {
        let all = self.plan.topology.sessions();
        let refused = status.gave_up >= REFUSALS_MAX.min(all);
        let nobody = self.clock.now() > FIRST_SESSION_TIMEOUT;
        if status.established > 0 || !(refused || nobody) {
            return Ok(());
        }
        let reasons: Vec<_> = status
            .closes
            .iter()
            .map(|(reason, count)| format!("{reason} ({count} times)"))
            .collect();
        let reasons = if reasons.is_empty() {
            "no answer".into()
        } else {
            reasons.join(", ")
        };
        bail!(
            "no session could be established with {}: {reasons}",
            self.plan.target
        );
    }

    fn sum(&self) -> Status {
        Status::sum(&self.crew.statuses())
    }
}

/// How long a sample of this size takes.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive time"
)]
fn sample_time(size: u32, rate: f64) -> Micros {
    (f64::from(size) / rate * 1e6) as Micros
}

#[allow(clippy::cast_precision_loss, reason = "times of a run")]
fn ratio(part: Micros, whole: Micros) -> f64 {
    part as f64 / whole.max(1) as f64
}
