//! One connection: a small struct while it is idle, with a boxed active part while something is in
//! flight (T7, T18).

mod ack;
mod close;
mod handshake;
mod ids;
mod path;
mod receive;
mod stream;
mod transmit;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use crate::cid::{CidCodec, Place};
use crate::config::Transport;
use crate::crypto::{Aead, DirectionKeys, LevelKeys, Suite};
use crate::error::{CloseReason, TransportError};
use crate::event::{Event, Handle};
use crate::frame::Dir;
use crate::keys::{OldKey, OneRttKeys};
use crate::limits;
use crate::packet::{ConnectionId, Level};
use crate::params::Side;
use crate::recovery::{Recovery, Rtt, Window};
use crate::rng::Rng;
use crate::slab::{Entry, Links};
use crate::space::{PnSpace, SentSpace};
use crate::streams::{Counts, Flow, Stream, StreamBuf, StreamState};
use crate::time::{Time, low32};
use crate::token::Tokens;

pub(crate) use ids::{PeerIds, PostHandshake};
pub(crate) use receive::Arrival;

/// A local socket and a peer's address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Path {
    /// The index of the local socket (T12: one per shard, configured address and family).
    pub socket: u8,
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
    pub(crate) socket: u8,
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
    links: Links,
}

/// Everything that exists only in flight.
pub(crate) struct Active<T> {
    pub(crate) hs: Option<Box<Handshake<T>>>,
    pub(crate) data: SentSpace,
    pub(crate) rec: Recovery,
    /// In-flight part of stream 0.
    pub(crate) buf0: StreamBuf,
    pub(crate) streams: BTreeMap<u64, Box<Stream>>,
    /// Streams with something to send.
    pub(crate) queue: VecDeque<u64>,
    /// Stream bytes received, of all streams.
    pub(crate) rx_sum: u64,
    pub(crate) pending: Pending,
    pub(crate) datagrams: VecDeque<Bytes>,
    pub(crate) datagram_bytes: usize,
    pub(crate) path: Option<Box<path::PathChange>>,
    /// The peer's previous key and when to forget it (RFC 9001 6.5).
    pub(crate) old_key: Option<(OldKey, Time)>,
    /// Clients: TLS kept for tickets after the handshake (T6).
    pub(crate) tail: Option<(Box<T>, Time)>,
    pub(crate) close: Option<Box<close::CloseState>>,
    /// The next packet number to leave out, and the last one left out.
    pub(crate) skip_at: u64,
    pub(crate) skipped: Option<u64>,
}

/// Control frames owed.
#[derive(Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state machine"
)]
pub(crate) struct Pending {
    pub(crate) max_data: bool,
    pub(crate) max_streams: [bool; 2],
    pub(crate) handshake_done: bool,
    pub(crate) new_token: bool,
    /// Sequence numbers of own ids to tell the peer.
    pub(crate) new_cids: Vec<u8>,
    pub(crate) retire_cids: Vec<u32>,
    /// One response at most is owed: the last challenge wins (T8).
    /// With the bytes that arrived, which bound the answer to another path.
    pub(crate) path_response: Option<([u8; 8], Path, u64)>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        !self.max_data
            && self.max_streams == [false; 2]
            && !self.handshake_done
            && !self.new_token
            && self.new_cids.is_empty()
            && self.retire_cids.is_empty()
            && self.path_response.is_none()
    }
}

/// A packet number space that ends with the handshake.
#[derive(Debug)]
pub(crate) struct EarlySpace {
    pub(crate) keys: LevelKeys,
    pub(crate) pn: PnSpace,
    pub(crate) sent: SentSpace,
    pub(crate) ack_pending: bool,
}

impl EarlySpace {
    pub(crate) fn new(keys: LevelKeys) -> Self {
        Self {
            keys,
            pn: PnSpace::NEW,
            sent: SentSpace::default(),
            ack_pending: false,
        }
    }
}

/// The handshake with its TLS state; gone once confirmed (T6).
pub(crate) struct Handshake<T> {
    pub(crate) tls: T,
    /// Initial and Handshake, while they have keys.
    pub(crate) spaces: [Option<EarlySpace>; 2],
    /// The level of what TLS writes, and of what it reads.
    pub(crate) write_level: Level,
    pub(crate) read_level: Level,
    pub(crate) params_done: bool,
    /// The destination of the client's first Initial: keys and parameters depend on it.
    pub(crate) odcid: ConnectionId,
    pub(crate) retry_scid: Option<ConnectionId>,
    /// The peer's first source id.
    pub(crate) peer_scid: Option<ConnectionId>,
    /// The token for Initials (client).
    pub(crate) token: Vec<u8>,
    /// Bytes received from and sent to an address that is not validated (RFC 9000 8.1).
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// The peer acknowledged a Handshake packet: it validated this address (RFC 9002 6.2.2.1).
    pub(crate) handshake_acked: bool,
    pub(crate) deadline: Time,
    /// One packet that arrived before its keys (T8).
    pub(crate) undecryptable: Option<(Path, Vec<u8>)>,
}

