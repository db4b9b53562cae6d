//! One connection: a small struct while it is idle, with a boxed active part while something is in
//! flight (T7, T18).

mod ack;
mod active;
mod check;
mod close;
mod datagram;
mod handshake;
mod ids;
mod mtu;
mod path;
mod receive;
mod stream;
mod thaw;
mod timeout;
mod transmit;
mod vacant;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::cid::{CidCodec, Place};
use crate::config::Transport;
use crate::crypto::{Aead, DirectionKeys, LevelKeys, Suite};
use crate::endpoint::Stats;
use crate::error::{CloseReason, TransportError};
use crate::event::{Event, Handle};
use crate::frame::Dir;
use crate::keys::OneRttKeys;
use crate::limits;
use crate::packet::ConnectionId;
use crate::params::Side;
use crate::quota::Quota;
use crate::recovery::{Rtt, Window};
use crate::rng::Rng;
use crate::slab::Links;
use crate::space::PnSpace;
use crate::streams::{Counts, Flow, StreamState};
use crate::time::Time;
use crate::token::Tokens;

pub(crate) use active::{Active, EarlySpace, Handshake, Pending};
pub(crate) use ids::{PeerIds, PostHandshake};
pub(crate) use receive::{Arrival, open_initial};

/// A local socket and a peer's address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Path {
    /// The index of the local socket (T12: one per shard, configured address and family).
    pub socket: u16,
    /// The peer's address.
    pub remote: SocketAddr,
}

/// What a connection borrows from its endpoint for one call.
pub(crate) struct Cx<'a, A: Aead> {
    pub(crate) now: Time,
    pub(crate) handle: Handle,
    pub(crate) aead: &'a A,
    pub(crate) transport: &'a Transport,
    pub(crate) codec: &'a CidCodec<A>,
    pub(crate) reset_key: &'a [u8; 32],
    pub(crate) tokens: &'a Tokens,
    pub(crate) rng: &'a mut Rng,
    pub(crate) events: &'a mut VecDeque<(Handle, Event)>,
    /// Clients: the reset tokens of peers, to recognise resets whose ids are random.
    pub(crate) resets: &'a mut BTreeMap<[u8; 16], u32>,
    pub(crate) stats: &'a mut Stats,
    /// See [`crate::Config::strict`].
    pub(crate) strict: bool,
    /// Last activity, from the slab's dense array.
    pub(crate) activity: &'a mut u32,
}

impl<A: Aead> Cx<'_, A> {
    pub(crate) fn event(&mut self, event: Event) {
        self.events.push_back((self.handle, event));
    }

    /// Our connection id of a sequence number.
    pub(crate) fn own_cid(&self, sequence: u8) -> ConnectionId {
        let Handle { index, generation } = self.handle;
        self.codec.encode(
            self.aead,
            Place {
                index,
                generation,
                sequence,
            },
        )
    }

    /// The data of a PATH_CHALLENGE. RFC 9000 8.2.1: it must be unpredictable, and the generator's
    /// output is not to whoever collects the random bytes of stateless resets.
    pub(crate) fn challenge(&mut self) -> [u8; 8] {
        let random: [u8; 16] = self.rng.bytes();
        let mac = self
            .aead
            .hmac(self.reset_key, &[b"path challenge", &random]);
        *mac.first_chunk().expect("32 bytes")
    }

    fn initial_rtt(&self) -> u64 {
        u64::from(self.transport.initial_rtt_ms) * 1_000
    }
}

/// The life of a connection, named by what it expects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// A free slot.
    Vacant,
    /// The handshake is under way.
    ExpectFinished,
    /// The handshake is complete.
    Open,
    /// This side closed and answers what still comes (RFC 9000 10.2.1).
    Closing,
    /// The peer closed: nothing is sent any more (RFC 9000 10.2.2).
    Draining,
    /// The slot can be released.
    Drained,
}

/// Facts of one bit each.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flags(u16);

