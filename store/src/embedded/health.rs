//! Whether the engine serves, for everyone who asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::disk::View;

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
    /// It was stopped.
    Stopped,
}

/// What the committer publishes: the view that readers read, or why there is none.
#[derive(Debug, Clone)]
pub(crate) struct Board(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    health: Health,
    view: Option<Arc<View>>,
}

impl Board {
    pub(crate) fn new(view: View) -> Self {
        Self(Arc::new(Mutex::new(State {
            health: Health::Ready,
            view: Some(Arc::new(view)),
        })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing in here can be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn health(&self) -> Health {
        self.state().health.clone()
    }

    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.state().view.clone()
    }

    /// Shows a commit, after it was synced (R8).
    pub(crate) fn publish(&self, view: View) {
        let mut state = self.state();
        let old = state.view.replace(Arc::new(view));
        state.health = Health::Ready;
        drop(state);
        // Closing a view may take a moment: not under the lock.
        drop(old);
    }

    pub(crate) fn fail(&self, error: &dyn std::fmt::Display) {
        let mut state = self.state();
        let since = match state.health {
            Health::Failed { since, .. } => since,
            _ => SystemTime::now(),
        };
        state.health = Health::Failed {
            since,
            error: error.to_string(),
        };
        let old = state.view.take();
        drop(state);
        drop(old);
    }

    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.health = Health::Stopped;
        let old = state.view.take();
        drop(state);
        drop(old);
    }
}
