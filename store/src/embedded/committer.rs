//! The committer: the one thread that writes (R8).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, TryRecvError};
use roadstead::ShardId;
use roadstead::store::{Command, Completion, Grown, Outcome, Request, RequestId, StoreError};
use roadstead_proto::{DeviceId, Position, UserId};

use crate::admin::Admin;
use crate::recent::Recent;
use crate::records::command::Done;
use crate::records::minutes::Doubt;
use crate::records::pending::PendingSends;
use crate::records::{Scope, attempt, node};
use crate::txn::{TxnError, ready};

use super::batch::BatchTxn;
use super::config::EmbeddedConfig;
use super::counters::CommitCounters;
use super::engine::{Begun, Engine, committed_end};
use super::reserve::{self, Reserve};
use super::work::{Piece, Work};
use super::write::Writes;
use super::{Answers, Shared, refusal};

/// What the committer is asked.
#[derive(Debug)]
pub(crate) enum Job {
    /// Commands of a shard.
    Requests(ShardId, Vec<Request>),
    /// A command of the process itself.
    Admin(Admin),
    /// Finish what was asked before, and end.
    Stop,
}

impl Job {
    /// The answers of a job that nobody will carry out.
    pub(crate) fn into_refusals(self) -> Vec<Completion> {
        match self {
            Self::Requests(_, requests) => requests
                .iter()
                .map(|request| refusal(request, StoreError::Unavailable))
                .collect(),
            Self::Admin(_) | Self::Stop => Vec::new(),
        }
    }
}

/// A command that goes ahead of sends, and what came of it.
#[derive(Debug)]
struct Evaluated {
    shard: ShardId,
    id: RequestId,
    outcome: Result<Outcome, StoreError>,
    /// The device was registered by it.
    registered: Option<(UserId, DeviceId)>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Committer {
    pub(super) config: EmbeddedConfig,
    pub(super) shared: Arc<Shared>,
    /// `None` while it is being reopened.
    pub(super) engine: Option<Engine>,
    pub(super) jobs: Receiver<Job>,
    /// Acknowledgements, openings, read marks: they have room ahead of sends (R26).
    ahead: VecDeque<(ShardId, Request)>,
    sends: VecDeque<PendingSends<ShardId>>,
    pub(super) admins: VecDeque<Admin>,
    /// What goes on between commands, the next piece in front.
    pub(super) work: VecDeque<Work>,
    /// Of the clock that stamps minutes.
    pub(super) doubt: Doubt,
    /// The last entry appended to a device's inbox, if this process appended it.
    appended: Recent<(UserId, DeviceId), Position>,
    pub(super) answers: Answers,
    pub(super) reserve: Reserve,
    pub(super) stopping: bool,
}

impl Committer {
    pub(crate) fn new(
        config: EmbeddedConfig,
        shared: Arc<Shared>,
        engine: Engine,
        reserve: Reserve,
        jobs: Receiver<Job>,
    ) -> Self {
        Self {
            appended: Recent::new(config.limits.known_devices_max),
            config,
            shared,
            engine: Some(engine),
            jobs,
            ahead: VecDeque::new(),
            sends: VecDeque::new(),
            admins: VecDeque::new(),
            work: VecDeque::new(),
            doubt: Doubt::default(),
            answers: Answers::default(),
            reserve,
            stopping: false,
        }
    }

    /// Commits until it is told to stop and nothing is left to do.
    pub(crate) fn run(mut self) {
        loop {
            if self.engine.is_none() {
                if self.stopping {
                    self.refuse_waiting();
                    self.refuse_admins();
                    break;
                }
                self.serve_nothing();
                continue;
            }
            if self.stopping {
                self.refuse_work();
            }
            let idle = self.is_idle();
            if self.stopping && idle {
                break;
            }
            self.take_jobs(idle);
            self.refuse_without_room();
            self.commit_batch();
            self.run_admins();
        }
        self.shared.board.stop();
        if let Some(engine) = self.engine.take() {
            engine.close();
        }
        self.drop_engine();
        self.shared.stop_readers();
        while let Ok(job) = self.jobs.try_recv() {
            self.refuse(job);
        }
    }

    fn is_idle(&self) -> bool {
        let waiting = self.ahead.len() + self.sends.len() + self.admins.len();
        waiting == 0 && self.work.is_empty()
    }

