//! The one clock of the process: monotonic time since its start, for all shards and the store.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use roadstead::{Now, Time};

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// An instant as the core's time.
pub(crate) fn time_at(instant: Instant) -> Time {
    let since = instant.saturating_duration_since(origin());
    Time::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// The core's time as an instant.
pub(crate) fn instant_of(time: Time) -> Instant {
    origin() + time.since(Time::ZERO)
}

/// The core's time now.
pub(crate) fn time() -> Time {
    time_at(Instant::now())
}

/// The wall clock.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock in seconds, as dates have it.
pub(crate) fn unix_s() -> i64 {
    i64::try_from(unix_ms() / 1_000).unwrap_or(i64::MAX)
}

/// Both, for an input that came at this instant.
pub(crate) fn now_at(instant: Instant) -> Now {
    Now {
        at: time_at(instant),
        unix_ms: unix_ms(),
    }
}
