//! The seams to TLS and to the AEAD (T3, T4), and packet protection (RFC 9001 5) on top of them.
//!
//! The engine owns keys as raw bytes and decides when they are used, updated and wiped; a provider
//! only computes. Nothing cryptographic is written here beyond what RFC 9001 composes.

use std::fmt;
use std::hint::black_box;

use crate::packet::{ConnectionId, TAG_LEN};

/// A cipher suite of TLS 1.3 that QUIC may use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Suite {
    /// AES-128-GCM with SHA-256: kept inline in an idle connection.
    Aes128Gcm = 0,
    /// AES-256-GCM with SHA-384: kept in a box.
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305 with SHA-256: kept in a box.
    ChaCha20Poly1305 = 2,
}

impl Suite {
    /// Bytes of the packet key and of the header protection key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// Bytes of a traffic secret.
    #[must_use]
    pub const fn secret_len(self) -> usize {
        match self {
            Self::Aes256Gcm => 48,
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// Packets that may be sent under one key (RFC 9001 6.6, T4).
    #[must_use]
    pub const fn confidentiality_limit(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 1 << 23,
            Self::ChaCha20Poly1305 => 1 << 36,
        }
    }

    /// Packets that may fail authentication in the life of a connection (RFC 9001 6.6, T4).
    #[must_use]
    pub const fn integrity_limit(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 1 << 52,
            Self::ChaCha20Poly1305 => 1 << 36,
        }
    }
}

/// A label of HKDF-Expand-Label, and where its output goes.
pub type Labelled<'a> = (&'static [u8], &'a mut [u8]);

/// Primitives of the crypto provider. Keys come as bytes with every call; an implementation may keep
/// what it made of some of them, until it is told to [`forget`](Aead::forget) them.
pub trait Aead {
    /// A header-protection key of AES-128 made ready for use: the permutation behind connection ids
    /// runs four times for each packet, so it must not expand its key each time (T2).
    type MaskKey;

    /// Makes such a key ready.
    fn mask_key(&self, key: &[u8; 16]) -> Self::MaskKey;

    /// The same mask as [`Aead::header_mask`] with AES-128 under a ready key.
    fn mask(&self, key: &Self::MaskKey, sample: &[u8; 16]) -> [u8; 5];

    /// Encrypts `data` in place and returns the tag.
    fn seal(
        &self,
        suite: Suite,
        key: &[u8],
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
    ) -> [u8; TAG_LEN];

    /// Decrypts `data`, which ends with the tag, in place. False when it is not authentic.
    fn open(&self, suite: Suite, key: &[u8], nonce: &[u8; 12], aad: &[u8], data: &mut [u8])
    -> bool;

    /// The mask of header protection for a sample (RFC 9001 5.4.3, 5.4.4).
    fn header_mask(&self, suite: Suite, key: &[u8], sample: &[u8; 16]) -> [u8; 5];

    /// A key, for packets or for headers, is not used any more: nothing made of it may be kept.
    fn forget(&self, _key: &[u8]) {}

    /// HKDF-Extract with SHA-256.
    fn hkdf_extract(&self, salt: &[u8], secret: &[u8]) -> [u8; 32];

    /// HKDF-Expand-Label of TLS 1.3 with an empty context and the hash of `suite`, for some labels
    /// with their outputs: what a secret needs to be made ready is done once for all of them. Labels
    /// come without the prefix `tls13 `.
    fn hkdf_expand_labels(&self, suite: Suite, secret: &[u8], outputs: &mut [Labelled<'_>]);

    /// HMAC with SHA-256 over the parts in order.
    fn hmac(&self, key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32];
}

/// Writes zeroes over key material in a way that the optimiser keeps.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

/// The keys of one direction at one level, raw. Shorter keys use the first bytes.
#[derive(Clone)]
pub struct DirectionKeys {
    /// Packet key.
    pub key: [u8; 32],
    /// Base of the nonce.
    pub iv: [u8; 12],
    /// Header protection key.
    pub hp: [u8; 32],
}

impl DirectionKeys {
    /// Keys from a traffic secret (RFC 9001 5.1).
    pub fn derive<A: Aead>(aead: &A, suite: Suite, secret: &[u8]) -> Self {
        let mut keys = Self {
            key: [0; 32],
            iv: [0; 12],
            hp: [0; 32],
        };
        let len = suite.key_len();
        let outputs: &mut [Labelled<'_>] = &mut [
            (b"quic key", &mut keys.key[..len]),
            (b"quic iv", &mut keys.iv),
            (b"quic hp", &mut keys.hp[..len]),
        ];
        aead.hkdf_expand_labels(suite, secret, outputs);
        keys
    }
}

impl Drop for DirectionKeys {
    fn drop(&mut self) {
        wipe(&mut self.key);
        wipe(&mut self.iv);
        wipe(&mut self.hp);
    }
}

impl fmt::Debug for DirectionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirectionKeys(..)")
    }
}

