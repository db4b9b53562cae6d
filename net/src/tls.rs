//! TLS 1.3 for both ends: certificates, protocol names, tickets that survive a restart.

mod certificate;
mod store;
mod tickets;

pub(crate) mod carriers;
pub(crate) mod hkdf;

use std::{fmt, sync::Arc};

use rustls::{
    CipherSuite, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::error::Error;

use certificate::Certificate;

pub use tickets::TicketKeys;
#[cfg(feature = "fuzzing")]
pub(crate) use tickets::Ticketer;

/// The protocol name of client sessions.
pub const ALPN: &[u8] = b"roadstead/1";

/// The server's side of TLS: certificate, protocol names, ticket keys. 0-RTT is off: a replayed Hello
/// would be a replayed session.
pub struct ServerTls {
    pub(crate) config: Arc<rustls::ServerConfig>,
    /// The same for the engine that takes raw keys (T4).
    pub(crate) lean: Arc<rustls::ServerConfig>,
    certificate: Arc<Certificate>,
    tickets: Option<Arc<tickets::Ticketer>>,
}

impl ServerTls {
    /// Serves the certificate chain and key given as PEM, for the protocols in `alpn`. With `tickets`
    /// sessions can be resumed, also after a restart with the same keys (T14).
    pub fn from_pem(
        chain: &[u8],
        key: &[u8],
        alpn: &[&[u8]],
        tickets: Option<TicketKeys>,
    ) -> Result<Self, Error> {
        let certificate = Arc::new(Certificate::from_pem(chain, key)?);
        let tickets = tickets.map(|keys| Arc::new(tickets::Ticketer::new(&keys)));
        let config = |provider| -> Result<rustls::ServerConfig, Error> {
            let mut config = rustls::ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_no_client_auth()
                .with_cert_resolver(certificate.clone());
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            config.max_early_data_size = 0;
            // One is enough for one connection at a time (T6).
            config.send_tls13_tickets = usize::from(tickets.is_some());
            if let Some(ticketer) = &tickets {
                config.ticketer = ticketer.clone();
            }
            Ok(config)
        };
        let mut lean = config(carriers::provider())?;
        lean.key_log = carriers::key_log();
        Ok(Self {
            config: Arc::new(config(provider())?),
            lean: Arc::new(lean),
            certificate,
            tickets,
        })
    }

    /// Shows another certificate, given as PEM with its key, from the next handshake on. Sessions that are
    /// open, and those resumed by a ticket, do not notice.
    ///
    /// # Errors
    /// What is given is no certificate with its key: then the old one is still shown.
    pub fn replace_certificate(&self, chain: &[u8], key: &[u8]) -> Result<(), Error> {
        self.certificate.replace(chain, key)
    }

    /// The configuration for [`RustlsTls`](crate::quic::lean::RustlsTls): its keys come raw (T4).
    pub fn raw_keys(&self) -> Arc<rustls::ServerConfig> {
        self.lean.clone()
    }

    /// Puts new ticket keys in force. Does nothing if the server was made without any.
    pub fn rotate_tickets(&self, keys: &TicketKeys) {
        if let Some(ticketer) = &self.tickets {
            ticketer.rotate(keys);
        }
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("tickets", &self.tickets.is_some())
            .finish_non_exhaustive()
    }
}

/// A client's side of TLS.
pub struct ClientTls {
    pub(crate) config: Arc<rustls::ClientConfig>,
    /// The same for the engine that takes raw keys (T4).
    pub(crate) lean: Arc<rustls::ClientConfig>,
    pub(crate) resumption: bool,
}

impl ClientTls {
    /// Trusts the certificates given as PEM: authorities, or the server's own. Resumption is off unless
    /// asked for, because a load run that resumes does not measure handshakes (T13).
    pub fn trusting_pem(roots: &[u8], alpn: &[&[u8]], resumption: bool) -> Result<Self, Error> {
        let mut store = RootCertStore::empty();
        for certificate in certificates(roots)? {
            store.add(certificate)?;
        }
        let config = |provider| -> Result<_, Error> {
            Ok(rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_root_certificates(store.clone())
                .with_no_client_auth())
        };
        Self::finish(config, alpn, resumption)
    }

    /// Accepts any certificate. For tests, where the peer is known by other means.
    pub fn dangerous_accept_any(alpn: &[&[u8]]) -> Result<Self, Error> {
        let config = |provider: Arc<CryptoProvider>| -> Result<_, Error> {
            let verifier = AcceptAny(provider.signature_verification_algorithms);
            Ok(rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth())
        };
        Self::finish(config, alpn, false)
    }

    /// The configuration for [`RustlsTls`](crate::quic::lean::RustlsTls): its keys come raw (T4).
    pub fn raw_keys(&self) -> Arc<rustls::ClientConfig> {
        self.lean.clone()
    }

    fn finish(
        config: impl Fn(Arc<CryptoProvider>) -> Result<rustls::ClientConfig, Error>,
        alpn: &[&[u8]],
        resumption: bool,
    ) -> Result<Self, Error> {
        let set = |mut config: rustls::ClientConfig| {
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            config.enable_early_data = false;
            config.resumption = match resumption {
                true => Resumption::store(Arc::new(store::TicketStore::default())),
                false => Resumption::disabled(),
            };
            config
        };
        let mut lean = set(config(carriers::provider())?);
        lean.key_log = carriers::key_log();
        Ok(Self {
            config: Arc::new(set(config(provider())?)),
            lean: Arc::new(lean),
            resumption,
        })
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("resumption", &self.resumption)
            .finish_non_exhaustive()
    }
}

/// Bytes from the crypto library's random source.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The library's generator reseeds from the kernel and has no failure that could be handled.
    ::aws_lc_rs::rand::fill(&mut bytes).expect("the random source works");
    bytes
}

/// aws-lc-rs with AES-128-GCM first: it is the cheapest and its keys are the smallest (T4). A phone
/// without AES instructions asks for ChaCha20 first, and the server follows the client's order.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| Error::Tls(format!("certificate: {e}")))?;
    match chain.is_empty() {
        true => Err(Error::Tls("no certificate in the PEM text".into())),
        false => Ok(chain),
    }
}

/// Bytes that a chain of certificates in PEM takes in a handshake, without what each is framed with.
pub fn chain_bytes(pem: &[u8]) -> Result<usize, Error> {
    Ok(certificates(pem)?.iter().map(|one| one.len()).sum())
}

/// Checks signatures, so that the handshake costs what it costs, and trusts every certificate.
#[derive(Debug)]
struct AcceptAny(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
