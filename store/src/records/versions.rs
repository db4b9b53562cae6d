//! `uv/<user>`: the version of a user's devices and blocks, and the list it is the version of (R14).
//!
//! The list sits in the versioned record itself: one read puts both into the read set of a send, and no
//! cache of the list can be older than the version read.

use bytes::{BufMut, Bytes};
use roadstead_proto::{DeviceId, UserId};

use crate::txn::{Read, Txn};

use super::codec::{Parts, finish, value};
use super::{RecordError, Scope, read};

/// The devices alone.
const PLAIN: u8 = 1;
/// What holds for the user beside them, behind the number of the version: [`Versions::valid_after_s`] and
/// [`Versions::flags`].
const WITH_USER: u8 = 2;

/// Flags of a device. 2 is kept for one that was signed out.
const SUSPENDED: u8 = 1;
const CROWDED: u8 = 4;

/// A user's devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// Grows with every change of the list or of what is in it.
    pub version: u64,
    /// Tokens issued before this do not log the user in, in seconds since the Unix epoch; 0 for none.
    pub valid_after_s: u64,
    /// What else holds for the user, one bit each. Kept as they were read: none has a meaning yet.
    pub flags: u16,
    /// In order of registration.
    pub devices: Vec<ListedDevice>,
}

/// What a send has to know of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedDevice {
    /// Which.
    pub id: DeviceId,
    /// It gets nothing until it resynchronises (R21).
    pub suspended: bool,
    /// Its inbox holds so much that its senders are counted one by one ([`held`](super::held)).
    pub crowded: bool,
}

impl ListedDevice {
    pub(crate) fn new(id: DeviceId) -> Self {
        Self {
            id,
            suspended: false,
            crowded: false,
        }
    }

    fn flags(self) -> u8 {
        let suspended = if self.suspended { SUSPENDED } else { 0 };
        suspended | if self.crowded { CROWDED } else { 0 }
    }
}

impl Versions {
    /// The device, if the user has it.
    #[must_use]
    pub fn device(&self, id: DeviceId) -> Option<&ListedDevice> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// The devices that get entries.
    pub fn receiving(&self) -> impl Iterator<Item = &ListedDevice> + '_ {
        self.devices.iter().filter(|device| !device.suspended)
    }

    fn encode(&self) -> Bytes {
        let is_plain = (self.valid_after_s, self.flags) == (0, 0);
        let kind = if is_plain { PLAIN } else { WITH_USER };
        let mut value = value(kind, 19 + self.devices.len() * 5);
        value.put_u64(self.version);
        if !is_plain {
            value.put_u64(self.valid_after_s);
            value.put_u16(self.flags);
        }
        value.put_u8(u8::try_from(self.devices.len()).expect("a user has few devices"));
        for device in &self.devices {
            value.put_u32(device.id.get());
            value.put_u8(device.flags());
        }
        finish(value)
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (kind, mut parts) = Parts::of_versions(value, PLAIN..=WITH_USER)?;
        let version = parts.u64()?;
        let (valid_after_s, flags) = match kind {
            PLAIN => (0, 0),
            _ => (parts.u64()?, parts.u16()?),
        };
        let mut devices = Vec::new();
        for _ in 0..parts.u8()? {
            let id = DeviceId::new(parts.u32()?).ok()?;
            let flags = parts.u8()?;
            devices.push(ListedDevice {
                id,
                suspended: flags & SUSPENDED != 0,
                crowded: flags & CROWDED != 0,
            });
        }
        // The next change needs a next version: nobody changes a list that often.
        let damaged = version == u64::MAX;
        let read = Self {
            version,
            valid_after_s,
            flags,
            devices,
        };
        parts.end(read).filter(|_| !damaged)
    }
}

/// A user's devices; `None` if the user is unknown.
///
/// # Errors
/// If the record can not be read.
pub async fn load<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    user: UserId,
) -> Result<Option<Versions>, RecordError> {
    let key = scope.keys.versions(user);
    read(txn, &key, Read::Serializable, Versions::decode).await
}

/// Writes a changed list under the next version.
pub(crate) fn save<T: Txn>(scope: &Scope<'_>, txn: &mut T, user: UserId, mut versions: Versions) {
    versions.version += 1;
    txn.set(&scope.keys.versions(user), versions.encode());
}

/// Lets no token issued before a moment log the user in any more, whether or not the user is known yet; `false` if
/// that was so already. The moment only moves forward.
///
/// # Errors
/// If the record can not be read.
pub async fn sign_out<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    user: UserId,
    valid_after_s: u64,
) -> Result<bool, RecordError> {
    let mut versions = load(scope, txn, user).await?.unwrap_or_default();
    let is_later = valid_after_s > versions.valid_after_s;
    if is_later {
        versions.valid_after_s = valid_after_s;
        save(scope, txn, user, versions);
    }
    Ok(is_later)
}

/// Changes what the list says of a device; nothing if it already says so.
pub(crate) async fn change<T: Txn>(
    scope: &Scope<'_>,
    txn: &mut T,
    (user, id): super::Device,
    change: impl FnOnce(&mut ListedDevice),
) -> Result<bool, RecordError> {
    let Some(mut versions) = load(scope, txn, user).await? else {
        return Ok(false);
    };
    let Some(device) = versions.devices.iter_mut().find(|device| device.id == id) else {
        return Ok(false);
    };
    let before = *device;
    change(device);
    let changed = *device != before;
    if changed {
        save(scope, txn, user, versions);
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_survives_and_damage_is_noticed() {
        let versions = Versions {
            version: 7,
            valid_after_s: 0,
            flags: 0,
            devices: vec![
                ListedDevice {
                    suspended: true,
                    ..ListedDevice::new(DeviceId::new(9).expect("not 0"))
                },
                ListedDevice {
                    crowded: true,
                    ..ListedDevice::new(DeviceId::new(8).expect("not 0"))
                },
            ],
        };
        // As 0.1.0 wrote it, and reads it.
        let value = versions.encode();
        let plain = b"\x01\0\0\0\0\0\0\0\x07\x02\0\0\0\x09\x01\0\0\0\x08\x04";
        assert_eq!(value[..], plain[..]);
        let with_user = Versions {
            valid_after_s: 1_800_000_000,
            flags: 0x8001,
            ..versions.clone()
        };
        for versions in [versions, with_user] {
            let value = versions.encode();
            assert_eq!(Versions::decode(&value), Some(versions));
            for length in 0..value.len() {
                assert_eq!(Versions::decode(&value[..length]), None);
            }
        }
        assert_eq!(Versions::decode(b""), None);
        assert_eq!(Versions::decode(&[3; 40]), None, "a later version");
    }

    #[test]
    fn a_version_without_a_next_one_is_damage() {
        let last = Versions {
            version: u64::MAX,
            ..Versions::default()
        };
        assert_eq!(Versions::decode(&last.encode()), None);
    }
}
