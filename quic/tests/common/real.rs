//! rustls and aws-lc-rs behind the seams (T3, T4): the shape that net/ uses in production.
//!
//! Keys leave rustls through a custom `quic::Algorithm` whose keys are carriers: they answer an
//! "encryption" with their own raw bytes. The 1-RTT traffic secrets come from the key log.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::{aead, hkdf, hmac};
use roadstead_quic::crypto::{
    Aead, DirectionKeys, KeyChange, Labelled, LevelKeys, Secret, Suite, Tls, TlsError,
};
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::quic::{self, Tag};
use rustls::{CipherSuite, SupportedCipherSuite, Tls13CipherSuite};

/// aws-lc-rs as the engine's provider.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsAead;

fn algorithm(suite: Suite) -> &'static aead::Algorithm {
    match suite {
        Suite::Aes128Gcm => &aead::AES_128_GCM,
        Suite::Aes256Gcm => &aead::AES_256_GCM,
        Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    }
}

fn key(suite: Suite, key: &[u8]) -> aead::LessSafeKey {
    aead::LessSafeKey::new(aead::UnboundKey::new(algorithm(suite), key).unwrap())
}

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

impl Aead for AwsAead {
    type MaskKey = aead::quic::HeaderProtectionKey;

    fn mask_key(&self, key: &[u8; 16]) -> aead::quic::HeaderProtectionKey {
        aead::quic::HeaderProtectionKey::new(&aead::quic::AES_128, key).unwrap()
    }

    fn mask(&self, key: &aead::quic::HeaderProtectionKey, sample: &[u8; 16]) -> [u8; 5] {
        key.new_mask(sample).unwrap()
    }

    fn seal(
        &self,
        suite: Suite,
        raw: &[u8],
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
    ) -> [u8; 16] {
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let tag = key(suite, raw).seal_in_place_separate_tag(nonce, aead::Aad::from(aad), data);
        tag.unwrap().as_ref().try_into().unwrap()
    }

    fn open(
        &self,
        suite: Suite,
        raw: &[u8],
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
    ) -> bool {
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        key(suite, raw)
            .open_in_place(nonce, aead::Aad::from(aad), data)
            .is_ok()
    }

    fn header_mask(&self, suite: Suite, raw: &[u8], sample: &[u8; 16]) -> [u8; 5] {
        let algorithm = match suite {
            Suite::Aes128Gcm => &aead::quic::AES_128,
            Suite::Aes256Gcm => &aead::quic::AES_256,
            Suite::ChaCha20Poly1305 => &aead::quic::CHACHA20,
        };
        aead::quic::HeaderProtectionKey::new(algorithm, raw)
            .unwrap()
            .new_mask(sample)
            .unwrap()
    }

    fn hkdf_extract(&self, salt: &[u8], secret: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, salt);
        hmac::sign(&key, secret).as_ref().try_into().unwrap()
    }

    fn hkdf_expand_labels(&self, suite: Suite, secret: &[u8], outputs: &mut [Labelled<'_>]) {
        let hash = match suite {
            Suite::Aes256Gcm => hkdf::HKDF_SHA384,
            _ => hkdf::HKDF_SHA256,
        };
        let prk = hkdf::Prk::new_less_safe(hash, secret);
        for (label, out) in outputs {
            let len = u16::try_from(out.len()).unwrap().to_be_bytes();
            let label_len = [u8::try_from(6 + label.len()).unwrap()];
            let info: [&[u8]; 5] = [&len, &label_len, b"tls13 ", label, &[0]];
            let okm = prk.expand(&info, Len(out.len())).unwrap();
            okm.fill(out).unwrap();
        }
    }

    fn hmac(&self, key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        parts.iter().for_each(|p| context.update(p));
        context.sign().as_ref().try_into().unwrap()
    }
}

/// A key that only hands itself over.
struct Carrier {
    key: [u8; 32],
    iv: [u8; 12],
}

impl quic::PacketKey for Carrier {
    fn encrypt_in_place(&self, _: u64, _: &[u8], payload: &mut [u8]) -> Result<Tag, rustls::Error> {
        payload[..32].copy_from_slice(&self.key);
        payload[32..44].copy_from_slice(&self.iv);
        Ok(Tag::from(&[0; 16][..]))
    }

    fn decrypt_in_place<'a>(
        &self,
        _: u64,
        _: &[u8],
        _: &'a mut [u8],
    ) -> Result<&'a [u8], rustls::Error> {
        Err(rustls::Error::DecryptError)
    }

    fn tag_len(&self) -> usize {
        16
    }

    fn confidentiality_limit(&self) -> u64 {
        1 << 23
    }

    fn integrity_limit(&self) -> u64 {
        1 << 36
    }
}

