//! The embedded engine: one process, one database in a folder, no set-up.
//!
//! One committer thread serves all shards (R8). It drains its queue into a batch, evaluates the commands
//! one after the other against what is committed and what the batch has written so far, gives the batch
//! a stamp, appends it to the log and syncs, then publishes it, then answers. Readers serve
//! [`Command::ReadInbox`] from what is published. After an error nothing is served until the
//! database has been reopened, which happens in the background (R10); the process lives on.

mod admin;
mod batch;
mod checkpoint;
mod committer;
mod config;
mod counters;
mod disk;
mod engine;
mod error;
mod health;
pub(crate) mod log;
mod reader;
mod reopen;
mod reserve;
mod serial;
mod small_key;
mod sums;
mod tables;
mod work;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use roadstead::ShardId;
use roadstead::store::{Command, Completion, Request, StoreError};

pub use batch::BatchTxn;
pub use config::{Clock, EmbeddedConfig, EmbeddedLimits};
pub use counters::{BATCH_CLASSES, CommitCounters, Count, Counters, ReadCounters};
pub use error::OpenError;
pub use health::Health;
pub use serial::SerialEngine;

use committer::{Committer, Job};
use engine::Engine;
use health::Board;
use reader::{ReadJob, Reader};
use reserve::{Place, Reserve};

use crate::admin::{Admin, Ends, EndsTo};
use crate::records::expiry::Expired;
use crate::records::meta::Meta;

/// Where completions go: called by threads of the store, and must not block.
pub type Sink = Arc<dyn Fn(ShardId, Vec<Completion>) + Send + Sync>;

/// An open store. Dropping it stops it.
#[derive(Debug)]
pub struct EmbeddedStore {
    handle: Handle,
    meta: Meta,
    threads: Vec<JoinHandle<()>>,
}

/// Asks the store; cheap to clone, for any thread.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Shared>);

/// What handles, committer and readers share.
pub(crate) struct Shared {
    jobs: Sender<Job>,
    reads: Sender<ReadJob>,
    queued: Queued,
    limits: EmbeddedLimits,
    counters: Counters,
    board: Board,
    sink: Sink,
    ends: EndsTo,
}

/// How much waits in the queues.
#[derive(Debug, Default)]
pub(crate) struct Queued {
    sends: AtomicUsize,
    others: AtomicUsize,
    reads: AtomicUsize,
}

/// How much waits in the queues of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepths {
    /// Messages.
    pub sends: usize,
    /// Other commands for the committer.
    pub others: usize,
    /// Inbox reads.
    pub reads: usize,
}

impl EmbeddedStore {
    /// Opens the store in a folder, or makes one there, and starts its threads.
    ///
    /// # Errors
    /// [`OpenError::InUse`] if another process has it open.
    pub fn open(config: EmbeddedConfig, sink: Sink) -> Result<Self, OpenError> {
        let place = Place::new(&config.path, config.limits.reserve_bytes_max)?;
        let engine = match Engine::open(&config) {
            // A disk that is full: with what was kept for that, the store opens.
            Err(error) if reserve::is_full(&error) && place.give_back() => Engine::open(&config),
            engine => engine,
        };
        let engine = engine.map_err(|error| error.at(&config.path))?;
        let meta = engine.meta;
        let (jobs, jobs_in) = unbounded();
        let (reads, reads_in) = unbounded();
        let shared = Arc::new(Shared {
            jobs,
            reads,
            queued: Queued::default(),
            limits: config.limits,
            counters: Counters::new(config.limits.read_threads),
            board: Board::new(engine.committed().clone()),
            sink,
            ends: EndsTo::default(),
        });
        let mut store = Self {
            handle: Handle(shared),
            meta,
            threads: Vec::new(),
        };
        store.start_readers(meta, config.limits.read_threads, &reads_in)?;
        let reserve = Reserve::new(place);
        let committer = Committer::new(config, store.handle.0.clone(), engine, reserve, jobs_in);
        store.start("store commit", move || committer.run())?;
        Ok(store)
    }

