//! quinn-proto as a node: the other lineage of the mixed pairs (T15).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto as q;
use roadstead_quic::Time;

use super::net::{Node, Note, Packet};
use super::real;

pub struct Quinn {
    base: Instant,
    endpoint: q::Endpoint,
    conns: HashMap<q::ConnectionHandle, q::Connection>,
    pub main: Option<q::ConnectionHandle>,
    address: SocketAddr,
    queue: Vec<Packet>,
    notes: Vec<Note>,
    pub always_retry: bool,
}

fn transport() -> q::TransportConfig {
    let mut t = q::TransportConfig::default();
    t.max_idle_timeout(Some(Duration::from_secs(60).try_into().unwrap()));
    t.mtu_discovery_config(None);
    t
}

fn endpoint_config(seed: [u8; 32]) -> q::EndpointConfig {
    let mut c = q::EndpointConfig::default();
    c.rng_seed(Some(seed));
    c
}

fn std_provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Quinn {
    pub fn server(seed: [u8; 32], address: SocketAddr) -> Self {
        let tls = real::server_config(std_provider());
        let tls = q::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let mut config = q::ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(Arc::new(transport()));
        let endpoint = q::Endpoint::new(
            Arc::new(endpoint_config(seed)),
            Some(Arc::new(config)),
            true,
            Some(seed),
        );
        Self::new(endpoint, address)
    }

    fn new(endpoint: q::Endpoint, address: SocketAddr) -> Self {
        Self {
            base: Instant::now(),
            endpoint,
            conns: HashMap::new(),
            main: None,
            address,
            queue: Vec::new(),
            notes: Vec::new(),
            always_retry: false,
        }
    }

    pub fn client(seed: [u8; 32], address: SocketAddr, to: SocketAddr) -> Self {
        let endpoint = q::Endpoint::new(Arc::new(endpoint_config(seed)), None, true, Some(seed));
        let mut node = Self::new(endpoint, address);
        let tls = real::client_config(std_provider());
        let tls = q::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut config = q::ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport()));
        let now = node.at(Time::from_millis(1_000));
        let (handle, conn) = node.endpoint.connect(now, config, to, "localhost").unwrap();
        node.main = Some(handle);
        node.conns.insert(handle, conn);
        node
    }

    fn at(&self, now: Time) -> Instant {
        self.base + Duration::from_micros(now.as_micros())
    }

    fn send(&mut self, t: &q::Transmit, buf: &[u8]) {
        for data in buf[..t.size].chunks(t.segment_size.unwrap_or(t.size)) {
            let to = t.destination;
            self.queue.push(Packet {
                from: self.address,
                to,
                data: data.to_vec(),
            });
        }
    }

    fn drive(&mut self, now: Time) {
        let at = self.at(now);
        let handles: Vec<_> = self.conns.keys().copied().collect();
        for handle in handles {
            loop {
                let conn = self.conns.get_mut(&handle).unwrap();
                let mut buf = Vec::new();
                if let Some(t) = conn.poll_transmit(at, 1, &mut buf) {
                    self.send(&t, &buf);
                    continue;
                }
                let conn = self.conns.get_mut(&handle).unwrap();
                if let Some(event) = conn.poll_endpoint_events() {
                    if let Some(event) = self.endpoint.handle_event(handle, event) {
                        self.conns.get_mut(&handle).unwrap().handle_event(event);
                    }
                    continue;
                }
                let Some(event) = conn.poll() else { break };
                self.note(handle, event);
            }
        }
        self.conns.retain(|_, c| !c.is_drained());
    }

    fn note(&mut self, handle: q::ConnectionHandle, event: q::Event) {
        if self.main.is_none() {
            self.main = Some(handle);
        }
        if self.main != Some(handle) {
            return;
        }
        let id = |id: q::StreamId| u64::from(q::VarInt::from(id));
        match event {
            q::Event::Connected => self.notes.push(Note::Connected),
            q::Event::HandshakeDataReady => {}
            q::Event::ConnectionLost { reason } => {
                self.notes.push(Note::Closed(reason.to_string()));
            }
            q::Event::Stream(q::StreamEvent::Readable { id: s }) => {
                self.notes.push(Note::Readable(id(s)));
            }
            q::Event::Stream(q::StreamEvent::Opened { dir }) => {
                let conn = self.conns.get_mut(&handle).unwrap();
                while let Some(s) = conn.streams().accept(dir) {
                    self.notes.push(Note::Opened(id(s)));
                }
            }
            q::Event::Stream(q::StreamEvent::Finished { id: s }) => {
                self.notes.push(Note::Delivered(id(s)));
            }
            q::Event::DatagramReceived => {
                let conn = self.conns.get_mut(&handle).unwrap();
                while let Some(data) = conn.datagrams().recv() {
                    self.notes.push(Note::Datagram(data.to_vec()));
                }
            }
            _ => {}
        }
    }

    fn conn(&mut self) -> Option<&mut q::Connection> {
        self.conns.get_mut(&self.main?)
    }

    /// Tells quinn that its address changed, as an application would.
    pub fn rebind(&mut self, address: SocketAddr) {
        self.address = address;
        if let Some(conn) = self.conn() {
            conn.local_address_changed();
        }
    }
}

