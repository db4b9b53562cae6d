//! The removal of what is too old (R25), on a thread of its own: it takes as long as it takes.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::store::Handle;

/// How often it is looked whether another day has passed, by the store's own time.
const EVERY: Duration = Duration::from_secs(15 * 60);

/// Removes entries by age, day by day, until told to stop, by anything sent or by the sender's end. A run that
/// is under way ends when the store stops.
pub(crate) fn run(store: &Handle, stop: &Receiver<()>) {
    let mut day_done = None;
    loop {
        match store.expire(day_done) {
            Ok(expired) => {
                if expired.visited > 0 {
                    let (removed, visited) = (expired.removed, expired.visited);
                    tracing::info!(removed, visited, "entries were removed by age");
                }
                day_done = day_done.max(Some(expired.day));
            }
            Err(error) => tracing::warn!(?error, "old entries could not be removed"),
        }
        if stop.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}
