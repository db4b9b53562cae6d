//! Messages to other shards: collected during a turn, one batch for each destination.
//!
//! Nothing is dropped when a queue is full: the batch waits here and grows. What waits is bounded by what
//! may be under way, because every message comes from a frame or an answer of the store.

use roadstead::{ShardId, ShardMessage};
use roadstead_net::Mailbox;

use super::Message;

pub(crate) struct Outbox {
    from: ShardId,
    mailboxes: Vec<Mailbox<Message>>,
    batches: Vec<Vec<ShardMessage>>,
}

impl Outbox {
    pub(crate) fn new(from: ShardId, mailboxes: Vec<Mailbox<Message>>) -> Self {
        let batches = mailboxes.iter().map(|_| Vec::new()).collect();
        Self {
            from,
            mailboxes,
            batches,
        }
    }

    pub(super) fn push(&mut self, to: ShardId, message: ShardMessage) {
        self.batches[usize::from(to.0)].push(message);
    }

    /// Sends all batches; false if one has to wait for room.
    pub(super) fn flush(&mut self) -> bool {
        let mut all = true;
        for (mailbox, batch) in self.mailboxes.iter().zip(&mut self.batches) {
            if batch.is_empty() {
                continue;
            }
            let message = Message::Shard(self.from, std::mem::take(batch));
            if let Err(Message::Shard(_, kept)) = mailbox.send(message) {
                *batch = kept;
                all = false;
            }
        }
        all
    }

    /// Messages that wait for room.
    pub(super) fn waiting(&self) -> usize {
        self.batches.iter().map(Vec::len).sum()
    }
}
