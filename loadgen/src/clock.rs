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

/// Reads a time: seconds, or a number with a unit.
pub(crate) fn time(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let at = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(at.unwrap_or(text.len()));
    let factor = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err("a time is a number with ms, s, m, h or d, or of seconds".into()),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number * factor),
        _ => Err("a time above 0 is wanted".into()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let close = |text, seconds: f64| (time(text).expect("good") - seconds).abs() < 1e-9;
        assert!(close("90", 90.0) && close("1.5s", 1.5) && close("250ms", 0.25));
        assert!(close("2m", 120.0) && close("1 h", 3_600.0) && close("1d", 86_400.0));
        for bad in ["", "s", "-1s", "5y", "0"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
