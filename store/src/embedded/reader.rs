//! Readers: inboxes are read from what is published, beside the committer.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;
use roadstead::ShardId;
use roadstead::store::{
    CheckInbox, Command, Completion, EntryBody, InboxPage, Outcome, ReadInbox, Request, StoreError,
};

use crate::keys::Keys;
use crate::records::inbox::{self, Verdict};
use crate::records::meta::Meta;
use crate::records::{Knowledge, RecordError, Scope};
use crate::txn::ready;

use super::batch::BatchTxn;
use super::committer::Job;
use super::counters::ReadCounters;
use super::engine::committed_end;
use super::tables::Tables;
use super::{Answers, Shared, refusal};

/// Reads answered together.
const TOGETHER_MAX: usize = 32;

/// What a reader is asked.
#[derive(Debug)]
pub(crate) enum ReadJob {
    /// A read of a shard.
    Request(ShardId, Request),
    /// End.
    Stop,
}

impl ReadJob {
    /// The answer of a job that nobody will carry out.
    pub(crate) fn into_refusal(self) -> Option<Completion> {
        match self {
            Self::Request(_, request) => Some(refusal(&request, StoreError::Unavailable)),
            Self::Stop => None,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
    index: usize,
    generation: u32,
    keys: Keys,
    knowledge: Knowledge,
    reads: Receiver<ReadJob>,
    answers: Answers,
}

impl Reader {
    pub(crate) fn new(
        shared: Arc<Shared>,
        index: usize,
        meta: Meta,
        reads: Receiver<ReadJob>,
    ) -> Self {
        Self {
            shared,
            index,
            generation: meta.generation,
            keys: Keys::new(meta.placement_key),
            knowledge: Knowledge::of_one_among_many(2),
            reads,
            answers: Answers::default(),
        }
    }

    /// Reads until it is told to stop.
    pub(crate) fn run(mut self) {
        let reads = self.reads.clone();
        while let Ok(job) = reads.recv() {
            let began = Instant::now();
            let mut stop = !self.serve(job);
            for job in reads.try_iter().take(TOGETHER_MAX) {
                stop |= !self.serve(job);
            }
            let elapsed = u64::try_from(began.elapsed().as_micros()).unwrap_or(0);
            self.counters().read_us.add(elapsed);
            self.answers.deliver(&self.shared.sink);
            if stop {
                break;
            }
        }
        for job in reads.try_iter() {
            self.serve(job);
        }
        self.answers.deliver(&self.shared.sink);
    }

    fn counters(&self) -> &ReadCounters {
        &self.shared.counters.readers[self.index]
    }

    /// Serves one job; `false` if it was the last.
    fn serve(&mut self, job: ReadJob) -> bool {
        let ReadJob::Request(shard, request) = job else {
            return false;
        };
        // Taken for every read anew: a read that was asked for after a commit must see it (R5).
        let committed = self.shared.board.committed();
        let outcome = match (&committed, &request.command) {
            (None, _) => {
                self.counters().unavailable.add(1);
                Err(StoreError::Unavailable)
            }
            (Some(committed), Command::ReadInbox(read)) => {
                self.read(&committed.read(), read).map(Outcome::Inbox)
            }
            (Some(committed), Command::CheckInbox(check)) => {
                match self.check(&committed.read(), check) {
                    Ok(None) => {
                        self.pass_on(shard, request);
                        return true;
                    }
                    Ok(Some(suspended)) => Ok(Outcome::InboxChecked {
                        suspended,
                        grown: Vec::new(),
                    }),
                    Err(error) => Err(error),
                }
            }
            _ => unreachable!("sorted out by the queue"),
        };
        self.shared.release(&request.command);
        let completion = Completion {
            id: request.id,
            outcome,
        };
        self.answers.push(shard, completion);
        true
    }

    fn read(&mut self, tables: &Tables, read: &ReadInbox) -> Result<InboxPage, StoreError> {
        let mut txn = BatchTxn::reading(tables);
        let scope = self.scope(tables);
        let page = ready(inbox::read(&scope, &mut txn, read)).map_err(refused)?;
        let counters = self.counters();
        counters.reads.add(1);
        counters.read_entries.add_len(page.entries.len());
        let payloads = page.entries.iter().map(|entry| match &entry.body {
            EntryBody::Message { envelope, .. } => envelope.payload.len(),
            EntryBody::Receipt(_) | EntryBody::Gap(_) => 0,
        });
        counters.read_bytes.add_len(payloads.sum());
        Ok(page)
    }

    /// Whether a device is suspended; `None` if something has to change, which the committer does (R21).
    fn check(&mut self, tables: &Tables, check: &CheckInbox) -> Result<Option<bool>, StoreError> {
        let mut txn = BatchTxn::reading(tables);
        let scope = self.scope(tables);
        let verdict = ready(inbox::look(&scope, &mut txn, check)).map_err(refused)?;
        Ok(match verdict {
            Verdict::Stays { suspended } => Some(suspended),
            Verdict::Suspend | Verdict::Crowd | Verdict::Clear => None,
        })
    }

    /// Hands a command to the committer, which gives back its place in the queue.
    fn pass_on(&mut self, shard: ShardId, request: Request) {
        if let Err(unsent) = self.shared.jobs.send(Job::Requests(shard, vec![request])) {
            for refusal in unsent.0.into_refusals() {
                self.answers.push(shard, refusal);
            }
        }
    }

    fn scope(&mut self, tables: &Tables) -> Scope<'_> {
        Scope {
            keys: &self.keys,
            generation: self.generation,
            stamp: [0; 10],
            committed: committed_end(self.generation, tables),
            next_index: 0,
            knowledge: &mut self.knowledge,
        }
    }
}

fn refused(error: RecordError) -> StoreError {
    match error {
        RecordError::Refused(error) => error,
        RecordError::Txn(_) => StoreError::Unavailable,
    }
}

impl Shared {
    pub(super) fn stop_readers(&self) {
        for _ in &self.counters.readers {
            // A reader that is gone needs no telling.
            let _ = self.reads.send(ReadJob::Stop);
        }
    }
}