/// The keys of both directions at one level.
#[derive(Clone, Debug)]
pub struct LevelKeys {
    /// Their suite.
    pub suite: Suite,
    /// What this side sends with.
    pub local: DirectionKeys,
    /// What the peer sends with.
    pub remote: DirectionKeys,
}

/// A traffic secret of up to 48 bytes.
#[derive(Clone)]
pub struct Secret(pub [u8; 48]);

impl Secret {
    /// A secret of the given bytes; the rest is zero.
    ///
    /// # Panics
    /// Panics above 48 bytes, which no suite of TLS 1.3 has.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut secret = [0; 48];
        secret[..bytes.len()].copy_from_slice(bytes);
        Self(secret)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Keys that became available while TLS wrote.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "lives on the stack for one call of a handshake"
)]
pub enum KeyChange {
    /// Keys of Handshake packets.
    Handshake(LevelKeys),
    /// Keys of 1-RTT packets, with the secrets from which updates are derived (RFC 9001 6).
    OneRtt {
        /// The keys of generation 0.
        keys: LevelKeys,
        /// The secret behind `keys.local`.
        local_secret: Secret,
        /// The secret behind `keys.remote`.
        remote_secret: Secret,
    },
}

/// TLS refused what the peer sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlsError {
    /// The alert to send (RFC 9001 4.8).
    pub alert: u8,
}

/// One TLS 1.3 handshake in QUIC mode (RFC 9001 4): the shape of `rustls::quic`.
///
/// The engine keeps the levels apart: bytes of a level reach [`Tls::read`] only while TLS expects
/// that level, and what [`Tls::write`] yields belongs to the level of the last key change.
pub trait Tls: Sized {
    /// What servers share: certificates, ticket keys, ALPN.
    type ServerConfig;
    /// What clients share: roots, resumption store, ALPN.
    type ClientConfig;

    /// Starts a server's handshake with its encoded transport parameters.
    fn server(config: &Self::ServerConfig, params: Vec<u8>) -> Result<Self, TlsError>;

    /// Starts a client's handshake.
    fn client(
        config: &Self::ClientConfig,
        server_name: &str,
        params: Vec<u8>,
    ) -> Result<Self, TlsError>;

    /// Takes handshake bytes of the peer in order.
    fn read(&mut self, data: &[u8]) -> Result<(), TlsError>;

    /// Appends bytes for the peer at the current level, and returns the keys of the next level when
    /// they are ready. Called until it does nothing. An error ends this connection and no other.
    fn write(&mut self, out: &mut Vec<u8>) -> Result<Option<KeyChange>, TlsError>;

    /// False once both Finished messages are done.
    fn is_handshaking(&self) -> bool;

    /// The peer's encoded transport parameters, once they arrived. On clients the engine asks only
    /// after the handshake, as rustls shows those of a ticket before.
    fn peer_params(&self) -> Option<&[u8]>;

    /// The protocol agreed on.
    fn alpn(&self) -> Option<&[u8]>;

    /// The name the client asked for; on servers only.
    fn server_name(&self) -> Option<&str>;

    /// The peer's certificates, end entity first, where it sent any.
    fn peer_certificates(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// True when the session was resumed from a ticket.
    fn resumed(&self) -> bool {
        false
    }

    /// Tickets received so far; on clients only.
    fn tickets(&self) -> u32 {
        0
    }
}

const INITIAL_SALT: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];

const RETRY_KEY: [u8; 16] = [
    0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e,
];

const RETRY_NONCE: [u8; 12] = [
    0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb,
];

