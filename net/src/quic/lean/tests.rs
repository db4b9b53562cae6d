//! Two engines and a pocket network, with time under the test's control.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::Lean;
use crate::{
    config::{SecretKeys, Transport},
    counters::Counters,
    event::{CloseReason, ConnId, ConnectParams, Event},
    quic::{Datagram, Engine, EngineConfig, IdPolicy, Outbound, ServerSide},
    tls::{ALPN, ClientTls, ServerTls},
};

mod admission;

const NAME: &str = "roadstead.test";

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

/// Packets on their way, trains taken apart.
#[derive(Default)]
struct Wire {
    buffer: Vec<u8>,
    packets: Vec<Vec<u8>>,
    /// Who gets each of them.
    peers: Vec<SocketAddr>,
    /// The socket of the last packet.
    socket: u16,
}

impl Outbound for Wire {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn send(&mut self, socket: u16, peer: SocketAddr, segment: Option<u16>) {
        self.socket = socket;
        let train = std::mem::take(&mut self.buffer);
        let size = segment.map_or(train.len(), usize::from);
        self.packets.extend(train.chunks(size).map(<[u8]>::to_vec));
        self.peers.resize(self.packets.len(), peer);
    }
}

struct Pair {
    server: Lean,
    client: Lean,
    now: Instant,
    told: Vec<Event>,
    conn: ConnId,
    /// Addresses that proved themselves, in the order in which they were asked about.
    asked: Vec<SocketAddr>,
}

fn engine(server: Option<ServerSide>, client: Option<Arc<ClientTls>>, now: Instant) -> Lean {
    let ids = match server {
        Some(_) => IdPolicy::Steered {
            shard: 0,
            shards: 1,
        },
        None => IdPolicy::Random { length: 8 },
    };
    let counters = Arc::<Counters>::default();
    let config = EngineConfig {
        ids,
        transport: Transport::default(),
        server,
        client,
        counters: counters.clone(),
        all: vec![counters],
    };
    Lean::new(config, now).unwrap()
}

impl Pair {
    /// Both ends, connected and silent.
    fn connected() -> Self {
        let mut pair = Self::connecting(1_000);
        pair.settle();
        assert!(pair.client.is_open(pair.conn), "{:?}", pair.told);
        pair
    }

    /// Both ends before the first packet; with so many half-open handshakes the server asks for a proof.
    fn connecting(retry_half_open: usize) -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let tls = ServerTls::from_pem(chain.as_bytes(), key.as_bytes(), &[ALPN], None).unwrap();
        let side = ServerSide {
            tls: Arc::new(tls),
            keys: SecretKeys::random(),
            retry_half_open,
            half_open_max: 4_096,
            blocks: crate::config::Blocks::default(),
            resets_per_second: 1_000,
        };
        let now = Instant::now();
        let trust = Arc::new(ClientTls::trusting_pem(chain.as_bytes(), &[ALPN], false).unwrap());
        let mut client = engine(None, Some(trust), now);
        let conn = client
            .connect(now, 0, &ConnectParams::new(address(1), NAME))
            .unwrap();
        Self {
            server: engine(Some(side), None, now),
            client,
            now,
            told: Vec::new(),
            conn,
            asked: Vec::new(),
        }
    }

    /// One turn of an end: what arrived, what it says, what it sends.
    fn turn(&mut self, server: bool, arrived: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let (end, peer) = match server {
            true => (&mut self.server, address(2)),
            false => (&mut self.client, address(1)),
        };
        let mut wire = Wire::default();
        for mut data in arrived {
            let datagram = Datagram {
                socket: 0,
                peer,
                data: &mut data,
            };
            end.receive(self.now, datagram, &mut wire);
        }
        end.expire(self.now);
        let mut proven = |peer| {
            self.asked.push(peer);
            true
        };
        end.admit(self.now, &mut proven, &mut wire);
        while let Some(event) = end.next_event() {
            self.told.push(event);
        }
        end.flush(self.now, &mut wire);
        wire.packets
    }

    /// Packets each way until nothing moves for longer than any timer of loss recovery.
    fn settle(&mut self) -> (usize, usize) {
        let (mut there, mut back) = (0, 0);
        let mut quiet = 0;
        let mut arriving = Vec::new();
        while quiet < 400 {
            let up = self.turn(false, std::mem::take(&mut arriving));
            there += up.len();
            quiet = if up.is_empty() { quiet + 1 } else { 0 };
            arriving = self.turn(true, up);
            back += arriving.len();
            self.now += Duration::from_millis(5);
        }
        (there, back)
    }

    fn deadlines(&self) -> [Duration; 2] {
        [&self.client, &self.server].map(|end| {
            let at = end.deadline().expect("the idle timeout at least");
            at.saturating_duration_since(self.now)
        })
    }
}

