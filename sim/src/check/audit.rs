//! What lies in the engine and in the shards, against the model. The keys are read here by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use roadstead::Shard;
use roadstead_proto::{DeviceId, Position, UserId};

use super::{Checker, Device};
use crate::store::image::Image;

/// Where user and device stand in the keys of inboxes and answers, and the end of both.
const USER: usize = 1 + 2;
const DEVICE: usize = USER + 8;
const REST: usize = DEVICE + 4;

impl Checker {
    /// Every inbox holds exactly what was given to it, and not taken back, and not acknowledged: nothing
    /// leaves by another door (R18), nothing is left behind, receipts are single (R20).
    pub fn audit_image(&mut self, image: &Image) {
        let mut inboxes: BTreeMap<Device, BTreeSet<Position>> = BTreeMap::new();
        for (key, _) in image.space(b'i') {
            match entry_of(key) {
                Some((device, at)) => {
                    inboxes.entry(device).or_default().insert(at);
                }
                None => self.broken("R17", format!("a key of no inbox: {key:?}")),
            }
        }
        let mut answers: BTreeMap<Device, usize> = BTreeMap::new();
        for (key, _) in image.space(b'k') {
            if let Some(device) = device_of(key) {
                *answers.entry(device).or_default() += 1;
            }
        }
        for (device, kept) in answers {
            self.require(kept <= 256, "R12", || {
                format!("{device:?} keeps {kept} answers")
            });
        }
        let none = BTreeSet::new();
        let devices: Vec<Device> = self.devices.keys().copied().collect();
        for device in devices {
            let holds = inboxes.get(&device).unwrap_or(&none);
            self.audit_inbox(device, holds);
        }
    }

    fn audit_inbox(&mut self, device: Device, holds: &BTreeSet<Position>) {
        let model = &self.devices[&device];
        let ought: BTreeSet<Position> = if model.registered {
            let waiting = (Excluded(model.flushed), Unbounded);
            model.expected.range(waiting).map(|(at, _)| *at).collect()
        } else {
            BTreeSet::new()
        };
        let lost = ought
            .difference(holds)
            .next()
            .map(|at| (*at, model.expected[at].clone()));
        let left = holds.difference(&ought).next().copied();
        let old = left.and_then(|at| model.superseded.get(&at).copied());
        let flushed = model.flushed;
        self.require(lost.is_none(), "R18", || {
            format!("{device:?}: {lost:?} has left")
        });
        if let Some(left) = left {
            let rule = if old.is_some() { "R20" } else { "R18" };
            self.broken(
                rule,
                format!("{device:?}: {left:?} is left, acked {flushed:?}, {old:?}"),
            );
        }
    }

    /// A shard whose sessions are all silent owns nothing for them but themselves (R7, R26).
    pub fn audit_idle_shard(&mut self, shard: &Shard, sessions: u64) {
        let counters = shard.counters();
        let is = (
            counters.sessions,
            counters.sends_pending,
            counters.requests_pending,
        );
        self.require(is == (sessions, 0, 0), "R26", || {
            format!("sessions, sends, requests are {is:?}, with {sessions} connections")
        });
        let timeout = shard.poll_timeout();
        self.require(timeout.is_none(), "R26", || {
            format!("a silent shard is due at {timeout:?}")
        });
        // What a session has under way is private; its Debug form says whether there is anything. Refusals stay
        // until its client says that it knows of them (R16).
        let session = format!("{shard:?}");
        let under_way = session.matches("in_flight: Some").count();
        let refused = session.matches("chats: [ChatRefusal").count();
        self.require(under_way == refused, "R26", || {
            format!(
                "{under_way} silent sessions own memory for what they have under way, {refused} were refused"
            )
        });
    }
}

/// Device and position of an inbox entry.
pub(super) fn entry_of(key: &[u8]) -> Option<(Device, Position)> {
    Some((device_of(key)?, Position::from_slice(key.get(REST..)?)?))
}

fn device_of(key: &[u8]) -> Option<Device> {
    let user = u64::from_be_bytes(key.get(USER..DEVICE)?.try_into().ok()?);
    let device = u32::from_be_bytes(key.get(DEVICE..REST)?.try_into().ok()?);
    Some((UserId::new(user).ok()?, DeviceId::new(device).ok()?))
}
