//! The account of memory, taken now and then: every shard walks over its connections for it, some 20 ms for a
//! million, and who asks is not known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roadstead_net::Mailbox;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use super::Admin;
use crate::memory::account::{ProcessMemory, Report, ShardMemory};
use crate::metrics::Number;
use crate::worker::Message;

/// How often it is taken at most, for all who ask: then it is 2 % of a shard's time with a million connections.
const TAKEN_EVERY: Duration = Duration::from_secs(1);

/// How long busy shards may take to say what they hold.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found last, or that a shard was too busy to say.
type Found = (Instant, Option<Arc<Report>>);

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Sample {
    last: Arc<Mutex<Option<Found>>>,
    taken: Arc<Number>,
}

impl Sample {
    /// How often it was taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// The last account, or a new one if that is old. `None`: a shard is busy.
    pub(crate) async fn get(&self, admin: &Arc<Admin>) -> Option<Arc<Report>> {
        let last = self.last.clone().lock_owned().await;
        if let Some((at, found)) = last.as_ref()
            && at.elapsed() < TAKEN_EVERY
        {
            return found.clone();
        }
        self.taken.add(1);
        // To its end, even if whoever asked hangs up: it would be taken again for the next one at once.
        let taking = tokio::spawn(take(last, admin.clone()));
        taking.await.ok().flatten()
    }
}

async fn take(mut last: OwnedMutexGuard<Option<Found>>, admin: Arc<Admin>) -> Option<Arc<Report>> {
    let shards = tokio::time::timeout(PATIENCE, ask(&admin.mailboxes)).await;
    let report = shards.ok().flatten().map(|shards| {
        Arc::new(Report {
            shards,
            store_young_bytes: admin.store.young_bytes(),
            process: ProcessMemory::read(admin.udp_port),
        })
    });
    *last = Some((Instant::now(), report.clone()));
    report
}

/// Asks all shards at once; `None` if one takes no questions.
async fn ask(mailboxes: &[Mailbox<Message>]) -> Option<Vec<ShardMemory>> {
    let mut answers = Vec::with_capacity(mailboxes.len());
    for mailbox in mailboxes {
        let (asked, answer) = oneshot::channel();
        mailbox.send(Message::Memory(asked)).ok()?;
        answers.push(answer);
    }
    let mut shards = Vec::with_capacity(answers.len());
    for answer in answers {
        shards.push(answer.await.ok()?);
    }
    Some(shards)
}