/// T10: one packet each way, acknowledged in the turn that received it, and no timer but the idle one.
#[test]
fn a_heartbeat_is_one_packet_each_way_and_no_timer() {
    let mut pair = Pair::connected();
    for _ in 0..20 {
        pair.now += Duration::from_secs(30);
        let (_, _) = (pair.turn(false, vec![]), pair.turn(true, vec![]));
        pair.client.ping(pair.conn);
        let ping = pair.turn(false, vec![]);
        assert_eq!(ping.len(), 1);
        let pong = pair.turn(true, ping);
        assert_eq!(pong.len(), 1, "answered at the end of the same turn");
        assert!(
            pair.turn(false, pong).is_empty(),
            "nothing answers the answer"
        );
        assert_eq!(pair.settle(), (0, 0));
        let memory = [&pair.client, &pair.server].map(|end| end.endpoint.memory().active);
        assert_eq!(memory, [0, 0], "no active part");
    }
    let idle = pair.deadlines();
    assert!(
        idle.iter().all(|left| *left > Duration::from_secs(20)),
        "a timer is armed: {idle:?}"
    );
}

/// T7: what the seam adds to an idle session are two bytes.
#[test]
fn an_idle_session_is_its_struct_and_two_bytes() {
    let (connection, ids, _) =
        roadstead_quic::Endpoint::<super::RustlsTls, super::AwsLc>::connection_sizes();
    assert!(
        connection <= 512 && connection + ids <= 576,
        "{connection} {ids}"
    );
    assert_eq!(size_of::<super::marks::Facts>(), 2);
}

#[test]
fn bytes_before_a_close_are_read_and_nothing_after() {
    let mut pair = Pair::connected();
    assert_eq!(pair.client.write(pair.conn, b"last words"), 10);
    pair.client.close(pair.now, pair.conn, 7, b"enough");
    assert_eq!(pair.client.write(pair.conn, b"more"), 0);
    let packets = pair.turn(false, vec![]);
    let mut wire = Wire::default();
    for mut data in packets {
        let datagram = Datagram {
            socket: 0,
            peer: address(2),
            data: &mut data,
        };
        pair.server.receive(pair.now, datagram, &mut wire);
    }
    let mut heard = Vec::new();
    while let Some(event) = pair.server.next_event() {
        if let Event::Readable { conn } = event {
            heard.extend(pair.server.read(conn).unwrap());
            assert_eq!(pair.server.read(conn), None);
        } else {
            let reason = Bytes::from_static(b"enough");
            let reason = CloseReason::Application { code: 7, reason };
            assert!(matches!(&event, Event::Closed { conn, reason: r }
                if *r == reason && !pair.server.is_open(*conn)));
        }
    }
    assert_eq!(heard, b"last words");
    pair.settle();
    assert!(pair.server.is_drained() && pair.client.is_drained());
}

/// A load generator's thread may have thousands of sockets.
#[test]
fn a_client_uses_any_of_its_sockets_t5() {
    let mut pair = Pair::connected();
    for socket in [255, 256, 19_000] {
        let params = ConnectParams::new(address(1), NAME);
        pair.client.connect(pair.now, socket, &params).unwrap();
        let mut wire = Wire::default();
        pair.client.flush(pair.now, &mut wire);
        assert_eq!(wire.socket, socket);
    }
}
