//! A worker: one thread that runs the transactions of a part of the shards, many at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadstead::ShardId;
use roadstead::store::{Command, Request};
use roadstead_proto::UserId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::{LocalSet, spawn_local};

use super::admin;
use super::batch::Batch;
use super::engine::Engine;
use super::queue::Queue;
use super::work::Work;
use super::{lease, reads};
use crate::admin::Admin;

/// How long a stop waits for what was submitted before it.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What a worker is asked, and what its own tasks tell it.
#[derive(Debug)]
pub(crate) enum Job {
    /// Commands of a shard, which have their place in the queues.
    Requests(ShardId, Vec<Request>),
    /// A command of the process itself.
    Admin(Admin),
    /// Finish what was asked before, and end.
    Stop,
    /// Stop was long ago.
    StopNow,
    /// A batch has ended.
    BatchEnded(ShardId, Vec<UserId>, Vec<Work>),
    /// A round of reads has ended.
    ReadsEnded(ShardId),
    /// A command of the process has ended.
    AdminEnded,
}

/// What waits and what is under way in a shard.
#[derive(Debug, Default)]
struct Shard {
    queue: Queue,
    batches: usize,
    reads: Vec<Work>,
    read_rounds: usize,
}

/// See the [module](self).
pub(crate) struct Worker {
    engine: Arc<Engine>,
    jobs: UnboundedReceiver<Job>,
    /// For the tasks to tell that they have ended.
    ended: UnboundedSender<Job>,
    shards: HashMap<ShardId, Shard>,
    admins: usize,
    admin_state: admin::State,
    stopping: bool,
}

impl Worker {
    pub(crate) fn new(
        engine: Arc<Engine>,
        jobs: UnboundedReceiver<Job>,
        ended: UnboundedSender<Job>,
    ) -> Self {
        Self {
            engine,
            jobs,
            ended,
            shards: HashMap::new(),
            admins: 0,
            admin_state: admin::State::default(),
            stopping: false,
        }
    }

    /// Runs until it is told to stop and nothing is left to do. The first worker keeps the lease.
    pub(crate) fn run(self, keeps_lease: bool) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        LocalSet::new().block_on(&runtime, async move {
            let keeper = keeps_lease.then(|| spawn_local(lease::keep(self.engine.clone())));
            self.serve().await;
            if let Some(keeper) = keeper {
                keeper.abort();
            }
        });
        Ok(())
    }

    async fn serve(mut self) {
        while !(self.stopping && self.is_idle()) {
            let Some(job) = self.jobs.recv().await else {
                break;
            };
            self.take(job);
            while let Ok(job) = self.jobs.try_recv() {
                self.take(job);
            }
            self.start_what_can_go();
        }
        self.jobs.close();
        while let Ok(job) = self.jobs.try_recv() {
            self.refuse(job);
        }
    }

    fn is_idle(&self) -> bool {
        let is_idle = |shard: &Shard| {
            let under_way = shard.batches + shard.read_rounds;
            under_way == 0 && shard.queue.is_empty() && shard.reads.is_empty()
        };
        self.admins == 0 && self.shards.values().all(is_idle)
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Requests(shard, requests) => self.enqueue(shard, requests),
            Job::Admin(admin) => {
                self.admins += 1;
                let run = admin::run(self.engine.clone(), self.admin_state.clone(), admin);
                self.spawn(run, Job::AdminEnded);
            }
            Job::Stop => {
                self.stopping = true;
                self.spawn(tokio::time::sleep(STOP_PATIENCE), Job::StopNow);
            }
            // Whatever is under way is answered as unavailable at its next turn.
            Job::StopNow => self.engine.board().stop(),
            Job::BatchEnded(shard, users, put_off) => {
                let shard = self.shards.entry(shard).or_default();
                shard.batches -= 1;
                shard.queue.ended(&users, put_off);
            }
            Job::ReadsEnded(shard) => self.shards.entry(shard).or_default().read_rounds -= 1,
            Job::AdminEnded => self.admins -= 1,
        }
    }

    fn enqueue(&mut self, id: ShardId, requests: Vec<Request>) {
        let give_up_at = Instant::now() + self.engine.limits().patience;
        let shard = self.shards.entry(id).or_default();
        for request in requests {
            let work = Work::new(id, request.id, request.command, give_up_at);
            match work.command {
                Command::ReadInbox(_) => shard.reads.push(work),
                _ => shard.queue.push(work),
            }
        }
    }

    fn refuse(&self, job: Job) {
        match job {
            Job::Requests(shard, requests) => {
                for request in &requests {
                    self.engine.release(&request.command);
                }
                self.engine.answer(shard, super::refusals(&requests));
            }
            Job::Admin(admin) => admin.refuse(),
            _ => {}
        }
    }

    /// Begins transactions for whatever waits and may go.
    fn start_what_can_go(&mut self) {
        let ids: Vec<ShardId> = self.shards.keys().copied().collect();
        for id in ids {
            while let Some((works, users)) = self.next_batch(id) {
                self.start_batch(id, works, users);
            }
            while let Some(reads) = self.next_reads(id) {
                let round = reads::serve(self.engine.clone(), reads);
                self.spawn(round, Job::ReadsEnded(id));
            }
        }
    }

    fn next_batch(&mut self, id: ShardId) -> Option<(Vec<Work>, Vec<UserId>)> {
        let limits = self.engine.limits();
        let shard = self.shards.get_mut(&id)?;
        if shard.batches >= limits.batches_in_flight_max || shard.queue.is_empty() {
            return None;
        }
        let (mut works, users) = shard.queue.next_batch(limits);
        if works.is_empty() {
            return None;
        }
        shard.batches += 1;
        self.leave_queue(&mut works);
        Some((works, users))
    }

    fn start_batch(&self, id: ShardId, works: Vec<Work>, users: Vec<UserId>) {
        let (engine, ended) = (self.engine.clone(), self.ended.clone());
        spawn_local(async move {
            let put_off = Batch::new(&engine, works).run().await;
            // The worker waits for its batches.
            let _ = ended.send(Job::BatchEnded(id, users, put_off));
        });
    }

    fn next_reads(&mut self, id: ShardId) -> Option<Vec<Work>> {
        let limits = self.engine.limits();
        let shard = self.shards.get_mut(&id)?;
        if shard.read_rounds >= limits.batches_in_flight_max || shard.reads.is_empty() {
            return None;
        }
        let count = shard.reads.len().min(limits.reads_together_max);
        let mut reads: Vec<Work> = shard.reads.drain(..count).collect();
        shard.read_rounds += 1;
        self.leave_queue(&mut reads);
        Some(reads)
    }

    /// What is under way has no place in the queue any more.
    fn leave_queue(&self, works: &mut [Work]) {
        for work in works {
            if work.leave_queue() {
                self.engine.release(&work.command);
            }
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static, then: Job) {
        let ended = self.ended.clone();
        spawn_local(async move {
            task.await;
            // The worker may have ended before a late timer.
            let _ = ended.send(then);
        });
    }
}
