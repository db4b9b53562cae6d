//! A run from beginning to end: ramp, silence, exchange, drain.
//!
//! The conductor owns no session. It tells the workers what stage it is, watches them, and measures the
//! server between the stages.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::assertion::Assertion;
use crate::clock::{Clock, Micros};
use crate::control::{Command, Stage, Status};
use crate::crew::Crew;
use crate::edge::{self, Edge};
use crate::findings::Findings;
use crate::latency::Latency;
use crate::plan::{Exchange, Plan, Step, Who};
use crate::process;
use crate::profile::to_micros;
use crate::record::{self, Point, Recorder};
use crate::report::{self, Moment, Progress};
use crate::search::{self, GENERATOR, Measured, Search, Trial};
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

/// Beside the time that was planned: asking every session of millions takes as long.
const REBIND_GRACE: Micros = 600_000_000;

/// Nobody home: a run ends if no session at all is established in this time.
const FIRST_SESSION_TIMEOUT: Micros = 15_000_000;

/// So many refusals before the first success mean that the next ones will be refused too.
const REFUSALS_MAX: u32 = 10;

/// From the announcement of an exchange to its first message.
const LEAD: Micros = 100_000;

/// After everything has come: a message that comes twice does so within this.
const LINGER: Micros = 1_000_000;

/// What a run measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Raw {
    pub(crate) status: Status,
    pub(crate) latencies: Latencies,
    /// Of the control group of a storm, handshakes among them.
    pub(crate) control: Latencies,
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
    /// Of --find-max.
    pub(crate) search: Option<Search>,
    /// Threads and sockets of this end.
    pub(crate) threads: u32,
    pub(crate) sockets: u32,
}

impl Raw {
    /// This part of a run and another one, which ran at the same time on another machine.
    pub(crate) fn merged(mut self, other: Self) -> Self {
        self.latencies.merge(&other.latencies);
        self.control.merge(&other.control);
        self.findings.merge(other.findings);
        self.status.add(&other.status);
        self.points = record::side_by_side(&self.points, &other.points);
        self.server = self.server.merged(&other.server);
        let (own, their) = (&mut self.generator, &other.generator);
        own.rss_bytes += their.rss_bytes;
        own.rss_bytes_empty += their.rss_bytes_empty;
        own.rss_bytes_held += their.rss_bytes_held;
        own.cpu += their.cpu;
        own.waited += their.waited;
        own.busiest = own.busiest.max(their.busiest);
        Self {
            started_unix_ms: self.started_unix_ms.min(other.started_unix_ms),
            ramp: self.ramp.max(other.ramp),
            exchange: self.exchange.max(other.exchange),
            drain: self.drain.max(other.drain),
            drained: self.drained && other.drained,
            threads: self.threads + other.threads,
            sockets: self.sockets + other.sockets,
            // Each part searches for itself: there is no one rate.
            search: None,
            ..self
        }
    }
}

impl ServerUse {
    /// One server, seen from two ends: by whoever runs beside it.
    fn merged(self, other: &Self) -> Self {
        Self {
            empty: self.empty.or(other.empty),
            held: self.held.or(other.held),
            exchange_began: self.exchange_began.or(other.exchange_began),
            exchange_ended: self.exchange_ended.or(other.exchange_ended),
            last: self.last.or(other.last),
            sessions_held: self.sessions_held + other.sessions_held,
            restarts: self.restarts.max(other.restarts),
        }
    }
}

/// What the server used.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
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
    edge: Option<&mut Edge>,
) -> Result<Raw> {
    let mut conductor = Conductor::start(plan, target, progress, edge)?;
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
    /// If this end started it.
    edge: Option<&'a mut Edge>,
    /// The silence that comes before everything else is over.
    has_held: bool,
    /// Latencies of the present trial of a search: ack and delivery.
    trial: (Latency, Latency),
    search: Search,
}

/// How long the stages took.
#[derive(Default)]
struct Stages {
    ramp: Micros,
    exchange: Micros,
    drain: Micros,
    drained: bool,
}

