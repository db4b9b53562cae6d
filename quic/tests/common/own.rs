//! This engine as a node.

use std::net::SocketAddr;

use bytes::Bytes;
use roadstead_quic::crypto::{Aead, Tls};
use roadstead_quic::{
    CidFormat, CloseReason, Config, Connect, Connected, Dir, Endpoint, Event, Handle, Path, Time,
    Transmit,
};

use super::fake::{FakeAead, FakeConfig, FakeTls};
use super::net::{Dice, Node, Note, Packet};

/// An endpoint with the connection that the test looks at.
pub struct Own<T: Tls, A: Aead> {
    pub endpoint: Endpoint<T, A>,
    pub handle: Option<Handle>,
    pub addresses: Vec<SocketAddr>,
    arena: Vec<u8>,
    out: Vec<Transmit>,
    checks: u64,
    /// What the last handshake found out.
    pub connected: Option<Connected>,
    /// Why the last connection that closed did so.
    pub last_close: Option<CloseReason>,
}

pub fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], port))
}

pub fn client_addr() -> SocketAddr {
    address(1, 5_000)
}

pub fn server_addr() -> SocketAddr {
    address(2, 443)
}

/// A configuration with distinct keys from a seed.
pub fn config(seed: u64, format: CidFormat) -> Config {
    let mut dice = Dice(seed);
    let mut config = Config::new(format, dice.seed());
    config.cid_key = dice.seed()[..16].try_into().unwrap();
    config.reset_key = dice.seed();
    config.token_key = dice.seed();
    config.epoch = 7;
    config.wall_clock_s = 1_700_000_000;
    config
}

impl<T: Tls, A: Aead> Own<T, A> {
    pub fn new(
        config: Config,
        server: Option<T::ServerConfig>,
        aead: A,
        address: SocketAddr,
    ) -> Self {
        Self {
            endpoint: Endpoint::new(config, server, aead, Time::from_millis(1_000)),
            handle: None,
            addresses: vec![address],
            arena: vec![0; 1 << 16],
            out: Vec::new(),
            checks: 0,
            connected: None,
            last_close: None,
        }
    }

    pub fn connect(&mut self, now: Time, tls: &T::ClientConfig, to: SocketAddr) {
        self.connect_with(now, tls, to, Vec::new());
    }

    pub fn connect_with(
        &mut self,
        now: Time,
        tls: &T::ClientConfig,
        to: SocketAddr,
        token: Vec<u8>,
    ) {
        let connect = Connect {
            server_name: "localhost",
            path: Path {
                socket: 0,
                remote: to,
            },
            token,
            home: None,
            app: 1,
        };
        self.handle = Some(self.endpoint.connect(now, tls, connect).unwrap());
    }

    pub fn h(&self) -> Handle {
        self.handle.expect("a connection")
    }
}

impl<T: Tls, A: Aead> Node for Own<T, A> {
    fn receive(&mut self, now: Time, packet: Packet) {
        let Some(socket) = self.addresses.iter().position(|a| *a == packet.to) else {
            return;
        };
        let socket = u16::try_from(socket).unwrap();
        let mut data = packet.data;
        self.endpoint
            .handle_datagram(now, socket, packet.from, &mut data);
    }

    fn transmit(&mut self, now: Time, out: &mut Vec<Packet>) {
        loop {
            let mut transmits = std::mem::take(&mut self.out);
            transmits.clear();
            let more = self
                .endpoint
                .poll_transmit(now, &mut self.arena, &mut transmits);
            for t in &transmits {
                let train = &self.arena[t.offset..t.offset + t.len];
                for data in train.chunks(t.segment) {
                    let from = self.addresses[usize::from(t.path.socket)];
                    out.push(Packet {
                        from,
                        to: t.path.remote,
                        data: data.to_vec(),
                    });
                }
            }
            self.out = transmits;
            if !more {
                break;
            }
        }
    }

    fn next_timeout(&mut self, now: Time) -> Option<Time> {
        self.endpoint.next_timeout(now)
    }

    fn timeout(&mut self, now: Time) {
        self.endpoint.handle_timeout(now);
    }

    fn notes(&mut self, _: Time) -> Vec<Note> {
        let mut notes = Vec::new();
        while let Some((handle, event)) = self.endpoint.poll_event() {
            let first = matches!(event, Event::Connected(_) | Event::Closed(_));
            if first && self.handle.is_none() {
                self.handle = Some(handle);
            }
            if self.handle.is_some_and(|h| h != handle) {
                continue;
            }
            notes.push(match event {
                Event::Connected(connected) => {
                    self.connected = Some(*connected);
                    Note::Connected
                }
                Event::Confirmed => Note::Confirmed,
                Event::StreamOpened(id) => Note::Opened(id),
                Event::StreamReadable(id) => Note::Readable(id),
                Event::StreamWritable(id) => Note::Writable(id),
                Event::StreamDelivered(id) => Note::Delivered(id),
                Event::StreamReset { id, code } => Note::Reset(id, code),
                Event::StreamStopped { id, code } => Note::Stopped(id, code),
                Event::Datagram(data) => Note::Datagram(data.to_vec()),
                Event::Pong => Note::Pong,
                Event::Migrated => Note::Migrated,
                Event::Ticket => Note::Ticket,
                Event::NewToken(token) => Note::NewToken(token.to_vec()),
                Event::Closed(reason) => {
                    let text = reason.to_string();
                    self.last_close = Some(reason);
                    Note::Closed(text)
                }
                Event::StreamsAvailable(_) => continue,
            });
        }
        notes
    }