impl<T> Active<T> {
    fn new(
        now: Time,
        state: &StreamState,
        pn: u64,
        rx_sum: u64,
        cx_rng: &mut Rng,
        burst: u64,
    ) -> Self {
        Self {
            hs: None,
            data: SentSpace::default(),
            rec: Recovery::new(now, burst),
            buf0: StreamBuf::of(state),
            streams: BTreeMap::new(),
            queue: VecDeque::new(),
            rx_sum,
            pending: Pending::default(),
            datagrams: VecDeque::new(),
            datagram_bytes: 0,
            path: None,
            old_key: None,
            tail: None,
            close: None,
            skip_at: pn + 16 + cx_rng.below(limits::SKIP_EVERY),
            skipped: None,
        }
    }

    pub(crate) fn space(&mut self, level: Level) -> Option<&mut SentSpace> {
        match level {
            Level::Data => Some(&mut self.data),
            early => self.early(early).map(|s| &mut s.sent),
        }
    }

    pub(crate) fn early(&mut self, level: Level) -> Option<&mut EarlySpace> {
        self.hs.as_mut()?.spaces.get_mut(level as usize)?.as_mut()
    }

    fn is_quiescent(&self, state: &StreamState) -> bool {
        self.hs.is_none()
            && self.data.is_quiescent()
            && self.data.probes == 0
            && self.streams.is_empty()
            && self.buf0.is_quiescent(state)
            && self.pending.is_empty()
            && self.datagrams.is_empty()
            && self.path.is_none()
            && self.old_key.is_none()
            && self.tail.is_none()
            && self.close.is_none()
    }

    /// Bytes on the heap, this part included: what the budget of a shard counts (T8).
    pub(crate) fn heap_bytes(&self) -> usize {
        let early: usize = self.hs.as_ref().map_or(0, |hs| {
            let spaces: usize = hs
                .spaces
                .iter()
                .flatten()
                .map(|s| s.sent.heap_bytes())
                .sum();
            size_of::<Handshake<T>>() + spaces + hs.token.capacity()
        });
        let streams: usize = self
            .streams
            .values()
            .map(|s| size_of::<Stream>() + s.buf.heap_bytes())
            .sum();
        size_of::<Self>()
            + early
            + streams
            + self.data.heap_bytes()
            + self.buf0.heap_bytes()
            + self.datagram_bytes
    }
}

impl<T> Connection<T> {
    pub(crate) fn side(&self) -> Side {
        if self.flags.has(Flags::CLIENT) {
            Side::Client
        } else {
            Side::Server
        }
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
        self.socket = path.socket;
        self.port = path.remote.port();
        self.flags.set(Flags::V6, path.remote.is_ipv6());
        self.ip = [0; 16];
        match path.remote.ip() {
            IpAddr::V4(ip) => self.ip[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => self.ip = ip.octets(),
        }
    }

    /// A connection that starts its handshake.
    pub(crate) fn start<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        side: Side,
        path: Path,
        hs: Handshake<T>,
    ) {
        let transport = cx.transport;
        self.state = State::ExpectFinished;
        self.flags = Flags::default();
        self.flags.set(Flags::CLIENT, side.is_client());
        self.set_path(path);
        self.own = OwnIds {
            active: [Some(0), None],
            next: 1,
        };
        self.window = Window::new(transport.payload_max);
        self.stream_window = transport.stream_window;
        self.connection_window = transport.connection_window;
        self.flow.rx_max = u64::from(transport.connection_window);
        self.counts.rx_limit = [transport.streams_bidi, transport.streams_uni];
        *cx.activity = low32(cx.now.as_millis());
        let burst = self.burst(cx);
        let mut active = Active::new(cx.now, &self.stream0, 0, 0, cx.rng, burst);
        active.hs = Some(Box::new(hs));
        self.active = Some(Box::new(active));
    }

    fn burst<A: Aead>(&self, cx: &Cx<'_, A>) -> u64 {
        limits::BURST_PACKETS * u64::from(cx.transport.payload_max)
    }

