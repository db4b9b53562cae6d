//! What the leader sees of its agents while they work, and what it keeps of them.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::lead::Hand;
use super::{Answer, Sign};
use crate::clock::{Clock, Micros};
use crate::control::{Stage, Status};
use crate::latency::Latency;
use crate::process::Usage;
use crate::record::{self, Recorder};
use crate::run::{AgentClock, AgentMoment, AgentPart, Moment, Observer, Raw, ServerUse};
use crate::target::{Sample, Target};

/// How often the agents are looked at if none says anything.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Agents tell how it goes once a second. Who has not by then is shown as it was.
const SHOW_EVERY: Micros = 2_000_000;

/// An answer, and whose it is: by the order of the command line.
pub(super) type Heard = (usize, Result<Answer>);

/// All agents of a run.
pub(super) struct Watch {
    agents: Vec<Agent>,
    clock: Clock,
    shown_at: Micros,
    /// Since the last moment shown.
    ack: Latency,
    deliver: Latency,
    beside: Beside,
}

/// One of them.
struct Agent {
    moment: AgentMoment,
    clock: AgentClock,
    start_late_us: u64,
    /// It gave a sign since the last moment shown.
    is_fresh: bool,
    done: Option<Raw>,
}

impl Watch {
    pub(super) fn new(hands: &[Hand], target: Target) -> Self {
        Self {
            agents: hands.iter().map(Agent::new).collect(),
            clock: Clock::start(),
            shown_at: 0,
            ack: Latency::new(),
            deliver: Latency::new(),
            beside: Beside::new(target),
        }
    }

    /// Watches until the last is done. An error names the agent that failed, ended or fell silent.
    pub(super) fn run(mut self, heard: &Receiver<Heard>, to: &mut dyn Observer) -> Result<Raw> {
        while self.agents.iter().any(|agent| agent.done.is_none()) {
            match heard.recv_timeout(LOOK_EVERY) {
                Ok((index, answer)) => {
                    let name = self.agents[index].moment.name.clone();
                    let taken = answer.and_then(|answer| self.take(index, answer));
                    taken.with_context(|| format!("agent {name}"))?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("all agents are gone"),
            }
            self.show(to)?;
        }
        Ok(self.finish())
    }

    fn take(&mut self, index: usize, answer: Answer) -> Result<()> {
        let agent = &mut self.agents[index];
        match answer {
            Answer::Begun { late_us } => agent.start_late_us = late_us,
            Answer::Alive => {}
            Answer::Sign(sign) => {
                self.ack.merge(&sign.ack);
                self.deliver.merge(&sign.deliver);
                agent.take(*sign);
            }
            Answer::Done(raw) => agent.finish(*raw),
            Answer::Failed(reason) => bail!("{reason}"),
            Answer::Ready { .. } | Answer::Clock { .. } => bail!("an answer to no question"),
        }
        Ok(())
    }

    /// Shows a moment once every agent that works has given a sign since the last.
    fn show(&mut self, to: &mut dyn Observer) -> Result<()> {
        let now = self.clock.now();
        let all = self
            .agents
            .iter()
            .all(|agent| agent.is_fresh || agent.done.is_some());
        let any = self.agents.iter().any(|agent| agent.is_fresh);
        if !any || !(all || now >= self.shown_at + SHOW_EVERY) {
            return Ok(());
        }
        self.shown_at = now;
        self.agents
            .iter_mut()
            .for_each(|agent| agent.is_fresh = false);
        let agents: Vec<AgentMoment> = self
            .agents
            .iter()
            .map(|agent| agent.moment.clone())
            .collect();
        let stage = self.stage();
        let moment = Moment {
            now,
            stage,
            status: Status::sum(agents.iter().map(|agent| &agent.status)),
            server: self.beside.look(now, stage),
            own: sum(agents.iter().filter_map(|agent| agent.own)),
            ack: &self.ack,
            deliver: &self.deliver,
            agents: &agents,
        };
        to.observe(&moment)?;
        self.ack.clear();
        self.deliver.clear();
        Ok(())
    }

    /// The stage of the first that still works; that of each is in its own row.
    fn stage(&self) -> Stage {
        let mut working = self.agents.iter().filter(|agent| agent.done.is_none());
        working
            .next()
            .map_or(Stage::Stopped, |agent| agent.moment.stage)
    }

    fn finish(self) -> Raw {
        let mut parts = Vec::new();
        let mut all: Option<Raw> = None;
        for agent in self.agents {
            let part = agent.into_part();
            all = Some(match all {
                None => part.raw.clone(),
                Some(all) => all.merged(&part.raw),
            });
            parts.push(part);
        }
        let mut all = all.expect("a run on agents has at least one");
        all = self.beside.add_to(all);
        all.agents = parts;
        all
    }
}

impl Agent {
    fn new(hand: &Hand) -> Self {
        Self {
            moment: AgentMoment {
                name: hand.name.clone(),
                sessions: hand.sessions,
                threads: hand.threads,
                now: 0,
                stage: Stage::Ramp,
                status: Status::default(),
                own: None,
            },
            clock: hand.clock,
            start_late_us: 0,
            is_fresh: false,
            done: None,
        }
    }

    fn take(&mut self, sign: Sign) {
        let moment = &mut self.moment;
        (moment.now, moment.stage, moment.own) = (sign.now, sign.stage, sign.own);
        moment.status = sign.status;
        self.is_fresh = true;
    }

    fn finish(&mut self, mut raw: Raw) {
        raw.findings.attribute(&self.moment.name);
        self.moment.stage = Stage::Stopped;
        self.moment.status = raw.status.clone();
        self.moment.status.active = 0;
        self.done = Some(raw);
    }

    fn into_part(self) -> AgentPart {
        AgentPart {
            name: self.moment.name,
            sessions: self.moment.sessions,
            clock: self.clock,
            start_late_us: self.start_late_us,
            raw: self.done.expect("the watch ends with the last"),
        }
    }
}

fn sum(usages: impl Iterator<Item = Usage>) -> Option<Usage> {
    usages.reduce(|a, b| Usage {
        rss_bytes: a.rss_bytes + b.rss_bytes,
        cpu: a.cpu + b.cpu,
    })
}

/// The server, if the leader runs beside it: an agent that does not can not see its process.
struct Beside {
    target: Target,
    server: ServerUse,
    recorder: Recorder,
}

impl Beside {
    fn new(mut target: Target) -> Self {
        let server = ServerUse {
            empty: target.sample(),
            ..ServerUse::default()
        };
        Self {
            target,
            server,
            recorder: Recorder::new(),
        }
    }

    fn look(&mut self, now: Micros, stage: Stage) -> Option<Sample> {
        let sample = self.target.sample();
        let server = &mut self.server;
        match stage {
            Stage::Hold if server.exchange_began.is_none() => server.held = sample,
            Stage::Exchange => {
                server.exchange_began = server.exchange_began.or(sample);
                server.exchange_ended = sample;
            }
            _ => {}
        }
        server.last = sample.or(server.last);
        if self.recorder.is_due(now) {
            self.recorder.add(record::Now {
                at: now,
                stage,
                status: Status::default(),
                server: sample,
                own: None,
            });
        }
        sample
    }

    /// What the leader saw, where no agent saw it.
    fn add_to(mut self, agents: Raw) -> Raw {
        self.server.restarts = self.target.restarts();
        let mut points = self.recorder.into_points();
        points.truncate(agents.points.len());
        let seen = Raw {
            server: self.server,
            points,
            started_unix_ms: agents.started_unix_ms,
            drained: true,
            ..Raw::default()
        };
        agents.merged(&seen)
    }
}