impl Flags {
    pub(crate) const CLIENT: u16 = 1 << 0;
    pub(crate) const CONFIRMED: u16 = 1 << 1;
    /// The peer's address is an IPv6 address.
    pub(crate) const V6: u16 = 1 << 2;
    /// A 1-RTT packet waits for its acknowledgement.
    pub(crate) const ACK_PENDING: u16 = 1 << 3;
    /// In the endpoint's queue of connections with something to send.
    pub(crate) const QUEUED: u16 = 1 << 4;
    /// The application asked for a PING.
    pub(crate) const PING_WANTED: u16 = 1 << 5;
    /// An unacknowledged PING without an active part: see [`IdlePing`].
    pub(crate) const PING_SENT: u16 = 1 << 6;
    pub(crate) const LOCAL_PHASE: u16 = 1 << 7;
    pub(crate) const REMOTE_PHASE: u16 = 1 << 8;
    /// A packet of the current sending phase was acknowledged (RFC 9001 6.1).
    pub(crate) const PHASE_ACKED: u16 = 1 << 9;
    /// The peer's address is validated (RFC 9000 8.1).
    pub(crate) const VALIDATED: u16 = 1 << 10;
    /// An ack-eliciting packet was sent since the last one arrived (RFC 9000 10.1).
    pub(crate) const SENT_SINCE: u16 = 1 << 11;
    /// The peer forbids migration (RFC 9000 18.2).
    pub(crate) const MIGRATION_DISABLED: u16 = 1 << 12;
    /// The application wants an event when its PING is acknowledged.
    pub(crate) const PONG_WANTED: u16 = 1 << 13;
    /// A probe timeout without an active part: send one more PING.
    pub(crate) const PROBE: u16 = 1 << 14;
    /// A server's connection that counts as half-open (T11).
    pub(crate) const HALF_OPEN: u16 = 1 << 15;

    pub(crate) const fn has(self, flag: u16) -> bool {
        self.0 & flag != 0
    }

    pub(crate) fn set(&mut self, flag: u16, on: bool) {
        self.0 = if on { self.0 | flag } else { self.0 & !flag };
    }

    /// Clears a flag and says whether it was set.
    pub(crate) fn take(&mut self, flag: u16) -> bool {
        let had = self.has(flag);
        self.set(flag, false);
        had
    }
}

/// Connection ids of ours that the peer may use: at most two (T2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnIds {
    pub(crate) active: [Option<u8>; limits::OWN_IDS_MAX],
    pub(crate) next: u8,
}

/// What an idle connection remembers of its one unacknowledged PING (T10): the low bits of the
/// packet number and the millisecond.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct IdlePing {
    pub(crate) pn: u32,
    pub(crate) sent_ms: u32,
}

/// The peer's transport parameters that matter after the handshake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerParams {
    /// The effective idle timeout; zero for none.
    pub(crate) idle_ms: u32,
    pub(crate) payload_max: u16,
    pub(crate) datagram_max: u16,
    pub(crate) max_ack_delay_ms: u16,
    pub(crate) ack_delay_exponent: u8,
}

/// Counters of the key phases (RFC 9001 6).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Phases {
    /// First number sent in the current phase.
    pub(crate) local_first: u64,
    /// Lowest number received in the current phase.
    pub(crate) remote_first: u64,
    /// Packets that failed authentication.
    pub(crate) failed: u64,
}

