//! Time as an argument: the core never reads a clock.

use std::fmt;
use std::time::Duration;

/// A point of a monotonic clock that all shards of a process share, in microseconds since an origin
/// that the process chose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

/// The moment of an input: the monotonic time for deadlines and the wall clock for stamps on messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For deadlines and intervals.
    pub at: Time,
    /// Unix time in milliseconds: shown to people and part of message ids, never compared for order.
    pub unix_ms: u64,
}

impl Time {
    /// The origin of the clock.
    pub const ZERO: Self = Self(0);

    /// After every time that comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// A time this many microseconds after the origin.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the origin.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0)
    }
}