impl quic::HeaderProtectionKey for Carrier {
    fn encrypt_in_place(&self, _: &[u8], _: &mut u8, pn: &mut [u8]) -> Result<(), rustls::Error> {
        pn[..32].copy_from_slice(&self.key);
        Ok(())
    }

    fn decrypt_in_place(&self, _: &[u8], _: &mut u8, _: &mut [u8]) -> Result<(), rustls::Error> {
        Err(rustls::Error::DecryptError)
    }

    fn sample_len(&self) -> usize {
        16
    }
}

struct Carriers(usize);

fn carrier(key: &AeadKey, iv: [u8; 12]) -> Carrier {
    let mut raw = [0; 32];
    let bytes = key.as_ref();
    raw[..bytes.len()].copy_from_slice(bytes);
    Carrier { key: raw, iv }
}

impl quic::Algorithm for Carriers {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn quic::PacketKey> {
        Box::new(carrier(&key, iv.as_ref().try_into().unwrap()))
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn quic::HeaderProtectionKey> {
        Box::new(carrier(&key, [0; 12]))
    }

    fn aead_key_len(&self) -> usize {
        self.0
    }
}

static CARRIERS: [Carriers; 2] = [Carriers(16), Carriers(32)];

/// A provider with the given suites only, whose QUIC keys are carriers.
pub fn provider(suites: &[CipherSuite]) -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites = provider
        .cipher_suites
        .iter()
        .filter(|s| suites.contains(&s.suite()))
        .map(|s| {
            #[allow(
                irrefutable_let_patterns,
                reason = "TLS 1.2 is a feature that others may enable"
            )]
            let SupportedCipherSuite::Tls13(s) = s else {
                panic!("a suite of TLS 1.3")
            };
            let small = s.common.suite == CipherSuite::TLS13_AES_128_GCM_SHA256;
            SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
                common: rustls::crypto::CipherSuiteCommon {
                    suite: s.common.suite,
                    hash_provider: s.common.hash_provider,
                    confidentiality_limit: s.common.confidentiality_limit,
                },
                hkdf_provider: s.hkdf_provider,
                aead_alg: s.aead_alg,
                quic: Some(&CARRIERS[usize::from(!small)]),
            })))
        })
        .collect();
    Arc::new(provider)
}

thread_local! {
    /// Secrets logged during the current call into rustls: for the two labels, in any order.
    static LOGGED: RefCell<Vec<(bool, Secret)>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct TrafficSecrets;

impl rustls::KeyLog for TrafficSecrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let client = match label {
            "CLIENT_TRAFFIC_SECRET_0" => true,
            "SERVER_TRAFFIC_SECRET_0" => false,
            _ => return,
        };
        LOGGED.with_borrow_mut(|l| l.push((client, Secret::new(secret))));
    }
}

/// rustls behind the seam.
pub struct RustlsTls {
    inner: quic::Connection,
    client: bool,
    client_secret: Option<Secret>,
    server_secret: Option<Secret>,
}

impl std::fmt::Debug for RustlsTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RustlsTls")
    }
}

impl RustlsTls {
    fn collect(&mut self) {
        for (client, secret) in LOGGED.take() {
            if client {
                self.client_secret = Some(secret);
            } else {
                self.server_secret = Some(secret);
            }
        }
    }

    fn suite(&self) -> Suite {
        let suite = match &self.inner {
            quic::Connection::Client(c) => c.negotiated_cipher_suite(),
            quic::Connection::Server(s) => s.negotiated_cipher_suite(),
        };
        match suite.expect("keys follow a suite").suite() {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => Suite::Aes128Gcm,
            CipherSuite::TLS13_AES_256_GCM_SHA384 => Suite::Aes256Gcm,
            _ => Suite::ChaCha20Poly1305,
        }
    }

    fn level(&self, keys: &quic::Keys) -> LevelKeys {
        LevelKeys {
            suite: self.suite(),
            local: unwrap(&keys.local),
            remote: unwrap(&keys.remote),
        }
    }
}

/// The raw bytes out of carriers.
fn unwrap(keys: &quic::DirectionalKeys) -> DirectionKeys {
    let mut packet = [0; 44];
    let mut hp = [0; 32];
    keys.packet.encrypt_in_place(0, &[], &mut packet).unwrap();
    keys.header.encrypt_in_place(&[], &mut 0, &mut hp).unwrap();
    DirectionKeys {
        key: packet[..32].try_into().unwrap(),
        iv: packet[32..].try_into().unwrap(),
        hp,
    }
}

