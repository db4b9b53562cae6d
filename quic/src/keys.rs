//! 1-RTT keys of a connection: raw, inline for AES-128-GCM (T4, T7), with key update (RFC 9001 6).

use std::fmt;

use crate::crypto::{Aead, KeyRef, Labelled, LevelKeys, Secret, Suite, next_secret, wipe};

/// Keys and secrets of both directions with key length `K` and room for secrets of `S` bytes.
pub(crate) struct KeySet<const K: usize, const S: usize> {
    local: PacketKey<K>,
    remote: PacketKey<K>,
    /// The peer's next generation, ready before it is needed: deriving it on arrival would be a
    /// timing signal (RFC 9001 6.3, 9.5).
    remote_next: PacketKey<K>,
    local_hp: [u8; K],
    remote_hp: [u8; K],
    local_secret: [u8; S],
    /// The secret of `remote_next`.
    remote_secret: [u8; S],
}

/// A packet key with the base of its nonce.
#[derive(Clone)]
pub(crate) struct PacketKey<const K: usize> {
    key: [u8; K],
    iv: [u8; 12],
}

impl<const K: usize> PacketKey<K> {
    fn derive<A: Aead>(aead: &A, suite: Suite, secret: &[u8]) -> Self {
        let mut out = Self {
            key: [0; K],
            iv: [0; 12],
        };
        let outputs: &mut [Labelled<'_>] =
            &mut [(b"quic key", &mut out.key), (b"quic iv", &mut out.iv)];
        aead.hkdf_expand_labels(suite, secret, outputs);
        out
    }
}

impl<const K: usize> Drop for PacketKey<K> {
    fn drop(&mut self) {
        wipe(&mut self.key);
        wipe(&mut self.iv);
    }
}

impl<const K: usize, const S: usize> Drop for KeySet<K, S> {
    fn drop(&mut self) {
        wipe(&mut self.local_hp);
        wipe(&mut self.remote_hp);
        wipe(&mut self.local_secret);
        wipe(&mut self.remote_secret);
    }
}

impl<const K: usize, const S: usize> KeySet<K, S> {
    fn new<A: Aead>(aead: &A, keys: &LevelKeys, local: &Secret, remote: &Secret) -> Self {
        let take = |bytes: &[u8; 32]| -> [u8; K] { bytes[..K].try_into().expect("K <= 32") };
        let packet = |d: &crate::crypto::DirectionKeys| PacketKey {
            key: take(&d.key),
            iv: d.iv,
        };
        let mut set = Self {
            local: packet(&keys.local),
            remote: packet(&keys.remote),
            remote_next: PacketKey {
                key: [0; K],
                iv: [0; 12],
            },
            local_hp: take(&keys.local.hp),
            remote_hp: take(&keys.remote.hp),
            local_secret: local.0[..S].try_into().expect("S <= 48"),
            remote_secret: remote.0[..S].try_into().expect("S <= 48"),
        };
        set.advance_remote(aead, keys.suite);
        set
    }

    fn advance_remote<A: Aead>(&mut self, aead: &A, suite: Suite) {
        step(aead, suite, &mut self.remote_secret);
        self.remote_next =
            PacketKey::derive(aead, suite, &self.remote_secret[..suite.secret_len()]);
    }

    /// The peer's next keys become current; returns the ones they replace.
    fn rotate_remote<A: Aead>(&mut self, aead: &A, suite: Suite) -> PacketKey<K> {
        aead.forget(&self.remote.key);
        let old = std::mem::replace(&mut self.remote, self.remote_next.clone());
        self.advance_remote(aead, suite);
        old
    }

    fn rotate_local<A: Aead>(&mut self, aead: &A, suite: Suite) {
        aead.forget(&self.local.key);
        step(aead, suite, &mut self.local_secret);
        self.local = PacketKey::derive(aead, suite, &self.local_secret[..suite.secret_len()]);
    }
}

fn step<A: Aead>(aead: &A, suite: Suite, secret: &mut [u8]) {
    let len = suite.secret_len();
    let mut next = [0; 48];
    next_secret(aead, suite, &secret[..len], &mut next[..len]);
    secret[..len].copy_from_slice(&next[..len]);
    wipe(&mut next);
}

/// Which generation of the peer's keys opens a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Generation {
    Current,
    Next,
}

