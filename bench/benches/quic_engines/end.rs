//! One end of many connections, sans-IO, and the three engines as such ends.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use roadstead_net::config::Blocks;
use roadstead_net::quic::{Datagram, EngineConfig, IdPolicy, Outbound, ServerSide};
use roadstead_net::tls::{ALPN, ClientTls, ServerTls, TicketKeys};
use roadstead_net::{ConnId, ConnectParams, Counters, Engine, Event, SecretKeys, Transport};

/// The name in the certificate.
pub const NAME: &str = "bench.test";

/// Bytes of every window once raised: what the bulk transfer fills.
pub const WINDOW: u32 = 256 * 1024;

/// Half-open handshakes that a server takes before it asks for a Retry: more than are ever open here.
const HALF_OPEN: usize = 1 << 20;

/// Certificate and key of the server, ECDSA with P-256.
#[derive(Debug)]
pub struct Identity {
    pub chain: String,
    pub key: String,
}

impl Identity {
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
        Self {
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }
}

/// The addresses of the two ends.
pub fn addresses() -> [SocketAddr; 2] {
    [443, 5000].map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Packets on their way.
#[derive(Debug, Default)]
pub struct Wire {
    building: Vec<u8>,
    pub bytes: Vec<u8>,
    pub packets: Vec<Range<usize>>,
}

impl Wire {
    pub fn push(&mut self, train: &[u8], segment: usize) {
        for packet in train.chunks(segment.max(1)) {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(packet);
            self.packets.push(start..self.bytes.len());
        }
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.packets.clear();
    }
}

impl Outbound for Wire {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.building
    }

    fn send(&mut self, _socket: u16, _peer: SocketAddr, segment: Option<u16>) {
        let train = std::mem::take(&mut self.building);
        self.push(&train, segment.map_or(train.len(), usize::from));
        self.building = train;
        self.building.clear();
    }
}

/// What an end tells.
#[derive(Clone, Copy, Debug)]
pub enum Note<C> {
    Opened { conn: C, resumed: bool },
    Readable(C),
    Writable(C),
}

/// One end of many connections: the contract is that of `roadstead_net::Engine`.
pub trait End: Sized {
    const NAME: &'static str;
    type Conn: Copy;

    fn server(identity: &Identity, now: Instant) -> Self;
    fn client(identity: &Identity, resumption: bool, now: Instant) -> Self;
    fn connect(&mut self, now: Instant, server: SocketAddr);
    fn receive(&mut self, now: Instant, peer: SocketAddr, data: &mut [u8], wire: &mut Wire);
    fn expire(&mut self, now: Instant, wire: &mut Wire);
    fn next(&mut self) -> Option<Note<Self::Conn>>;
    fn read(&mut self, conn: Self::Conn) -> Option<Bytes>;
    fn write(&mut self, conn: Self::Conn, data: &[u8]) -> usize;
    fn widen(&mut self, conn: Self::Conn);
    fn flush(&mut self, now: Instant, wire: &mut Wire);
    fn deadline(&self) -> Option<Instant>;
}

/// An engine behind the seam of the loop.
#[derive(Debug)]
pub struct Seam<E>(E);

/// Names of the engines behind the seam.
pub trait Named {
    const NAME: &'static str;
}

impl Named for roadstead_net::Lean {
    const NAME: &'static str = "lean";
}

impl Named for roadstead_net::Quinn {
    const NAME: &'static str = "quinn-proto";
}

fn config(ids: IdPolicy, receive_window_initial: u32) -> EngineConfig {
    let counters = Arc::<Counters>::default();
    EngineConfig {
        ids,
        transport: Transport {
            receive_window_initial,
            ..Transport::default()
        },
        server: None,
        client: None,
        all: vec![counters.clone()],
        counters,
    }
}

impl<E: Engine + Named> End for Seam<E> {
    const NAME: &'static str = E::NAME;
    type Conn = ConnId;

    fn server(identity: &Identity, now: Instant) -> Self {
        let tickets = Some(TicketKeys::random());
        let (chain, key) = (identity.chain.as_bytes(), identity.key.as_bytes());
        let tls = ServerTls::from_pem(chain, key, &[ALPN], tickets).expect("a server's TLS");
        let ids = IdPolicy::Steered {
            shard: 0,
            shards: 1,
        };
        let mut config = config(ids, 8 * 1024);
        config.server = Some(ServerSide {
            tls: Arc::new(tls),
            keys: SecretKeys::random(),
            retry_half_open: HALF_OPEN,
            half_open_max: HALF_OPEN,
            blocks: Blocks {
                unlimited: vec![(addresses()[1].ip(), 8)],
                ..Blocks::default()
            },
            resets_per_second: 0,
        });
        Self(E::new(config, now).expect("an engine"))
    }

    fn client(identity: &Identity, resumption: bool, now: Instant) -> Self {
        let roots = identity.chain.as_bytes();
        let tls = ClientTls::trusting_pem(roots, &[ALPN], resumption).expect("a client's TLS");
        let mut config = config(IdPolicy::Random { length: 8 }, 8 * 1024);
        config.client = Some(Arc::new(tls));
        Self(E::new(config, now).expect("an engine"))
    }

    fn connect(&mut self, now: Instant, server: SocketAddr) {
        let mut params = ConnectParams::new(server, NAME);
        params.socket = Some(0);
        self.0.connect(now, 0, &params).expect("a connection");
    }

    fn receive(&mut self, now: Instant, peer: SocketAddr, data: &mut [u8], wire: &mut Wire) {
        let socket = 0;
        self.0.receive(now, Datagram { socket, peer, data }, wire);
    }

    fn expire(&mut self, now: Instant, wire: &mut Wire) {
        self.0.expire(now);
        self.0.admit(now, &mut |_| true, wire);
    }

    fn next(&mut self) -> Option<Note<ConnId>> {
        loop {
            return Some(match self.0.next_event()? {
                Event::Opened { conn, resumed, .. } => Note::Opened { conn, resumed },
                Event::Readable { conn } => Note::Readable(conn),
                Event::Writable { conn } => Note::Writable(conn),
                Event::Closed { conn, reason } => panic!("{}: {conn:?} {reason:?}", E::NAME),
                _ => continue,
            });
        }
    }

    fn read(&mut self, conn: ConnId) -> Option<Bytes> {
        self.0.read(conn)
    }

    fn write(&mut self, conn: ConnId, data: &[u8]) -> usize {
        self.0.write(conn, data)
    }

    fn widen(&mut self, conn: ConnId) {
        self.0.raise_receive_window(conn, WINDOW);
    }

    fn flush(&mut self, now: Instant, wire: &mut Wire) {
        self.0.flush(now, wire);
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.deadline()
    }
}
