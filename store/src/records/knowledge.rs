//! What an engine knows without reading, because it alone commits.
//!
//! Only an engine with one committer may keep such knowledge from one transaction to the next, and it
//! forgets all of it when a commit fails. Others start every transaction with an empty one.

use crate::recent::Recent;

use super::Device;

/// Facts about devices that stand in for reads. Bounded: a fact that is gone is read again.
#[derive(Debug)]
pub struct Knowledge {
    numbers: Option<Recent<Device, u64>>,
    expiry_days: Recent<Device, u32>,
    /// Devices noted by the command under way, which may take its notes back.
    noted: Vec<Device>,
    /// The minute that was stamped last, 0 before the first.
    minute: Option<u32>,
}

impl Knowledge {
    /// For an engine whose one committer alone writes: facts about up to `devices_max` devices.
    #[must_use]
    pub fn of_sole_committer(devices_max: usize) -> Self {
        Self {
            numbers: Some(Recent::new(devices_max)),
            ..Self::of_one_among_many(devices_max)
        }
    }

    /// For an engine where others write too: good for one transaction.
    #[must_use]
    pub fn of_one_among_many(devices_max: usize) -> Self {
        Self {
            numbers: None,
            expiry_days: Recent::new(devices_max),
            noted: Vec::new(),
            minute: None,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        if let Some(numbers) = &mut self.numbers {
            numbers.clear();
        }
        self.expiry_days.clear();
        self.noted.clear();
        self.minute = None;
    }

    /// Forgets a device.
    pub(crate) fn forget(&mut self, device: &Device) {
        if let Some(numbers) = &mut self.numbers {
            numbers.remove(device);
        }
        self.expiry_days.remove(device);
    }

    /// The highest number of the device that has its answer: proves that a slot of `k/` holds an older
    /// one, without reading it (R12).
    pub(crate) fn highest_number(&mut self, device: Device) -> Option<u64> {
        self.numbers.as_mut()?.get(&device).copied()
    }

    /// Learns that no send of the device above `number` has its answer.
    pub(crate) fn learn_highest_number(&mut self, device: Device, number: u64) {
        if let Some(numbers) = &mut self.numbers {
            numbers.insert(device, number);
        }
    }

    /// Learns that the answer to this number joins the commit, if the highest one was known before.
    pub(crate) fn raise_highest_number(&mut self, device: Device, number: u64) {
        if let Some(known) = self.numbers.as_mut().and_then(|n| n.get_mut(&device)) {
            *known = number.max(*known);
        }
    }

    /// Whether the expiry note of this day was not written yet, as far as is known (R25).
    pub(crate) fn is_first_of_day(&mut self, device: Device, day: u32) -> bool {
        if self.expiry_days.get(&device) == Some(&day) {
            return false;
        }
        self.expiry_days.insert(device, day);
        self.noted.push(device);
        true
    }

    /// What was noted so far stays, whatever comes of the next command.
    pub(crate) fn keep_notes(&mut self) {
        self.noted.clear();
    }

    /// The command under way is refused: its notes are not written.
    pub(crate) fn take_back_notes(&mut self) {
        for device in self.noted.drain(..) {
            self.expiry_days.remove(&device);
        }
    }

    /// The minute that was stamped last, 0 before the first; `None` if that has to be read.
    pub(crate) fn minute(&self) -> Option<u32> {
        self.minute
    }

    /// Learns which minute was stamped last. Among many it may be an older one, by less than a day
    /// ([`expiry`](super::expiry)).
    pub(crate) fn learn_minute(&mut self, minute: u32) {
        self.minute = Some(minute);
    }

    /// Whether highest numbers are kept at all.
    pub(crate) fn keeps_numbers(&self) -> bool {
        self.numbers.is_some()
    }
}
