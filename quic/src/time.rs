//! Time as the engine sees it: microseconds since a moment that the caller chose.
//!
//! The engine reads no clock (T3); every entry point takes the current [`Time`].

use std::ops::{Add, Sub};

/// A moment, in microseconds since the caller's epoch (for a server: process start).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(u64);

impl Time {
    /// The caller's epoch.
    pub const ZERO: Self = Self(0);

    /// The moment `us` microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(us: u64) -> Self {
        Self(us)
    }

    /// The moment `ms` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Milliseconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// Microseconds from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The tick of the timer wheel that is not before this moment.
    pub(crate) fn tick_up(self) -> u32 {
        low32(self.0.div_ceil(1_000))
    }

    /// The tick of the timer wheel that has passed at this moment.
    pub(crate) fn tick_down(self) -> u32 {
        low32(self.0 / 1_000)
    }
}

impl Add<u64> for Time {
    type Output = Self;
    /// Moves by microseconds.
    fn add(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }
}

impl Sub<u64> for Time {
    type Output = Self;
    /// Moves back by microseconds, stopping at the epoch.
    fn sub(self, us: u64) -> Self {
        Self(self.0.saturating_sub(us))
    }
}

/// The low 32 bits: for tick arithmetic, which is modular by design.
pub(crate) const fn low32(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// `value`, or the largest `u32` where it does not fit.
pub(crate) fn sat32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A count known to be bounded by a buffer length.
pub(crate) fn to_usize(value: u64) -> usize {
    usize::try_from(value).expect("a length bounded by a buffer fits in memory")
}
