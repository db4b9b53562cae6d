//! noq-proto in the same smallest configuration: one stream, small windows, no path MTU discovery, no
//! datagrams, NewReno. It has no seam in net/, so this file drives it as `net/src/quic/quinn` does.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use bytes::{Bytes, BytesMut};
use noq_proto as q;
use q::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use roadstead_net::tls::ALPN;
use roadstead_net::wheel::Wheel;
use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs::default_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::end::{End, Identity, NAME, Note, WINDOW, Wire};

/// Packets of one train, as behind the seam.
const TRAIN: NonZeroUsize = NonZeroUsize::new(10).expect("not zero");

/// The only stream: the client's first.
fn stream() -> q::StreamId {
    q::StreamId::new(q::Side::Client, q::Dir::Bi, 0)
}

struct Session {
    inner: q::Connection,
    dirty: bool,
}

/// Many connections of noq-proto.
pub struct Noq {
    endpoint: q::Endpoint,
    client: Option<q::ClientConfig>,
    sessions: Vec<Session>,
    dirty: Vec<q::ConnectionHandle>,
    notes: std::collections::VecDeque<Note<q::ConnectionHandle>>,
    wheel: Wheel,
    due: Vec<u32>,
    buffer: Vec<u8>,
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn transport(streams: u32) -> Arc<q::TransportConfig> {
    let mut transport = q::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(q::VarInt::from_u32(streams))
        .max_concurrent_uni_streams(q::VarInt::from_u32(0))
        .max_idle_timeout(Some(Duration::from_secs(90).try_into().expect("short")))
        .stream_receive_window(q::VarInt::from_u32(WINDOW))
        .receive_window(q::VarInt::from_u32(8 * 1024))
        .send_window(64 * 1024)
        .send_fairness(false)
        .initial_mtu(1_200)
        .mtu_discovery_config(None)
        .crypto_buffer_size(16 * 1024)
        .allow_spin(false)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .congestion_controller_factory(Arc::new(q::congestion::NewRenoConfig::default()));
    Arc::new(transport)
}

fn certificate(identity: &Identity) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(identity.chain.as_bytes()).expect("a certificate")
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    bytes
}

impl Noq {
    fn new(
        server: Option<q::ServerConfig>,
        client: Option<q::ClientConfig>,
        id_length: usize,
        now: Instant,
    ) -> Self {
        let reset = hmac::Key::new(hmac::HMAC_SHA256, &random::<32>());
        let mut config = q::EndpointConfig::new(Arc::new(reset));
        config.cid_generator(Arc::new(move || {
            Box::new(q::RandomConnectionIdGenerator::new(id_length))
        }));
        Self {
            endpoint: q::Endpoint::new(Arc::new(config), server.map(Arc::new), false),
            client,
            sessions: Vec::new(),
            dirty: Vec::new(),
            notes: std::collections::VecDeque::new(),
            wheel: Wheel::new(now),
            due: Vec::new(),
            buffer: Vec::new(),
        }
    }

    fn add(&mut self, handle: q::ConnectionHandle, inner: q::Connection) {
        assert_eq!(handle.0, self.sessions.len(), "connections stay");
        let dirty = false;
        self.sessions.push(Session { inner, dirty });
        self.touch(handle);
    }

    fn touch(&mut self, handle: q::ConnectionHandle) {
        let dirty = &mut self.sessions[handle.0].dirty;
        if !std::mem::replace(dirty, true) {
            self.dirty.push(handle);
        }
    }

    /// Collects what a connection tells after input.
    fn poll(&mut self, handle: q::ConnectionHandle) {
        let session = &mut self.sessions[handle.0].inner;
        while let Some(event) = session.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(handle, event) {
                session.handle_event(event);
            }
        }
        while let Some(event) = session.poll() {
            match event {
                q::Event::Connected => {
                    if session.side() == q::Side::Client {
                        assert_eq!(session.streams().open(q::Dir::Bi), Some(stream()));
                    }
                    self.notes.push_back(Note::Opened {
                        conn: handle,
                        resumed: false,
                    });
                }
                q::Event::Stream(q::StreamEvent::Opened { dir }) => {
                    assert_eq!(session.streams().accept(dir), Some(stream()));
                    self.notes.push_back(Note::Readable(handle));
                }
                q::Event::Stream(q::StreamEvent::Readable { .. }) => {
                    self.notes.push_back(Note::Readable(handle));
                }
                q::Event::Stream(q::StreamEvent::Writable { .. }) => {
                    self.notes.push_back(Note::Writable(handle));
                }
                q::Event::ConnectionLost { reason } => panic!("noq-proto: {reason}"),
                _ => {}
            }
        }
        self.touch(handle);
    }
}

