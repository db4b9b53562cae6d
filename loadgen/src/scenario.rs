//! The scenarios: from a command line to a report.

mod chat;
mod churn;
mod day;
mod demo;
mod drain;
mod fanout;
mod file;
mod hold;
mod hostile;
mod memory;
mod posts;
mod rebind;
mod resolve;
mod storm;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use crate::agent::{self, Papers, Part};
use crate::cli::{Cli, Command, Load, Server};
use crate::clock::{Micros, micros};
use crate::edge::Edge;
use crate::findings::Kind;
use crate::hostile::Attacks;
use crate::interrupt;
use crate::out;
use crate::plan::{Exchange, Plan, Step, Who};
use crate::profile::Profile;
use crate::report::{self, Progress, Report, Verdict};
use crate::run::{self, Observer, Raw};
use crate::target::Target;

/// Carries out what the command line says.
pub(crate) fn run(cli: &Cli) -> Result<Report> {
    let arguments: Vec<String> = std::env::args().collect();
    let text = match &cli.command {
        Command::Run(run) => Some(file::read(&run.file)?),
        _ => None,
    };
    let mut scene = scene(cli, &arguments, text.as_deref())?;
    interrupt::catch().context("signals")?;
    scene.check()?;
    report::check_files(&scene.load)?;
    if scene.load.agents.is_empty() {
        scene.check_memory()?;
    }
    let edge = scene.start_edge()?;
    let prepared = scene.prepare(Given::default(), edge)?;
    Report::check_limits(&prepared.plan, &prepared.load)?;
    let raw = match prepared.load.agents.is_empty() {
        true => make_here(&prepared)?,
        false => {
            let papers = papers(&prepared, arguments, text)?;
            agent::lead(&prepared.load, &papers, prepared.target())?
        }
    };
    let Prepared {
        name, plan, load, ..
    } = prepared;
    let report = Report::new(&name, &plan, &load, &raw);
    if !load.quiet {
        let table = report::table(&report);
        match report::takes_standard_output(&load) {
            true => out::note(table),
            false => out::line(table),
        }
    } else if report.verdict != Verdict::Pass {
        out::note(format_args!("loadgen: {}", report::verdict(&report)));
    }
    report::write(&report, &load)?;
    Ok(report)
}

/// What another process has decided about this one's run.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) part: Option<Part>,
    /// PEM, instead of the files that the command line names.
    pub(crate) roots: Option<Vec<u8>>,
    pub(crate) token_key: Option<Vec<u8>>,
}

/// A run that can begin.
#[derive(Debug)]
pub(crate) struct Prepared {
    name: String,
    server: Server,
    load: Load,
    plan: Arc<Plan>,
    edge: Mutex<Option<Edge>>,
}

/// Prepares a part of the run that a leader's command line describes.
pub(crate) fn prepare(arguments: &[String], text: Option<&str>, given: Given) -> Result<Prepared> {
    let cli = Cli::try_parse_from(arguments)?;
    let mut scene = scene(&cli, arguments, text)?;
    scene.check()?;
    ensure!(
        !scene.server.start_edge,
        "agents need a server that all of them reach, and this run starts its own"
    );
    ensure!(
        !scene.load.find_max,
        "--find-max is for one machine: agents would search each for itself"
    );
    scene.load.quiet = true;
    if let Some(part) = given.part {
        scene.take_part(part);
    }
    scene.check_memory()?;
    scene.prepare(given, None)
}

impl Prepared {
    pub(crate) fn sessions(&self) -> u32 {
        self.plan.topology.sessions()
    }

    pub(crate) fn threads(&self) -> u16 {
        self.plan.threads()
    }

    /// The server under load, if it is on this machine.
    fn target(&self) -> Target {
        let server = &self.server;
        Target::new(server.target, server.target_pid, server.admin)
    }
}

/// Makes a run on this machine, and shows how it goes.
fn make_here(prepared: &Prepared) -> Result<Raw> {
    let quiet = prepared.load.quiet;
    let mut progress = Progress::new(quiet, prepared.sessions(), prepared.threads(), 0);
    let raw = make(prepared, &mut progress);
    progress.finish();
    raw
}