    fn start_readers(
        &mut self,
        meta: Meta,
        threads: usize,
        reads: &Receiver<ReadJob>,
    ) -> Result<(), OpenError> {
        for index in 0..threads {
            let reader = Reader::new(self.handle.0.clone(), index, meta, reads.clone());
            self.start("store read", move || reader.run())?;
        }
        Ok(())
    }

    fn start(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let alarm = self.handle.0.board.alarm();
        let watched = move || {
            let _alarm = alarm;
            run();
        };
        let builder = std::thread::Builder::new().name(name.into());
        let thread = builder.spawn(watched)?;
        self.threads.push(thread);
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
        self.meta.generation
    }

    /// The store's own placement key, which the placement of users must use.
    #[must_use]
    pub fn placement_key(&self) -> [u8; 16] {
        self.meta.placement_key
    }

    /// Answers what was submitted before, syncs, and ends the threads.
    pub fn stop(mut self) {
        self.stop_threads();
    }

    fn stop_threads(&mut self) {
        let shared = &self.handle.0;
        // Readers and committer may be gone already: then there is nobody to tell.
        let _ = shared.jobs.send(Job::Stop);
        for thread in self.threads.drain(..).rev() {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
                // The committer tells the readers to stop, unless it was the one.
                shared.stop_readers();
            }
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

impl Handle {
    /// Hands requests of a shard to the store. Never blocks. Most answers come by the [`Sink`]; the ones
    /// returned here are refusals that are known at once: a queue is full, or the store was stopped.
    #[must_use = "these requests are answered by nobody else"]
    pub fn submit(&self, shard: ShardId, requests: Vec<Request>) -> Vec<Completion> {
        let shared = &self.0;
        let mut refused = Vec::new();
        let mut commits = Vec::with_capacity(requests.len());
        for request in requests {
            match shared.admit(&request) {
                Err(error) => refused.push(refusal(&request, error)),
                Ok(()) if is_read(&request.command) => {
                    if let Err(unsent) = shared.reads.send(ReadJob::Request(shard, request)) {
                        refused.extend(unsent.0.into_refusal());
                    }
                }
                Ok(()) => commits.push(request),
            }
        }
        if !commits.is_empty()
            && let Err(unsent) = shared.jobs.send(Job::Requests(shard, commits))
        {
            refused.extend(unsent.0.into_refusals());
        }
        refused
    }

    /// Whether the store serves.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.board.health()
    }

    /// What the store has counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// How much waits in the queues.
    #[must_use]
    pub fn queue_depths(&self) -> QueueDepths {
        let queued = &self.0.queued;
        QueueDepths {
            sends: queued.sends.load(Relaxed),
            others: queued.others.load(Relaxed),
            reads: queued.reads.load(Relaxed),
        }
    }

    fn ask<R>(&self, admin: impl FnOnce(Sender<R>) -> Admin) -> Option<R> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        self.0.jobs.send(Job::Admin(admin(answer))).ok()?;
        answered.recv().ok()
    }

    /// Reserves message ids for this node (R24): those of the milliseconds from the first number up to,
    /// not including, the second may be used from now on, both counted from the epoch of message ids.
    /// The first lies at or above the end of every block reserved before. Waits for a commit.
    ///
    /// # Errors
    /// If the store can not commit.
    pub fn reserve_message_ids(&self, until_unix_ms: u64) -> Result<(u64, u64), StoreError> {
        self.ask(|answer| Admin::ReserveMessageIds(until_unix_ms, answer))
            .unwrap_or(Err(StoreError::Unavailable))
    }

    /// Notes which stamp belongs to the minute of this time (R25). To be called every minute; `false` if
    /// the clock was set back or forward and the store waits for it to prove itself. Waits for a commit.
    ///
    /// # Errors
    /// If the store can not commit.
    pub fn stamp_minute(&self, unix_ms: u64) -> Result<bool, StoreError> {
        self.ask(|answer| Admin::StampMinute(unix_ms, answer))
            .unwrap_or(Err(StoreError::Unavailable))
    }

