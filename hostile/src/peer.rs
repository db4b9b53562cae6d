//! A client without a loop of its own: it does something only when it is called.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    Event, StreamId, TransportConfig, VarInt,
};
use roadstead_proto::v1::{self, client_frame, hello, server_frame};
use roadstead_proto::{Deframer, DeviceId, decode_frame, encode_frame, limits};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::packets::Packets;
use crate::tap::{self, Tap, Tapped};

/// How long the server may take to answer a handshake or a Hello.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing is done when nothing has come.
const PAUSE: Duration = Duration::from_micros(500);

/// The longest datagram that is read whole.
const DATAGRAM_BYTES: usize = 2_048;

/// Where the server is and how it is known.
#[derive(Clone)]
pub struct Access {
    target: SocketAddr,
    server_name: String,
    tls: rustls::ClientConfig,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// A server whose certificate is under one of these roots (PEM).
    ///
    /// # Errors
    /// If the roots cannot be read.
    pub fn new(target: SocketAddr, server_name: &str, roots: &[u8]) -> Result<Self> {
        let mut store = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots) {
            store.add(root.context("a certificate in PEM")?)?;
        }
        Ok(Self {
            target,
            server_name: server_name.into(),
            tls: tap::tls(store)?,
        })
    }

    /// The server's address.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    fn config(&self, tap: &Tap) -> Result<ClientConfig> {
        let inner = Arc::new(QuicClientConfig::try_from(self.tls.clone())?);
        let tap = tap.clone();
        let mut config = ClientConfig::new(Arc::new(Tapped { inner, tap }));
        let mut transport = TransportConfig::default();
        // The server's idle timeout counts.
        transport.max_idle_timeout(None);
        config.transport_config(Arc::new(transport));
        Ok(config)
    }
}

/// The connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended;

/// A connection with its one stream.
pub struct Peer {
    socket: UdpSocket,
    target: SocketAddr,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    stream: Option<StreamId>,
    deframer: Deframer,
    frames: VecDeque<server_frame::Body>,
    tap: Tap,
    ended: bool,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("target", &self.target)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Peer {
    /// Completes a handshake from this source address. Nothing is said yet.
    ///
    /// # Errors
    /// If the address cannot be bound or the server does not take the connection.
    pub fn connect(access: &Access, from: IpAddr) -> Result<Self> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.set_nonblocking(true)?;
        let tap = Tap::default();
        let config = access.config(&tap)?;
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let (now, name) = (Instant::now(), &access.server_name);
        let (handle, connection) = endpoint.connect(now, config, access.target, name)?;
        let mut peer = Self {
            socket,
            target: access.target,
            endpoint,
            handle,
            connection,
            stream: None,
            deframer: Deframer::new(limits::FRAME_BYTES_MAX),
            frames: VecDeque::new(),
            tap,
            ended: false,
        };
        peer.until("a handshake", |peer| peer.stream)?;
        Ok(peer)
    }

    /// Says Hello and waits for the Welcome.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn log_in(&mut self, token: String, device: DeviceId, counter: u64) -> Result<v1::Welcome> {
        let hello = v1::Hello {
            version: roadstead_proto::VERSION,
            credential: Some(hello::Credential::Token(token)),
            device: device.get(),
            connect_counter: counter,
            capabilities: v1::Capability::AskHighestNumber as u64,
            ..v1::Hello::default()
        };
        let frame = frame(client_frame::Body::Hello(hello));
        self.write(&frame).ok();
        let first = self.until("a Welcome", Self::take_frame)?;
        match first {
            server_frame::Body::Welcome(welcome) => Ok(welcome),
            server_frame::Body::Error(error) => bail!("refused: {}", error.code().as_str_name()),
            _ => bail!("something else than a Welcome"),
        }
    }

    /// Writes as much as the server takes now; answers how much that was.
    ///
    /// # Errors
    /// If the connection is over.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Ended> {
        self.turn();
        let stream = self.stream.filter(|_| !self.ended).ok_or(Ended)?;
        // Blocked, or stopped by the server, which ends the connection next.
        let taken = self.connection.send_stream(stream).write(bytes);
        self.turn();
        Ok(taken.unwrap_or(0))
    }

    /// Sends what is due and takes what has come. Answers whether anything came.
    pub fn turn(&mut self) -> bool {
        let came = self.receive();
        let now = Instant::now();
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
        self.events();
        self.read();
        self.transmit(now);
        came
    }

    /// The next frame that has come.
    pub fn take_frame(&mut self) -> Option<server_frame::Body> {
        self.frames.pop_front()
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Ends the connection orderly.
    pub fn close(mut self) {
        let now = Instant::now();
        self.connection
            .close(now, VarInt::from_u32(0), Bytes::new());
        self.transmit(now);
    }

    /// Goes on by hand.
    ///
    /// # Errors
    /// If the connection is over.
    pub fn take_over(mut self) -> Result<Packets> {
        self.turn();
        anyhow::ensure!(!self.ended, "the connection is over");
        let seen = self.tap.seen();
        Ok(Packets {
            socket: self.socket.try_clone()?,
            target: self.target,
            header: seen.header.clone().context("a handshake gives keys")?,
            packet: seen.packet.clone().context("a handshake gives keys")?,
            id: seen.id.clone(),
            number: seen.number,
            buffer: Vec::new(),
        })
    }

    /// Takes turns until there is something.
    fn until<T>(&mut self, what: &str, mut ready: impl FnMut(&mut Self) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let came = self.turn();
            if let Some(found) = ready(self) {
                return Ok(found);
            }
            if self.ended || Instant::now() > deadline {
                bail!("no {what} of {}", self.target);
            }
            if !came {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn receive(&mut self) -> bool {
        let mut buffer = [0; DATAGRAM_BYTES];
        let mut came = false;
        while let Ok(length) = self.socket.recv(&mut buffer) {
            came = true;
            let (now, mut answer) = (Instant::now(), Vec::new());
            let datagram = BytesMut::from(&buffer[..length]);
            let event = self
                .endpoint
                .handle(now, self.target, None, None, datagram, &mut answer);
            if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
                self.connection.handle_event(event);
            }
        }
        came
    }

    fn events(&mut self) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.stream = self.connection.streams().open(Dir::Bi),
                Event::ConnectionLost { .. } => self.ended = true,
                _ => {}
            }
        }
    }

    fn read(&mut self) {
        let Some(stream) = self.stream else {
            return;
        };
        let mut receiving = self.connection.recv_stream(stream);
        let Ok(mut chunks) = receiving.read(true) else {
            return;
        };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            let mut bytes = chunk.bytes;
            while let Ok(Some(frame)) = self.deframer.next_frame(&mut bytes) {
                let frame = decode_frame::<v1::ServerFrame>(frame).ok();
                self.frames.extend(frame.and_then(|frame| frame.body));
            }
        }
        let _ = chunks.finalize();
    }

    fn transmit(&mut self, now: Instant) {
        let mut packet = Vec::new();
        while let Some(transmit) = self.connection.poll_transmit(now, 1, &mut packet) {
            // What the kernel has no room for is lost, and sent again.
            let _ = self.socket.send_to(&packet[..transmit.size], self.target);
            packet.clear();
        }
    }
}

/// A frame as it goes over the wire.
fn frame(body: client_frame::Body) -> BytesMut {
    let mut out = BytesMut::new();
    encode_frame(&v1::ClientFrame { body: Some(body) }, &mut out);
    out
}
