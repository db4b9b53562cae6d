//! QUIC connections: TLS, connection ids, timeouts. Thin: what to say is the session's business.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, ConnectionError, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    VarInt,
};
use roadstead_proto::{ALPN, ErrorCode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};

use crate::config::Trust;
use crate::error::{Cause, ClientError};
use crate::session::Home;

/// Name look-up and handshake together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a first destination connection id. RFC 9000 (7.2) asks for 8 unpredictable ones; the home
/// prefix may take up to two more.
const FIRST_ID_BYTES: usize = 12;

/// What all connections of a client have in common.
#[derive(Clone)]
pub(crate) struct Tls {
    config: Arc<QuicClientConfig>,
    provider: Arc<CryptoProvider>,
}

impl Tls {
    pub(crate) fn new(trust: Trust) -> Result<Self, ClientError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let refuse = |error: &dyn std::fmt::Display| ClientError::Tls(error.to_string());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| refuse(&error))?;
        let builder = match trust {
            Trust::Roots(roots) => builder.with_root_certificates(roots),
            Trust::Pinned(certificates) => {
                let provider = Arc::clone(&provider);
                let verifier = PinnedVerifier {
                    certificates,
                    provider,
                };
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let config = QuicClientConfig::try_from(config).map_err(|error| refuse(&error))?;
        Ok(Self {
            config: Arc::new(config),
            provider,
        })
    }

    /// Bytes that nobody can predict.
    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.provider
            .secure_random
            .fill(&mut bytes)
            .expect("the operating system has entropy");
        bytes
    }
}

/// Believes exactly the pinned certificates. Neither their names nor their dates matter: the pin is
/// the identity.
#[derive(Debug)]
struct PinnedVerifier {
    certificates: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.certificates.iter().any(|pinned| pinned == end_entity) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC is TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// One attempt to connect.
pub(crate) struct Dial {
    pub(crate) tls: Tls,
    pub(crate) address: String,
    /// How often all servers were tried: a name may have several addresses, of which some are dead.
    pub(crate) round: usize,
    pub(crate) server_name: Option<String>,
    pub(crate) home: Option<Home>,
    pub(crate) heartbeat: Duration,
    pub(crate) idle_timeout: Duration,
}

/// A connection with its one stream.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) endpoint: Endpoint,
    pub(crate) quic: quinn::Connection,
    pub(crate) send: quinn::SendStream,
    pub(crate) recv: quinn::RecvStream,
}

impl Dial {
    pub(crate) async fn run(self) -> Result<Connection, Cause> {
        match tokio::time::timeout(DIAL_TIMEOUT, self.connect()).await {
            Ok(result) => result,
            Err(_) => Err(Cause::TimedOut),
        }
    }

    async fn connect(self) -> Result<Connection, Cause> {
        let failed = |error: &dyn std::fmt::Display| Cause::Transport(error.to_string());
        let found = tokio::net::lookup_host(&self.address).await;
        let addresses: Vec<SocketAddr> = found.map_err(|error| failed(&error))?.collect();
        let index = self.round.checked_rem(addresses.len());
        let index = index.ok_or_else(|| failed(&"the name has no address"))?;
        let address = addresses[index];
        let endpoint = endpoint(address).map_err(|error| failed(&error))?;
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = self.server_name.as_deref().unwrap_or(host);
        let quic = endpoint
            .connect_with(self.client_config(), address, name)
            .map_err(|error| failed(&error))?
            .await
            .map_err(cause)?;
        let (send, recv) = quic.open_bi().await.map_err(cause)?;
        Ok(Connection {
            endpoint,
            quic,
            send,
            recv,
        })
    }

    fn client_config(&self) -> ClientConfig {
        let mut transport = quinn::TransportConfig::default();
        let idle_timeout =
            VarInt::try_from(u64::try_from(self.idle_timeout.as_millis()).unwrap_or(0))
                .map_or(None, |ms| Some(ms.into()));
        transport
            .keep_alive_interval(Some(self.heartbeat))
            .max_idle_timeout(idle_timeout)
            // The server opens no stream.
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None);
        let mut config = ClientConfig::new(Arc::clone(&self.tls.config) as _);
        let (tls, home) = (self.tls.clone(), self.home);
        config
            .transport_config(Arc::new(transport))
            .initial_dst_cid_provider(Arc::new(move || first_id(tls.random(), home)));
        config
    }
}

/// Random, but for the bits of the home prefix: a session is soon born on its home shard, and a
/// network that watches learns next to nothing (T9).
fn first_id(mut bytes: [u8; FIRST_ID_BYTES], home: Option<Home>) -> ConnectionId {
    if let Some(Home { bits, length }) = home {
        let mask = u16::MAX.checked_shl(16 - length).unwrap_or(u16::MAX);
        let random = u16::from_be_bytes([bytes[0], bytes[1]]);
        let steered = (bits & mask) | (random & !mask);
        bytes[..2].copy_from_slice(&steered.to_be_bytes());
    }
    ConnectionId::new(&bytes)
}

/// One socket per connection, so zero-length connection ids of our own suffice (T5).
fn endpoint(server: SocketAddr) -> std::io::Result<Endpoint> {
    let mut config = EndpointConfig::default();
    config.cid_generator(|| Box::new(NoIds));
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(config, None, socket_towards(server)?, runtime)
}

/// Gives connections no id: the socket identifies them.
struct NoIds;

impl ConnectionIdGenerator for NoIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&[])
    }

    fn cid_len(&self) -> usize {
        0
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A fresh socket of the server's address family.
pub(crate) fn socket_towards(server: SocketAddr) -> std::io::Result<UdpSocket> {
    match server {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

/// Says in the client's words why a connection ended.
pub(crate) fn cause(error: ConnectionError) -> Cause {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = ErrorCode::from_close_code(close.error_code.into_inner());
            Cause::Closed(code.unwrap_or(ErrorCode::Unspecified))
        }
        ConnectionError::Reset => Cause::Reset,
        ConnectionError::TimedOut => Cause::TimedOut,
        ConnectionError::LocallyClosed => Cause::Shutdown,
        other => Cause::Transport(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_two(home: Option<Home>) -> u16 {
        let id = first_id([0b1010_1010; FIRST_ID_BYTES], home);
        assert_eq!(id.len(), FIRST_ID_BYTES);
        assert_eq!(id[2..], [0b1010_1010; FIRST_ID_BYTES - 2]);
        u16::from_be_bytes([id[0], id[1]])
    }

    #[test]
    fn t9_only_the_prefix_bits_are_set() {
        let home = |bits, length| Some(Home { bits, length });
        assert_eq!(first_two(None), 0b1010_1010_1010_1010);
        assert_eq!(
            first_two(home(0b0100_0000_0000_0000, 2)),
            0b0110_1010_1010_1010
        );
        assert_eq!(
            first_two(home(0b1111_1111_1111_1111, 3)),
            0b1110_1010_1010_1010
        );
        assert_eq!(first_two(home(0x1234, 16)), 0x1234);
    }

    #[test]
    fn closes_are_said_in_the_protocols_words() {
        let close = |code: u32| {
            ConnectionError::ApplicationClosed(quinn::ApplicationClose {
                error_code: code.into(),
                reason: bytes::Bytes::new(),
            })
        };
        assert_eq!(cause(close(12)), Cause::Closed(ErrorCode::SessionReplaced));
        assert_eq!(cause(close(999)), Cause::Closed(ErrorCode::Unspecified));
        assert_eq!(cause(ConnectionError::Reset), Cause::Reset);
    }
}
