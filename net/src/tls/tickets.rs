//! Session tickets sealed with keys that outlive the process (T14).
//!
//! A ticket is `name (8) · nonce (12) · sealed state · tag (16)`, AES-256-GCM. The name is derived from
//! the key, so that nodes that share a key file agree on it. Nonces are random: 2^32 tickets per key
//! are safe, which a rotation per day never reaches.

use std::{fmt, sync::RwLock, time::Duration};

use aws_lc_rs::{aead, hmac};
use rustls::server::ProducesTickets;

use super::random_bytes;
use crate::error::Error;

const NAME_BYTES: usize = 8;
const NONCE_BYTES: usize = aead::NONCE_LEN;
const KEY_BYTES: usize = 32;

/// Keys to open with. Yesterday's and the day before's, and one to spare.
const KEYS_MAX: usize = 4;

/// How long a client may keep a ticket: a phone that was off for a day still resumes.
const LIFETIME_SECONDS: u32 = 2 * 24 * 3600;

/// Keys that seal session tickets: the first seals, all open. Kept in a file and shared by all shards
/// and nodes, so that a restart is not a storm of full handshakes.
#[derive(Clone)]
pub struct TicketKeys(Vec<[u8; KEY_BYTES]>);

impl TicketKeys {
    /// The least time from one rotation to the next: a key opens for as long as the last ticket that it sealed
    /// is good.
    pub const ROTATE_EVERY_MIN: Duration =
        Duration::from_secs(LIFETIME_SECONDS as u64 / (KEYS_MAX as u64 - 1));

    /// One new key.
    pub fn random() -> Self {
        Self(vec![random_bytes()])
    }

    /// Reads what `to_bytes` wrote: 32 bytes per key, the sealing one first.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (keys, rest) = bytes.as_chunks::<KEY_BYTES>();
        if keys.is_empty() || keys.len() > KEYS_MAX || !rest.is_empty() {
            return Err(Error::Tls(format!(
                "ticket keys are 1 to {KEYS_MAX} times {KEY_BYTES} bytes, not {}",
                bytes.len()
            )));
        }
        Ok(Self(keys.to_vec()))
    }

    /// For the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.concat()
    }

    /// The same keys behind a new one, the oldest dropped.
    #[must_use]
    pub fn rotated(&self) -> Self {
        let mut keys = vec![random_bytes()];
        keys.extend(self.0.iter().take(KEYS_MAX - 1));
        Self(keys)
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKeys({} keys)", self.0.len())
    }
}

struct Key {
    name: [u8; NAME_BYTES],
    aead: aead::LessSafeKey,
}

impl Key {
    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let digest = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, bytes),
            b"roadstead ticket key name",
        );
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&digest.as_ref()[..NAME_BYTES]);
        let unbound = aead::UnboundKey::new(&aead::AES_256_GCM, bytes)
            .expect("a key of 32 bytes fits AES-256");
        Self {
            name,
            aead: aead::LessSafeKey::new(unbound),
        }
    }
}

/// Seals and opens tickets. The lock is taken once per handshake, never per message.
pub(crate) struct Ticketer {
    keys: RwLock<Vec<Key>>,
}

impl Ticketer {
    pub(crate) fn new(keys: &TicketKeys) -> Self {
        Self {
            keys: RwLock::new(keys.0.iter().map(Key::new).collect()),
        }
    }

    pub(super) fn rotate(&self, keys: &TicketKeys) {
        *self.keys.write().unwrap_or_else(|e| e.into_inner()) =
            keys.0.iter().map(Key::new).collect();
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketer").finish_non_exhaustive()
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.read().unwrap_or_else(|e| e.into_inner());
        let key = keys.first()?;
        let nonce: [u8; NONCE_BYTES] = random_bytes();
        let mut sealed = plain.to_vec();
        key.aead
            .seal_in_place_append_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(key.name),
                &mut sealed,
            )
            .ok()?;
        Some([&key.name[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let keys = self.keys.read().unwrap_or_else(|e| e.into_inner());
        let key = keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let plain = key
            .aead
            .open_in_place(
                aead::Nonce::assume_unique_for_key(*nonce),
                aead::Aad::from(*name),
                &mut sealed,
            )
            .ok()?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_survives_a_restart_and_a_rotation() {
        let keys = TicketKeys::random();
        let ticket = Ticketer::new(&keys).encrypt(b"state").unwrap();
        let restarted = Ticketer::new(&TicketKeys::from_bytes(&keys.to_bytes()).unwrap());
        assert_eq!(restarted.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        restarted.rotate(&keys.rotated());
        assert_eq!(restarted.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        let mut rotated = keys;
        for _ in 0..KEYS_MAX {
            rotated = rotated.rotated();
        }
        restarted.rotate(&rotated);
        assert_eq!(restarted.decrypt(&ticket), None);
    }

    #[test]
    fn a_changed_ticket_opens_nothing() {
        let ticketer = Ticketer::new(&TicketKeys::random());
        let ticket = ticketer.encrypt(b"state").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(ticketer.decrypt(&changed), None, "byte {at}");
            assert_eq!(ticketer.decrypt(&ticket[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn a_key_file_of_the_wrong_size_is_refused() {
        assert!(TicketKeys::from_bytes(&[]).is_err());
        assert!(TicketKeys::from_bytes(&[0; 33]).is_err());
        assert!(TicketKeys::from_bytes(&[0; 32 * 5]).is_err());
    }
}
