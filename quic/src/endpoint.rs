//! The endpoint: all connections of one shard, driven by its caller.
//!
//! Verbs: `handle_*` takes input, `poll_*` yields output, the rest are the application's calls.
//! After a batch of input the caller drains [`Endpoint::poll_event`] and [`Endpoint::poll_transmit`]
//! and arms its clock for [`Endpoint::next_timeout`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::cid::{CidCodec, CidFormat, in_range, reset_token};
use crate::coding::Writer;
use crate::config::Config;
use crate::connection::{
    Active, Arrival, Connection, Cx, EarlySpace, Flags, Handshake, NotOpen, Path, State,
    initial_level,
};
use crate::crypto::{Aead, KeyRef, Tls, TlsError, protect, retry_tag};
use crate::error::Code;
use crate::event::{Event, Handle};
use crate::frame::{self, Dir, ty};
use crate::limits;
use crate::packet::{
    ConnectionId, INITIAL_DATAGRAM_MIN, Kind, Level, Packet, TAG_LEN, VERSION,
    write_version_negotiation,
};
use crate::params::{Params, Side};
use crate::rng::Rng;
use crate::slab::{Entry, NIL, Slab};
use crate::streams::{Read, StreamError};
use crate::time::{Time, low32};
use crate::token::{Tokens, Verdict};
use crate::wheel::Wheel;

/// How long the first id of a client still finds its connection after the handshake.
const INITIAL_ID_LIFE_US: u64 = 3_000_000;

/// Datagrams of one connection in a row, so that a bulk transfer does not starve the others.
const DATAGRAMS_PER_VISIT: usize = 64;

/// One or more datagrams to one address, in the arena of [`Endpoint::poll_transmit`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// From where to where.
    pub path: Path,
    /// Where the bytes start in the arena.
    pub offset: usize,
    /// Bytes of all datagrams.
    pub len: usize,
    /// Bytes of each datagram but the last, which may be shorter: a train of one session (T12).
    pub segment: usize,
}

/// Where a new client connection goes.
#[derive(Clone, Debug)]
pub struct Connect<'a> {
    /// The name that TLS checks.
    pub server_name: &'a str,
    /// From where to where.
    pub path: Path,
    /// A token of an earlier connection (RFC 9000 8.1.3); may be empty.
    pub token: Vec<u8>,
    /// The home that the server's `Welcome` named: a prefix and how many bits of it count (T9).
    pub home: Option<(u16, u8)>,
    /// The application's index.
    pub app: u32,
}

/// Why no connection was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectError {
    /// All slots are in use.
    Full,
    /// With empty ids, one connection per socket and peer.
    PathInUse,
    /// TLS refused the name or the configuration.
    Tls(TlsError),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("all slots are in use"),
            Self::PathInUse => f.write_str("the path already has a connection with an empty id"),
            Self::Tls(e) => write!(f, "TLS refused: alert {}", e.alert),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Counters of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "each name says what is counted")]
pub struct Stats {
    pub datagrams_received: u64,
    pub datagrams_sent: u64,
    pub accepted: u64,
    pub retries_sent: u64,
    pub resets_sent: u64,
    pub refused: u64,
    pub version_negotiations_sent: u64,
    /// Of those refused, the ones whose Retry token was stale or used before.
    pub tokens_refused: u64,
    /// Stateless resets not sent for want of budget (T1).
    pub resets_suppressed: u64,
    /// Datagrams that no connection took and nothing answered.
    pub dropped: u64,
    /// Datagrams for another shard, which the caller should have forwarded (T1).
    pub strays: u64,
}

/// Memory of an endpoint's connections in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Connections in the slab.
    pub connections: usize,
    /// Bytes of the slab's segments.
    pub slab: usize,
    /// Connections with an active part.
    pub active: usize,
    /// Bytes behind the connections: active parts, peer ids, boxed keys.
    pub heap: usize,
}

/// All connections of one shard.
pub struct Endpoint<T: Tls, A: Aead> {
    config: Config,
    server: Option<T::ServerConfig>,
    aead: A,
    slab: Slab<Connection<T>>,
    wheel: Wheel,
    rng: Rng,
    codec: CidCodec<A>,
    tokens: Tokens,
    /// Connections by the client's first id and its address (T11).
    initials: BTreeMap<(ConnectionId, SocketAddr), Handle>,
    /// When those entries are looked at again.
    initials_order: VecDeque<(Time, ConnectionId, SocketAddr)>,
    /// Connections by path, where own ids are empty.
    paths: BTreeMap<Path, u32>,
    resets: BTreeMap<[u8; 16], u32>,
    ready: VecDeque<u32>,
    events: VecDeque<(Handle, Event)>,
    stateless: VecDeque<(Path, Vec<u8>)>,
    reset_tokens: u64,
    reset_refill: Time,
    /// Prefixes for the ids of Retry packets (T11).
    retry_range: (u16, u16),
    half_open: usize,
    fired: Vec<u32>,
    stats: Stats,
}

