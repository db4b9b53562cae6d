//! The leading end: gives each agent its part, starts all at one instant, merges what they measured.

use std::net::TcpStream;
use std::thread;

use anyhow::{Context, Result, bail};

use super::link::{self, End, Receiver, Sender};
use super::serve::{read_token, unix_ms};
use super::{Answer, Job, Order, Part};
use crate::cli::Load;
use crate::run::Raw;

/// From the order to start until the start: the order reaches every agent before that.
const LEAD_MS: u64 = 1_000;

/// What all agents need beside their part.
pub(crate) struct Papers {
    pub(crate) arguments: Vec<String>,
    pub(crate) scenario: Option<String>,
    pub(crate) roots: Vec<u8>,
    pub(crate) token_key: Vec<u8>,
}

/// An agent that is ready.
struct Hand {
    name: String,
    sender: Sender,
    receiver: Receiver,
    /// Its clock less this one's, in milliseconds.
    ahead_ms: i64,
}

/// Makes a run on the agents of the command line. An agent that fails, fails the run.
pub(crate) fn lead(load: &Load, papers: &Papers) -> Result<Raw> {
    let file = load.agent_token_file.as_deref();
    let token = read_token(file.context("--agents needs --agent-token-file FILE")?)?;
    let parts = u32::try_from(load.agents.len())?;
    let engage = |(index, name): (u32, &String)| {
        let part = Part { index, parts };
        Hand::engage(name, &token, part, papers).with_context(|| format!("agent {name}"))
    };
    let hands = (0..)
        .zip(&load.agents)
        .map(engage)
        .collect::<Result<Vec<_>>>()?;
    let start = unix_ms()? + LEAD_MS;
    let working: Vec<_> = hands
        .into_iter()
        .map(|hand| thread::spawn(move || hand.work(start)))
        .collect();
    let mut all: Option<Raw> = None;
    for worker in working {
        let raw = worker
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        all = Some(match all {
            None => raw,
            Some(all) => all.merged(raw),
        });
    }
    all.context("--agents names no agent")
}

impl Hand {
    fn engage(name: &str, token: &[u8], part: Part, papers: &Papers) -> Result<Self> {
        let stream = TcpStream::connect(name)?;
        let (mut sender, mut receiver) = link::open(stream, token, End::Leader)?;
        let job = Job {
            arguments: papers.arguments.clone(),
            scenario: papers.scenario.clone(),
            part,
            roots: papers.roots.clone(),
            token_key: papers.token_key.clone(),
        };
        sender.send(&Order::Job(Box::new(job)))?;
        let answer = receiver
            .receive()
            .context("no answer: has it the same token?")?;
        let theirs = match answer {
            Answer::Ready { unix_ms } => unix_ms,
            Answer::Failed(reason) => bail!("{reason}"),
            other => bail!("unexpected: {other:?}"),
        };
        // Off by the time of the answer on its way: below a millisecond within a data centre.
        let ahead_ms = i64::try_from(theirs)? - i64::try_from(unix_ms()?)?;
        Ok(Self {
            name: name.into(),
            sender,
            receiver,
            ahead_ms,
        })
    }

    fn work(mut self, start_unix_ms: u64) -> Result<Raw> {
        let name = self.name.clone();
        self.make(start_unix_ms)
            .with_context(|| format!("agent {name}"))
    }

    fn make(&mut self, start_unix_ms: u64) -> Result<Raw> {
        let at_unix_ms = start_unix_ms.saturating_add_signed(self.ahead_ms);
        self.sender.send(&Order::Start { at_unix_ms })?;
        loop {
            match self.receiver.receive()? {
                Answer::Alive => {}
                Answer::Done(raw) => return Ok(*raw),
                Answer::Failed(reason) => bail!("{reason}"),
                Answer::Ready { .. } => bail!("ready twice"),
            }
        }
    }
}