    /// Takes all jobs there are; waits for the first if there is nothing else to do.
    fn take_jobs(&mut self, wait: bool) {
        if wait && !self.stopping {
            match self.jobs.recv() {
                Ok(job) => self.take(job),
                Err(_) => self.stopping = true,
            }
        }
        loop {
            match self.jobs.try_recv() {
                Ok(job) => self.take(job),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.stopping = true;
                    break;
                }
            }
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Requests(shard, requests) => {
                for request in requests {
                    self.enqueue(shard, request);
                }
            }
            Job::Admin(admin) => self.admins.push_back(admin),
            Job::Stop => self.stopping = true,
        }
    }

    fn enqueue(&mut self, shard: ShardId, request: Request) {
        match request.command {
            Command::Send(sends) => {
                let pending = PendingSends::new(shard, request.id, sends);
                self.sends.push_back(pending);
            }
            _ => self.ahead.push_back((shard, request)),
        }
    }

    /// Evaluates a batch, makes it durable, publishes it, answers it.
    fn commit_batch(&mut self) {
        if self.ahead.is_empty() && self.sends.is_empty() && self.work.is_empty() {
            return;
        }
        let mut batch = Batch::default();
        let evaluated = self.evaluate(&mut batch);
        let committed = match evaluated {
            Ok(writes) => self.commit(writes, batch.items > 0),
            Err(error) => Err(error.to_string()),
        };
        self.count(&batch, committed.is_ok());
        match committed {
            Ok(()) => {
                self.keep_work(batch.work.take());
                self.answer(batch);
            }
            Err(error) => {
                if let Some((work, _)) = batch.work.take() {
                    work.refuse(StoreError::Unavailable);
                }
                self.fail(&error);
                self.answer_unknown(batch);
            }
        }
        self.answers.deliver(&self.shared.sink);
    }

    /// A disk that is nearly full takes nothing more but what frees it.
    fn refuse_without_room(&mut self) {
        let tight = self.reserve.is_tight();
        self.shared.board.set_tight(tight);
        let log_bytes = if tight {
            self.reserve.bytes() / 4
        } else {
            u64::MAX
        };
        if let Some(engine) = &mut self.engine {
            engine.keep_log_below(log_bytes);
        }
        if tight && !self.sends.is_empty() {
            let refused = self.sends.iter().map(|pending| pending.sends().items.len());
            self.shared
                .counters
                .commit
                .without_room
                .add_len(refused.sum());
            self.refuse_sends();
            self.answers.deliver(&self.shared.sink);
        }
    }

    fn evaluate(&mut self, batch: &mut Batch) -> Result<Writes, TxnError> {
        let engine = self.engine.as_mut().expect("open while there is work");
        let now = (self.config.clock)();
        let limits = &self.config.limits;
        let lease = engine.lease;
        let Begun {
            tables,
            hot,
            stamp,
            keys,
            generation,
            knowledge,
        } = engine.begin();
        let committed = committed_end(generation, &tables);
        let mut txn = BatchTxn::new(&tables, hot, stamp);
        if ready(node::load(&mut txn, lease.0)) != Ok(lease.1) {
            // Somebody else is this node now (R24).
            return Err(TxnError::Conflict);
        }
        let mut scope = Scope {
            keys,
            generation,
            stamp,
            committed,
            next_index: 0,
            knowledge,
        };
        let counters = &self.shared.counters.commit;
        // Acknowledgements, openings and marks first, but not all of the room (R26), and one at least.
        while batch.ahead.len() < limits.batch_ahead_max
            && (batch.ahead.is_empty() || has_room(&txn, &scope, limits.batch_ahead_bytes_max))
        {
            let Some((shard, request)) = self.ahead.pop_front() else {
                break;
            };
            self.shared.release(&request.command);
            let evaluated = ready(attempt::command(&mut scope, &mut txn, &request.command));
            let done = evaluated.unwrap_or_else(|error| Err(own_error(counters, error)));
            batch.take(shard, request.id, done);
        }
        if let Some(work) = self.work.pop_front() {
            let piece = attempt::attempt(&mut scope, &mut txn, async |scope, txn| {
                work.step(scope, txn).await
            });
            let piece = ready(piece).unwrap_or_else(|error| Err(own_error(counters, error)));
            batch.work = Some((work, piece));
        }
        while batch.commands() < limits.batch_commands_max
            && (batch.items == 0 || has_room(&txn, &scope, limits.batch_bytes_max))
        {
            let Some(mut pending) = self.sends.pop_front() else {
                break;
            };
            let mut is_first = batch.items == 0;
            while !pending.is_done() && (is_first || has_room(&txn, &scope, limits.batch_bytes_max))
            {
                if let Err(error) = ready(pending.step(&mut scope, &mut txn, now)) {
                    pending.fail_next(own_error(counters, error));
                }
                batch.items += 1;
                is_first = false;
            }
            batch.sends.push(pending);
        }
        batch.hot_reads = txn.hot_reads;
        batch.bytes = txn.bytes();
        Ok(txn.into_writes())
    }

