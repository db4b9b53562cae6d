//! The engine seam: what the loop asks of a QUIC implementation.
//!
//! An engine is sans-IO and belongs to one thread. It is a type parameter of the loop, so every call is
//! direct. The drive contract, once per turn of the loop:
//!
//! 1. `receive` for every datagram of the batch that belongs to this shard, then `expire`, then `admit`;
//! 2. `next_event` until `None`; the application reads, writes and closes meanwhile;
//! 3. `flush` once, which emits every packet that is due and re-arms the timers;
//! 4. `deadline` says when to come back if nothing arrives.

pub mod lean;
pub mod quinn;

pub(crate) mod ids;
mod session;
pub(crate) mod wire;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    counters::Counters,
    error::{ConnectError, Error},
    event::{ConnId, ConnectParams, Event},
};

/// One received datagram, a GRO train already taken apart.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Which socket of this thread it came to.
    pub socket: u16,
    /// Who sent it.
    pub peer: SocketAddr,
    /// Its payload, which an engine may decrypt in place.
    pub data: &'a mut [u8],
}

/// Where an engine puts its packets.
pub trait Outbound {
    /// An empty buffer for the next packet, or train of packets to one peer. Getting one twice without
    /// `send` gives the same one.
    fn buffer(&mut self) -> &mut Vec<u8>;

    /// Sends what the buffer holds. With `segment` it is a train of packets of that size, the last one
    /// as small as it likes.
    fn send(&mut self, socket: u16, peer: SocketAddr, segment: Option<u16>);
}

/// Which connection ids this thread's engine chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdPolicy {
    /// A server's: the first two bytes steer to `shard` of `shards`.
    Steered {
        /// This thread's shard.
        shard: u16,
        /// How many there are.
        shards: u16,
    },
    /// A client's: random, of this length (T5).
    Random {
        /// 4 to 8 bytes.
        length: u8,
    },
}

/// What an engine is made from. Plain data and shared keys, so it can move into the engine's thread.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Connection ids.
    pub ids: IdPolicy,
    /// QUIC parameters.
    pub transport: crate::config::Transport,
    /// The server's side, on a server.
    pub server: Option<ServerSide>,
    /// The client's side, on a client.
    pub client: Option<Arc<crate::tls::ClientTls>>,
    /// Counters of this thread.
    pub counters: Arc<Counters>,
    /// Counters of all threads of the process, by shard: Retry steers to the least loaded (T11).
    pub all: Vec<Arc<Counters>>,
}

/// What only a server's engine needs.
#[derive(Clone, Debug)]
pub struct ServerSide {
    /// Certificate, ALPN and tickets.
    pub tls: Arc<crate::tls::ServerTls>,
    /// Reset and token keys.
    pub keys: crate::config::SecretKeys,
    /// Half-open handshakes past which newcomers get a Retry (T11).
    pub retry_half_open: usize,
    /// Half-open handshakes past which a newcomer takes the place of another, or none.
    pub half_open_max: usize,
    /// Which addresses are one peer of those (T11).
    pub blocks: crate::config::Blocks,
    /// Budget of stateless resets (T1).
    pub resets_per_second: u32,
}

/// Memory of an engine's connections, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportMemory {
    /// Connections, whatever their state.
    pub connections: usize,
    /// Of these, with something under way.
    pub active: usize,
    /// The table of connections, its free places included.
    pub table_bytes: usize,
    /// What is under way, behind the table.
    pub active_bytes: usize,
}

/// A QUIC implementation as the loop sees it. All methods that take a [`ConnId`] do nothing, or answer
/// `None`, 0 or false, for a connection that is gone.
pub trait Engine: Sized {
    /// Makes the engine, inside its thread.
    fn new(config: EngineConfig, now: Instant) -> Result<Self, Error>;

    /// Takes one datagram. Established sessions go first: an engine may put Initials aside and begin
    /// them in `expire`, a few at a time (T11).
    fn receive(&mut self, now: Instant, datagram: Datagram<'_>, out: &mut impl Outbound);

    /// Says whether the loop has no time to spare: then no connection gets more than its quota (T21).
    fn set_behind(&mut self, behind: bool);

    /// Whether a datagram that begins with an Initial is of a handshake that is under way.
    fn knows(&self, datagram: &Datagram<'_>) -> bool;

    /// Lets time pass: timers.
    fn expire(&mut self, now: Instant);

    /// Begins some of the handshakes that were put aside. Where a token proves the address of one, `proven` is
    /// asked first, and without its consent nothing is begun.
    fn admit(
        &mut self,
        now: Instant,
        proven: &mut impl FnMut(SocketAddr) -> bool,
        out: &mut impl Outbound,
    );

    /// The next event for the application.
    fn next_event(&mut self) -> Option<Event>;

    /// Emits what is due from every connection that was touched, and re-arms its timer.
    fn flush(&mut self, now: Instant, out: &mut impl Outbound);

    /// When `expire` and `admit` want to be called next. In the past if there is work put aside.
    fn deadline(&self) -> Option<Instant>;

    /// Starts a connection from `socket`. Its end is told by `Closed`, whatever happens.
    fn connect(
        &mut self,
        now: Instant,
        socket: u16,
        params: &ConnectParams,
    ) -> Result<ConnId, ConnectError>;

    /// The next bytes of the peer, in order. Reading is what grants flow control (R26).
    fn read(&mut self, conn: ConnId) -> Option<Bytes>;

    /// Takes as much of `data` as it has room for.
    fn write(&mut self, conn: ConnId, data: &[u8]) -> usize;

    /// What `write` would accept in whole.
    fn write_capacity(&self, conn: ConnId) -> usize;

    /// Ends this end's half of the stream once everything written is sent.
    fn finish(&mut self, conn: ConnId);

    /// Sends a DATAGRAM frame, or says that it cannot.
    fn send_datagram(&mut self, conn: ConnId, data: Bytes) -> bool;

    /// Largest DATAGRAM payload that the peer takes now.
    fn datagram_max(&mut self, conn: ConnId) -> Option<usize>;

    /// Sends a PING frame (T10).
    fn ping(&mut self, conn: ConnId);

    /// Raises the connection's window, after authentication and from the caller's budget (T8).
    fn raise_receive_window(&mut self, conn: ConnId, bytes: u32);

    /// Sends what is written as far as the windows allow, then closes. `Closed` follows.
    fn close(&mut self, now: Instant, conn: ConnId, code: u32, reason: &[u8]);

    /// The peer's present address.
    fn peer(&self, conn: ConnId) -> Option<SocketAddr>;

    /// The smoothed round-trip time.
    fn rtt(&self, conn: ConnId) -> Option<Duration>;

    /// What the connections of this engine hold, found by a walk over them; `None` if the engine does not
    /// know.
    fn memory(&self) -> Option<TransportMemory> {
        None
    }

    /// Whether the connection is open for the application.
    fn is_open(&self, conn: ConnId) -> bool;

    /// Every connection that is not yet closed.
    fn open_connections(&self) -> Vec<ConnId>;

    /// Whether nothing is left, not even a connection that lingers after its close.
    fn is_drained(&self) -> bool;
}