impl End for Noq {
    const NAME: &'static str = "noq-proto";
    type Conn = q::ConnectionHandle;

    fn server(identity: &Identity, now: Instant) -> Self {
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate(identity)], key)
            .expect("a server's TLS");
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.send_tls13_tickets = 1;
        tls.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("ticket keys");
        let crypto = QuicServerConfig::try_from(tls).expect("a QUIC suite");
        let mut config = q::ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(transport(1));
        Self::new(Some(config), None, 12, now)
    }

    fn client(identity: &Identity, resumption: bool, now: Instant) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate(identity)).expect("a root");
        let mut tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        if !resumption {
            tls.resumption = rustls::client::Resumption::disabled();
        }
        let crypto = QuicClientConfig::try_from(tls).expect("a QUIC suite");
        let mut config = q::ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport(0));
        Self::new(None, Some(config), 8, now)
    }

    fn connect(&mut self, now: Instant, server: SocketAddr) {
        let config = self.client.clone().expect("a client");
        let (handle, inner) = self
            .endpoint
            .connect(now, config, server, NAME)
            .expect("a connection");
        self.add(handle, inner);
    }

    fn receive(&mut self, now: Instant, peer: SocketAddr, data: &mut [u8], wire: &mut Wire) {
        self.buffer.clear();
        let (data, path) = (BytesMut::from(&*data), q::FourTuple::from(peer));
        let event = self
            .endpoint
            .handle(now, path, None, data, &mut self.buffer);
        match event {
            Some(q::DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoint.accept(incoming, now, &mut self.buffer, None);
                if let Ok((handle, inner)) = accepted {
                    self.add(handle, inner);
                    self.poll(handle);
                }
            }
            Some(q::DatagramEvent::ConnectionEvent(handle, event)) => {
                self.sessions[handle.0].inner.handle_event(event);
                self.poll(handle);
            }
            Some(q::DatagramEvent::Response(transmit)) => {
                wire.push(&self.buffer[..transmit.size], transmit.size);
            }
            None => {}
        }
    }

    fn expire(&mut self, now: Instant, _wire: &mut Wire) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(now, &mut due);
        for index in due.drain(..) {
            let handle = q::ConnectionHandle(index as usize);
            self.sessions[handle.0].inner.handle_timeout(now);
            self.poll(handle);
        }
        self.due = due;
    }

    fn next(&mut self) -> Option<Note<Self::Conn>> {
        self.notes.pop_front()
    }

    fn read(&mut self, conn: Self::Conn) -> Option<Bytes> {
        let mut stream = self.sessions[conn.0].inner.recv_stream(stream());
        let mut chunks = stream.read(true).ok()?;
        let chunk = chunks.next(usize::MAX).ok().flatten();
        let _ = chunks.finalize();
        self.touch(conn);
        chunk.map(|chunk| chunk.bytes)
    }

    fn write(&mut self, conn: Self::Conn, data: &[u8]) -> usize {
        let written = self.sessions[conn.0]
            .inner
            .send_stream(stream())
            .write(data);
        self.touch(conn);
        written.unwrap_or(0)
    }

    fn widen(&mut self, conn: Self::Conn) {
        let window = q::VarInt::from_u32(WINDOW);
        self.sessions[conn.0].inner.set_receive_window(window);
        self.touch(conn);
    }

    fn flush(&mut self, now: Instant, wire: &mut Wire) {
        while let Some(handle) = self.dirty.pop() {
            let session = &mut self.sessions[handle.0];
            session.dirty = false;
            loop {
                self.buffer.clear();
                let buffer = &mut self.buffer;
                let Some(sent) = session.inner.poll_transmit(now, TRAIN, buffer) else {
                    break;
                };
                let segment = sent.segment_size.unwrap_or(sent.size);
                wire.push(&self.buffer[..sent.size], segment);
            }
            let index = u32::try_from(handle.0).expect("fewer than 2^32");
            match session.inner.poll_timeout() {
                Some(at) => self.wheel.set(index, at),
                None => self.wheel.cancel(index),
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.wheel.next()
    }
}