/// Makes a run.
pub(crate) fn make(prepared: &Prepared, observer: &mut dyn Observer) -> Result<Raw> {
    let mut edge = prepared
        .edge
        .lock()
        .expect("nobody panics holding it")
        .take();
    let mut target = prepared.target();
    let mut raw = run::conduct(&prepared.plan, &mut target, observer, edge.as_mut())?;
    if let Some(Err(error)) = edge.map(Edge::stop) {
        raw.findings.add(Kind::EdgeExit, format_args!("{error:#}"));
    }
    Ok(raw)
}

fn papers(prepared: &Prepared, arguments: Vec<String>, text: Option<String>) -> Result<Papers> {
    Ok(Papers {
        arguments,
        scenario: text,
        roots: prepared.plan.roots.clone(),
        token_key: resolve::token_key(&prepared.server)?,
    })
}

fn scene(cli: &Cli, arguments: &[String], text: Option<&str>) -> Result<Scene> {
    match &cli.command {
        Command::Hold(remote) => hold::scene(remote),
        Command::Chat(remote) => chat::scene(remote),
        Command::Day(day) => day::scene(day),
        Command::Fanout(fanout) => fanout::scene(fanout),
        Command::Churn(churn) => churn::scene(churn),
        Command::Storm(storm) => storm::scene(storm),
        Command::Rebind(rebind) => rebind::scene(rebind),
        Command::Drain(drain) => drain::scene(drain),
        Command::Hostile(hostile) => hostile::scene(hostile),
        Command::Run(_) => file::scene(text.context("no scenario file")?, arguments),
        Command::Demo(demo) => demo::scene(demo),
        Command::Agent(_) => bail!("an agent makes no run of its own"),
    }
}

/// A scenario with what the command line says of it.
#[derive(Debug)]
struct Scene {
    shape: Shape,
    server: Server,
    load: Load,
    /// Attacks, and the time after which an honest message is late.
    campaign: Option<(Attacks, Micros)>,
}

impl Scene {
    fn new(shape: Shape, server: &Server, load: &Load) -> Self {
        Self {
            shape,
            server: server.clone(),
            load: load.clone(),
            campaign: None,
        }
    }

    /// An error if the run could only fail, or would not do what was asked.
    fn check(&self) -> Result<()> {
        let (steps, load) = (&self.shape.steps, &self.load);
        let is_search = |step: &Step| matches!(step, Step::FindMax { .. });
        ensure!(
            !load.find_max || steps.iter().any(is_search),
            "--find-max is for chat: {} does what it does at one rate",
            self.shape.name
        );
        let users = u64::from(self.shape.sessions / load.devices.max(1));
        ensure!(
            load.users_from.checked_add(users).is_some(),
            "--users-from {}: there are no {users} ids of users from there on",
            load.users_from
        );
        let is_restart = |step: &Step| matches!(step, Step::Restart { .. });
        ensure!(
            self.server.start_edge || !steps.iter().any(is_restart),
            "a restart is one of an edge of its own: --start-edge"
        );
        Ok(())
    }

    /// An error if this host can not hold the sessions; a remark if it hardly can.
    fn check_memory(&self) -> Result<()> {
        let need = memory::Need::of(self.shape.sessions, &self.load, self.server.start_edge);
        if let Some(doubt) = need.check()? {
            out::note(doubt);
        }
        Ok(())
    }

    /// Starts the edge of a run that has its own.
    fn start_edge(&mut self) -> Result<Option<Edge>> {
        let (server, load) = (&mut self.server, &self.load);
        if !server.start_edge {
            return Ok(None);
        }
        let edge = Edge::start(&server.own, load.quic_engine)?;
        if !load.quiet {
            out::note(format_args!("edge {} at {}", edge.pid(), edge.listen()));
        }
        server.target = edge.listen();
        server.data = Some(edge.data().into());
        server.admin = Some(edge.admin());
        server.target_pid = Some(edge.pid());
        server.quic_engine = Some(load.quic_engine);
        Ok(Some(edge))
    }