fn stream(id: u64) -> q::StreamId {
    let side = if id & 1 == 0 {
        q::Side::Client
    } else {
        q::Side::Server
    };
    let dir = if id & 2 == 0 { q::Dir::Bi } else { q::Dir::Uni };
    q::StreamId::new(side, dir, id >> 2)
}

impl Node for Quinn {
    fn receive(&mut self, now: Time, packet: Packet) {
        if packet.to != self.address {
            return;
        }
        let at = self.at(now);
        let mut buf = Vec::new();
        let data = BytesMut::from(&packet.data[..]);
        match self
            .endpoint
            .handle(at, packet.from, None, None, data, &mut buf)
        {
            Some(q::DatagramEvent::NewConnection(incoming)) => {
                buf.clear();
                if self.always_retry && !incoming.remote_address_validated() {
                    let t = self.endpoint.retry(incoming, &mut buf).unwrap();
                    self.send(&t, &buf);
                    return;
                }
                if let Ok((handle, conn)) = self.endpoint.accept(incoming, at, &mut buf, None) {
                    self.conns.insert(handle, conn);
                }
            }
            Some(q::DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(conn) = self.conns.get_mut(&handle) {
                    conn.handle_event(event);
                }
            }
            Some(q::DatagramEvent::Response(t)) => self.send(&t, &buf),
            None => {}
        }
        self.drive(now);
    }

    fn transmit(&mut self, now: Time, out: &mut Vec<Packet>) {
        self.drive(now);
        out.append(&mut self.queue);
    }

    fn next_timeout(&mut self, now: Time) -> Option<Time> {
        let base = self.base;
        let earliest = self
            .conns
            .values_mut()
            .filter_map(q::Connection::poll_timeout)
            .min()?;
        let us = u64::try_from(earliest.duration_since(base).as_micros()).unwrap();
        Some(Time::from_micros(us + 1).max(now))
    }

    fn timeout(&mut self, now: Time) {
        let at = self.at(now);
        for conn in self.conns.values_mut() {
            conn.handle_timeout(at);
        }
        self.drive(now);
    }

    fn notes(&mut self, now: Time) -> Vec<Note> {
        self.drive(now);
        std::mem::take(&mut self.notes)
    }

    fn open(&mut self, _: Time, uni: bool) -> Option<u64> {
        let dir = if uni { q::Dir::Uni } else { q::Dir::Bi };
        let id = self.conn()?.streams().open(dir)?;
        Some(q::VarInt::from(id).into())
    }

    fn write(&mut self, _: Time, id: u64, data: &[u8]) -> usize {
        let Some(conn) = self.conn() else { return 0 };
        conn.send_stream(stream(id)).write(data).unwrap_or(0)
    }

    fn finish(&mut self, _: Time, id: u64) -> bool {
        let conn = self.conn();
        conn.is_some_and(|c| c.send_stream(stream(id)).finish().is_ok())
    }

    fn reset(&mut self, _: Time, id: u64, code: u64) -> bool {
        let code = q::VarInt::from_u64(code).unwrap();
        let conn = self.conn();
        conn.is_some_and(|c| c.send_stream(stream(id)).reset(code).is_ok())
    }

    fn stop(&mut self, _: Time, id: u64, code: u64) -> bool {
        let code = q::VarInt::from_u64(code).unwrap();
        let conn = self.conn();
        conn.is_some_and(|c| c.recv_stream(stream(id)).stop(code).is_ok())
    }

    fn read(&mut self, _: Time, id: u64) -> (Vec<u8>, bool) {
        let Some(conn) = self.conn() else {
            return (Vec::new(), false);
        };
        let mut recv = conn.recv_stream(stream(id));
        let Ok(mut chunks) = recv.read(true) else {
            return (Vec::new(), false);
        };
        let (mut out, mut fin) = (Vec::new(), false);
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => out.extend_from_slice(&chunk.bytes),
                Ok(None) => {
                    fin = true;
                    break;
                }
                Err(_) => break,
            }
        }
        let _ = chunks.finalize();
        (out, fin)
    }

    fn send_datagram(&mut self, _: Time, data: Vec<u8>) -> bool {
        let conn = self.conn();
        conn.is_some_and(|c| c.datagrams().send(Bytes::from(data), true).is_ok())
    }

    fn ping(&mut self, _: Time) -> bool {
        self.conn().map(q::Connection::ping).is_some()
    }

    fn close(&mut self, now: Time) {
        let at = self.at(now);
        if let Some(conn) = self.conn().filter(|conn| !conn.is_closed()) {
            conn.close(at, 42u32.into(), Bytes::new());
            // quinn does not tell its application what that did itself; the own engine does.
            self.notes.push(Note::Closed("closed by this end".into()));
        }
    }

    fn update_keys(&mut self, _: Time) -> bool {
        self.conn().map(q::Connection::force_key_update).is_some()
    }
}
