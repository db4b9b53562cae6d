//! Rates over time: constant, stepped, rising, or the curve of a day.
//!
//! Written as a list of parts, the last of which lasts on:
//!
//! ```text
//! 2000                      always 2,000 a second
//! 100@10s,500@10s,1000      steps
//! 100-5000@60s,5000         rises evenly for a minute, then stays
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::{Micros, time as parse_time};

/// The highest rate that is taken for one: far above what a host can send, and low enough that counts and times of a
/// run keep their microseconds.
const RATE_MAX: f64 = 1e9;

/// A rate as a function of the time since its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Profile(Vec<Part>);

/// Some time in which the rate changes evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    /// Events per second at both ends.
    from: f64,
    to: f64,
    /// Seconds.
    time: f64,
}

/// Share of a day's messages in each hour of it, in percent: hardly any before dawn, a plateau by day, the
/// peak in the evening. The shape is that of published curves of messengers; the peak hour has 1.9 times
/// the mean.
const DAY: [f64; 24] = [
    2.6, 1.5, 0.9, 0.7, 0.7, 1.0, 1.9, 3.3, 4.3, 4.7, 4.9, 5.1, 5.4, 5.2, 5.0, 5.0, 5.2, 5.7, 6.4,
    7.2, 7.8, 7.3, 5.5, 3.8,
];

impl Profile {
    pub(crate) fn constant(rate: f64) -> Self {
        Self::from_parts(vec![(rate, rate, f64::INFINITY)])
    }

    /// The curve of a day with this mean rate, in `time` seconds instead of 24 hours. Rates stay as they
    /// are: the day is shorter and has as many fewer messages.
    pub(crate) fn day(mean: f64, time: f64) -> Self {
        let total: f64 = DAY.iter().sum();
        let at = |hour: usize| mean * 24.0 * DAY[hour % 24] / total;
        let hour = time / 24.0;
        Self::from_parts((0..24).map(|h| (at(h), at(h + 1), hour)).collect())
    }

    fn from_parts(parts: Vec<(f64, f64, f64)>) -> Self {
        let part = |(from, to, time)| Part { from, to, time };
        Self(parts.into_iter().map(part).collect())
    }

    /// The same shape with all rates multiplied.
    pub(crate) fn scaled(&self, by: f64) -> Self {
        let scale = |part: &Part| Part {
            from: part.from * by,
            to: part.to * by,
            ..*part
        };
        Self(self.0.iter().map(scale).collect())
    }

    /// The highest rate.
    pub(crate) fn peak(&self) -> f64 {
        let rates = self.0.iter().flat_map(|part| [part.from, part.to]);
        rates.fold(0.0, f64::max)
    }

    /// The lowest rate from the end on: what a drain may count on.
    pub(crate) fn last(&self) -> f64 {
        self.0.last().map_or(0.0, |part| part.to)
    }

    /// The time at which `count` events are due, in seconds since the start; infinite if never.
    pub(crate) fn time_of(&self, count: f64) -> f64 {
        let (mut began, mut left) = (0.0, count);
        for (n, part) in self.0.iter().enumerate() {
            let is_last = n + 1 == self.0.len();
            let here = if is_last {
                f64::INFINITY
            } else {
                part.events()
            };
            if left <= here {
                return began + part.time_of(left, is_last);
            }
            left -= here;
            began += part.time;
        }
        f64::INFINITY
    }
}

impl Part {
    fn events(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.time
    }

    /// When the `count`th event of this part is due, since its start.
    fn time_of(&self, count: f64, is_last: bool) -> f64 {
        let slope = if self.time.is_finite() {
            (self.to - self.from) / self.time
        } else {
            0.0
        };
        if is_last && count > self.events() {
            // What comes after the end has the last rate.
            let rest = count - self.events();
            return if self.to > 0.0 {
                self.time + rest / self.to
            } else {
                f64::INFINITY
            };
        }
        // from * t + slope * t^2 / 2 = count, in the form that is stable for any slope.
        let root = (self.from * self.from + 2.0 * slope * count)
            .max(0.0)
            .sqrt();
        match self.from + root {
            sum if sum > 0.0 => 2.0 * count / sum,
            _ if count > 0.0 => f64::INFINITY,
            _ => 0.0,
        }
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let read = |(n, text): (usize, &&str)| part(text, n + 1 == parts.len());
        let parts = parts.iter().enumerate().map(read);
        let profile = Self(parts.collect::<Result<Vec<_>, _>>()?);
        if profile.peak() > 0.0 {
            Ok(profile)
        } else {
            Err("some rate must be above 0".into())
        }
    }
}