    /// Takes a part of everything: sessions in whole circles, users of its own, a share of each rate.
    fn take_part(&mut self, part: Part) {
        let (shape, load) = (&mut self.shape, &mut self.load);
        let lot = load.circle.max(shape.circle) * load.devices.max(1);
        let before = part.before(shape.sessions, lot) / load.devices.max(1);
        load.users_from += u64::from(before);
        shape.sessions = part.of(shape.sessions, lot);
        shape.control = part.of(shape.control, lot);
        load.quinn_clients = part.of(load.quinn_clients, 1);
        load.ramp = load.ramp.scaled(part.share());
        for step in &mut shape.steps {
            match step {
                Step::Exchange(exchange) | Step::FindMax { exchange, .. } => {
                    exchange.rate = exchange.rate.scaled(part.share());
                    if let Who::Sample(users) = &mut exchange.who {
                        *users = part.of(*users, 1);
                    }
                }
                Step::Storm { control_rate, .. } => *control_rate *= part.share(),
                Step::Hold(_) | Step::Rebind(_) | Step::Restart { .. } => {}
            }
        }
    }

    fn prepare(self, given: Given, edge: Option<Edge>) -> Result<Prepared> {
        let plan = Arc::new(resolve::plan(&self, given)?);
        Ok(Prepared {
            name: self.shape.name,
            server: self.server,
            load: self.load,
            plan,
            edge: Mutex::new(edge),
        })
    }
}

/// What a scenario decides; everything else comes from the command line.
#[derive(Debug)]
struct Shape {
    name: String,
    sessions: u32,
    steps: Vec<Step>,
    /// Sessions of a control group.
    control: u32,
    /// Users who chat with each other at least.
    circle: u32,
    cuts_fail: bool,
    silence: bool,
}

impl Shape {
    fn new(name: impl Into<String>, sessions: u32, steps: Vec<Step>) -> Self {
        Self {
            name: name.into(),
            sessions,
            steps,
            control: 0,
            circle: 2,
            cuts_fail: true,
            silence: false,
        }
    }
}

/// Messages as the command line has them, at this rate if it names none.
fn exchange(load: &Load, who: Who, rate: f64, duration: f64) -> Exchange {
    Exchange {
        rate: load.rate.clone().unwrap_or(Profile::constant(rate)),
        arrivals: load.arrivals,
        duration: from_seconds(load.duration.unwrap_or(duration)),
        who,
        offline_fraction: load.offline_fraction.unwrap_or(0.0),
        churn: 0.0,
        think: 0,
        victim: None,
    }
}

/// A message to each user of the sample, however long that takes.
fn sample(load: &Load) -> Exchange {
    // A sample takes about a minute, and a small one a moment.
    let rate = (f64::from(load.sample) / 60.0).max(1_000.0);
    Exchange {
        duration: from_seconds(f64::MAX),
        offline_fraction: 0.0,
        ..exchange(load, Who::Sample(load.sample), rate, 0.0)
    }
}

fn from_seconds(seconds: f64) -> Micros {
    // A century is for ever, and far from what overflows a time.
    micros(Duration::from_secs_f64(seconds.min(3e9)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_run_share_no_user_and_no_rate() {
        let scene = |index| {
            let line = "loadgen storm --sessions 1000 --devices 2 --users-from 5 --quinn-clients 10 \
                        --ramp 300 --sample 90 --control 99";
            let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let cli = Cli::parse_from(&arguments);
            let mut scene = scene(&cli, &arguments, None).expect("good");
            scene.take_part(Part { index, parts: 3 });
            scene
        };
        let all = [scene(0), scene(1), scene(2)];
        let sessions: Vec<_> = all.iter().map(|s| s.shape.sessions).collect();
        assert_eq!(sessions, [328, 336, 336]);
        let users: Vec<_> = all.iter().map(|s| s.load.users_from).collect();
        assert_eq!(users, [5, 5 + 164, 5 + 332]);
        assert_eq!(all.iter().map(|s| s.load.quinn_clients).sum::<u32>(), 10);
        assert_eq!(all.iter().map(|s| s.shape.control).sum::<u32>(), 99);
        assert_eq!(all[0].load.ramp.to_string(), "100");
        let Step::Exchange(sample) = &all[1].shape.steps[2] else {
            panic!("a sample");
        };
        assert_eq!(sample.who, Who::Sample(30));
    }

    #[test]
    fn seconds_are_microseconds() {
        assert_eq!(from_seconds(1.5), 1_500_000);
        assert!(from_seconds(f64::MAX) > 1_000_000_000_000);
    }
}
