//! How raw keys leave rustls (T4): its QUIC keys are carriers that hand themselves over, and its
//! traffic secrets come from the key log. Both are public, safe calls of rustls.
//!
//! A carrier never protects a packet. Asked to encrypt, it writes its own key into the buffer; the
//! engine does the rest with the primitives of the provider.

use std::{cell::RefCell, sync::Arc, sync::OnceLock};

use roadstead_quic::crypto::{DirectionKeys, Secret};
use rustls::{
    CipherSuite, CipherSuiteCommon, Error, KeyLog, SupportedCipherSuite, Tls13CipherSuite,
    crypto::{
        CryptoProvider,
        cipher::{AeadKey, Iv},
    },
    quic,
};

use super::hkdf;

/// Bytes of the longest key.
const KEY_BYTES: usize = 32;

/// Bytes of every nonce base.
const IV_BYTES: usize = 12;

struct Carrier {
    key: AeadKey,
    /// Empty for header protection.
    iv: Vec<u8>,
}

impl Carrier {
    fn hand_over(&self, out: &mut [u8]) {
        let key = self.key.as_ref();
        out[..key.len()].copy_from_slice(key);
        let iv = self.iv.len();
        out[KEY_BYTES..][..iv].copy_from_slice(&self.iv);
    }
}

impl quic::PacketKey for Carrier {
    fn encrypt_in_place(
        &self,
        _number: u64,
        _header: &[u8],
        payload: &mut [u8],
    ) -> Result<quic::Tag, Error> {
        self.hand_over(payload);
        Ok(quic::Tag::from(&[0; 16][..]))
    }

    fn decrypt_in_place<'a>(
        &self,
        _number: u64,
        _header: &[u8],
        _payload: &'a mut [u8],
    ) -> Result<&'a [u8], Error> {
        Err(Error::DecryptError)
    }

    fn tag_len(&self) -> usize {
        16
    }

    fn confidentiality_limit(&self) -> u64 {
        0
    }

    fn integrity_limit(&self) -> u64 {
        0
    }
}

impl quic::HeaderProtectionKey for Carrier {
    fn encrypt_in_place(
        &self,
        _sample: &[u8],
        _first: &mut u8,
        packet_number: &mut [u8],
    ) -> Result<(), Error> {
        self.hand_over(packet_number);
        Ok(())
    }

    fn decrypt_in_place(
        &self,
        _sample: &[u8],
        _first: &mut u8,
        _packet_number: &mut [u8],
    ) -> Result<(), Error> {
        Err(Error::DecryptError)
    }

    fn sample_len(&self) -> usize {
        16
    }
}

/// Makes carriers for keys of this length.
struct Algorithm(usize);

impl quic::Algorithm for Algorithm {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn quic::PacketKey> {
        let iv = iv.as_ref().to_vec();
        Box::new(Carrier { key, iv })
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn quic::HeaderProtectionKey> {
        Box::new(Carrier {
            key,
            iv: Vec::new(),
        })
    }

    fn aead_key_len(&self) -> usize {
        self.0
    }
}

static SHORT: Algorithm = Algorithm(16);
static LONG: Algorithm = Algorithm(KEY_BYTES);

/// The keys that a pair of carriers holds.
pub(crate) fn raw(keys: &quic::DirectionalKeys) -> DirectionKeys {
    let mut out = DirectionKeys {
        key: [0; KEY_BYTES],
        iv: [0; IV_BYTES],
        hp: [0; KEY_BYTES],
    };
    let mut packet = [0; KEY_BYTES + IV_BYTES];
    keys.packet
        .encrypt_in_place(0, &[], &mut packet)
        .expect("a carrier hands itself over");
    keys.header
        .encrypt_in_place(&[], &mut 0, &mut out.hp)
        .expect("a carrier hands itself over");
    out.key.copy_from_slice(&packet[..KEY_BYTES]);
    out.iv.copy_from_slice(&packet[KEY_BYTES..]);
    // The bytes on the stack are keys too.
    packet.fill(0);
    std::hint::black_box(&mut packet);
    out
}

/// The provider of this crate with carriers for QUIC. Made once: rustls wants suites that live forever.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        let mut provider = CryptoProvider::clone(&super::provider());
        provider.cipher_suites = provider.cipher_suites.iter().map(carrying).collect();
        Arc::new(provider)
    };
    PROVIDER.get_or_init(make).clone()
}

fn carrying(suite: &SupportedCipherSuite) -> SupportedCipherSuite {
    let Some(suite) = suite.tls13() else {
        return *suite;
    };
    let short = suite.common.suite == CipherSuite::TLS13_AES_128_GCM_SHA256;
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: suite.common.confidentiality_limit,
        },
        hkdf_provider: ready_hkdf(suite.common.suite),
        aead_alg: suite.aead_alg,
        quic: Some(if short { &SHORT } else { &LONG }),
    })))
}

fn ready_hkdf(suite: CipherSuite) -> &'static hkdf::ReadyHkdf {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => &hkdf::SHA384,
        _ => &hkdf::SHA256,
    }
}

/// The two 1-RTT secrets of a handshake.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    pub(crate) client: Option<Secret>,
    pub(crate) server: Option<Secret>,
}

thread_local! {
    /// What the present call into rustls logged. rustls runs on the thread of its engine.
    static LOGGED: RefCell<Secrets> = const { RefCell::new(Secrets { client: None, server: None }) };
}

/// Takes what was logged since the last time.
pub(crate) fn logged() -> Secrets {
    LOGGED.take()
}

/// A log that keeps the two secrets for [`logged`] and nothing else.
pub(crate) fn key_log() -> Arc<dyn KeyLog> {
    Arc::new(TrafficSecrets)
}

#[derive(Debug)]
struct TrafficSecrets;

impl KeyLog for TrafficSecrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        LOGGED.with_borrow_mut(|logged| match label {
            "CLIENT_TRAFFIC_SECRET_0" => logged.client = Some(Secret::new(secret)),
            "SERVER_TRAFFIC_SECRET_0" => logged.server = Some(Secret::new(secret)),
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        label.ends_with("_TRAFFIC_SECRET_0")
    }
}
