//! The leading end: gives each agent its part, starts all at one instant, watches them, and puts together
//! what they measured.

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::link::{self, End, Receiver, SILENCE_MAX, Sender};
use super::serve::{read_token, unix_us};
use super::watch::{Heard, Watch};
use super::{Answer, Job, Order, Part};
use crate::cli::Load;
use crate::report::Progress;
use crate::run::{AgentClock, Raw};
use crate::target::Target;

/// From the order to start until the start: the order reaches every agent before that.
const LEAD_US: u64 = 1_000_000;

/// An agent that does not answer its port.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Questions for the time: the quickest answer is the one to believe.
const CLOCK_ROUNDS: usize = 8;

/// What all agents need beside their part.
pub(crate) struct Papers {
    pub(crate) arguments: Vec<String>,
    pub(crate) scenario: Option<String>,
    pub(crate) roots: Vec<u8>,
    pub(crate) token_key: Vec<u8>,
}

/// An agent that is ready.
pub(super) struct Hand {
    pub(super) name: String,
    pub(super) sessions: u32,
    pub(super) threads: u16,
    pub(super) clock: AgentClock,
    sender: Sender,
    receiver: Option<Receiver>,
}

/// Makes a run on the agents of the command line. An agent that fails, ends or falls silent fails the run,
/// and then the others stop.
pub(crate) fn lead(load: &Load, papers: &Papers, target: Target) -> Result<Raw> {
    let file = load.agent_token_file.as_deref();
    let token = read_token(file.context("--agents needs --agent-token-file FILE")?)?;
    let parts = u32::try_from(load.agents.len())?;
    let engage = |(index, name): (u32, &String)| {
        let part = Part { index, parts };
        let hand = Hand::engage(name, &token, part, papers, SILENCE_MAX);
        hand.with_context(|| format!("agent {name}"))
    };
    let hands = (0..).zip(&load.agents).map(engage);
    let mut hands = hands.collect::<Result<Vec<_>>>()?;
    let heard = start(&mut hands)?;
    let mut progress = Progress::new(
        load.quiet,
        hands.iter().map(|hand| hand.sessions).sum(),
        hands.iter().map(|hand| hand.threads).sum(),
        hands.len(),
    );
    let raw = Watch::new(&hands, target).run(&heard, &mut progress)?;
    progress.finish();
    Ok(raw)
}

/// Starts all at one instant, and listens to each in a thread of its own.
pub(super) fn start(hands: &mut [Hand]) -> Result<mpsc::Receiver<Heard>> {
    let at = unix_us()? + LEAD_US;
    let (say, heard) = mpsc::channel();
    for (index, hand) in hands.iter_mut().enumerate() {
        let at_unix_us = at.saturating_add_signed(hand.clock.ahead_us);
        let sent = hand.sender.send(&Order::Start { at_unix_us });
        sent.with_context(|| format!("agent {}", hand.name))?;
        let mut receiver = hand.receiver.take().context("started once")?;
        let say = say.clone();
        thread::spawn(move || {
            loop {
                let answer = receiver.receive::<Answer>();
                let is_last = !matches!(
                    answer,
                    Ok(Answer::Begun { .. } | Answer::Alive | Answer::Sign(_))
                );
                // Whoever listened may have given up by now.
                if say.send((index, answer)).is_err() || is_last {
                    return;
                }
            }
        });
    }
    Ok(heard)
}

impl Hand {
    /// Gives an agent its part. `silence` is the longest that it may then say nothing.
    pub(super) fn engage(
        name: &str,
        token: &[u8],
        part: Part,
        papers: &Papers,
        silence: Duration,
    ) -> Result<Self> {
        let address = name.to_socket_addrs()?.next().context("no such host")?;
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        let (mut sender, mut receiver) = link::open(stream, token, End::Leader, silence)?;
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
        let (sessions, threads) = match answer {
            Answer::Ready { sessions, threads } => (sessions, threads),
            Answer::Failed(reason) => bail!("{reason}"),
            other => bail!("unexpected: {other:?}"),
        };
        Ok(Self {
            name: name.into(),
            sessions,
            threads,
            clock: compare_clocks(&mut sender, &mut receiver)?,
            sender,
            receiver: Some(receiver),
        })
    }
}