    /// The active part, made when there is none. An unacknowledged PING of the idle time becomes an
    /// ordinary record.
    pub(crate) fn thaw<A: Aead>(&mut self, cx: &mut Cx<'_, A>) -> &mut Active<T> {
        if self.active.is_none() {
            let burst = self.burst(cx);
            let consumed = self.flow.consumed;
            let active = Active::new(cx.now, &self.stream0, self.pn.next, consumed, cx.rng, burst);
            let mut active = Box::new(active);
            if self.flags.take(Flags::PING_SENT) {
                let pn = self.ping_pn();
                let sent = self.ping_time(cx.now);
                active.data.record(pn, sent, IDLE_PING_SIZE, true);
                active.rec.bytes_in_flight += IDLE_PING_SIZE as u64;
            }
            active.data.probes = u8::from(self.flags.take(Flags::PROBE));
            self.active = Some(active);
        }
        self.active.as_mut().expect("made above")
    }

    /// Drops the active part when nothing is left in it. A connection that is closing keeps it.
    pub(crate) fn freeze(&mut self) {
        if self.state != State::Open || !self.flags.has(Flags::CONFIRMED) {
            return;
        }
        let Some(active) = &self.active else { return };
        if active.is_quiescent(&self.stream0) {
            assert_eq!(
                active.rec.bytes_in_flight, 0,
                "quiescent means nothing in flight (T15)"
            );
            assert_eq!(
                active.rx_sum, self.flow.consumed,
                "quiescent means all is read"
            );
            self.active = None;
        }
    }

    /// The number of the idle PING: its low bits, and the high bits of the next number.
    pub(crate) fn ping_pn(&self) -> u64 {
        let behind = low32(self.pn.next).wrapping_sub(self.ping.pn);
        self.pn.next - u64::from(behind)
    }

    pub(crate) fn ping_time(&self, now: Time) -> Time {
        let age_ms = low32(now.as_millis()).wrapping_sub(self.ping.sent_ms);
        Time::from_millis(now.as_millis().saturating_sub(u64::from(age_ms)))
    }

    /// The idle timeout that both ends agreed on (RFC 9000 10.1).
    fn idle_deadline<A: Aead>(&self, cx: &Cx<'_, A>) -> Option<Time> {
        if self.peer.idle_ms == 0 {
            return None;
        }
        // At least three PTO, so that losses have a chance to be repaired.
        let idle = (u64::from(self.peer.idle_ms) * 1_000).max(3 * self.pto(cx, Level::Data));
        let age = low32(cx.now.as_millis()).wrapping_sub(*cx.activity);
        let last = Time::from_millis(cx.now.as_millis().saturating_sub(u64::from(age)));
        Some(last + idle)
    }

    /// When the connection next needs [`Connection::on_timeout`].
    pub(crate) fn deadline<A: Aead>(&self, cx: &Cx<'_, A>) -> Option<Time> {
        if let Some(close) = self.active.as_ref().and_then(|a| a.close.as_ref()) {
            return Some(close.until);
        }
        let idle = self.idle_deadline(cx);
        let Some(active) = &self.active else {
            let ping = self
                .flags
                .has(Flags::PING_SENT)
                .then(|| self.idle_ping_deadline(cx));
            return [idle, ping].into_iter().flatten().min();
        };
        let others = [
            idle,
            active.hs.as_ref().map(|hs| hs.deadline),
            self.recovery_deadline(cx),
            active.path.as_ref().map(|p| p.next_at.min(p.deadline)),
            active.old_key.as_ref().map(|k| k.1),
            active.tail.as_ref().map(|t| t.1),
            active.rec.paced_until,
        ];
        others.into_iter().flatten().min()
    }

