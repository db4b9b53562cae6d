//! `loadgen agent`: makes parts of runs for whoever has the token, one at a time.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender as Stop, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use super::link::{self, End, Receiver, SILENCE_MAX, Sender, TOKEN_BYTES_MIN};
use super::{Answer, Job, Order, Sign};
use crate::cli::Agent;
use crate::clock::Micros;
use crate::latency::Latency;
use crate::run::{Moment, Observer};
use crate::scenario::Prepared;
use crate::{out, scenario};

/// Between two signs of life of a process that has nothing else to tell: closing millions of sessions takes
/// a minute.
const ALIVE_EVERY: Duration = Duration::from_secs(4);

/// Between two accounts of how the run goes.
const SIGN_EVERY: Micros = 1_000_000;

/// From being ready to the start: the leader waits for the slowest agent, which may have to read keys from
/// a slow disk, but not for long. A leader that is gone must not keep an agent from the next one.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// Serves for ever.
pub(crate) fn serve(agent: &Agent) -> Result<()> {
    let token = read_token(&agent.token_file)?;
    let listener = TcpListener::bind(agent.listen)
        .with_context(|| format!("listening on {}", agent.listen))?;
    out::line(format_args!(
        "loadgen agent ready listen={}",
        listener.local_addr()?
    ));
    for stream in listener.incoming() {
        let stream = stream?;
        let peer = stream.peer_addr();
        if let Err(error) = serve_one(stream, &token) {
            let peer = peer.map_or("somebody".into(), |peer| peer.to_string());
            out::note(format_args!("loadgen agent: {peer}: {error:#}"));
        }
    }
    Ok(())
}

/// The secret that leader and agents share.
pub(super) fn read_token(path: &Path) -> Result<Vec<u8>> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let token = text.trim_ascii().to_vec();
    ensure!(
        token.len() >= TOKEN_BYTES_MIN,
        "the token in {} has fewer than {TOKEN_BYTES_MIN} bytes",
        path.display()
    );
    Ok(token)
}

fn serve_one(stream: TcpStream, token: &[u8]) -> Result<()> {
    let (sender, mut receiver) = link::open(stream, token, End::Agent, SILENCE_MAX)?;
    let line = Line(Arc::new(Mutex::new(sender)));
    let Order::Job(job) = receiver.receive()? else {
        bail!("no job");
    };
    let prepared = match scenario::prepare(&job.arguments, job.scenario.as_deref(), keys(&job)) {
        Ok(prepared) => prepared,
        Err(error) => return line.say(&Answer::Failed(format!("{error:#}"))),
    };
    line.say(&Answer::Ready {
        sessions: prepared.sessions(),
        threads: prepared.threads(),
    })?;
    let late_us = wait_for_start(&line, &mut receiver)?;
    line.say(&Answer::Begun { late_us })?;
    let answer = work(&line, &prepared);
    line.say(&answer).context("the leader is gone")
}

/// The leader sets its watch by this clock, and starts all at once when the last is ready. Answers by how
/// much the start is late, in microseconds.
fn wait_for_start(line: &Line, receiver: &mut Receiver) -> Result<u64> {
    receiver.wait_for(START_PATIENCE)?;
    loop {
        match receiver.receive()? {
            Order::Clock => line.say(&Answer::Clock {
                unix_us: unix_us()?,
            })?,
            Order::Start { at_unix_us } => {
                let wait = at_unix_us.saturating_sub(unix_us()?);
                thread::sleep(Duration::from_micros(wait));
                return Ok(unix_us()?.saturating_sub(at_unix_us));
            }
            Order::Job(_) => bail!("a second job"),
        }
    }
}

fn work(line: &Line, prepared: &Prepared) -> Answer {
    let alive = line.keep_saying_alive();
    let result = scenario::make(prepared, &mut Reporter::new(line.clone()));
    drop(alive);
    match result {
        Ok(raw) => Answer::Done(Box::new(raw)),
        Err(error) => Answer::Failed(format!("{error:#}")),
    }
}

fn keys(job: &Job) -> scenario::Given {
    scenario::Given {
        part: Some(job.part),
        roots: Some(job.roots.clone()),
        token_key: Some(job.token_key.clone()),
    }
}

/// The way to the leader, for whoever has something to say.
#[derive(Clone)]
struct Line(Arc<Mutex<Sender>>);

impl Line {
    fn say(&self, answer: &Answer) -> Result<()> {
        let mut sender = self.0.lock().expect("nobody panics holding it");
        sender.send(answer)
    }

    /// Tells the leader that this end still works, until the answer is dropped.
    fn keep_saying_alive(&self) -> Stop<()> {
        let (stop, stopped) = channel();
        let line = self.clone();
        thread::spawn(move || {
            while stopped.recv_timeout(ALIVE_EVERY) == Err(RecvTimeoutError::Timeout) {
                if line.say(&Answer::Alive).is_err() {
                    return;
                }
            }
        });
        stop
    }
}

/// Tells the leader how the run goes; without a leader there is no run.
struct Reporter {
    line: Line,
    next: Micros,
    ack: Latency,
    deliver: Latency,
}

impl Reporter {
    fn new(line: Line) -> Self {
        Self {
            line,
            next: 0,
            ack: Latency::new(),
            deliver: Latency::new(),
        }
    }
}

impl Observer for Reporter {
    fn observe(&mut self, moment: &Moment<'_>) -> Result<()> {
        self.ack.merge(moment.ack);
        self.deliver.merge(moment.deliver);
        if moment.now < self.next {
            return Ok(());
        }
        self.next = moment.now + SIGN_EVERY;
        let sign = Sign {
            now: moment.now,
            stage: moment.stage,
            status: moment.status.clone(),
            own: moment.own,
            ack: std::mem::take(&mut self.ack),
            deliver: std::mem::take(&mut self.deliver),
        };
        let told = self.line.say(&Answer::Sign(Box::new(sign)));
        told.context("the leader is gone, and the run with it")
    }

    /// The leader has its own words.
    fn remark(&mut self, _: &str) {}
}

/// Microseconds since 1970.
pub(super) fn unix_us() -> Result<u64> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    Ok(u64::try_from(since.as_micros())?)
}
