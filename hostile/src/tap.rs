//! TLS as quinn has it, with the session's keys to share: what is written by hand needs them.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Result;
use bytes::BytesMut;
use quinn_proto::crypto::{
    ClientConfig, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey,
    Session,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};

/// TLS of a client of this protocol that trusts these roots.
pub(crate) fn tls(roots: rustls::RootCertStore) -> Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![roadstead_proto::ALPN.to_vec()];
    Ok(tls)
}

/// What was seen of a session: the keys that it writes with, and its last packet.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) header: Option<Arc<dyn HeaderKey>>,
    pub(crate) packet: Option<Arc<dyn PacketKey>>,
    /// The server's connection id.
    pub(crate) id: Vec<u8>,
    pub(crate) number: u64,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys are nobody's to read.
        f.debug_struct("Seen")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// Where it is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tap(Arc<Mutex<Seen>>);

impl Tap {
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("nobody panics holding it")
    }
}

/// A client's TLS whose sessions are tapped.
pub(crate) struct Tapped<C> {
    pub(crate) inner: Arc<C>,
    pub(crate) tap: Tap,
}

impl<C: ClientConfig + 'static> ClientConfig for Tapped<C> {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let inner = Arc::clone(&self.inner).start_session(version, server_name, params)?;
        Ok(Box::new(TappedSession {
            inner,
            tap: self.tap.clone(),
        }))
    }
}

struct TappedSession {
    inner: Box<dyn Session>,
    tap: Tap,
}

impl TappedSession {
    /// Keys of which another has the writing half, too. Those of 1-RTT packets are the last that a session makes.
    fn share(&self, keys: Keys) -> Keys {
        let header: Arc<dyn HeaderKey> = Arc::from(keys.header.local);
        let packet: Arc<dyn PacketKey> = Arc::from(keys.packet.local);
        {
            let mut seen = self.tap.seen();
            seen.header = Some(Arc::clone(&header));
            seen.packet = Some(Arc::clone(&packet));
        }
        Keys {
            header: KeyPair {
                local: Box::new(SharedHeader(header)),
                remote: keys.header.remote,
            },
            packet: KeyPair {
                local: Box::new(SharedPacket {
                    key: packet,
                    tap: self.tap.clone(),
                }),
                remote: keys.packet.remote,
            },
        }
    }
}

impl Session for TappedSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.inner.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let keys = self.inner.write_handshake(buf)?;
        Some(self.share(keys))
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

struct SharedHeader(Arc<dyn HeaderKey>);

impl HeaderKey for SharedHeader {
    fn decrypt(&self, pn_offset: usize, packet: &mut [u8]) {
        self.0.decrypt(pn_offset, packet);
    }

    fn encrypt(&self, pn_offset: usize, packet: &mut [u8]) {
        self.0.encrypt(pn_offset, packet);
    }

    fn sample_size(&self) -> usize {
        self.0.sample_size()
    }
}

struct SharedPacket {
    key: Arc<dyn PacketKey>,
    tap: Tap,
}

impl PacketKey for SharedPacket {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        // A short header is a flag byte, the id and the packet number (RFC 9000 section 17.3.1), not yet protected.
        let (is_short, number_len) = (buf[0] & 0x80 == 0, usize::from(buf[0] & 3) + 1);
        if is_short {
            let mut seen = self.tap.seen();
            seen.id = buf[1..header_len - number_len].to_vec();
            seen.number = packet;
        }
        self.key.encrypt(packet, buf, header_len);
    }

    fn decrypt(
        &self,
        packet: u64,
        header: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(), CryptoError> {
        self.key.decrypt(packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.key.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.key.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.key.integrity_limit()
    }
}