    /// Does what is due.
    pub(crate) fn on_timeout<A: Aead>(&mut self, cx: &mut Cx<'_, A>)
    where
        T: crate::crypto::Tls,
    {
        if let Some(close) = self.active.as_ref().and_then(|a| a.close.as_ref()) {
            if close.until <= cx.now {
                self.state = State::Drained;
            }
            return;
        }
        if self.idle_deadline(cx).is_some_and(|at| at <= cx.now) {
            return self.vanish(cx, CloseReason::IdleTimeout);
        }
        let now = cx.now;
        let Some(active) = self.active.as_mut() else {
            return self.on_idle_ping_timeout(cx);
        };
        if active.hs.as_ref().is_some_and(|hs| hs.deadline <= now) {
            return self.vanish(cx, CloseReason::HandshakeTimeout);
        }
        if active.old_key.as_ref().is_some_and(|k| k.1 <= now) {
            active.old_key = None;
        }
        if active.tail.as_ref().is_some_and(|t| t.1 <= now) {
            active.tail = None;
        }
        self.on_path_timeout(cx);
        self.on_recovery_timeout(cx);
    }

    /// True when no packet of the peer was authentic yet.
    pub(crate) fn is_untouched(&self) -> bool {
        let hs = self.active.as_ref().and_then(|a| a.hs.as_ref());
        self.state == State::ExpectFinished && hs.is_some_and(|hs| hs.peer_scid.is_none())
    }

    /// The largest DATAGRAM payload that fits a packet and the peer's limit.
    pub(crate) fn datagram_max(&self, transport: &Transport) -> usize {
        let payload = usize::from(transport.payload_max.min(self.peer.payload_max));
        // Short header with a full packet number, tag, frame type and length.
        let packet = payload.saturating_sub(1 + self.peer_cid.len() + 4 + 16 + 3);
        packet.min(usize::from(self.peer.datagram_max).saturating_sub(3))
    }

    pub(crate) fn send_datagram<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        data: Bytes,
    ) -> Result<(), NotOpen> {
        if self.state != State::Open || data.len() > self.datagram_max(cx.transport) {
            return Err(NotOpen);
        }
        let cap = cx.transport.datagram_send_buffer;
        let active = self.thaw(cx);
        active.datagram_bytes += data.len();
        active.datagrams.push_back(data);
        while active.datagram_bytes > cap
            && let Some(oldest) = active.datagrams.pop_front()
        {
            active.datagram_bytes -= oldest.len();
        }
        Ok(())
    }

    /// Bytes on the heap behind this connection.
    pub(crate) fn heap_bytes(&self) -> usize {
        let keys = if matches!(self.keys, OneRttKeys::Boxed(..)) {
            32 * 5 + 36 + 96
        } else {
            0
        };
        self.active.as_ref().map_or(0, |a| a.heap_bytes())
            + self.peer_ids.as_ref().map_or(0, |p| p.heap_bytes())
            + keys
    }

    /// The invariants of T15 that one connection can check about itself; for tests and debug runs.
    pub(crate) fn check(&self) {
        let Some(active) = &self.active else { return };
        let early: u64 = active
            .hs
            .iter()
            .flat_map(|hs| hs.spaces.iter().flatten())
            .map(|s| s.sent.bytes_in_flight())
            .sum();
        let records = early + active.data.bytes_in_flight();
        assert_eq!(
            active.rec.bytes_in_flight, records,
            "bytes in flight = sum of records"
        );
        assert!(self.flow.tx_sent <= self.flow.tx_max, "credit is respected");
        assert!(
            active.rx_sum >= self.flow.consumed,
            "read no more than arrived"
        );
        for space in active
            .hs
            .iter()
            .flat_map(|hs| hs.spaces.iter().flatten())
            .map(|s| &s.sent)
        {
            assert_eq!(space.noted(), 0, "every noted frame belongs to a record");
        }
        assert_eq!(
            active.data.noted(),
            0,
            "every noted frame belongs to a record"
        );
    }
}

/// Bytes that a packet with one PING takes, about: what an idle PING counts once it is a record.
pub(crate) const IDLE_PING_SIZE: usize = 40;

impl<T> Entry for Connection<T> {
    fn vacant() -> Self {
        Self {
            active: None,
            peer_ids: None,
            generation: 0,
            app: 0,
            flags: Flags::default(),
            state: State::Vacant,
            own: OwnIds {
                active: [None; 2],
                next: 0,
            },
            pto_count: 0,
            socket: 0,
            ip: [0; 16],
            port: 0,
            peer_cid: ConnectionId::EMPTY,
            peer_seq: 0,
            pn: PnSpace::NEW,
            rtt: Rtt::NEW,
            window: Window {
                cwnd: 0,
                ssthresh: 0,
            },
            keys: OneRttKeys::None,
            phases: Phases::default(),
            flow: Flow {
                tx_max: 0,
                tx_sent: 0,
                rx_max: 0,
                consumed: 0,
            },
            stream_window: 0,
            connection_window: 0,
            counts: Counts {
                tx_limit: [0; 2],
                tx_opened: [0; 2],
                rx_limit: [0; 2],
                rx_opened: [0; 2],
                window_theirs: 0,
                window_ours: 0,
                window_uni: 0,
            },
            stream0: StreamState::ABSENT,
            peer: PeerParams {
                idle_ms: 0,
                payload_max: 1_200,
                datagram_max: 0,
                max_ack_delay_ms: 25,
                ack_delay_exponent: 3,
            },
            ping: IdlePing::default(),
            links: Links::NONE,
        }
    }

    fn is_vacant(&self) -> bool {
        self.state == State::Vacant
    }

    fn generation(&self) -> u32 {
        self.generation
    }

    fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }

    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

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
/// The active part: not idle, but a million may wake at once.
const _: () = assert!(size_of::<Active<[u64; 64]>>() <= 1_024);