impl<'a> Conductor<'a> {
    fn start(
        plan: &Arc<Plan>,
        target: &'a mut Target,
        progress: &'a mut Progress,
        edge: Option<&'a mut Edge>,
    ) -> Result<Self> {
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
            edge,
            has_held: false,
            trial: (Latency::new(), Latency::new()),
            search: Search::default(),
        })
    }

    fn perform(&mut self) -> Result<Stages> {
        let mut stages = Stages {
            ramp: self.ramp()?,
            ..Stages::default()
        };
        self.settle()?;
        for (number, step) in self.plan.clone().steps.iter().enumerate() {
            match step {
                Step::Hold(time) => self.hold(*time)?,
                Step::Exchange(exchange) => {
                    stages.exchange += self.exchange(number, exchange, 1.0)?
                }
                Step::FindMax { exchange, limits } => {
                    stages.exchange += self.find_max(number, exchange, limits)?;
                }
                Step::Storm {
                    spread,
                    control_rate,
                    patience,
                } => self.storm(*spread, *control_rate, *patience)?,
                Step::Rebind(over) => self.rebind(*over)?,
                Step::Restart { patience } => self.restart(*patience)?,
            }
        }
        (stages.drain, stages.drained) = self.drain()?;
        Ok(stages)
    }

    fn ramp(&mut self) -> Result<Micros> {
        let began = self.clock.now();
        let sessions = f64::from(self.plan.topology.sessions());
        let planned = began.saturating_add(to_micros(self.plan.ramp.time_of(sessions)));
        loop {
            let last = planned.max(self.sum().last_established_at);
            if self.watch(Stage::Ramp, last.saturating_add(RAMP_PATIENCE))? {
                break;
            }
            if self.clock.now() > self.sum().last_established_at + RAMP_PATIENCE {
                break;
            }
        }
        Ok(self.sum().last_established_at.saturating_sub(began))
    }

    /// Measures what the sessions cost, once what only handshakes need is gone.
    fn settle(&mut self) -> Result<()> {
        let first = self.plan.steps.first();
        let silence = match first {
            Some(Step::Hold(time)) => *time,
            _ => 0,
        };
        self.has_held = !matches!(first, Some(Step::Hold(_)));
        self.crew.tell(Command::Hold);
        self.pass(Stage::Hold, SETTLE.max(silence))?;
        self.server.held = self.target.sample();
        self.own_held = process::usage(std::process::id());
        self.server.sessions_held = self.sum().active;
        Ok(())
    }

    /// The first silence has passed in [`Conductor::settle`].
    fn hold(&mut self, time: Micros) -> Result<()> {
        if self.has_held {
            self.crew.tell(Command::Hold);
            self.pass(Stage::Hold, time)?;
        }
        self.has_held = true;
        Ok(())
    }

    /// Tries rate after rate on the same sessions.
    fn find_max(
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
            let trial = self.judge(rate, &before, drained, limits);
            self.progress.remark(&trial_line(&trial));
            self.search.add(trial);
            self.busiest = self.busiest.max(busy_before);
        }
        Ok(took)
    }

    fn judge(&mut self, rate: f64, before: &Status, drained: bool, limits: &[Assertion]) -> Trial {
        let (now, sum) = (self.clock.now(), self.sum());
        self.record(now, Stage::Drain, sum.clone());
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
        Trial {
            rate,
            broke,
            ack_ms: measured.latency_ms.ack,
            deliver_ms: measured.latency_ms.deliver,
        }
    }

    fn exchange(&mut self, step: usize, exchange: &Exchange, scale: f64) -> Result<Micros> {
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

    fn cpu(&self) -> Vec<Micros> {
        let statuses = self.crew.statuses();
        statuses.iter().map(|status| status.cpu).collect()
    }

    /// The share of its time that the busiest thread worked.
    fn busiest_since(&self, before: &[Micros], took: Micros) -> f64 {
        let pairs = before.iter().zip(self.cpu());
        pairs
            .map(|(before, after)| ratio(after.saturating_sub(*before), took))
            .fold(0.0, f64::max)
    }

    fn storm(&mut self, spread: Micros, control_rate: f64, patience: Micros) -> Result<()> {
        self.crew.tell(Command::Cut {
            spread,
            control_rate,
        });
        let deadline = self.clock.now() + spread.saturating_add(patience);
        self.watch(Stage::Storm, deadline)?;
        self.crew.tell(Command::Hold);
        Ok(())
    }

    fn rebind(&mut self, over: Micros) -> Result<()> {
        self.crew.tell(Command::Rebind { over });
        let deadline = self.clock.now() + over.saturating_add(REBIND_GRACE);
        self.watch(Stage::Rebind, deadline)?;
        // Packets lost with the old ports are sent again within this.
        self.crew.tell(Command::Hold);
        self.pass(Stage::Hold, SETTLE)
    }

    fn restart(&mut self, patience: Micros) -> Result<()> {
        self.crew.tell(Command::Restart);
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
        let (mut latencies, mut control) = (Latencies::new(), Latencies::new());
        let mut findings = Findings::new(self.plan.details_max);
        let mut statuses = Vec::new();
        for outcome in self.crew.dismiss()? {
            match outcome.control {
                true => control.merge(&outcome.latencies),
                false => latencies.merge(&outcome.latencies),
            }
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
            control,
            findings,
            started_unix_ms: self.started_unix_ms,
            ramp: stages.ramp,
            exchange: stages.exchange,
            drain: stages.drain,
            drained: stages.drained,
            server: self.server,
            points: self.recorder.into_points(),
            threads: self.plan.threads().into(),
            sockets: self.plan.sockets(),
            search: Some(self.search).filter(|search| !search.trials.is_empty()),
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
        self.trial.0.merge(&ack);
        self.trial.1.merge(&deliver);
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

fn trial_line(trial: &Trial) -> String {
    let (ack, deliver) = (trial.ack_ms.p99, trial.deliver_ms.p99);
    let verdict = trial.broke.as_deref().unwrap_or("kept");
    format!(
        "  {:.0}/s: ack p99 {ack:.2} ms, deliver p99 {deliver:.2} ms: {verdict}",
        trial.rate
    )
}

#[allow(clippy::cast_precision_loss, reason = "times of a run")]
fn ratio(part: Micros, whole: Micros) -> f64 {
    part as f64 / whole.max(1) as f64
}