    fn commit(&mut self, writes: Writes, with_sends: bool) -> Result<(), String> {
        let counters = &self.shared.counters.commit;
        let engine = self.engine.as_mut().expect("open while there is work");
        let began = Instant::now();
        counters.writes.add_len(writes.len());
        let committed = engine.commit(writes).map_err(|error| {
            if reserve::is_full(&error) {
                self.reserve.yield_room(with_sends);
            }
            error.to_string()
        })?;
        if committed {
            counters.commits.add(1);
            counters.young_bytes.set(engine.young_bytes());
            let elapsed = began.elapsed().as_micros();
            counters.commit_us.add(u64::try_from(elapsed).unwrap_or(0));
        }
        Ok(())
    }

    /// A piece of what goes on between commands is durable: the next one of it comes after those of the others.
    fn keep_work(&mut self, done: Option<(Work, Result<Piece, StoreError>)>) {
        match done {
            None => {}
            Some((work, Err(error))) => work.refuse(error),
            Some((work, Ok(piece))) => {
                if let Piece::Expired(progress) = &piece
                    && progress.is_done()
                {
                    self.shared.counters.commit.expired.add(progress.removed);
                }
                self.work.extend(work.keep(piece));
            }
        }
    }

    /// An error that a command met belongs to that command: the engine is given up for its log and its commits
    /// alone (R10, R16).
    pub(super) fn own_error(&self, error: TxnError) -> StoreError {
        own_error(&self.shared.counters.commit, error)
    }

    /// Answers what is durable, in the order of evaluation, so that every growth names the one before.
    fn answer(&mut self, batch: Batch) {
        for mut evaluated in batch.ahead {
            if let Some(device) = evaluated.registered {
                // Its inbox is empty: nothing lies before its first entry.
                self.appended.insert(device, Position::ZERO);
            }
            if let Ok(outcome) = &mut evaluated.outcome {
                link(&mut self.appended, outcome.grown_mut());
            }
            let completion = Completion {
                id: evaluated.id,
                outcome: evaluated.outcome,
            };
            self.answers.push(evaluated.shard, completion);
        }
        for mut pending in batch.sends {
            link(&mut self.appended, pending.new_growth());
            self.finish_or_keep(pending);
        }
    }

    fn finish_or_keep(&mut self, mut pending: PendingSends<ShardId>) {
        if pending.is_done() {
            self.shared.release_sends(pending.sends().items.len());
            self.answers.push(pending.origin, pending.into_completion());
        } else {
            // Only the last of a batch is unfinished, and it goes on in the next.
            pending.keep();
            self.sends.push_front(pending);
        }
    }

    /// Whether it was committed is unknown, or it was not: the client asks again, and `k/` tells (R15).
    fn answer_unknown(&mut self, batch: Batch) {
        for evaluated in batch.ahead {
            let completion = Completion {
                id: evaluated.id,
                outcome: Err(StoreError::Unavailable),
            };
            self.answers.push(evaluated.shard, completion);
        }
        for mut pending in batch.sends {
            pending.fail();
            self.finish_or_keep(pending);
        }
    }

    /// Gives the engine up (R10).
    pub(super) fn fail(&mut self, error: &str) {
        tracing::error!(error, "the store has failed and will be reopened");
        // In this order: whoever sees the failure counted and the store ready knows that it was reopened.
        self.shared.board.fail(&error);
        self.shared.counters.commit.failures.add(1);
        self.drop_engine();
    }

    pub(super) fn drop_engine(&mut self) {
        self.engine = None;
        self.appended.clear();
    }

