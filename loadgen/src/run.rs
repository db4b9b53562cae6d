//! A run from beginning to end: ramp, silence, exchange, drain.
//!
//! The conductor owns no session. It tells the workers what stage it is, watches them, and measures the
//! server between the stages.

mod observer;
mod raw;
mod rounds;
mod steps;
mod trials;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::clock::{Clock, Micros};
use crate::control::{Command, Stage, Status};
use crate::crew::Crew;
use crate::edge::Edge;
use crate::findings::{Findings, Kind};
use crate::hostile;
use crate::interrupt::{self, Interrupted};
use crate::latency::Latency;
use crate::plan::{Plan, Step};
use crate::process;
use crate::profile::to_micros;
use crate::record::{self, Recorder};
use crate::search::Search;
use crate::target::Target;
use crate::worker::Latencies;

pub(crate) use observer::{AgentMoment, Moment, Observer};
pub(crate) use raw::{AgentClock, AgentPart, GeneratorUse, Raw, ServerUse};

/// How often the workers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often latencies are taken from the workers, and the screen is drawn.
const RECORD_EVERY: Micros = 250_000;

/// Between the last session of the ramp and the measurement of the server's memory: what a handshake
/// needs and a session does not is gone by then.
const SETTLE: Micros = 2_000_000;

/// A ramp goes on as long as sessions are established; without any for so long it is over.
const RAMP_PATIENCE: Micros = 30_000_000;

/// Nobody home: a run ends if no session at all is established in this time.
const FIRST_SESSION_TIMEOUT: Micros = 15_000_000;

/// So many refusals before the first success mean that the next ones will be refused too.
const REFUSALS_MAX: u32 = 10;

/// After an interruption: what is under way has so long to arrive.
const DRAIN_INTERRUPTED: Micros = 3_000_000;

/// After everything has come: a message that comes twice does so within this.
const LINGER: Micros = 1_000_000;

/// Makes a run.
pub(crate) fn conduct(
    plan: &Arc<Plan>,
    target: &mut Target,
    observer: &mut dyn Observer,
    edge: Option<&mut Edge>,
) -> Result<Raw> {
    let mut conductor = Conductor::start(plan, target, observer, edge)?;
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
    observer: &'a mut dyn Observer,
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
    /// What attackers did and felt.
    hostile: hostile::Table,
    /// A signal came, and the run is on its way out.
    interrupted: bool,
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
        observer: &'a mut dyn Observer,
        edge: Option<&'a mut Edge>,
    ) -> Result<Self> {
        let empty = target.sample();
        let own_empty = process::usage(std::process::id());
        let clock = Clock::start();
        Ok(Self {
            plan: plan.clone(),
            clock,
            target,
            observer,
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
            hostile: hostile::Table::default(),
            interrupted: false,
        })
    }

    fn perform(&mut self) -> Result<Stages> {
        let mut stages = Stages::default();
        match self.play(&mut stages) {
            Err(error) if error.is::<Interrupted>() => self.interrupted = true,
            played => played?,
        }
        (stages.drain, stages.drained) = self.drain()?;
        Ok(stages)
    }

    /// All stages but the last.
    fn play(&mut self, stages: &mut Stages) -> Result<()> {
        stages.ramp = self.ramp()?;
        self.settle()?;
        let plan = self.plan.clone();
        for (number, step) in plan.steps.iter().enumerate() {
            match step {
                Step::Hold(time) => self.hold(*time)?,
                Step::Exchange(exchange) => {
                    stages.exchange += match &plan.campaign {
                        Some(campaign) => self.round(number, exchange, campaign)?,
                        None => self.exchange(number, exchange, 1.0)?,
                    }
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
        Ok(())
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
        // Each has given up: there is nothing to measure.
        if self.sum().established == 0 {
            return Err(self.hopeless(&self.sum()));
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

    fn drain(&mut self) -> Result<(Micros, bool)> {
        let began = self.clock.now();
        self.crew.tell(Command::Drain);
        let patience = match self.interrupted {
            true => DRAIN_INTERRUPTED.min(self.plan.drain_timeout),
            false => self.plan.drain_timeout,
        };
        let drained = self.watch(Stage::Drain, began + patience)?;
        let took = self.clock.now() - began;
        if !self.interrupted {
            self.pass(Stage::Drain, LINGER)?;
        }
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
            findings.merge(&outcome.findings);
            statuses.push(outcome.status);
        }
        for row in self.hostile.not_refused() {
            let what = format_args!(
                "{}: {} tried, {} stood still",
                row.kind, row.attempts, row.counter
            );
            findings.add(Kind::NotRefused, what);
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
            hostile: self.plan.campaign.is_some().then_some(self.hostile),
            interrupted: self.interrupted,
            agents: Vec::new(),
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
        if !self.interrupted {
            interrupt::check()?;
        }
        let statuses = self.crew.statuses();
        let now = self.clock.now();
        if now >= self.record_at {
            self.record_at = now + RECORD_EVERY;
            self.record(now, stage, Status::sum(&statuses))?;
        }
        Ok(statuses)
    }

    fn record(&mut self, now: Micros, stage: Stage, status: Status) -> Result<()> {
        let (mut ack, mut deliver) = (Latency::new(), Latency::new());
        self.crew.visit(|view| {
            ack.merge(&view.ack);
            deliver.merge(&view.deliver);
            view.ack.clear();
            view.deliver.clear();
        });
        let server = self.target.sample();
        let own = process::usage(std::process::id());
        self.recorder.take(&ack, &deliver);
        self.trial.0.merge(&ack);
        self.trial.1.merge(&deliver);
        if self.recorder.is_due(now) {
            self.recorder.add(record::Now {
                at: now,
                stage,
                status: status.clone(),
                server,
                own,
            });
        }
        self.observer.observe(&Moment {
            now,
            stage,
            status,
            server,
            own,
            ack: &ack,
            deliver: &deliver,
            agents: &[],
        })
    }

    /// Ends a run that can not succeed, with the reasons.
    fn check_hope(&self, status: &Status) -> Result<()> {
        let all = self.plan.topology.sessions();
        let refused = status.gave_up >= REFUSALS_MAX.min(all);
        let nobody = self.clock.now() > FIRST_SESSION_TIMEOUT;
        if status.established > 0 || !(refused || nobody) {
            return Ok(());
        }
        Err(self.hopeless(status))
    }

    /// Why nobody was let in.
    fn hopeless(&self, status: &Status) -> anyhow::Error {
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
        anyhow!(
            "no session could be established with {}: {reasons}",
            self.plan.target
        )
    }

    fn sum(&self) -> Status {
        Status::sum(&self.crew.statuses())
    }
}
