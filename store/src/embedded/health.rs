//! Whether the engine serves, for everyone who asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::engine::Committed;

/// Whether the engine serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Ready,
    /// Its last commit or opening failed: nothing is served until it has been reopened (R10).
    Failed {
        /// Since when, for people.
        since: SystemTime,
        /// What it said last.
        error: String,
    },
    /// Another process has taken over this node's number: this one commits nothing any more (R24).
    Fenced,
    /// It was stopped.
    Stopped,
}

/// What the committer publishes: what readers read, or why there is nothing.
#[derive(Debug, Clone)]
pub(crate) struct Board(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    health: Health,
    committed: Option<Committed>,
}

impl Board {
    pub(crate) fn new(committed: Committed) -> Self {
        Self(Arc::new(Mutex::new(State {
            health: Health::Ready,
            committed: Some(committed),
        })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing in here can be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn health(&self) -> Health {
        self.state().health.clone()
    }

    /// What readers read; `None` while nothing is served.
    pub(crate) fn committed(&self) -> Option<Committed> {
        self.state().committed.clone()
    }

    /// The engine serves again.
    pub(crate) fn publish(&self, committed: Committed) {
        *self.state() = State {
            health: Health::Ready,
            committed: Some(committed),
        };
    }

    /// Nothing is served.
    pub(crate) fn fail(&self, error: &dyn std::fmt::Display) {
        let mut state = self.state();
        let since = match state.health {
            Health::Failed { since, .. } => since,
            _ => SystemTime::now(),
        };
        let error = error.to_string();
        state.health = Health::Failed { since, error };
        state.committed = None;
    }

    /// Held by a thread of the store: if that thread panics, nothing is served (R10). A release build
    /// aborts instead.
    pub(crate) fn alarm(&self) -> Alarm {
        Alarm(self.clone())
    }

    /// Nothing is served any more.
    pub(crate) fn stop(&self) {
        *self.state() = State {
            health: Health::Stopped,
            committed: None,
        };
    }
}

/// See [`Board::alarm`].
#[derive(Debug)]
pub(crate) struct Alarm(Board);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&"a thread of the store panicked");
        }
    }
}
