//! What the store needs done in time: blocks of message ids (R24), the minute's stamp (R25), and the word to all
//! shards when it was reopened (R15). Nothing here may wait for a long job: a shard that runs out of message ids
//! refuses every send.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use roadstead_net::Mailbox;
use roadstead_store::Health;

use crate::clock;
use crate::store::Handle;
use crate::worker::Message;

/// How far ahead message ids are reserved. A clock that jumps back by less is not noticed.
const RESERVE_AHEAD_MS: u64 = 120_000;

/// How often: often enough that a slow store is no reason to run out.
const EVERY: Duration = Duration::from_secs(20);

/// How soon after the store was reopened the shards are told.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// Keeps the store supplied until told to stop, by anything sent or by the sender's end.
pub(crate) fn run(store: &Handle, mailboxes: &[Mailbox<Message>], stop: &Receiver<()>) {
    let mut told = store.failures();
    loop {
        reserve(store, mailboxes);
        match store.stamp_minute(clock::unix_ms()) {
            Ok(true) => {}
            Ok(false) => tracing::warn!("the clock jumped: expiry waits until it proves itself"),
            Err(error) => tracing::warn!(?error, "the minute could not be stamped"),
        }
        if watch(store, mailboxes, stop, &mut told) {
            return;
        }
    }
}

/// Waits for the next turn; tells the shards when the store serves again after a failure. True when told
/// to stop.
fn watch(
    store: &Handle,
    mailboxes: &[Mailbox<Message>],
    stop: &Receiver<()>,
    told: &mut u64,
) -> bool {
    let until = Instant::now() + EVERY;
    while Instant::now() < until {
        match stop.recv_timeout(WATCH_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
        }
        let failures = store.failures();
        if failures > *told && matches!(store.health(), Health::Ready | Health::Full) {
            let send = |mailbox: &Mailbox<Message>| mailbox.send(Message::StoreReopened).is_ok();
            if mailboxes.iter().all(send) {
                *told = failures;
            }
        }
    }
    false
}

fn reserve(store: &Handle, mailboxes: &[Mailbox<Message>]) {
    match store.reserve_message_ids(clock::unix_ms() + RESERVE_AHEAD_MS) {
        Ok((from_ms, until_ms)) => {
            for mailbox in mailboxes {
                // A full mailbox: the block that the shard has lasts for five more turns.
                let _ = mailbox.send(Message::Reserved { from_ms, until_ms });
            }
        }
        Err(error) => tracing::warn!(?error, "no message ids could be reserved"),
    }
}
