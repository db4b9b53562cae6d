//! The engine on FoundationDB: many nodes, one store.
//!
//! The client library runs its own thread ([`Network`]); workers of this engine run the transactions
//! of all shards. What waits in a shard shares a transaction (R16); several are under way at once. The
//! read set of a commit is told key by key, so nothing conflicts but what R14 names. Outcomes that are
//! unknown are found out through the records themselves (R15).
//!
//! While the cluster does not answer, commands are tried until their deadline and then refused as
//! retryable, [`Handle::health`] says so, and nothing else changes: sessions live on.

mod admin;
mod batch;
mod cluster;
mod config;
mod counters;
mod engine;
mod error;
#[cfg(test)]
mod fake;
mod health;
mod lease;
mod ledger;
mod network;
mod open;
mod queue;
mod reads;
mod snapshot;
#[cfg(test)]
mod tests;
mod trx;
mod txn;
mod work;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use roadstead::ShardId;
use roadstead::store::{Completion, Request, StoreError};
use roadstead_proto::{DeviceId, UserId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::admin::{Admin, Ends};
use crate::embedded::{Health, QueueDepths, Sink};
use crate::records::expiry::Expired;

pub use config::{FoundationConfig, FoundationLimits};
pub use counters::{FoundationCounters, Sum};
pub use error::FoundationError;
pub use network::Network;
pub use open::Raw;
pub use txn::FoundationTxn;

use engine::Engine;
use worker::{Job, Worker};

/// An open store. Dropping it stops it; the [`Network`] must outlive it.
#[derive(Debug)]
pub struct FoundationStore {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
}

/// Asks the store; cheap to clone, for any thread.
#[derive(Debug, Clone)]
pub struct Handle {
    engine: Arc<Engine>,
    workers: Arc<[UnboundedSender<Job>]>,
}

impl FoundationStore {
    /// Connects to the cluster, takes the lease of this node, and starts the workers.
    ///
    /// # Errors
    /// [`FoundationError::NoAnswer`] if the cluster does not answer.
    pub fn open(
        _network: &Network,
        config: FoundationConfig,
        sink: Sink,
    ) -> Result<Self, FoundationError> {
        Self::start(open::open(config, sink)?)
    }

    fn start(engine: Engine) -> Result<Self, FoundationError> {
        let workers = usize::from(engine.limits().workers.max(1));
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| unbounded_channel()).unzip();
        let mut store = Self {
            handle: Handle {
                engine: Arc::new(engine),
                workers: senders.into(),
            },
            threads: Vec::new(),
        };
        for (index, jobs) in receivers.into_iter().enumerate() {
            store.start_worker(index, jobs)?;
        }
        Ok(store)
    }

    fn start_worker(&mut self, index: usize, jobs: UnboundedReceiver<Job>) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(format!("store fdb-{index}"));
        let engine = self.handle.engine.clone();
        let ended = self.handle.workers[index].clone();
        let run = move || {
            let worker = Worker::new(engine, jobs, ended);
            if let Err(error) = worker.run(index == 0) {
                tracing::error!(%error, "a worker of the store could not start");
            }
        };
        self.threads.push(thread.spawn(run)?);
        Ok(())
    }

    /// A handle for a shard or any other thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The store's generation (R3).
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.handle.engine.generation()
    }

    /// The store's own placement key, which the placement of users must use.
    #[must_use]
    pub fn placement_key(&self) -> [u8; 16] {
        self.handle.engine.meta().placement_key
    }

    /// Answers what was submitted before, as far as the cluster lets it, and ends the threads.
    pub fn stop(mut self) {
        self.stop_threads();
    }

    fn stop_threads(&mut self) {
        for worker in self.handle.workers.iter() {
            // It may be gone already.
            let _ = worker.send(Job::Stop);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker of the store panicked");
            }
        }
        self.handle.engine.board().stop();
    }
}