impl Drop for Hand {
    /// An agent whose leader is gone stops its part.
    fn drop(&mut self) {
        self.sender.hang_up();
    }
}

/// How far an agent's clock is ahead of this one: its time was that of the middle between question and
/// answer, give or take half of what both took.
fn compare_clocks(sender: &mut Sender, receiver: &mut Receiver) -> Result<AgentClock> {
    let mut best: Option<AgentClock> = None;
    for _ in 0..CLOCK_ROUNDS {
        let asked = unix_us()?;
        sender.send(&Order::Clock)?;
        let Answer::Clock { unix_us: theirs } = receiver.receive()? else {
            bail!("it was asked for the time");
        };
        let took = unix_us()?.saturating_sub(asked);
        let clock = AgentClock {
            ahead_us: i64::try_from(theirs)? - i64::try_from(asked + took / 2)?,
            error_us: took.div_ceil(2),
        };
        if best.is_none_or(|best| clock.error_us < best.error_us) {
            best = Some(clock);
        }
    }
    best.context("it was asked at least once")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const TOKEN: &[u8] = b"0123456789abcdef0123456789abcdef";

    /// An agent whose clock is an hour ahead, and which says so much after its start and then no more.
    fn agent(last_words: Vec<Answer>) -> (String, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let name = listener.local_addr().expect("bound").to_string();
        let thread = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a leader");
            let patience = Duration::from_secs(60);
            let (mut sender, mut receiver) =
                link::open(stream, TOKEN, End::Agent, patience).expect("a line");
            let job: Order = receiver.receive().expect("a job");
            assert!(matches!(job, Order::Job(_)));
            let ready = Answer::Ready {
                sessions: 7,
                threads: 1,
            };
            sender.send(&ready).expect("said");
            while matches!(receiver.receive().expect("an order"), Order::Clock) {
                let unix_us = unix_us().expect("a clock") + 3_600_000_000;
                sender.send(&Answer::Clock { unix_us }).expect("said");
            }
            for words in last_words {
                sender.send(&words).expect("said");
            }
            // Until the leader hangs up.
            receiver.receive::<Order>().expect_err("no more orders");
        });
        (name, thread)
    }

    fn engage(name: &str) -> Hand {
        let papers = Papers {
            arguments: Vec::new(),
            scenario: None,
            roots: Vec::new(),
            token_key: Vec::new(),
        };
        let part = Part { index: 0, parts: 1 };
        Hand::engage(name, TOKEN, part, &papers, Duration::from_millis(300)).expect("engaged")
    }

    fn watch(hands: &mut [Hand]) -> Result<Raw> {
        let heard = start(hands)?;
        let mut progress = Progress::new(true, 7, 1, hands.len());
        Watch::new(hands, Target::none()).run(&heard, &mut progress)
    }

    #[test]
    fn clocks_are_compared() {
        let (name, thread) = agent(vec![]);
        let hand = engage(&name);
        let off = hand.clock.ahead_us.abs_diff(3_600_000_000);
        assert!(off <= hand.clock.error_us, "{:?}", hand.clock);
        let mut hands = [hand];
        drop(start(&mut hands).expect("started"));
        drop(hands);
        thread.join().expect("it was let go");
    }

    #[test]
    fn an_agent_that_falls_silent_is_named() {
        let (name, thread) = agent(vec![Answer::Begun { late_us: 0 }, Answer::Alive]);
        let mut hands = [engage(&name)];
        let error = watch(&mut hands).expect_err("it said no more");
        let text = format!("{error:#}");
        assert!(
            text.contains(&name) && text.contains("said nothing"),
            "{text}"
        );
        drop(hands);
        thread.join().expect("it was let go");
    }

    #[test]
    fn an_agent_that_fails_tells_why() {
        let failed = Answer::Failed("no session could be established".into());
        let (name, thread) = agent(vec![Answer::Begun { late_us: 0 }, failed]);
        let mut hands = [engage(&name)];
        let text = format!("{:#}", watch(&mut hands).expect_err("it failed"));
        assert!(
            text.contains(&name) && text.contains("no session"),
            "{text}"
        );
        drop(hands);
        thread.join().expect("it was let go");
    }
}
