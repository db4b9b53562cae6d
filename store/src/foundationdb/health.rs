//! Whether the engine serves, and how long its lease lets it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::embedded::Health;

/// A lease that was not renewed for so long is open to others (R24).
pub(crate) const LEASE_EXPIRES_AFTER: Duration = Duration::from_secs(10);

/// A node stops answering so long before its lease expires (R24).
const LEASE_MARGIN: Duration = Duration::from_secs(3);

/// What the lease keeper tells everyone else.
#[derive(Debug)]
pub(crate) struct Board {
    health: Mutex<Health>,
    /// Milliseconds of [`boot_ms`] until which commands may be answered.
    answers_until_ms: AtomicU64,
}

/// A monotonic clock that goes on while the machine is suspended (R24).
pub(crate) fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds * 1_000 + nanos / 1_000_000
}

impl Board {
    /// A board for a lease that was taken by a transaction begun at `since_ms`.
    pub(crate) fn new(since_ms: u64) -> Self {
        let board = Self {
            health: Mutex::new(Health::Ready),
            answers_until_ms: AtomicU64::new(0),
        };
        board.renewed(since_ms);
        board
    }

    fn state(&self) -> MutexGuard<'_, Health> {
        // Nothing in here can be half done.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn health(&self) -> Health {
        self.state().clone()
    }

    /// Whether the lease lets this node answer.
    pub(crate) fn may_answer(&self) -> bool {
        boot_ms() < self.answers_until_ms.load(Relaxed)
    }

    /// The lease was renewed by a transaction begun at `since_ms`.
    pub(crate) fn renewed(&self, since_ms: u64) {
        let held = LEASE_EXPIRES_AFTER.saturating_sub(LEASE_MARGIN).as_millis();
        let until = since_ms + u64::try_from(held).unwrap_or(0);
        self.answers_until_ms.store(until, Relaxed);
        let mut health = self.state();
        if !matches!(*health, Health::Stopped | Health::Fenced) {
            *health = Health::Ready;
        }
    }

    /// Another process holds the lease: nothing is answered any more.
    pub(crate) fn fence(&self) {
        self.answers_until_ms.store(0, Relaxed);
        let mut health = self.state();
        if matches!(*health, Health::Ready | Health::Failed { .. }) {
            tracing::error!("another process has taken over this node's number");
            *health = Health::Fenced;
        }
    }

    pub(crate) fn fail(&self, error: &str) {
        let mut health = self.state();
        let since = match &*health {
            Health::Stopped | Health::Fenced => return,
            Health::Failed { since, .. } => *since,
            // The cluster's room is its own matter: this is never `Full`.
            Health::Ready | Health::Full => {
                tracing::error!(error, "the store does not answer");
                SystemTime::now()
            }
        };
        *health = Health::Failed {
            since,
            error: error.to_owned(),
        };
    }

    pub(crate) fn stop(&self) {
        self.answers_until_ms.store(0, Relaxed);
        *self.state() = Health::Stopped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r24_a_node_stops_answering_before_its_lease_expires() {
        let board = Board::new(boot_ms());
        assert!(board.may_answer());
        board.renewed(boot_ms() - 6_000);
        assert!(board.may_answer());
        board.renewed(boot_ms() - 7_000);
        assert!(!board.may_answer());
    }

    #[test]
    fn health_turns_red_and_green_again() {
        let board = Board::new(boot_ms());
        board.fail("no quorum");
        assert!(matches!(board.health(), Health::Failed { .. }));
        board.renewed(boot_ms());
        assert_eq!(board.health(), Health::Ready);
        board.fence();
        board.fail("no quorum");
        assert!(!board.may_answer());
        assert_eq!(board.health(), Health::Fenced, "for good");
        board.stop();
        assert_eq!(board.health(), Health::Stopped);
    }
}