fn part(text: &str, is_last: bool) -> Result<Part, String> {
    let (rates, time) = match text.split_once('@') {
        Some((rates, length)) => (rates, parse_time(length)?),
        None if is_last => (text, f64::INFINITY),
        None => {
            return Err(format!(
                "{text:?} needs a time: only the last part lasts on"
            ));
        }
    };
    let rate = |text: &str| match text.trim().parse::<f64>() {
        Ok(rate) if (0.0..=RATE_MAX).contains(&rate) => Ok(rate),
        Ok(rate) if rate > RATE_MAX => Err(format!("{text:?}: a rate is at most {RATE_MAX:.0}")),
        _ => Err(format!(
            "{text:?} is no rate: RATE, RATE@TIME or FROM-TO@TIME"
        )),
    };
    let (from, to) = match rates.split_once('-') {
        Some((from, to)) if time.is_finite() => (rate(from)?, rate(to)?),
        Some(_) => return Err(format!("{text:?} rises for how long? FROM-TO@TIME")),
        None => (rate(rates)?, rate(rates)?),
    };
    Ok(Part { from, to, time })
}

impl TryFrom<String> for Profile {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Profile> for String {
    fn from(profile: Profile) -> Self {
        profile.to_string()
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.0.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            write!(f, "{comma}{}", part.from)?;
            if part.from.to_bits() != part.to.to_bits() {
                write!(f, "-{}", part.to)?;
            }
            if part.time.is_finite() {
                write!(f, "@{}s", part.time)?;
            }
        }
        Ok(())
    }
}

/// Seconds as the clock counts them.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times are positive; infinity saturates to 'never'"
)]
pub(crate) fn to_micros(seconds: f64) -> Micros {
    (seconds * 1e6) as Micros
}

#[cfg(test)]
mod tests {
    /// It never ended.
    #[test]
    fn fd11_a_rate_has_a_ceiling() {
        for text in ["1e30", "inf", "1-1e10@3s", "NaN", "-1"] {
            assert!(text.parse::<Profile>().is_err(), "{text}");
        }
        assert!("1e9".parse::<Profile>().is_ok());
    }

    use super::*;

    fn profile(text: &str) -> Profile {
        text.parse().expect("a profile")
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6 * b.abs().max(1.0)
    }

    #[test]
    fn a_constant_rate_is_even() {
        assert!(close(profile("200").time_of(100.0), 0.5));
        assert!(close(Profile::constant(4.0).time_of(8.0), 2.0));
    }

    #[test]
    fn steps_follow_each_other() {
        let steps = profile("10@10s, 100@1m, 5");
        assert!(close(steps.time_of(50.0), 5.0));
        assert!(close(steps.time_of(200.0), 11.0));
        assert!(close(steps.time_of(6_105.0), 71.0));
        assert!(close(steps.peak(), 100.0) && close(steps.last(), 5.0));
    }

    #[test]
    fn an_even_rise_has_the_square_root_of_its_count() {
        let rise = profile("0-100@10s,100");
        assert!(close(rise.time_of(5.0), 1.0) && close(rise.time_of(125.0), 5.0));
        assert!(close(rise.time_of(500.0), 10.0) && close(rise.time_of(600.0), 11.0));
        let fall = profile("100-0@10s");
        assert!(close(fall.time_of(375.0), 5.0));
        assert!(fall.time_of(501.0).is_infinite());
        assert!(
            close(profile("100-200@10s").time_of(1_700.0), 11.0),
            "it lasts on"
        );
    }

    #[test]
    fn a_pause_has_no_events() {
        let pause = profile("10@1s,0@5s,10");
        assert!(close(pause.time_of(10.5), 6.05));
    }

    #[test]
    fn a_day_has_its_mean_and_its_peak_in_the_evening() {
        let day = Profile::day(50.0, 240.0);
        assert!(close(day.time_of(50.0 * 240.0), 240.0));
        assert!((85.0..105.0).contains(&day.peak()), "{}", day.peak());
        let evening = (day.time_of(9_000.0) / 10.0, day.time_of(10_500.0) / 10.0);
        assert!(evening.0 > 17.0 && evening.1 < 22.0, "{evening:?}");
    }

    #[test]
    fn a_profile_reads_back_as_written() {
        for text in ["200", "10@10s,100@60s,5", "0-100@10s,100"] {
            assert_eq!(profile(text).to_string(), text);
        }
        assert!(close(profile("10@1s,30").scaled(0.5).time_of(20.0), 2.0));
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for bad in ["", "x", "10,20", "10-20", "-5", "5@", "5@0s", "inf", "0"] {
            assert!(bad.parse::<Profile>().is_err(), "{bad}");
        }
    }
}
