//! Time as the load generator counts it: microseconds since the run began.

use std::time::{Duration, Instant};

/// Microseconds since the origin of the run's [`Clock`].
pub(crate) type Micros = u64;

/// The one clock of a run, shared by all its threads, so that a time stamped by one can be compared by
/// another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that shows 1 now: 0 is kept for 'never'.
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now() - Duration::from_micros(1),
        }
    }

    pub(crate) fn now(self) -> Micros {
        self.at(Instant::now())
    }

    pub(crate) fn at(self, instant: Instant) -> Micros {
        micros(instant.saturating_duration_since(self.origin))
    }

    pub(crate) fn instant(self, at: Micros) -> Instant {
        self.origin + Duration::from_micros(at)
    }
}

pub(crate) fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Seconds, for people and reports.
#[allow(
    clippy::cast_precision_loss,
    reason = "a report needs no more than 52 bits"
)]
pub(crate) fn seconds(micros: Micros) -> f64 {
    micros as f64 / 1e6
}
