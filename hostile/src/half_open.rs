//! Handshakes that are begun and never finished (T11).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::BytesMut;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig,
};

use crate::tap;

/// Connections begun by one endpoint before it is replaced: it remembers each.
const PER_ENDPOINT: u32 = 500;

/// Long header, fixed bit and the type of a Retry (RFC 9000 section 17.2.5); the low four bits are unused.
const RETRY: u8 = 0xf0;

/// The longest datagram that is read whole. A Retry is shorter.
const DATAGRAM_BYTES: usize = 2_048;

/// A flood under way. Ends when dropped.
#[derive(Debug)]
pub struct HalfOpen {
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicU64>,
    proven: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl HalfOpen {
    /// Begins so many handshakes a second from one source address. To a Retry it answers, which proves the
    /// address, and to nothing else.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn start(from: IpAddr, target: SocketAddr, per_second: u32) -> Result<Self> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.set_nonblocking(true)?;
        let config = config()?;
        let (stop, begun, proven) = (Arc::default(), Arc::default(), Arc::default());
        let flood = Flood {
            socket,
            target,
            config,
            stop: Arc::clone(&stop),
            begun: Arc::clone(&begun),
            proven: Arc::clone(&proven),
        };
        let pause = Duration::from_secs(1) / per_second.max(1);
        let thread = std::thread::Builder::new()
            .name("half open".into())
            .spawn(move || flood.run(pause))?;
        Ok(Self {
            stop,
            begun,
            proven,
            thread: Some(thread),
        })
    }

    /// Handshakes begun.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Of these, begun again with the token of a Retry.
    #[must_use]
    pub fn proven(&self) -> u64 {
        self.proven.load(Ordering::Relaxed)
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Nothing is verified because no handshake gets so far.
fn config() -> Result<ClientConfig> {
    let tls = tap::tls(rustls::RootCertStore::empty())?;
    let crypto = QuicClientConfig::try_from(tls)?;
    Ok(ClientConfig::new(Arc::new(crypto)))
}

/// What the thread has.
struct Flood {
    socket: UdpSocket,
    target: SocketAddr,
    config: ClientConfig,
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicU64>,
    proven: Arc<AtomicU64>,
}

impl Flood {
    fn run(&self, pause: Duration) {
        let mut due = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let mut endpoint =
                Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
            let mut connections = HashMap::new();
            for _ in 0..PER_ENDPOINT {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                self.begin(&mut endpoint, &mut connections);
                self.prove(&mut endpoint, &mut connections);
                due += pause;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
    }

    fn begin(
        &self,
        endpoint: &mut Endpoint,
        connections: &mut HashMap<ConnectionHandle, Connection>,
    ) {
        let config = self.config.clone();
        let connected = endpoint.connect(Instant::now(), config, self.target, "localhost");
        let Ok((handle, mut connection)) = connected else {
            return;
        };
        self.send_first(&mut connection);
        self.begun.fetch_add(1, Ordering::Relaxed);
        connections.insert(handle, connection);
    }

    /// Answers the Retries that have come.
    fn prove(
        &self,
        endpoint: &mut Endpoint,
        connections: &mut HashMap<ConnectionHandle, Connection>,
    ) {
        let mut buffer = [0; DATAGRAM_BYTES];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let datagram = &buffer[..length];
            if datagram.first().is_none_or(|first| first & RETRY != RETRY) {
                continue;
            }
            let (now, mut answer) = (Instant::now(), Vec::new());
            let datagram = BytesMut::from(datagram);
            let event = endpoint.handle(now, self.target, None, None, datagram, &mut answer);
            if let Some(DatagramEvent::ConnectionEvent(handle, event)) = event
                && let Some(mut connection) = connections.remove(&handle)
            {
                connection.handle_event(event);
                self.send_first(&mut connection);
                self.proven.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn send_first(&self, connection: &mut Connection) {
        let mut packet = Vec::new();
        if let Some(transmit) = connection.poll_transmit(Instant::now(), 1, &mut packet) {
            // What the kernel has no room for is lost, as in any flood.
            let _ = self.socket.send_to(&packet[..transmit.size], self.target);
        }
    }
}
