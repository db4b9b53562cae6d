//! The endpoint: all connections of one shard, driven by its caller.
//!
//! Verbs: `handle_*` takes input, `poll_*` yields output, the rest are the application's calls.
//! After a batch of input the caller drains [`Endpoint::poll_event`] and [`Endpoint::poll_transmit`]
//! and arms its clock for [`Endpoint::next_timeout`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;

use crate::cid::{CidCodec, CidFormat};
use crate::config::Config;
use crate::connection::{Connection, Cx, Flags, Path, State};
use crate::crypto::{Aead, Tls};
use crate::error::broken;
use crate::event::{Event, Handle};
use crate::limits;
use crate::packet::ConnectionId;
use crate::rng::Rng;
use crate::slab::Slab;
use crate::time::Time;
use crate::token::Tokens;
use crate::wheel::Wheel;

use allowance::Allowance;
use budget::Budget;
use half_open::HalfOpen;

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
    paths: BTreeMap<Path, Handle>,
    resets: BTreeMap<[u8; 16], u32>,
    ready: VecDeque<u32>,
    events: VecDeque<(Handle, Event)>,
    stateless: VecDeque<(Path, Vec<u8>)>,
    resets_allowed: Allowance,
    /// Prefixes for the ids of Retry packets (T11).
    retry_range: (u16, u16),
    half_open: HalfOpen,
    refusals: Allowance,
    /// The caller has no time to spare: no connection takes more than its quota (T21).
    behind: bool,
    budget: Budget,
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
            stats: &mut $self.stats,
            strict: $self.config.strict,
            activity,
        };
        (conn, cx)
    }};
}

mod admission;
mod allowance;
mod application;
mod budget;
mod connect;
mod demultiplex;
mod half_open;
mod inspect;
mod retry;
mod stateless_reset;
mod streams;
mod timers;
mod transmit;
mod version;

pub use connect::{Connect, ConnectError};
pub use inspect::{Memory, Sending, Standing, Stats};
pub use transmit::Transmit;

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
        let retry_range = match config.cid_format {
            CidFormat::Steered { first, last } => (first, last),
            _ => (0, u16::MAX),
        };
        let budget = Budget::new(config.in_flight_bytes_max);
        let resets_per_s = config.resets_per_s;
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
            resets_allowed: Allowance::new(resets_per_s, limits::RESET_BURST, now),
            retry_range,
            half_open: HalfOpen::default(),
            refusals: Allowance::new(limits::REFUSALS_PER_S, limits::REFUSALS_PER_S.into(), now),
            behind: false,
            budget,
            fired: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// Whether a packet's destination id belongs to this shard (T1).
    #[must_use]
    pub fn owns(&self, dcid: &[u8]) -> bool {
        self.codec.format.owns(dcid)
    }

    /// A connection to do strange things to.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn connection(&mut self, index: u32) -> &mut Connection<T> {
        &mut self.slab[index]
    }

    /// The index of a live connection.
    pub(crate) fn find(&self, handle: Handle) -> Option<u32> {
        self.is_live(handle).then_some(handle.index)
    }

    pub(super) fn is_live(&self, handle: Handle) -> bool {
        self.slab
            .get(handle.index)
            .is_some_and(|c| c.generation == handle.generation)
    }

    /// What follows every change of a connection: the active part may go, the slot may be free,
    /// the timer may need an earlier deadline, there may be something to send.
    pub(super) fn settle(&mut self, now: Time, index: u32, queue: bool) {
        self.settle_one(now, index, queue);
        if self.budget.is_exceeded() {
            self.relieve(now);
        }
    }

    fn settle_one(&mut self, now: Time, index: u32, queue: bool) {
        let (conn, mut cx) = parts!(self, now, index);
        let sound = conn.freeze();
        if !sound {
            conn.close_with_error(
                &mut cx,
                broken("something in flight of a quiescent connection"),
            );
        }
        if conn.flags.has(Flags::HALF_OPEN) && !conn.is_half_open() {
            conn.flags.set(Flags::HALF_OPEN, false);
            self.half_open.remove(index);
        }
        if conn.state == State::Drained {
            return self.release(index);
        }
        let deadline = conn.deadline(&cx);
        if (queue || !sound) && !conn.flags.has(Flags::QUEUED) {
            conn.flags.set(Flags::QUEUED, true);
            self.ready.push_back(index);
        }
        self.rearm(now, index, deadline);
        self.count_in_flight(index);
    }

    pub(super) fn release(&mut self, index: u32) {
        self.slab[index].active = None;
        self.count_in_flight(index);
        self.wheel.disarm(&mut self.slab, index);
        let conn = &mut self.slab[index];
        conn.keys.forget(&self.aead);
        if let Some(token) = conn.peer_ids.as_ref().and_then(|p| p.token) {
            self.resets.remove(&token);
        }
        if self.codec.format.is_empty() {
            // A path that was left before is found stale by its generation.
            self.paths.remove(&conn.path());
        }
        self.slab.release(index);
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<(Handle, Event)> {
        self.events.pop_front()
    }
}
