//! What all parts of the engine share: the cluster, the lease, what is counted, where answers go.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use roadstead::ShardId;
use roadstead::store::{Command, Completion, Outcome, StoreError};
use roadstead::time::Time;

use crate::admin::EndsTo;
use crate::embedded::Sink;
use crate::keys::Keys;
use crate::recent::Recent;
use crate::records::Knowledge;
use crate::records::meta::Meta;

use super::cluster::Cluster;
use super::config::{FoundationConfig, FoundationLimits};
use super::counters::FoundationCounters;
use super::health::Board;
use super::ledger::Op;
use super::snapshot::Snapshot;
use super::trx::{Spent, Trx};
use super::txn::FoundationTxn;
use super::work::{Trial, Work};

/// The tag of expiry notes (`x/`), which are written once a day and device.
const EXPIRY_TAG: u8 = b'x';

/// No clock says so.
const MINUTE_UNKNOWN: u32 = u32::MAX;

/// See the [module](self).
pub(crate) struct Engine {
    config: FoundationConfig,
    cluster: Cluster,
    meta: Meta,
    keys: Keys,
    incarnation: u64,
    counters: FoundationCounters,
    board: Board,
    sink: Sink,
    ends: EndsTo,
    queued: Queued,
    /// Expiry notes that are committed, so that they need not be written again.
    noted: Mutex<Recent<Bytes, ()>>,
    /// The minute by the clock of this node, as it was told last.
    minute: AtomicU32,
    /// The store's newest minute as of the last stamp, [`MINUTE_UNKNOWN`] if that failed.
    newest_minute: AtomicU32,
    /// A command was given up while its outcome was unknown.
    unsettled: AtomicBool,
}

/// How much waits.
#[derive(Debug, Default)]
struct Queued {
    sends: AtomicUsize,
    others: AtomicUsize,
    reads: AtomicUsize,
}

impl Engine {
    pub(crate) fn new(
        config: FoundationConfig,
        cluster: Cluster,
        meta: Meta,
        incarnation: u64,
        board: Board,
        sink: Sink,
    ) -> Self {
        Self {
            noted: Mutex::new(Recent::new(config.limits.noted_max.max(2))),
            config,
            cluster,
            meta,
            keys: Keys::new(meta.placement_key),
            incarnation,
            counters: FoundationCounters::default(),
            board,
            sink,
            ends: EndsTo::default(),
            queued: Queued::default(),
            minute: AtomicU32::new(0),
            newest_minute: AtomicU32::new(MINUTE_UNKNOWN),
            unsettled: AtomicBool::new(false),
        }
    }

