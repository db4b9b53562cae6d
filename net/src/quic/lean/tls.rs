//! rustls behind the engine's `Tls` seam (T3, T4). The engine drops it after the handshake (T6).

use std::{fmt, sync::Arc};

use roadstead_quic::crypto::{KeyChange, LevelKeys, Secret, Suite, Tls, TlsError};
use rustls::{
    CipherSuite, HandshakeKind,
    pki_types::ServerName,
    quic::{self, Connection, Version},
};

use crate::tls::carriers;

/// RFC 8446 section 6.2, for errors that have no alert of their own.
const HANDSHAKE_FAILURE: TlsError = TlsError { alert: 40 };

/// RFC 8446 section 6.2: rustls gave keys before their suite was chosen or their secrets were logged. It never
/// did; another release of it that does may end handshakes, but not the process.
const INTERNAL_ERROR: TlsError = TlsError { alert: 80 };

/// One handshake. Its configurations come from [`ServerTls::raw_keys`](crate::tls::ServerTls::raw_keys)
/// and [`ClientTls::raw_keys`](crate::tls::ClientTls::raw_keys); others give it no keys.
pub struct RustlsTls {
    inner: Connection,
    secrets: carriers::Secrets,
}

impl fmt::Debug for RustlsTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RustlsTls(..)")
    }
}

impl RustlsTls {
    fn of(inner: impl Into<Connection>) -> Self {
        Self {
            inner: inner.into(),
            secrets: carriers::Secrets::default(),
        }
    }

    fn collect(&mut self) {
        let carriers::Secrets { client, server } = carriers::logged();
        self.secrets.client = client.or(self.secrets.client.take());
        self.secrets.server = server.or(self.secrets.server.take());
    }

    fn suite(&self) -> Result<Suite, TlsError> {
        let suite = self.inner.negotiated_cipher_suite();
        Ok(match suite.ok_or(INTERNAL_ERROR)?.suite() {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => Suite::Aes128Gcm,
            CipherSuite::TLS13_AES_256_GCM_SHA384 => Suite::Aes256Gcm,
            _ => Suite::ChaCha20Poly1305,
        })
    }

    fn keys(&self, keys: &quic::Keys) -> Result<LevelKeys, TlsError> {
        Ok(LevelKeys {
            suite: self.suite()?,
            local: carriers::raw(&keys.local),
            remote: carriers::raw(&keys.remote),
        })
    }

    /// The secrets of this side and of the peer.
    fn take_secrets(&mut self) -> Result<(Secret, Secret), TlsError> {
        let client = self.secrets.client.take();
        let server = self.secrets.server.take();
        let (client, server) = client.zip(server).ok_or(INTERNAL_ERROR)?;
        Ok(match self.inner {
            Connection::Client(_) => (client, server),
            Connection::Server(_) => (server, client),
        })
    }
}

impl Tls for RustlsTls {
    type ServerConfig = Arc<rustls::ServerConfig>;
    type ClientConfig = Arc<rustls::ClientConfig>;

    fn server(config: &Self::ServerConfig, params: Vec<u8>) -> Result<Self, TlsError> {
        quic::ServerConnection::new(config.clone(), Version::V1, params)
            .map(Self::of)
            .map_err(|_| HANDSHAKE_FAILURE)
    }

    fn client(config: &Self::ClientConfig, name: &str, params: Vec<u8>) -> Result<Self, TlsError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| HANDSHAKE_FAILURE)?;
        quic::ClientConnection::new(config.clone(), Version::V1, name, params)
            .map(Self::of)
            .map_err(|_| HANDSHAKE_FAILURE)
    }

    fn read(&mut self, data: &[u8]) -> Result<(), TlsError> {
        let result = self.inner.read_hs(data);
        self.collect();
        result.map_err(|_| {
            let alert = self.inner.alert().map(u8::from);
            alert.map_or(HANDSHAKE_FAILURE, |alert| TlsError { alert })
        })
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Result<Option<KeyChange>, TlsError> {
        let change = self.inner.write_hs(out);
        self.collect();
        Ok(Some(match change {
            None => return Ok(None),
            Some(quic::KeyChange::Handshake { keys }) => KeyChange::Handshake(self.keys(&keys)?),
            // The `next` of rustls is generation 1 already; the engine derives its own (T4).
            Some(quic::KeyChange::OneRtt { keys, .. }) => {
                let (local_secret, remote_secret) = self.take_secrets()?;
                KeyChange::OneRtt {
                    keys: self.keys(&keys)?,
                    local_secret,
                    remote_secret,
                }
            }
        }))
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn peer_params(&self) -> Option<&[u8]> {
        self.inner.quic_transport_parameters()
    }

    fn alpn(&self) -> Option<&[u8]> {
        self.inner.alpn_protocol()
    }

    fn server_name(&self) -> Option<&str> {
        match &self.inner {
            Connection::Client(_) => None,
            Connection::Server(server) => server.server_name(),
        }
    }

    fn resumed(&self) -> bool {
        self.inner.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    fn tickets(&self) -> u32 {
        match &self.inner {
            Connection::Client(client) => client.tls13_tickets_received(),
            Connection::Server(_) => 0,
        }
    }
}
