//! The start of a server, step by step: it says what it waits for, and gives up on a step that takes too long.
//!
//! A start waits for much that is not its own: a port that another process holds, a folder on a network, a cluster. An
//! operator, or what started the server, has to learn which it is.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::Context;

/// How often a step that takes longer says so.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// A step of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Keys and certificates, from the data directory or where the configuration says.
    Files,
    /// The UDP sockets of all shards.
    Addresses,
    /// The socket of the admin HTTP.
    Admin,
    /// The store: its log is read back, and once after an upgrade all inboxes are counted.
    Store,
    /// Rings and threads.
    Shards,
}

impl Step {
    /// What is waited for.
    fn name(self) -> &'static str {
        match self {
            Self::Files => "keys and certificates to be read",
            Self::Addresses => "the addresses of sessions",
            Self::Admin => "the admin address",
            Self::Store => "the store to open",
            Self::Shards => "the shards to start",
        }
    }

    /// How long it may take. None takes a second where all is well, but the store: a log of 256 MiB is read back in
    /// seconds, a hundred million inboxes are counted in minutes.
    fn limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Files | Self::Addresses | Self::Admin | Self::Shards => 60,
            Self::Store => 3_600,
        })
    }
}

/// A start under way. Dropped when it is over, well or not.
#[derive(Debug)]
pub(crate) struct Start(Sender<Step>);

impl Start {
    /// Begins with a step. Beyond the limit of one the process ends with exit code 1, and says why.
    pub(crate) fn begin(step: Step) -> anyhow::Result<Self> {
        Self::watched(step, Step::limit, |step| {
            let name = step.name();
            let seconds = step.limit().as_secs();
            crate::cli::print_error(&anyhow::anyhow!("waited {seconds} s for {name}"));
            std::process::exit(1);
        })
    }

    fn watched(
        step: Step,
        limit: impl Fn(Step) -> Duration + Send + 'static,
        give_up: impl FnOnce(Step) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (sender, steps) = mpsc::channel();
        std::thread::Builder::new()
            .name("start".into())
            .spawn(move || {
                if let Some(step) = watch(step, &steps, limit) {
                    give_up(step);
                }
            })
            .context("a thread for the start")?;
        Ok(Self(sender))
    }

    /// The next step begins.
    pub(crate) fn step(&self, step: Step) {
        let _ = self.0.send(step);
    }
}

/// Returns the step that took too long, or none when the start is over.
fn watch(mut step: Step, steps: &Receiver<Step>, limit: impl Fn(Step) -> Duration) -> Option<Step> {
    let mut began = Instant::now();
    loop {
        let left = limit(step).saturating_sub(began.elapsed());
        match steps.recv_timeout(left.min(SAY_EVERY)) {
            Ok(next) => (step, began) = (next, Instant::now()),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) if began.elapsed() >= limit(step) => return Some(step),
            Err(RecvTimeoutError::Timeout) => tracing::warn!(
                seconds = began.elapsed().as_secs(),
                limit = limit(step).as_secs(),
                "starting: waits for {}",
                step.name()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A start whose steps may take no time, but the store's; it tells what it gave up on.
    fn short() -> (Start, Receiver<Step>) {
        let (sender, given_up) = mpsc::channel();
        let limit = |step| match step {
            Step::Store => Duration::from_secs(3_600),
            _ => Duration::ZERO,
        };
        let tell = move |step| sender.send(step).expect("the test listens");
        let start = Start::watched(Step::Store, limit, tell).expect("a thread");
        (start, given_up)
    }

    #[test]
    fn fd2_a_step_that_takes_too_long_is_given_up_by_its_name() {
        let (start, given_up) = short();
        start.step(Step::Admin);
        assert_eq!(given_up.recv(), Ok(Step::Admin));
    }

    #[test]
    fn fd2_a_start_that_is_over_is_not_given_up() {
        let (start, given_up) = short();
        drop(start);
        assert!(given_up.recv().is_err(), "the watch ended");
    }
}
