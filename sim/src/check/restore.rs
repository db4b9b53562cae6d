//! What the model forgets when an older export takes the store's place (R3).

use std::collections::BTreeMap;

use roadstead_proto::{ChatId, UserId};

use super::expiry::Minutes;
use super::{Checker, Committed, Device, DeviceModel, Progress};

/// What an export holds, as far as the model knows it.
#[derive(Debug)]
pub struct Export {
    devices: BTreeMap<Device, DeviceModel>,
    progress: BTreeMap<(ChatId, UserId), Progress>,
    committed: BTreeMap<u64, Committed>,
    minutes: Minutes,
}

impl Checker {
    /// The store is exported.
    #[must_use]
    pub fn export(&self) -> Export {
        let committed = self
            .messages
            .iter()
            .filter_map(|(token, message)| Some((*token, message.committed?)));
        Export {
            devices: self.devices.clone(),
            progress: self.progress.clone(),
            committed: committed.collect(),
            minutes: self.minutes.clone(),
        }
    }

    /// An export was imported: what was committed since it was made is lost, and may come again, under
    /// another position, if its sender still holds it. What clients know stays.
    pub fn restored(&mut self, export: &Export, generation: u32) {
        for (token, message) in &mut self.messages {
            message.committed = export.committed.get(token).copied();
        }
        self.progress.clone_from(&export.progress);
        self.minutes.clone_from(&export.minutes);
        self.users.clear();
        for (device, model) in &mut self.devices {
            let exported = export.devices.get(device).cloned().unwrap_or_default();
            if exported.registered {
                self.users.entry(device.0).or_default().insert(device.1);
            }
            let now = std::mem::take(model);
            *model = DeviceModel {
                failed: None,
                refused: now.refused,
                cursor: now.cursor,
                furthest: now.furthest,
                resynced: now.resynced,
                stored: now.stored,
                seen: now.seen,
                counter: now.counter,
                forgetful: now.forgetful,
                shares_are_soft: now.shares_are_soft,
                restored: true,
                ..exported
            };
        }
        self.imported(generation);
    }
}
