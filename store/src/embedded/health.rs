//! Whether the engine serves, for everyone who asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::engine::Committed;

/// Whether the engine serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Ready,
    /// The disk is nearly full: it takes what frees it, acknowledgements and the expiry, and no messages.
    Full,
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
    tight: bool,
    committed: Option<Committed>,
}

impl Board {
    pub(crate) fn new(committed: Committed) -> Self {
        Self(Arc::new(Mutex::new(State {
            health: Health::Ready,
            tight: false,
            committed: Some(committed),
        })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing in here can be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn health(&self) -> Health {
        let state = self.state();
        match state.health {
            Health::Ready if state.tight => Health::Full,
            _ => state.health.clone(),
        }
    }

    /// The disk is nearly full, or it is not.
    pub(crate) fn set_tight(&self, tight: bool) {
        self.state().tight = tight;
    }

    /// What readers read; `None` while nothing is served.
    pub(crate) fn committed(&self) -> Option<Committed> {
        self.state().committed.clone()
    }

    /// The engine serves again.
    pub(crate) fn publish(&self, committed: Committed) {
        let mut state = self.state();
        state.health = Health::Ready;
        state.committed = Some(committed);
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
        let mut state = self.state();
        state.health = Health::Stopped;
        state.committed = None;
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