    /// Answers everything that waits: the engine has failed.
    pub(super) fn refuse_waiting(&mut self) {
        for (shard, request) in std::mem::take(&mut self.ahead) {
            self.refuse(Job::Requests(shard, vec![request]));
        }
        self.refuse_sends();
        self.answers.deliver(&self.shared.sink);
    }

    fn refuse_sends(&mut self) {
        for mut pending in std::mem::take(&mut self.sends) {
            pending.fail();
            self.finish_or_keep(pending);
        }
    }

    /// Answers a job that will not be carried out.
    pub(super) fn refuse(&mut self, job: Job) {
        match job {
            Job::Requests(shard, requests) => {
                self.shared
                    .counters
                    .commit
                    .unavailable
                    .add_len(requests.len());
                for request in requests {
                    self.shared.release(&request.command);
                    let refusal = refusal(&request, StoreError::Unavailable);
                    self.answers.push(shard, refusal);
                }
                self.answers.deliver(&self.shared.sink);
            }
            Job::Admin(admin) => admin.refuse(),
            Job::Stop => self.stopping = true,
        }
    }

    fn count(&self, batch: &Batch, committed: bool) {
        let counters = &self.shared.counters.commit;
        counters.cache_hits.add(batch.hot_reads.0);
        counters.cache_misses.add(batch.hot_reads.1);
        if !committed {
            counters.unavailable.add_len(batch.commands());
            return;
        }
        if batch.commands() > 0 {
            counters.count_batch(batch.commands());
        }
        counters.written_bytes.add_len(batch.bytes);
        for evaluated in &batch.ahead {
            self.count_ahead(&evaluated.outcome);
        }
        for (_, answer) in batch.sends.iter().flat_map(PendingSends::new_answers) {
            match answer {
                Ok(sent) if sent.repeated => counters.sends_repeated.add(1),
                Ok(_) => counters.sends.add(1),
                Err(error) => self.count_refusal(*error),
            }
        }
    }

    fn count_ahead(&self, outcome: &Result<Outcome, StoreError>) {
        let counters = &self.shared.counters.commit;
        match outcome {
            Ok(Outcome::DeviceOpened(_)) => counters.opens.add(1),
            Ok(Outcome::Flushed { .. }) => counters.flushes.add(1),
            Ok(Outcome::MarkedRead { .. }) => counters.read_marks.add(1),
            Ok(Outcome::InboxChecked { .. }) => counters.checks.add(1),
            Ok(Outcome::Sent { .. } | Outcome::Inbox(_)) => {}
            Err(error) => self.count_refusal(*error),
        }
    }

    fn count_refusal(&self, error: StoreError) {
        let counters = &self.shared.counters.commit;
        match error {
            StoreError::DeadlinePassed => counters.deadline_passed.add(1),
            _ => counters.refused.add(1),
        }
    }
}

/// What a commit is made of.
#[derive(Debug, Default)]
struct Batch {
    ahead: Vec<Evaluated>,
    sends: Vec<PendingSends<ShardId>>,
    items: usize,
    work: Option<(Work, Result<Piece, StoreError>)>,
    bytes: usize,
    hot_reads: (u64, u64),
}

impl Batch {
    fn commands(&self) -> usize {
        self.ahead.len() + self.items
    }

    fn take(&mut self, shard: ShardId, id: RequestId, done: Result<Done, StoreError>) {
        let registered = done.as_ref().ok().and_then(|done| done.registered);
        self.ahead.push(Evaluated {
            shard,
            id,
            outcome: done.map(|done| done.outcome),
            registered,
        });
    }
}

fn own_error(counters: &CommitCounters, error: TxnError) -> StoreError {
    tracing::error!(%error, "a command cannot be carried out");
    counters.own_errors.add(1);
    match error {
        TxnError::TooLarge | TxnError::Damaged => StoreError::Corrupt,
        _ => StoreError::Unavailable,
    }
}

fn has_room(txn: &BatchTxn<'_>, scope: &Scope<'_>, bytes_max: usize) -> bool {
    // One command writes a position per chat that it acknowledges, at most one per entry in the window.
    txn.bytes() < bytes_max && scope.next_index < u16::MAX / 2
}

/// Names in every growth the entry before it: this committer alone appends, in order (R4).
fn link(appended: &mut Recent<(UserId, DeviceId), Position>, growth: &mut [Grown]) {
    for grown in growth {
        let device = (grown.user, grown.device);
        grown.previous = appended.get(&device).copied();
        appended.insert(device, grown.cursor);
    }
}