const HANDSHAKE_FAILURE: TlsError = TlsError { alert: 40 };

impl Tls for RustlsTls {
    type ServerConfig = Arc<rustls::ServerConfig>;
    type ClientConfig = Arc<rustls::ClientConfig>;

    fn server(config: &Self::ServerConfig, params: Vec<u8>) -> Result<Self, TlsError> {
        let inner = quic::ServerConnection::new(config.clone(), quic::Version::V1, params)
            .map_err(|_| HANDSHAKE_FAILURE)?;
        let inner = quic::Connection::Server(inner);
        Ok(Self {
            inner,
            client: false,
            client_secret: None,
            server_secret: None,
        })
    }

    fn client(config: &Self::ClientConfig, name: &str, params: Vec<u8>) -> Result<Self, TlsError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| HANDSHAKE_FAILURE)?;
        let inner = quic::ClientConnection::new(config.clone(), quic::Version::V1, name, params)
            .map_err(|_| HANDSHAKE_FAILURE)?;
        let inner = quic::Connection::Client(inner);
        Ok(Self {
            inner,
            client: true,
            client_secret: None,
            server_secret: None,
        })
    }

    fn read(&mut self, data: &[u8]) -> Result<(), TlsError> {
        let result = self.inner.read_hs(data);
        self.collect();
        result.map_err(|_| match self.inner.alert() {
            Some(alert) => TlsError {
                alert: alert.into(),
            },
            None => HANDSHAKE_FAILURE,
        })
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Result<Option<KeyChange>, TlsError> {
        let change = self.inner.write_hs(out);
        self.collect();
        Ok(change.map(|change| match change {
            quic::KeyChange::Handshake { keys } => KeyChange::Handshake(self.level(&keys)),
            quic::KeyChange::OneRtt { keys, .. } => {
                let client = self.client_secret.take().expect("logged before");
                let server = self.server_secret.take().expect("logged before");
                let (local_secret, remote_secret) = if self.client {
                    (client, server)
                } else {
                    (server, client)
                };
                KeyChange::OneRtt {
                    keys: self.level(&keys),
                    local_secret,
                    remote_secret,
                }
            }
        }))
    }

    fn is_handshaking(&self) -> bool {
        match &self.inner {
            quic::Connection::Client(c) => c.is_handshaking(),
            quic::Connection::Server(s) => s.is_handshaking(),
        }
    }

    fn peer_params(&self) -> Option<&[u8]> {
        self.inner.quic_transport_parameters()
    }

    fn alpn(&self) -> Option<&[u8]> {
        match &self.inner {
            quic::Connection::Client(c) => c.alpn_protocol(),
            quic::Connection::Server(s) => s.alpn_protocol(),
        }
    }

    fn server_name(&self) -> Option<&str> {
        match &self.inner {
            quic::Connection::Client(_) => None,
            quic::Connection::Server(s) => s.server_name(),
        }
    }

    fn resumed(&self) -> bool {
        let kind = match &self.inner {
            quic::Connection::Client(c) => c.handshake_kind(),
            quic::Connection::Server(s) => s.handshake_kind(),
        };
        kind == Some(rustls::HandshakeKind::Resumed)
    }

    fn tickets(&self) -> u32 {
        match &self.inner {
            quic::Connection::Client(c) => c.tls13_tickets_received(),
            quic::Connection::Server(_) => 0,
        }
    }
}

/// The servers' self-signed certificate, in both encodings.
pub struct Identity {
    cert: CertificateDer<'static>,
    key: Vec<u8>,
    pub cert_pem: String,
    pub key_pem: String,
}

pub fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        Identity {
            cert: made.cert.der().clone(),
            key: made.signing_key.serialize_der(),
            cert_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
        }
    })
}

pub const AES_128: &[CipherSuite] = &[CipherSuite::TLS13_AES_128_GCM_SHA256];

pub fn server_config(provider: Arc<CryptoProvider>) -> rustls::ServerConfig {
    let id = identity();
    let key = PrivateKeyDer::try_from(id.key.clone()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![id.cert.clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"roadstead/1".to_vec()];
    config.key_log = Arc::new(TrafficSecrets);
    config.send_tls13_tickets = 1;
    config
}

pub fn client_config(provider: Arc<CryptoProvider>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity().cert.clone()).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"roadstead/1".to_vec()];
    config.key_log = Arc::new(TrafficSecrets);
    config
}