/// The Initial keys that follow from the client's first destination id (RFC 9001 5.2), as client
/// and server directions.
pub fn initial_keys<A: Aead>(aead: &A, dcid: &ConnectionId) -> (DirectionKeys, DirectionKeys) {
    let mut initial = aead.hkdf_extract(&INITIAL_SALT, dcid.as_slice());
    let [mut client, mut server] = [[0; 32]; 2];
    let outputs: &mut [Labelled<'_>] =
        &mut [(b"client in", &mut client), (b"server in", &mut server)];
    aead.hkdf_expand_labels(Suite::Aes128Gcm, &initial, outputs);
    let direction = |secret: &[u8; 32]| DirectionKeys::derive(aead, Suite::Aes128Gcm, secret);
    let keys = (direction(&client), direction(&server));
    for secret in [&mut initial, &mut client, &mut server] {
        wipe(secret);
    }
    keys
}

/// The integrity tag of a Retry packet (RFC 9001 5.8) for the packet without its tag.
pub fn retry_tag<A: Aead>(aead: &A, odcid: &ConnectionId, packet: &[u8]) -> [u8; TAG_LEN] {
    let mut pseudo = Vec::with_capacity(1 + odcid.len() + packet.len());
    pseudo.push(odcid.as_slice().len().to_le_bytes()[0]);
    pseudo.extend_from_slice(odcid.as_slice());
    pseudo.extend_from_slice(packet);
    aead.seal(Suite::Aes128Gcm, &RETRY_KEY, &RETRY_NONCE, &pseudo, &mut [])
}

/// The next generation's traffic secret (RFC 9001 6.1). `secret` has the suite's length.
pub fn next_secret<A: Aead>(aead: &A, suite: Suite, secret: &[u8], out: &mut [u8]) {
    aead.hkdf_expand_labels(suite, secret, &mut [(b"quic ku", out)]);
}

/// Borrowed keys of one direction.
#[derive(Clone, Copy)]
pub struct KeyRef<'a> {
    /// Their suite.
    pub suite: Suite,
    /// Packet key of the suite's length.
    pub key: &'a [u8],
    /// Base of the nonce.
    pub iv: &'a [u8; 12],
    /// Header protection key of the suite's length.
    pub hp: &'a [u8],
}

impl fmt::Debug for KeyRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRef(..)")
    }
}

impl<'a> KeyRef<'a> {
    /// The keys of a direction at a level.
    #[must_use]
    pub fn of(suite: Suite, keys: &'a DirectionKeys) -> Self {
        let len = suite.key_len();
        Self {
            suite,
            key: &keys.key[..len],
            iv: &keys.iv,
            hp: &keys.hp[..len],
        }
    }
}

/// The nonce of a packet (RFC 9001 5.3).
fn nonce(iv: &[u8; 12], pn: u64) -> [u8; 12] {
    let mut nonce = *iv;
    for (n, p) in nonce[4..].iter_mut().zip(pn.to_be_bytes()) {
        *n ^= p;
    }
    nonce
}

/// Protects a whole packet in place (RFC 9001 5.3, 5.4): the header with its packet number at
/// `pn_offset`, the payload, and room for the tag at the end.
pub fn protect<A: Aead>(
    aead: &A,
    keys: KeyRef<'_>,
    packet: &mut [u8],
    pn: u64,
    pn_offset: usize,
    pn_len: usize,
) {
    let (header, rest) = packet.split_at_mut(pn_offset + pn_len);
    let (payload, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
    let sealed = aead.seal(keys.suite, keys.key, &nonce(keys.iv, pn), header, payload);
    tag.copy_from_slice(&sealed);
    let sample = packet[pn_offset + 4..pn_offset + 20]
        .try_into()
        .expect("16 bytes");
    let mask = aead.header_mask(keys.suite, keys.hp, &sample);
    packet[0] ^= mask[0] & first_byte_mask(packet[0]);
    for (byte, m) in packet[pn_offset..pn_offset + pn_len]
        .iter_mut()
        .zip(&mask[1..])
    {
        *byte ^= m;
    }
}

/// Bits of the first byte that header protection covers (RFC 9001 5.4.1).
const fn first_byte_mask(first: u8) -> u8 {
    if first & 0x80 == 0 { 0x1f } else { 0x0f }
}

/// Removes header protection in place; returns the length and the bits of the packet number.
/// The caller made sure that the sample lies inside the packet.
pub fn unmask<A: Aead>(
    aead: &A,
    suite: Suite,
    hp: &[u8],
    packet: &mut [u8],
    pn_offset: usize,
) -> (usize, u64) {
    let sample = packet[pn_offset + 4..pn_offset + 20]
        .try_into()
        .expect("16 bytes");
    let mask = aead.header_mask(suite, hp, &sample);
    packet[0] ^= mask[0] & first_byte_mask(packet[0]);
    let len = usize::from(packet[0] & 3) + 1;
    let mut pn = 0u64;
    for (byte, m) in packet[pn_offset..pn_offset + len]
        .iter_mut()
        .zip(&mask[1..])
    {
        *byte ^= m;
        pn = (pn << 8) | u64::from(*byte);
    }
    (len, pn)
}

/// Opens an unmasked packet in place and returns where the plaintext lies. On failure the packet's
/// bytes are undefined.
pub fn open<A: Aead>(
    aead: &A,
    keys: KeyRef<'_>,
    packet: &mut [u8],
    pn: u64,
    header_len: usize,
) -> Option<(usize, usize)> {
    let end = packet
        .len()
        .checked_sub(TAG_LEN)
        .filter(|end| *end >= header_len)?;
    let (header, payload) = packet.split_at_mut(header_len);
    let nonce = nonce(keys.iv, pn);
    aead.open(keys.suite, keys.key, &nonce, header, payload)
        .then_some((header_len, end))
}

/// Compares secrets without an early exit.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && black_box(a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y))) == 0
}