    fn open(&mut self, now: Time, uni: bool) -> Option<u64> {
        let dir = if uni { Dir::Uni } else { Dir::Bidi };
        self.endpoint.open(now, self.handle?, dir)
    }

    fn write(&mut self, now: Time, id: u64, data: &[u8]) -> usize {
        let Some(handle) = self.handle else { return 0 };
        self.endpoint.write(now, handle, id, data).unwrap_or(0)
    }

    fn finish(&mut self, now: Time, id: u64) -> bool {
        let handle = self.handle;
        handle.is_some_and(|h| self.endpoint.finish(now, h, id).is_ok())
    }

    fn reset(&mut self, now: Time, id: u64, code: u64) -> bool {
        let handle = self.handle;
        handle.is_some_and(|h| self.endpoint.reset(now, h, id, code).is_ok())
    }

    fn stop(&mut self, now: Time, id: u64, code: u64) -> bool {
        let handle = self.handle;
        handle.is_some_and(|h| self.endpoint.stop(now, h, id, code).is_ok())
    }

    fn read(&mut self, now: Time, id: u64) -> (Vec<u8>, bool) {
        let Some(handle) = self.handle else {
            return (Vec::new(), false);
        };
        let mut out = Vec::new();
        let mut buf = [0; 4_096];
        while let Ok(read) = self.endpoint.read(now, handle, id, &mut buf) {
            out.extend_from_slice(&buf[..read.len]);
            if read.fin {
                return (out, true);
            }
        }
        (out, false)
    }

    fn send_datagram(&mut self, now: Time, data: Vec<u8>) -> bool {
        let (handle, data) = (self.handle, Bytes::from(data));
        handle.is_some_and(|h| self.endpoint.send_datagram(now, h, data).is_ok())
    }

    fn ping(&mut self, now: Time) -> bool {
        let handle = self.handle;
        handle.is_some_and(|h| self.endpoint.ping(now, h).is_ok())
    }

    fn close(&mut self, now: Time) {
        if let Some(handle) = self.handle {
            self.endpoint.close(now, handle, 42);
        }
    }

    fn update_keys(&mut self, now: Time) -> bool {
        let handle = self.handle;
        handle.is_some_and(|h| self.endpoint.update_keys(now, h).is_ok())
    }

    fn check(&mut self) {
        // The walk over the whole slab is for now and then.
        self.checks += 1;
        match self.handle {
            Some(handle) if !self.checks.is_multiple_of(256) => {
                self.endpoint.check_connection(handle)
            }
            _ if self.checks.is_multiple_of(64) => self.endpoint.check_invariants(),
            _ => {}
        }
    }

    fn is_idle(&self) -> bool {
        self.handle.is_some_and(|h| self.endpoint.is_idle(h))
    }
}

pub type FakeOwn = Own<FakeTls, FakeAead>;

pub fn steered() -> CidFormat {
    CidFormat::of_shard(1, 4)
}

/// A server with the fake handshake.
pub fn fake_server(seed: u64, edit: impl FnOnce(&mut Config, &mut FakeConfig)) -> FakeOwn {
    let mut config = config(seed ^ 0x5e4e4, steered());
    let mut tls = FakeConfig::new(seed ^ 1);
    edit(&mut config, &mut tls);
    Own::new(config, Some(tls), FakeAead, server_addr())
}

/// A client that has started its fake handshake.
pub fn fake_client(
    seed: u64,
    format: CidFormat,
    edit: impl FnOnce(&mut Config, &mut FakeConfig),
) -> FakeOwn {
    let mut config = config(seed ^ 0xc11e, format);
    let mut tls = FakeConfig::new(seed ^ 2);
    edit(&mut config, &mut tls);
    let mut client = Own::new(config, None, FakeAead, client_addr());
    client.connect(Time::from_millis(1_000), &tls, server_addr());
    client
}

pub type RealOwn = Own<super::real::RustlsTls, super::real::AwsAead>;

/// A server with rustls.
pub fn real_server(seed: u64, edit: impl FnOnce(&mut Config)) -> RealOwn {
    use super::real;
    let mut config = config(seed ^ 0x5e4e4, steered());
    edit(&mut config);
    let tls = real::server_config(real::provider(real::AES_128));
    Own::new(
        config,
        Some(std::sync::Arc::new(tls)),
        real::AwsAead,
        server_addr(),
    )
}

/// A client with rustls that has started its handshake.
pub fn real_client(
    seed: u64,
    format: CidFormat,
    suites: &[rustls::CipherSuite],
    edit: impl FnOnce(&mut Config),
) -> RealOwn {
    use super::real;
    let mut config = config(seed ^ 0xc11e, format);
    edit(&mut config);
    let mut client = Own::new(config, None, real::AwsAead, client_addr());
    let tls = std::sync::Arc::new(real::client_config(real::provider(suites)));
    client.connect(Time::from_millis(1_000), &tls, server_addr());
    client
}