/// The 1-RTT keys: none before the handshake has them.
#[derive(Default)]
pub(crate) enum OneRttKeys {
    #[default]
    None,
    Inline(KeySet<16, 32>),
    Boxed(Suite, Box<KeySet<32, 48>>),
}

/// The peer's previous packet key, kept for reordered packets (RFC 9001 6.5); it lives in the
/// active part.
pub(crate) enum OldKey {
    Small(PacketKey<16>),
    Large(PacketKey<32>),
}

impl OldKey {
    pub(crate) fn as_ref(&self, suite: Suite) -> KeyRef<'_> {
        match self {
            Self::Small(k) => KeyRef {
                suite,
                key: &k.key,
                iv: &k.iv,
                hp: &[],
            },
            Self::Large(k) => KeyRef {
                suite,
                key: &k.key,
                iv: &k.iv,
                hp: &[],
            },
        }
    }
}

impl OneRttKeys {
    pub(crate) fn new<A: Aead>(
        aead: &A,
        keys: &LevelKeys,
        local_secret: &Secret,
        remote_secret: &Secret,
    ) -> Self {
        match keys.suite {
            Suite::Aes128Gcm => Self::Inline(KeySet::new(aead, keys, local_secret, remote_secret)),
            suite => Self::Boxed(
                suite,
                Box::new(KeySet::new(aead, keys, local_secret, remote_secret)),
            ),
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(crate) fn suite(&self) -> Suite {
        match self {
            Self::Boxed(suite, _) => *suite,
            _ => Suite::Aes128Gcm,
        }
    }

    pub(crate) fn local(&self) -> Option<KeyRef<'_>> {
        let suite = self.suite();
        match self {
            Self::None => None,
            Self::Inline(s) => Some(KeyRef {
                suite,
                key: &s.local.key,
                iv: &s.local.iv,
                hp: &s.local_hp,
            }),
            Self::Boxed(_, s) => Some(KeyRef {
                suite,
                key: &s.local.key,
                iv: &s.local.iv,
                hp: &s.local_hp,
            }),
        }
    }

    pub(crate) fn remote(&self, generation: Generation) -> Option<KeyRef<'_>> {
        let suite = self.suite();
        match self {
            Self::None => None,
            Self::Inline(s) => {
                let k = if generation == Generation::Next {
                    &s.remote_next
                } else {
                    &s.remote
                };
                Some(KeyRef {
                    suite,
                    key: &k.key,
                    iv: &k.iv,
                    hp: &s.remote_hp,
                })
            }
            Self::Boxed(_, s) => {
                let k = if generation == Generation::Next {
                    &s.remote_next
                } else {
                    &s.remote
                };
                Some(KeyRef {
                    suite,
                    key: &k.key,
                    iv: &k.iv,
                    hp: &s.remote_hp,
                })
            }
        }
    }

    /// The connection ends: nothing made of its keys may stay.
    pub(crate) fn forget<A: Aead>(&self, aead: &A) {
        let remote = [Generation::Current, Generation::Next].map(|of| self.remote(of));
        for keys in remote.into_iter().chain([self.local()]).flatten() {
            aead.forget(keys.key);
            aead.forget(keys.hp);
        }
    }

    /// The peer's next keys become current (RFC 9001 6.2); returns the replaced one, `None` before there
    /// are keys.
    pub(crate) fn rotate_remote<A: Aead>(&mut self, aead: &A) -> Option<OldKey> {
        Some(match self {
            Self::None => return None,
            Self::Inline(s) => OldKey::Small(s.rotate_remote(aead, Suite::Aes128Gcm)),
            Self::Boxed(suite, s) => OldKey::Large(s.rotate_remote(aead, *suite)),
        })
    }

    /// This side's next keys become current; nothing before there are keys.
    pub(crate) fn rotate_local<A: Aead>(&mut self, aead: &A) {
        match self {
            Self::None => {}
            Self::Inline(s) => s.rotate_local(aead, Suite::Aes128Gcm),
            Self::Boxed(suite, s) => s.rotate_local(aead, *suite),
        }
    }
}

impl fmt::Debug for OneRttKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() {
            "OneRttKeys::None"
        } else {
            "OneRttKeys(..)"
        })
    }
}