impl<T: Tls, A: Aead> fmt::Debug for Endpoint<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("connections", &self.slab.len())
            .field("half_open", &self.half_open)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// A connection and its context, borrowed from different fields of the endpoint.
macro_rules! parts {
    ($self:ident, $now:expr, $index:expr) => {{
        let index = $index;
        let (conn, activity) = $self.slab.pair_mut(index);
        let handle = Handle {
            index,
            generation: conn.generation,
        };
        let cx = Cx {
            now: $now,
            handle,
            aead: &$self.aead,
            transport: &$self.config.transport,
            codec: &$self.codec,
            reset_key: &$self.config.reset_key,
            tokens: &$self.tokens,
            rng: &mut $self.rng,
            events: &mut $self.events,
            resets: &mut $self.resets,
            activity,
        };
        (conn, cx)
    }};
}

mod caller;

pub use caller::Sending;

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// An endpoint; with a server configuration it accepts connections.
    ///
    /// # Panics
    /// Panics when a server is to have empty ids: its clients could not move.
    #[must_use]
    pub fn new(config: Config, server: Option<T::ServerConfig>, aead: A, now: Time) -> Self {
        assert!(
            server.is_none() || !config.cid_format.is_empty(),
            "a server's ids are not empty"
        );
        let reset_tokens = limits::RESET_BURST.min(config.resets_per_s.into());
        let retry_range = match config.cid_format {
            CidFormat::Steered { first, last } => (first, last),
            _ => (0, u16::MAX),
        };
        let codec = CidCodec::new(&aead, config.cid_format, &config.cid_key, config.epoch);
        Self {
            server,
            aead,
            slab: Slab::new(),
            wheel: Wheel::new(now.tick_down()),
            rng: Rng::new(config.seed),
            codec,
            tokens: Tokens::new(config.token_key, config.wall_clock_s),
            config,
            initials: BTreeMap::new(),
            initials_order: VecDeque::new(),
            paths: BTreeMap::new(),
            resets: BTreeMap::new(),
            ready: VecDeque::new(),
            events: VecDeque::new(),
            stateless: VecDeque::new(),
            reset_tokens,
            reset_refill: now,
            retry_range,
            half_open: 0,
            fired: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Connections, those that close included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// True without connections.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slab.len() == 0
    }

    /// Handshakes of clients under way.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.half_open
    }

    /// Whether a packet's destination id belongs to this shard (T1).
    #[must_use]
    pub fn owns(&self, dcid: &[u8]) -> bool {
        self.codec.format.owns(dcid)
    }

    /// Gives the ids of Retry packets prefixes of another shard, which re-steers new clients to it
    /// for free (T11).
    pub fn steer_retries(&mut self, first: u16, last: u16) {
        self.retry_range = (first, last.max(first));
    }

    /// Takes a datagram that arrived on a local socket. It is decrypted in place. Returns the
    /// connection it belonged to.
    ///
    /// An idle connection remembers which of the last 128 packet numbers arrived, so the caller
    /// polls for transmits after at most 64 datagrams of one session (a full GRO train): what falls
    /// out of the window unacknowledged is sent again by the peer.
    pub fn handle_datagram(
        &mut self,
        now: Time,
        socket: u8,
        remote: SocketAddr,
        data: &mut [u8],
    ) -> Option<Handle> {
        self.stats.datagrams_received += 1;
        let path = Path { socket, remote };
        let Ok(packet) = Packet::parse(data, self.codec.format.len()) else {
            return self.on_unparsed(now, path, data);
        };
        let len = data.len() as u64;
        if let Some((index, sequence)) = self.route(&packet, path) {
            let arrival = Arrival {
                path,
                sequence,
                len,
            };
            return Some(self.deliver(now, index, arrival, data));
        }
        self.on_stranger(now, path, &packet, data)
    }

    fn deliver(&mut self, now: Time, index: u32, arrival: Arrival, data: &mut [u8]) -> Handle {
        let (conn, mut cx) = parts!(self, now, index);
        let handle = cx.handle;
        conn.handle_datagram(&mut cx, arrival, data);
        self.settle(now, index, true);
        handle
    }

    /// Finds the connection of a packet: by its id, by the client's first id, or by its path.
    fn route(&self, packet: &Packet, path: Path) -> Option<(u32, Option<u8>)> {
        if self.codec.format.is_empty() {
            let usable = packet.dcid.is_empty();
            return self.paths.get(&path).filter(|_| usable).map(|i| (*i, None));
        }
        if matches!(packet.kind, Kind::Initial | Kind::ZeroRtt | Kind::Handshake)
            && let Some(handle) = self.initials.get(&(packet.dcid, path.remote))
            && self.is_live(*handle)
        {
            return Some((handle.index, None));
        }
        let place = self.codec.decode(&self.aead, packet.dcid.as_slice())?;
        let conn = self.slab.get(place.index)?;
        let ours = self
            .codec
            .same_generation(place.generation, conn.generation)
            && conn.own.is_active(place.sequence);
        ours.then_some((place.index, Some(place.sequence)))
    }

    fn is_live(&self, handle: Handle) -> bool {
        self.slab
            .get(handle.index)
            .is_some_and(|c| c.generation == handle.generation)
    }

    /// A datagram without a packet can still be a stateless reset (RFC 9000 10.3.1).
    fn on_unparsed(&mut self, now: Time, path: Path, data: &[u8]) -> Option<Handle> {
        let handle = self.try_reset(now, path, data);
        self.stats.dropped += u64::from(handle.is_none());
        handle
    }

    /// RFC 9000 10.3.1: clients compare the end of datagrams that they cannot place with the tokens
    /// of their peers.
    fn try_reset(&mut self, now: Time, path: Path, data: &[u8]) -> Option<Handle> {
        let tail: [u8; 16] = *data.last_chunk()?;
        let index = match self.codec.format {
            CidFormat::Empty => *self.paths.get(&path)?,
            _ => *self.resets.get(&tail)?,
        };
        let (conn, mut cx) = parts!(self, now, index);
        let handle = cx.handle;
        // RFC 9000 10.3.1: only tokens associated with the remote address.
        if conn.path().remote != path.remote || !conn.check_stateless_reset(&mut cx, Some(tail)) {
            return None;
        }
        self.settle(now, index, true);
        Some(handle)
    }

    /// A packet that no connection claims (RFC 9000 5.2.2).
    fn on_stranger(
        &mut self,
        now: Time,
        path: Path,
        packet: &Packet,
        data: &mut [u8],
    ) -> Option<Handle> {
        match packet.kind {
            Kind::Initial if self.server.is_some() => {
                return self.on_initial(now, path, packet, data);
            }
            Kind::OtherVersion(_) if self.server.is_some() => {
                self.send_version_negotiation(path, packet, data.len());
                return None;
            }
            Kind::OneRtt => {
                if let Some(handle) = self.try_reset(now, path, data) {
                    return Some(handle);
                }
                self.send_stateless_reset(now, path, packet, data.len());
                return None;
            }
            _ => {}
        }
        self.stats.dropped += 1;
        None
    }

    fn push_stateless(&mut self, path: Path, bytes: Vec<u8>) {
        if self.stateless.len() < limits::STATELESS_QUEUE_MAX {
            self.stateless.push_back((path, bytes));
        }
    }

    /// RFC 9000 6.1, 14.1; T11: only for datagrams that could have started a connection.
    fn send_version_negotiation(&mut self, path: Path, packet: &Packet, len: usize) {
        if len < INITIAL_DATAGRAM_MIN {
            self.stats.dropped += 1;
            return;
        }
        let mut out = [0; 64];
        let random = low32(self.rng.next());
        let len = write_version_negotiation(
            &mut out,
            random,
            packet.scid.as_slice(),
            packet.dcid.as_slice(),
        );
        self.stats.version_negotiations_sent += 1;
        self.push_stateless(path, out[..len].to_vec());
    }

    /// RFC 9000 10.3; T1: only the owner of an id answers, within its own budget.
    fn send_stateless_reset(&mut self, now: Time, path: Path, packet: &Packet, len: usize) {
        if !self.codec.format.owns(packet.dcid.as_slice()) {
            self.stats.strays += 1;
            return;
        }
        // RFC 9000 10.3.3: shorter than what caused it, so that resets do not loop. And a reset is
        // at least 21 bytes.
        let len = (len - 1).min(42);
        let answers = self.server.is_some() && !self.codec.format.is_empty();
        if !answers || len < 21 {
            self.stats.dropped += 1;
            return;
        }
        if !self.spend_reset(now) {
            self.stats.resets_suppressed += 1;
            return;
        }
        let mut bytes = vec![0; len];
        self.rng.fill(&mut bytes);
        bytes[0] = 0x40 | (bytes[0] & 0x3f);
        let token = reset_token(&self.aead, &self.config.reset_key, &packet.dcid);
        bytes[len - 16..].copy_from_slice(&token);
        self.stats.resets_sent += 1;
        self.push_stateless(path, bytes);
    }

    fn spend_reset(&mut self, now: Time) -> bool {
        let per_s = u64::from(self.config.resets_per_s);
        let earned = now.since(self.reset_refill) * per_s / 1_000_000;
        if earned > 0 {
            let burst = limits::RESET_BURST.min(per_s);
            self.reset_tokens = (self.reset_tokens + earned).min(burst);
            self.reset_refill = now;
        }
        let has = self.reset_tokens > 0;
        self.reset_tokens -= u64::from(has);
        has
    }

    /// The first packet of a client (RFC 9000 7.2, 8.1, 14.1).
    fn on_initial(
        &mut self,
        now: Time,
        path: Path,
        packet: &Packet,
        data: &mut [u8],
    ) -> Option<Handle> {
        // RFC 9000 14.1: smaller datagrams are discarded. RFC 9000 7.2: the id has 8 bytes.
        if data.len() < INITIAL_DATAGRAM_MIN || packet.dcid.len() < 8 {
            self.stats.dropped += 1;
            return None;
        }
        self.purge_initials(now);
        let token = &data[packet.token.0..packet.token.1];
        let verdict = match token {
            [] => Verdict::Unknown,
            token => self
                .tokens
                .check(&self.aead, now, path.remote, &packet.dcid, token),
        };
        match verdict {
            Verdict::Spent => {
                self.stats.tokens_refused += 1;
                self.refuse(path, packet, Code::INVALID_TOKEN);
                return None;
            }
            Verdict::Unknown if self.half_open >= self.config.retry_above => {
                self.send_retry(now, path, packet);
                return None;
            }
            _ if self.half_open >= self.config.half_open_max => {
                self.refuse(path, packet, Code::CONNECTION_REFUSED);
                return None;
            }
            _ => {}
        }
        self.accept(now, path, packet, verdict, data)
    }

    fn purge_initials(&mut self, now: Time) {
        while let Some((_, id, remote)) = self
            .initials_order
            .front()
            .filter(|(at, ..)| *at <= now)
            .copied()
        {
            self.initials_order.pop_front();
            let Some(handle) = self.initials.get(&(id, remote)).copied() else {
                continue;
            };
            let waiting =
                self.is_live(handle) && self.slab[handle.index].state == State::ExpectFinished;
            if waiting {
                self.initials_order
                    .push_back((now + INITIAL_ID_LIFE_US, id, remote));
            } else {
                self.initials.remove(&(id, remote));
            }
        }
    }

    /// Retry (RFC 9000 8.1.2, 17.2.5).
    fn send_retry(&mut self, now: Time, path: Path, packet: &Packet) {
        let (first, last) = self.retry_range;
        let mut id: [u8; 12] = self.rng.bytes();
        let random = low32(self.rng.next());
        id[..2].copy_from_slice(&in_range(first, last, random));
        let scid = ConnectionId::new(&id).expect("12 bytes");
        let token = self
            .tokens
            .retry(&self.aead, now, path.remote, &packet.dcid, &scid);
        let mut buf = [0; 192];
        let mut w = Writer::new(&mut buf);
        w.u8(0xf0 | (random & 0x0f).to_le_bytes()[0]);
        w.u32(VERSION);
        for id in [&packet.scid, &scid] {
            w.u8(id.len().to_le_bytes()[0]);
            w.bytes(id.as_slice());
        }
        w.bytes(&token);
        let tag = retry_tag(&self.aead, &packet.dcid, w.written());
        w.bytes(&tag);
        let bytes = w.written().to_vec();
        self.stats.retries_sent += 1;
        self.push_stateless(path, bytes);
    }

    /// Closes an attempt without keeping state (RFC 9000 5.2.2, 8.1.3).
    fn refuse(&mut self, path: Path, packet: &Packet, code: Code) {
        self.stats.refused += 1;
        let keys = initial_level(&self.aead, Side::Server, &packet.dcid);
        let mut buf = [0; 128];
        let mut w = Writer::new(&mut buf);
        w.u8(0xc0);
        w.u32(VERSION);
        for id in [&packet.scid, &packet.dcid] {
            w.u8(id.len().to_le_bytes()[0]);
            w.bytes(id.as_slice());
        }
        w.u8(0);
        let length_at = w.len();
        w.zeroes(2);
        let pn_offset = w.len();
        w.u8(0);
        frame::write_close(&mut w, ty::CONNECTION_CLOSE, code.0, 0, b"");
        let len = w.len() + TAG_LEN;
        w.varint2_at(length_at, len - pn_offset);
        let keys = KeyRef::of(keys.suite, &keys.local);
        protect(&self.aead, keys, &mut buf[..len], 0, pn_offset, 1);
        self.push_stateless(path, buf[..len].to_vec());
    }

    fn accept(
        &mut self,
        now: Time,
        path: Path,
        packet: &Packet,
        verdict: Verdict,
        data: &mut [u8],
    ) -> Option<Handle> {
        let index = self.slab.allocate()?;
        let (odcid, retry_scid) = match verdict {
            Verdict::Retried { odcid } => (odcid, Some(packet.dcid)),
            _ => (packet.dcid, None),
        };
        let (conn, mut cx) = parts!(self, now, index);
        let handle = cx.handle;
        let scid = cx.own_cid(0);
        let params = Params {
            original_destination_connection_id: Some(odcid),
            retry_source_connection_id: retry_scid,
            initial_source_connection_id: Some(scid),
            stateless_reset_token: Some(reset_token(cx.aead, cx.reset_key, &scid)),
            ..cx.transport.params(Side::Server)
        };
        let grease = cx.rng.next();
        let server = self.server.as_ref().expect("checked by the caller");
        let Ok(tls) = T::server(server, params.encode(Some(grease))) else {
            self.slab.release(index);
            return None;
        };
        let keys = initial_level(cx.aead, Side::Server, &packet.dcid);
        let timeout_us = u64::from(cx.transport.handshake_timeout_ms) * 1_000;
        let hs = Handshake::new(tls, keys, odcid, retry_scid, (now, timeout_us));
        conn.peer_cid = packet.scid;
        conn.start(&mut cx, Side::Server, path, hs);
        conn.flags.set(Flags::HALF_OPEN, true);
        conn.flags
            .set(Flags::VALIDATED, verdict != Verdict::Unknown);
        self.half_open += 1;
        let len = data.len() as u64;
        conn.handle_datagram(
            &mut cx,
            Arrival {
                path,
                sequence: None,
                len,
            },
            data,
        );
        if conn.is_untouched() {
            // Nothing in it was authentic: no state for a forgery.
            self.half_open -= 1;
            self.slab.release(index);
            self.stats.dropped += 1;
            return None;
        }
        self.stats.accepted += 1;
        self.initials.insert((packet.dcid, path.remote), handle);
        self.initials_order
            .push_back((now + INITIAL_ID_LIFE_US, packet.dcid, path.remote));
        self.settle(now, index, true);
        Some(handle)
    }

    /// Starts a client's connection.
    pub fn connect(
        &mut self,
        now: Time,
        tls: &T::ClientConfig,
        connect: Connect<'_>,
    ) -> Result<Handle, ConnectError> {
        let empty = self.codec.format.is_empty();
        if empty && self.paths.contains_key(&connect.path) {
            return Err(ConnectError::PathInUse);
        }
        let dcid = self.first_id(connect.home);
        let index = self.slab.allocate().ok_or(ConnectError::Full)?;
        let (conn, mut cx) = parts!(self, now, index);
        let handle = cx.handle;
        let params = Params {
            initial_source_connection_id: Some(cx.own_cid(0)),
            ..cx.transport.params(Side::Client)
        };
        let grease = cx.rng.next();
        let tls = match T::client(tls, connect.server_name, params.encode(Some(grease))) {
            Ok(tls) => tls,
            Err(error) => {
                self.slab.release(index);
                return Err(ConnectError::Tls(error));
            }
        };
        let keys = initial_level(cx.aead, Side::Client, &dcid);
        let timeout_us = u64::from(cx.transport.handshake_timeout_ms) * 1_000;
        let mut hs = Handshake::new(tls, keys, dcid, None, (now, timeout_us));
        hs.token = connect.token;
        conn.app = connect.app;
        conn.peer_cid = dcid;
        conn.start(&mut cx, Side::Client, connect.path, hs);
        conn.flags.set(Flags::VALIDATED, true);
        if let Err(error) = conn.pump_tls(&mut cx) {
            conn.close_with_error(&mut cx, error);
        }
        if empty {
            self.paths.insert(connect.path, index);
        }
        self.settle(now, index, true);
        Ok(handle)
    }

    /// A client's first destination id: ten bytes, of which the named bits lead home (T9), and at
    /// least eight are random (RFC 9000 7.2).
    fn first_id(&mut self, home: Option<(u16, u8)>) -> ConnectionId {
        let mut bytes: [u8; 10] = self.rng.bytes();
        if let Some((prefix, bits)) = home {
            let keep = u16::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
            let random = u16::from_be_bytes([bytes[0], bytes[1]]);
            let mixed = (prefix & !keep) | (random & keep);
            bytes[..2].copy_from_slice(&mixed.to_be_bytes());
        }
        ConnectionId::new(&bytes).expect("10 bytes")
    }

    /// What follows every change of a connection: the active part may go, the slot may be free,
    /// the timer may need an earlier deadline, there may be something to send.
    fn settle(&mut self, now: Time, index: u32, queue: bool) {
        let (conn, cx) = parts!(self, now, index);
        if conn.flags.has(Flags::HALF_OPEN) && conn.state != State::ExpectFinished {
            conn.flags.set(Flags::HALF_OPEN, false);
            self.half_open -= 1;
        }
        if conn.state == State::Drained {
            return self.release(index);
        }
        conn.freeze();
        let deadline = conn.deadline(&cx);
        if queue && !conn.flags.has(Flags::QUEUED) {
            conn.flags.set(Flags::QUEUED, true);
            self.ready.push_back(index);
        }
        self.rearm(index, deadline);
    }

    /// Lazy: a deadline that moved later stays armed where it was.
    fn rearm(&mut self, index: u32, deadline: Option<Time>) {
        let Some(tick) = deadline.map(Time::tick_up) else {
            return self.wheel.disarm(&mut self.slab, index);
        };
        let links = *self.slab[index].links();
        let armed = links.prev != NIL;
        if armed && tick.wrapping_sub(links.deadline) < 1 << 31 {
            return;
        }
        self.wheel.disarm(&mut self.slab, index);
        self.wheel.arm(&mut self.slab, index, tick);
    }

    fn release(&mut self, index: u32) {
        self.wheel.disarm(&mut self.slab, index);
        let conn = &mut self.slab[index];
        if let Some(token) = conn.peer_ids.as_ref().and_then(|p| p.token) {
            self.resets.remove(&token);
        }
        if self.codec.format.is_empty() {
            self.paths
                .retain(|path, i| *i != index || *path != conn.path());
        }
        if conn.flags.has(Flags::QUEUED) {
            self.ready.retain(|i| *i != index);
        }
        self.slab.release(index);
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<(Handle, Event)> {
        self.events.pop_front()
    }

    /// Builds datagrams of all connections that have something to send, one after the other in the
    /// caller's arena, and appends what they are to `out`. True when the arena was full before all
    /// was sent: call again with a fresh one.
    pub fn poll_transmit(&mut self, now: Time, arena: &mut [u8], out: &mut Vec<Transmit>) -> bool {
        let mut at = 0;
        while let Some((path, bytes)) = self.stateless.front() {
            let Some(room) = arena.get_mut(at..at + bytes.len()) else {
                return true;
            };
            room.copy_from_slice(bytes);
            let len = bytes.len();
            out.push(Transmit {
                path: *path,
                offset: at,
                len,
                segment: len,
            });
            at += len;
            self.stateless.pop_front();
            self.stats.datagrams_sent += 1;
        }
        while let Some(index) = self.ready.pop_front() {
            // The entry of a connection that is gone, or that was served meanwhile.
            if !self
                .slab
                .get(index)
                .is_some_and(|c| c.flags.has(Flags::QUEUED))
            {
                continue;
            }
            if arena.len() - at < usize::from(self.config.transport.payload_max) {
                self.ready.push_front(index);
                return true;
            }
            let more = self.transmit_one(now, index, arena, &mut at, out);
            self.settle(now, index, more);
        }
        false
    }

    /// Builds datagrams of one connection; true when it may have more.
    fn transmit_one(
        &mut self,
        now: Time,
        index: u32,
        arena: &mut [u8],
        at: &mut usize,
        out: &mut Vec<Transmit>,
    ) -> bool {
        let payload = usize::from(self.config.transport.payload_max);
        let (conn, mut cx) = parts!(self, now, index);
        conn.flags.set(Flags::QUEUED, false);
        let first = out.len();
        for _ in 0..DATAGRAMS_PER_VISIT {
            let Some(room) = arena.get_mut(*at..*at + payload) else {
                return true;
            };
            let Some((len, path)) = conn.poll_datagram(&mut cx, room) else {
                return false;
            };
            self.stats.datagrams_sent += 1;
            match out[first..].last_mut() {
                // T12: trains within one session only, of equal segments but for the last.
                Some(last)
                    if last.path == path && last.len % last.segment == 0 && len <= last.segment =>
                {
                    last.len += len;
                }
                _ => out.push(Transmit {
                    path,
                    offset: *at,
                    len,
                    segment: len,
                }),
            }
            *at += len;
        }
        true
    }

    /// When [`Endpoint::handle_timeout`] is due; it may find nothing to do (deadlines are lazy).
    #[must_use]
    pub fn next_timeout(&self, now: Time) -> Option<Time> {
        let tick = self.wheel.next_tick()?;
        let ahead = tick.wrapping_sub(now.tick_down());
        let ahead = if ahead >= 1 << 31 { 0 } else { ahead };
        Some(Time::from_millis(now.as_millis() + u64::from(ahead)).max(now))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.purge_initials(now);
        let mut fired = std::mem::take(&mut self.fired);
        fired.clear();
        self.wheel
            .advance(&mut self.slab, now.tick_down(), &mut fired);
        for index in fired.iter().copied() {
            if self.slab.get(index).is_none() {
                continue;
            }
            let (conn, mut cx) = parts!(self, now, index);
            let due = conn.deadline(&cx).is_some_and(|at| at <= now);
            if due {
                conn.on_timeout(&mut cx);
            }
            self.settle(now, index, due);
        }
        self.fired = fired;
    }

    /// The index of a live connection.
    fn find(&self, handle: Handle) -> Option<u32> {
        self.is_live(handle).then_some(handle.index)
    }

    /// Opens a stream; `None` while the peer permits no more, or without such a connection.
    pub fn open(&mut self, now: Time, handle: Handle, dir: Dir) -> Option<u64> {
        let index = self.find(handle)?;
        let (conn, mut cx) = parts!(self, now, index);
        conn.open(&mut cx, dir)
    }

    /// Buffers bytes on a stream; returns how many were taken. Fewer than given means that
    /// [`Event::StreamWritable`] will come.
    pub fn write(
        &mut self,
        now: Time,
        handle: Handle,
        id: u64,
        bytes: &[u8],
    ) -> Result<usize, StreamError> {
        self.on_stream(now, handle, |conn, cx| conn.write(cx, id, bytes))
    }

    /// Ends the sending half of a stream after what was written.
    pub fn finish(&mut self, now: Time, handle: Handle, id: u64) -> Result<(), StreamError> {
        self.on_stream(now, handle, |conn, cx| conn.finish(cx, id))
    }

    /// Abandons the sending half of a stream.
    pub fn reset(
        &mut self,
        now: Time,
        handle: Handle,
        id: u64,
        code: u64,
    ) -> Result<(), StreamError> {
        self.on_stream(now, handle, |conn, cx| conn.reset(cx, id, code))
    }

    /// Asks the peer to stop sending on a stream.
    pub fn stop(
        &mut self,
        now: Time,
        handle: Handle,
        id: u64,
        code: u64,
    ) -> Result<(), StreamError> {
        self.on_stream(now, handle, |conn, cx| conn.stop(cx, id, code))
    }

    /// Reads from a stream.
    pub fn read(
        &mut self,
        now: Time,
        handle: Handle,
        id: u64,
        out: &mut [u8],
    ) -> Result<Read, StreamError> {
        self.on_stream(now, handle, |conn, cx| conn.read(cx, id, out))
    }

    fn on_stream<R>(
        &mut self,
        now: Time,
        handle: Handle,
        f: impl FnOnce(&mut Connection<T>, &mut Cx<'_, A>) -> Result<R, StreamError>,
    ) -> Result<R, StreamError> {
        let index = self.find(handle).ok_or(StreamError::Closed)?;
        let (conn, mut cx) = parts!(self, now, index);
        let result = f(conn, &mut cx)?;
        self.settle(now, index, true);
        Ok(result)
    }

    fn on_open(
        &mut self,
        now: Time,
        handle: Handle,
        f: impl FnOnce(&mut Connection<T>, &mut Cx<'_, A>) -> Result<(), NotOpen>,
    ) -> Result<(), NotOpen> {
        let index = self.find(handle).ok_or(NotOpen)?;
        let (conn, mut cx) = parts!(self, now, index);
        f(conn, &mut cx)?;
        self.settle(now, index, true);
        Ok(())
    }

    /// Sends an unreliable datagram (RFC 9221). It is refused when the peer takes none so large;
    /// when the buffer is full the oldest ones go.
    pub fn send_datagram(&mut self, now: Time, handle: Handle, data: Bytes) -> Result<(), NotOpen> {
        self.on_open(now, handle, |conn, cx| conn.send_datagram(cx, data))
    }

    /// Sends a PING: one packet each way, without an active part on an idle connection (T10).
    /// [`Event::Pong`] tells when it was acknowledged.
    pub fn ping(&mut self, now: Time, handle: Handle) -> Result<(), NotOpen> {
        self.on_open(now, handle, |conn, _| {
            if conn.state != State::Open {
                return Err(NotOpen);
            }
            conn.flags.set(Flags::PING_WANTED, true);
            conn.flags.set(Flags::PONG_WANTED, true);
            Ok(())
        })
    }

    /// Closes with an application's code (RFC 9000 10.2).
    pub fn close(&mut self, now: Time, handle: Handle, code: u64) {
        self.close_with_reason(now, handle, code, b"");
    }

    /// Closes with an application's code and a phrase for the peer, of which 128 bytes are sent.
    pub fn close_with_reason(&mut self, now: Time, handle: Handle, code: u64, reason: &[u8]) {
        if let Some(index) = self.find(handle) {
            let (conn, mut cx) = parts!(self, now, index);
            conn.close_by_application(&mut cx, code, reason);
            self.settle(now, index, true);
        }
    }

    /// Updates the keys of a connection (RFC 9001 6); refused while that is not permitted.
    pub fn update_keys(&mut self, now: Time, handle: Handle) -> Result<(), NotOpen> {
        self.on_open(now, handle, |conn, cx| {
            if conn.state != State::Open || !conn.may_update_keys() {
                return Err(NotOpen);
            }
            conn.rotate_local(cx);
            Ok(())
        })
    }

    /// Raises the receive windows of a connection (T8).
    pub fn set_windows(
        &mut self,
        now: Time,
        handle: Handle,
        stream: u32,
        connection: u32,
    ) -> Result<(), NotOpen> {
        self.on_open(now, handle, |conn, cx| {
            conn.set_windows(cx, stream, connection)
        })
    }

    /// Moves a client's connection to another local socket (RFC 9000 9).
    pub fn migrate(&mut self, now: Time, handle: Handle, socket: u8) -> Result<(), NotOpen> {
        let index = self.find(handle).ok_or(NotOpen)?;
        let old = self.slab[index].path();
        self.on_open(now, handle, |conn, cx| conn.migrate(cx, socket))?;
        if self.codec.format.is_empty() {
            self.paths.insert(Path { socket, ..old }, index);
        }
        Ok(())
    }

    /// The application's index of a connection.
    #[must_use]
    pub fn app(&self, handle: Handle) -> Option<u32> {
        self.find(handle).map(|i| self.slab[i].app)
    }

    /// Sets the application's index of a connection.
    pub fn set_app(&mut self, handle: Handle, app: u32) {
        if let Some(index) = self.find(handle) {
            self.slab[index].app = app;
        }
    }

    /// The current path of a connection.
    #[must_use]
    pub fn path(&self, handle: Handle) -> Option<Path> {
        self.find(handle).map(|i| self.slab[i].path())
    }

    /// The smoothed round-trip time in microseconds, once there is a sample.
    #[must_use]
    pub fn rtt_us(&self, handle: Handle) -> Option<u64> {
        let conn = &self.slab[self.find(handle)?];
        conn.rtt.has_sample().then(|| conn.rtt.smoothed(0))
    }

    /// The largest datagram that [`Endpoint::send_datagram`] takes now.
    #[must_use]
    pub fn datagram_max(&self, handle: Handle) -> Option<usize> {
        self.find(handle)
            .map(|i| self.slab[i].datagram_max(&self.config.transport))
    }

    /// True when a connection has no active part.
    #[must_use]
    pub fn is_idle(&self, handle: Handle) -> bool {
        self.find(handle)
            .is_some_and(|i| self.slab[i].active.is_none())
    }

    /// Connections that heard nothing for longer than `idle_ms`, found in the dense array (T7).
    pub fn sweep_idle(&self, now: Time, idle_ms: u32, mut each: impl FnMut(Handle)) {
        let now_ms = low32(now.as_millis());
        self.slab.sweep(
            |at| now_ms.wrapping_sub(at) > idle_ms,
            |index, conn| {
                each(Handle {
                    index,
                    generation: conn.generation,
                })
            },
        );
    }

    /// Memory in use, by a walk over all connections (T8).
    #[must_use]
    pub fn memory(&self) -> Memory {
        let mut memory = Memory {
            connections: self.slab.len(),
            slab: self.slab.heap_bytes(),
            ..Memory::default()
        };
        self.slab.sweep(
            |_| true,
            |_, conn| {
                memory.active += usize::from(conn.active.is_some());
                memory.heap += conn.heap_bytes();
            },
        );
        memory
    }

    /// Asserts the invariants of T15 over all connections. For tests: it walks everything.
    ///
    /// # Panics
    /// Panics when an invariant is broken.
    pub fn check_invariants(&self) {
        let mut half_open = 0;
        self.slab.sweep(
            |_| true,
            |_, conn| {
                conn.check();
                half_open += usize::from(conn.flags.has(Flags::HALF_OPEN));
            },
        );
        assert_eq!(
            half_open, self.half_open,
            "half-open connections are counted"
        );
    }

    /// Asserts the invariants of T15 over one connection.
    ///
    /// # Panics
    /// Panics when an invariant is broken.
    pub fn check_connection(&self, handle: Handle) {
        if let Some(index) = self.find(handle) {
            self.slab[index].check();
        }
    }

    /// Bytes of an idle connection on this side, without and with the peer-id box (T7).
    #[must_use]
    pub const fn connection_sizes() -> (usize, usize, usize) {
        (
            size_of::<Connection<T>>(),
            size_of::<crate::connection::PeerIds>(),
            size_of::<Active<T>>(),
        )
    }
}

impl<T> Handshake<T> {
    fn new(
        tls: T,
        keys: crate::crypto::LevelKeys,
        odcid: ConnectionId,
        retry_scid: Option<ConnectionId>,
        (now, timeout_us): (Time, u64),
    ) -> Self {
        Self {
            tls,
            spaces: [Some(EarlySpace::new(keys)), None],
            write_level: Level::Initial,
            read_level: Level::Initial,
            params_done: false,
            odcid,
            retry_scid,
            peer_scid: None,
            token: Vec::new(),
            received: 0,
            sent: 0,
            handshake_acked: false,
            deadline: now + timeout_us,
            undecryptable: None,
        }
    }
}