    pub(crate) fn ends(&self) -> &EndsTo {
        &self.ends
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn meta(&self) -> Meta {
        self.meta
    }

    pub(crate) fn generation(&self) -> u32 {
        self.meta.generation
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) fn limits(&self) -> &FoundationLimits {
        &self.config.limits
    }

    pub(crate) fn counters(&self) -> &FoundationCounters {
        &self.counters
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// The number of this node and the incarnation under which it holds it.
    pub(crate) fn lease(&self) -> (u16, u64) {
        (self.config.node, self.incarnation)
    }

    pub(crate) fn now(&self) -> Time {
        (self.config.clock)()
    }

    /// A snapshot at a fresh read version.
    pub(crate) async fn snapshot(&self, trx: Option<Trx>) -> Result<Snapshot, Spent> {
        let trx = match trx {
            Some(trx) => trx,
            None => self.fresh().await,
        };
        let snapshot = Snapshot::of(trx).await;
        snapshot.map_err(|(trx, error)| {
            self.counters.failures.add(1);
            Spent::Before(trx, error)
        })
    }

    async fn fresh(&self) -> Trx {
        loop {
            match self.cluster.transaction() {
                Ok(trx) => return trx,
                Err(error) => tracing::error!(%error, "no transaction can be made"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// The minute that renewals of the lease tell others.
    pub(crate) fn minute(&self) -> u32 {
        self.minute.load(Relaxed)
    }

    pub(crate) fn tell_minute(&self, minute: u32) {
        self.minute.store(minute, Relaxed);
    }

    /// The store's newest minute; `None` if it has to be read.
    pub(crate) fn learn_newest_minute(&self, minute: Option<u32>) {
        let minute = minute.unwrap_or(MINUTE_UNKNOWN);
        self.newest_minute.store(minute, Relaxed);
    }

    /// What a transaction begins with.
    pub(crate) fn knowledge(&self, devices_max: usize) -> Knowledge {
        let mut knowledge = Knowledge::of_one_among_many(devices_max);
        let minute = self.newest_minute.load(Relaxed);
        if minute != MINUTE_UNKNOWN {
            knowledge.learn_minute(minute);
        }
        knowledge
    }

    /// Gives a command up. If it may be committed, whoever it concerns was not told.
    pub(crate) fn give_up(&self, work: Work, error: StoreError) {
        if work.is_unknown() {
            self.unsettled.store(true, Relaxed);
        }
        self.answer(work.shard, vec![work.give_up(error)]);
    }

    /// Whether one was given up with an unknown outcome since the last call.
    pub(crate) fn take_unsettled(&self) -> bool {
        self.unsettled.swap(false, Relaxed)
    }

    pub(crate) fn may_answer(&self) -> bool {
        self.board.may_answer()
    }

    /// Another process holds the lease.
    pub(crate) fn fence(&self) {
        self.board.fence();
    }

    /// Hands answers to a shard.
    pub(crate) fn answer(&self, shard: ShardId, answers: Vec<Completion>) {
        if !answers.is_empty() {
            (self.sink)(shard, answers);
        }
    }

    /// What a command is told that comes too late.
    pub(crate) fn error_of_late(&self, work: &Work) -> StoreError {
        if matches!(work.command, Command::Send(_)) {
            self.counters.deadline_passed.add(work.places());
            return StoreError::DeadlinePassed;
        }
        self.counters.unavailable.add(1);
        StoreError::Unavailable
    }

    /// Drops expiry notes that are committed already; gives those that are not.
    pub(crate) fn drop_noted(&self, txn: &mut FoundationTxn) -> Vec<Bytes> {
        let mut noted = self
            .noted
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut news = Vec::new();
        txn.retain_ops(|op| match op {
            Op::Set(key, value) if key.first() == Some(&EXPIRY_TAG) && value.is_empty() => {
                let known = noted.get(key).is_some();
                if !known {
                    news.push(key.clone());
                }
                !known
            }
            _ => true,
        });
        news
    }

    /// A batch is committed.
    pub(crate) fn note_commit(
        &self,
        notes: Vec<Bytes>,
        (writes, bytes): (usize, usize),
        began: Instant,
    ) {
        let mut noted = self
            .noted
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for note in notes {
            noted.insert(note, ());
        }
        drop(noted);
        if writes > 0 {
            self.counters.commits.add(1);
            self.counters.writes.add(writes);
            self.counters.written_bytes.add(bytes);
            let elapsed = u64::try_from(began.elapsed().as_micros()).unwrap_or(0);
            self.counters.commit_us.add_u64(elapsed);
        }
    }

    /// Counts what a committed command came to.
    pub(crate) fn count(&self, trial: &Trial) {
        self.counters.commands.add(1);
        match trial {
            Trial::Sends(answers, _) => {
                for answer in answers {
                    match answer {
                        Ok(sent) if sent.repeated => self.counters.sends_repeated.add(1),
                        Ok(_) => self.counters.sends.add(1),
                        Err(StoreError::DeadlinePassed) => self.counters.deadline_passed.add(1),
                        Err(_) => self.counters.refused.add(1),
                    }
                }
            }
            Trial::Other(Ok(Outcome::Inbox(page))) => {
                self.counters.reads.add(1);
                self.counters.read_entries.add(page.entries.len());
            }
            Trial::Other(Ok(_)) => {}
            Trial::Other(Err(_)) => self.counters.refused.add(1),
        }
    }

    /// Takes a place in the queue that a command belongs to.
    pub(crate) fn admit(&self, command: &Command) -> Result<(), StoreError> {
        if !self.may_answer() {
            return Err(StoreError::Unavailable);
        }
        let (queue, max, count) = self.queue_of(command);
        let before = queue.fetch_add(count, Relaxed);
        if before + count > max && before > 0 {
            queue.fetch_sub(count, Relaxed);
            return Err(StoreError::Overloaded);
        }
        Ok(())
    }

    /// Gives back the place of a command.
    pub(crate) fn release(&self, command: &Command) {
        let (queue, _, count) = self.queue_of(command);
        queue.fetch_sub(count, Relaxed);
    }

    /// Sends, other commands and reads that wait.
    pub(crate) fn depths(&self) -> (usize, usize, usize) {
        let queued = &self.queued;
        let depth = |queue: &AtomicUsize| queue.load(Relaxed);
        (
            depth(&queued.sends),
            depth(&queued.others),
            depth(&queued.reads),
        )
    }

    fn queue_of(&self, command: &Command) -> (&AtomicUsize, usize, usize) {
        let (queued, limits) = (&self.queued, &self.config.limits);
        match command {
            Command::Send(sends) => (&queued.sends, limits.sends_queued_max, sends.items.len()),
            Command::ReadInbox(_) => (&queued.reads, limits.reads_queued_max, 1),
            _ => (&queued.others, limits.others_queued_max, 1),
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