/// A connection. Fields are ordered by the compiler; the size is asserted below.
pub(crate) struct Connection<T> {
    pub(crate) active: Option<Box<Active<T>>>,
    /// Spare ids of the peer and what only clients keep: the one documented side box (T7).
    pub(crate) peer_ids: Option<Box<PeerIds>>,
    pub(crate) generation: u32,
    /// The application's index for this connection.
    pub(crate) app: u32,
    pub(crate) flags: Flags,
    pub(crate) state: State,
    pub(crate) own: OwnIds,
    pub(crate) pto_count: u8,
    /// 1-RTT packet numbers that arrived since the last acknowledgement of any (T20).
    pub(crate) unacknowledged: u8,
    pub(crate) socket: u16,
    ip: [u8; 16],
    port: u16,
    pub(crate) peer_cid: ConnectionId,
    pub(crate) peer_seq: u32,
    pub(crate) pn: PnSpace,
    pub(crate) rtt: Rtt,
    pub(crate) window: Window,
    pub(crate) keys: OneRttKeys,
    pub(crate) phases: Phases,
    pub(crate) flow: Flow,
    /// Receive windows of each stream and of the connection.
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    pub(crate) counts: Counts,
    pub(crate) stream0: StreamState,
    pub(crate) peer: PeerParams,
    pub(crate) ping: IdlePing,
    /// The UDP payload that path MTU discovery found on this path; zero for none.
    pub(crate) mtu: u16,
    /// What the shard's budget counted for this connection (T8).
    pub(crate) in_flight_bytes: u32,
    /// Packets served of late, while the shard is behind (T21).
    pub(crate) quota: Quota,
    links: Links,
}

impl<T> Connection<T> {
    pub(crate) fn side(&self) -> Side {
        if self.flags.has(Flags::CLIENT) {
            Side::Client
        } else {
            Side::Server
        }
    }

    /// A server's handshake that did not come to its end, whether it still may or failed and lingers.
    pub(crate) fn is_half_open(&self) -> bool {
        !self.flags.has(Flags::CONFIRMED) && !matches!(self.state, State::Open | State::Drained)
    }

    /// The handshake is under way or complete, and nobody closed.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.state, State::ExpectFinished | State::Open)
    }

    pub(crate) fn path(&self) -> Path {
        let ip = if self.flags.has(Flags::V6) {
            IpAddr::V6(Ipv6Addr::from(self.ip))
        } else {
            let [a, b, c, d, ..] = self.ip;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        };
        Path {
            socket: self.socket,
            remote: SocketAddr::new(ip, self.port),
        }
    }

    pub(crate) fn set_path(&mut self, path: Path) {
        // RFC 9000 14.2: the MTU belongs to a path.
        self.forget_mtu();
        self.socket = path.socket;
        self.port = path.remote.port();
        self.flags.set(Flags::V6, path.remote.is_ipv6());
        self.ip = [0; 16];
        match path.remote.ip() {
            IpAddr::V4(ip) => self.ip[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => self.ip = ip.octets(),
        }
    }
}

/// Bytes that a packet with one PING takes, about: what an idle PING counts once it is a record.
pub(crate) const IDLE_PING_SIZE: usize = 40;

impl<T> fmt::Debug for Connection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("state", &self.state)
            .field("path", &self.path())
            .field("active", &self.active.is_some())
            .finish_non_exhaustive()
    }
}

/// Initial keys as the given side uses them.
pub(crate) fn initial_level<A: Aead>(aead: &A, side: Side, dcid: &ConnectionId) -> LevelKeys {
    let (client, server) = crate::crypto::initial_keys(aead, dcid);
    let (local, remote): (DirectionKeys, DirectionKeys) = match side {
        Side::Client => (client, server),
        Side::Server => (server, client),
    };
    LevelKeys {
        suite: Suite::Aes128Gcm,
        local,
        remote,
    }
}

/// What an application may ask of a connection that is not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotOpen;

impl fmt::Display for NotOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is not open")
    }
}

impl std::error::Error for NotOpen {}

pub(crate) fn local_error(error: TransportError) -> CloseReason {
    CloseReason::Local(error)
}

pub(crate) const DIRS: [Dir; 2] = [Dir::Bidi, Dir::Uni];

/// The byte budget of an idle connection (T7): a change that grows it does not compile. The type of
/// the TLS session does not matter, as it is behind the active part.
const _: () = assert!(size_of::<Connection<[u64; 64]>>() <= 512);
/// A client adds its box of peer ids (T7); a spare id of the server is 44 bytes more.
const _: () = assert!(size_of::<Connection<[u64; 64]>>() + size_of::<PeerIds>() <= 576);
