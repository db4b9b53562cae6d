//! R25: what goes by age, goes exactly. Time is what was stamped: a minute and a position.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::time::Duration;

use bytes::Bytes;
use roadstead::time::Time;
use roadstead_proto::Position;

use super::audit::entry_of;
use super::{Checker, Device, Expected};

/// How long entries are kept, in minutes.
const KEPT_MINUTES: u32 = 30 * 24 * 60;

/// A clock may be so far ahead of the last minute before it has to prove itself.
const MINUTES_AHEAD_MAX: u32 = 10;

/// What was read or handed over before it expired may be on its way for so long: longer than any read,
/// answer and queue of a run takes together.
const ON_ITS_WAY_MAX: Duration = Duration::from_secs(5);

/// What is known of the store's time.
#[derive(Debug, Default, Clone)]
pub(crate) struct Minutes {
    stamped: BTreeMap<u32, Position>,
    /// What a clock told last, if that was refused.
    refused: Option<u32>,
    /// Where the expiry job under way cuts.
    cut: Option<Position>,
}

/// An entry that is gone by age.
#[derive(Debug, Clone)]
pub(crate) struct Gone {
    pub(crate) expected: Expected,
    at: Time,
}

impl Minutes {
    /// Stamps of an earlier generation say nothing but how late it was.
    pub(crate) fn import(&mut self) {
        let newest = self.stamped.pop_last();
        self.stamped = newest.into_iter().collect();
        self.end_process();
    }

    /// The process that looked after the store is gone.
    pub(crate) fn end_process(&mut self) {
        (self.refused, self.cut) = (None, None);
    }

    /// The newest stamp that is old enough.
    fn cut(&self, generation: u32) -> Option<Position> {
        let (now, _) = self.stamped.last_key_value()?;
        let old = self.stamped.range(..=now.checked_sub(KEPT_MINUTES)?);
        let (_, stamp) = old.last()?;
        Some(*stamp).filter(|stamp| stamp.generation() == generation)
    }
}

impl Checker {
    /// The node's process is gone.
    pub fn process_ended(&mut self) {
        self.minutes.end_process();
    }

    /// Time goes on and does not jump, unless the clock stays where it jumped to.
    pub(super) fn minute_stamped(&mut self, minute: u32, at: Option<Position>) {
        let last = self.minutes.stamped.last_key_value();
        let last = last.map(|(minute, _)| *minute);
        let known = self.minutes.stamped.get(&minute).copied();
        let before = self.minutes.refused.take();
        let proves = before.is_some_and(|before| near(before, minute));
        let regular = last.is_none_or(|last| near(last, minute) || (minute > last && proves));
        match at {
            Some(at) if known == Some(at) => {}
            Some(at) => {
                self.check_position(at);
                self.minutes.stamped.insert(minute, at);
                self.require(regular, "R25", || {
                    format!(
                        "minute {minute} was stamped after {last:?}, refused before: {before:?}"
                    )
                });
            }
            None => {
                self.minutes.refused = Some(minute);
                self.require(!regular, "R25", || {
                    format!("minute {minute} was refused after {last:?}, and before it {before:?}")
                });
            }
        }
    }

    pub(super) fn expiry_begun(&mut self) {
        self.minutes.cut = self.minutes.cut(self.generation());
    }

    /// A step of the job removed these keys: of each inbox the oldest entries, and none above the cut.
    pub(super) fn expired(&mut self, keys: &[Bytes]) {
        let mut last = BTreeMap::new();
        for key in keys {
            let Some((device, at)) = entry_of(key) else {
                self.broken("R17", format!("a key of no inbox: {key:?}"));
                continue;
            };
            self.entry_expired(device, at);
            last.insert(device, at);
        }
        for (device, through) in last {
            let model = self.device(device);
            model.expired_ends.insert(through);
            let older = (Excluded(model.flushed), Included(through));
            let left = model.expected.range(older).next();
            let left = left.map(|(at, expected)| (*at, expected.clone()));
            self.require(left.is_none(), "R25", || {
                format!("{device:?}: expired to {through:?}, and {left:?} is older")
            });
        }
    }

    fn entry_expired(&mut self, device: Device, at: Position) {
        let cut = self.minutes.cut;
        self.require(cut.is_some_and(|cut| at <= cut), "R25", || {
            format!("{device:?}: {at:?} expired, and what is old enough ends at {cut:?}")
        });
        let now = self.now;
        let model = self.device(device);
        let expected = model.expected.remove(&at);
        let Some(expected) = expected.filter(|_| at > model.flushed) else {
            return self.broken(
                "R25",
                format!("{device:?}: {at:?} expired and was not there"),
            );
        };
        if let Expected::Receipt(progress) = expected {
            let key = (progress.chat, progress.user);
            if model.told.get(&key).is_some_and(|told| told.0 == at) {
                model.told.remove(&key);
            }
        }
        let gone = Gone { expected, at: now };
        model.expired.insert(at, gone.clone());
        let sender = self.sender_of(&gone.expected);
        self.device(device)
            .left(sender.filter(|sender| *sender != device.0));
    }

    /// The job is done: nothing is left of what was old enough when it began.
    pub(super) fn expiry_done(&mut self) {
        let Some(cut) = self.minutes.cut.take() else {
            return self.broken("R25", "a job ended that had nothing to do".into());
        };
        let left = self.devices.iter().find_map(|(device, model)| {
            let waits = (Excluded(model.flushed), Unbounded);
            let oldest = model.expected.range(waits).next();
            let (at, expected) = oldest.filter(|(at, _)| model.registered && **at <= cut)?;
            Some((*device, *at, expected.clone()))
        });
        self.require(left.is_none(), "R25", || {
            format!("{left:?} is left, and what is old enough ends at {cut:?}")
        });
    }

    /// What stood at this position until it expired, if it may still be on its way.
    pub(super) fn lately_expired(&mut self, device: Device, at: Position) -> Option<Expected> {
        let now = self.now;
        let gone = self.device(device).expired.get(&at)?.clone();
        self.require(now.since(gone.at) <= ON_ITS_WAY_MAX, "R25", || {
            format!(
                "{device:?}: {at:?} is delivered, and expired at {:?}",
                gone.at
            )
        });
        Some(gone.expected)
    }
}

/// Whether a clock may go on from one minute to the other without proof.
fn near(from: u32, to: u32) -> bool {
    (from..=from + MINUTES_AHEAD_MAX).contains(&to)
}