impl Drop for FoundationStore {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

/// The answers to requests that nobody will carry out.
fn refusals(requests: &[Request]) -> Vec<Completion> {
    let refuse = |request: &Request| refusal(request, StoreError::Unavailable);
    requests.iter().map(refuse).collect()
}

fn refusal(request: &Request, error: StoreError) -> Completion {
    Completion {
        id: request.id,
        outcome: Err(error),
    }
}

impl Handle {
    /// Hands requests of a shard to the store. Never blocks. Most answers come by the [`Sink`]; the ones
    /// returned here are refusals that are known at once: a queue is full, the lease may be lost, or the
    /// store was stopped.
    #[must_use = "these requests are answered by nobody else"]
    pub fn submit(&self, shard: ShardId, requests: Vec<Request>) -> Vec<Completion> {
        let mut refused = Vec::new();
        let mut admitted = Vec::with_capacity(requests.len());
        for request in requests {
            match self.engine.admit(&request.command) {
                Ok(()) => admitted.push(request),
                Err(error) => refused.push(refusal(&request, error)),
            }
        }
        if admitted.is_empty() {
            return refused;
        }
        let worker = &self.workers[usize::from(shard.0) % self.workers.len()];
        if let Err(unsent) = worker.send(Job::Requests(shard, admitted))
            && let Job::Requests(_, requests) = unsent.0
        {
            refused.extend(refusals(&requests));
        }
        refused
    }

    /// Whether the store serves.
    #[must_use]
    pub fn health(&self) -> Health {
        self.engine.board().health()
    }

    /// What the store has counted.
    #[must_use]
    pub fn counters(&self) -> &FoundationCounters {
        self.engine.counters()
    }

    /// How much waits in the queues.
    #[must_use]
    pub fn queue_depths(&self) -> QueueDepths {
        let (sends, others, reads) = self.engine.depths();
        QueueDepths {
            sends,
            others,
            reads,
        }
    }

    fn ask<R>(
        &self,
        admin: impl FnOnce(Sender<Result<R, StoreError>>) -> Admin,
    ) -> Result<R, StoreError> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let sent = self.workers[0].send(Job::Admin(admin(answer)));
        sent.map_err(|_| StoreError::Unavailable)?;
        answered.recv().unwrap_or(Err(StoreError::Unavailable))
    }

    /// Reserves message ids for this node (R24): those of the milliseconds from the first number up to,
    /// not including, the second may be used from now on, both counted from the epoch of message ids.
    /// The first lies at or above the end of every block reserved before. Waits for a commit.
    ///
    /// # Errors
    /// If the store can not commit.
    pub fn reserve_message_ids(&self, until_unix_ms: u64) -> Result<(u64, u64), StoreError> {
        self.ask(|answer| Admin::ReserveMessageIds(until_unix_ms, answer))
    }

    /// Notes which stamp belongs to the minute of this time (R25). To be called every minute; `false` if
    /// the clock was set back or forward and the store waits for it to prove itself. Waits for a commit.
    ///
    /// # Errors
    /// If the store can not commit.
    pub fn stamp_minute(&self, unix_ms: u64) -> Result<bool, StoreError> {
        self.ask(|answer| Admin::StampMinute(unix_ms, answer))
    }

    /// Removes entries that are older than the retention time by the minutes stamped, step by step (R25). To be
    /// called every hour or so, by a thread that may wait. Nothing is done if the day of the cut is `day_done`,
    /// the day of the last run, or before it.
    ///
    /// # Errors
    /// If the store can not commit.
    pub fn expire(&self, day_done: Option<u32>) -> Result<Expired, StoreError> {
        self.ask(|answer| Admin::Expire(day_done, answer))
    }

    /// Removes a device for good (R13); `false` if there is none. Waits for a commit.
    ///
    /// # Errors
    /// If the store can not commit.
    pub fn remove_device(&self, user: UserId, device: DeviceId) -> Result<bool, StoreError> {
        self.ask(|answer| Admin::RemoveDevice(user, device, answer))
    }

    /// Ends the logins of a user: no token issued before this moment, in seconds since the Unix epoch, opens a session
    /// any more, nor a resume token that goes back to one; `false` if that was so already. Waits for a commit.
    ///
    /// # Errors
    /// If the store can not commit.
    pub fn sign_out_user(&self, user: UserId, valid_after_s: u64) -> Result<bool, StoreError> {
        self.ask(|answer| Admin::SignOut(user, valid_after_s, answer))
    }

    /// Tells from now on what ends, so that its sessions end too: devices that are removed, users who are signed out.
    ///
    /// # Panics
    /// If somebody hears of it already.
    pub fn tell_ends_to(&self, ends: Ends) {
        self.engine.ends().set(ends);
    }
}