    /// Removes entries that are older than the retention time by the minutes stamped, a piece in each commit
    /// of others (R25). To be called every hour or so, by a thread that may wait: the job takes as long as it
    /// takes, and a store that stops ends it. Nothing is done if the day of the cut is `day_done`, the day of the
    /// last run, or before it.
    ///
    /// # Errors
    /// If the store can not commit, or stops.
    pub fn expire(&self, day_done: Option<u32>) -> Result<Expired, StoreError> {
        self.ask(|answer| Admin::Expire(day_done, answer))
            .unwrap_or(Err(StoreError::Unavailable))
    }

    /// Removes a device for good (R13), and cleans away what it has left; `false` if there is none. Waits for both.
    ///
    /// # Errors
    /// If the store can not commit.
    pub fn remove_device(
        &self,
        user: roadstead_proto::UserId,
        device: roadstead_proto::DeviceId,
    ) -> Result<bool, StoreError> {
        self.ask(|answer| Admin::RemoveDevice(user, device, answer))
            .unwrap_or(Err(StoreError::Unavailable))
    }

    /// Ends the logins of a user: no token issued before this moment, in seconds since the Unix epoch, opens a session
    /// any more, nor a resume token that goes back to one; `false` if that was so already. Waits for a commit.
    ///
    /// # Errors
    /// If the store can not commit.
    pub fn sign_out_user(
        &self,
        user: roadstead_proto::UserId,
        valid_after_s: u64,
    ) -> Result<bool, StoreError> {
        self.ask(|answer| Admin::SignOut(user, valid_after_s, answer))
            .unwrap_or(Err(StoreError::Unavailable))
    }

    /// Tells from now on what ends, so that its sessions end too: devices that are removed, users who are signed out.
    ///
    /// # Panics
    /// If somebody hears of it already.
    pub fn tell_ends_to(&self, ends: Ends) {
        self.0.ends.set(ends);
    }
}

impl Shared {
    /// Takes a place in the queue that a request belongs to.
    fn admit(&self, request: &Request) -> Result<(), StoreError> {
        let (queue, max, count) = self.queue_of(&request.command);
        let before = queue.fetch_add(count, Relaxed);
        if before + count > max && before > 0 {
            queue.fetch_sub(count, Relaxed);
            return Err(StoreError::Overloaded);
        }
        Ok(())
    }

    /// Gives back the place of a command.
    fn release(&self, command: &Command) {
        let (queue, _, count) = self.queue_of(command);
        queue.fetch_sub(count, Relaxed);
    }

    /// Gives back the places of sends.
    fn release_sends(&self, count: usize) {
        self.queued.sends.fetch_sub(count, Relaxed);
    }

    fn queue_of(&self, command: &Command) -> (&AtomicUsize, usize, usize) {
        let (queued, limits) = (&self.queued, &self.limits);
        match command {
            Command::Send(sends) => (&queued.sends, limits.sends_queued_max, sends.items.len()),
            command if is_read(command) => (&queued.reads, limits.reads_queued_max, 1),
            _ => (&queued.others, limits.others_queued_max, 1),
        }
    }
}

/// Whether a reader serves a command. It counts inboxes too, and passes on only those above the limit.
fn is_read(command: &Command) -> bool {
    matches!(command, Command::ReadInbox(_) | Command::CheckInbox(_))
}

fn refusal(request: &Request, error: StoreError) -> Completion {
    Completion {
        id: request.id,
        outcome: Err(error),
    }
}

/// Answers by shard: one call of the sink each.
#[derive(Debug, Default)]
pub(crate) struct Answers(Vec<(ShardId, Vec<Completion>)>);

impl Answers {
    pub(crate) fn push(&mut self, shard: ShardId, completion: Completion) {
        match self.0.iter_mut().find(|(of, _)| *of == shard) {
            Some((_, completions)) => completions.push(completion),
            None => self.0.push((shard, vec![completion])),
        }
    }

    pub(crate) fn deliver(&mut self, sink: &Sink) {
        for (shard, completions) in self.0.drain(..) {
            sink(shard, completions);
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("queued", &self.queued)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
