//! What can be asked of an endpoint: who is there, who is known, what it counted, what it takes.

use std::net::SocketAddr;

use super::Endpoint;
use crate::connection::{Active, Connection, Flags, Path};
use crate::crypto::{Aead, Tls};
use crate::event::Handle;
use crate::packet::Packet;
use crate::streams::SendState;
use crate::time::Time;
use crate::token::Verdict;

/// Counters of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "each name says what is counted")]
pub struct Stats {
    pub datagrams_received: u64,
    pub datagrams_sent: u64,
    pub accepted: u64,
    /// Of these, by clients whose Retry token proved their address.
    pub proven: u64,
    pub retries_sent: u64,
    pub resets_sent: u64,
    pub refused: u64,
    pub version_negotiations_sent: u64,
    /// Initials whose Retry token was stale or used before; the others of these than [`Stats::refused`] were
    /// answered with silence.
    pub tokens_refused: u64,
    /// Initials for which there was no room, dropped in silence (T11).
    pub no_room: u64,
    /// Handshakes given up for a newcomer (T11).
    pub displaced: u64,
    /// Used tokens forgotten before they were stale.
    pub tokens_forgotten: u64,
    /// Stateless resets not sent for want of budget (T1).
    pub resets_suppressed: u64,
    /// Datagrams that no connection took and nothing answered.
    pub dropped: u64,
    /// Connections closed because they had the most in flight when the memory for it was used up (T8).
    pub hoarders_closed: u64,
    /// Datagrams of connections beyond their quota while the caller was behind (T21).
    pub quota_dropped: u64,
    /// Packets whose number would be 2^62 or more, which are none (RFC 9000 12.3).
    pub numbers_refused: u64,
    /// Connections closed because an invariant of this side did not hold for them.
    pub invariants_broken: u64,
    /// Datagrams for another shard, which the caller should have forwarded (T1).
    pub strays: u64,
}

impl Stats {
    /// The sum of all but the datagrams: as each only grows, it is the same as long as none has changed.
    #[must_use]
    pub const fn events(&self) -> u64 {
        let Self {
            datagrams_received: _,
            datagrams_sent: _,
            accepted,
            proven,
            retries_sent,
            resets_sent,
            refused,
            version_negotiations_sent,
            tokens_refused,
            no_room,
            displaced,
            tokens_forgotten,
            resets_suppressed,
            dropped,
            hoarders_closed,
            quota_dropped,
            numbers_refused,
            invariants_broken,
            strays,
        } = *self;
        accepted
            + proven
            + retries_sent
            + resets_sent
            + refused
            + version_negotiations_sent
            + tokens_refused
            + no_room
            + displaced
            + tokens_forgotten
            + resets_suppressed
            + dropped
            + hoarders_closed
            + quota_dropped
            + numbers_refused
            + invariants_broken
            + strays
    }
}

/// What an endpoint knows of who sent a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// A connection of it has this path or id.
    Connected,
    /// A newcomer with a token of this endpoint's for its address.
    Proven,
    /// Anybody else.
    Stranger,
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

/// How far the sending half of a stream has come, in bytes since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sending {
    /// Written by the application.
    pub written: u64,
    /// Of these, no longer buffered, as the peer acknowledged them.
    pub released: u64,
    /// What the peer's flow control permits (RFC 9000 4.1).
    pub permitted: u64,
}

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// See [`Stats::events`].
    #[must_use]
    pub fn events(&self) -> u64 {
        self.stats.events()
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

    /// Handshakes of clients that are not complete: under way, or failed and not forgotten yet.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// The application's index of a connection.
    #[must_use]
    pub fn app(&self, handle: Handle) -> Option<u32> {
        self.find(handle).map(|i| self.slab[i].app)
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
        let (mut half_open, mut in_flight) = (0, 0);
        self.slab.sweep(
            |_| true,
            |_, conn| {
                conn.check();
                half_open += usize::from(conn.flags.has(Flags::HALF_OPEN));
                let bytes = conn.active.as_ref().map_or(0, |a| a.heap_bytes());
                assert_eq!(
                    conn.in_flight_bytes as usize, bytes,
                    "the budget knows (T8)"
                );
                in_flight += bytes;
            },
        );
        assert_eq!(
            half_open,
            self.half_open.len(),
            "half-open connections are counted"
        );
        assert_eq!(in_flight, self.budget.used(), "bytes in flight are counted");
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

    /// True for the handle of a connection that is not forgotten yet.
    #[must_use]
    pub fn contains(&self, handle: Handle) -> bool {
        self.is_live(handle)
    }

    /// Whose a datagram is, by its first packet: that of a connection need not wait behind newcomers, nor a
    /// newcomer who has proven its address behind one who has not (T11).
    #[must_use]
    pub fn standing(&self, now: Time, socket: u16, remote: SocketAddr, data: &[u8]) -> Standing {
        let path = Path { socket, remote };
        let Ok(packet) = Packet::parse(data, self.codec.format.len()) else {
            return Standing::Stranger;
        };
        if self.route(&packet, path).is_some() {
            return Standing::Connected;
        }
        match &data[packet.token.0..packet.token.1] {
            [] => Standing::Stranger,
            token => match self
                .tokens
                .check(&self.aead, now, remote, &packet.dcid, token)
            {
                Verdict::Retried { .. } | Verdict::Known => Standing::Proven,
                Verdict::Spent | Verdict::Unknown => Standing::Stranger,
            },
        }
    }

    /// Visits every connection, those that close included.
    pub fn for_each(&self, mut each: impl FnMut(Handle)) {
        self.slab.sweep(
            |_| true,
            |index, conn| each(Handle::of(index, conn.generation)),
        );
    }

    /// The key phases of a connection: of what this side sends and of what the peer sends
    /// (RFC 9001 6). They differ while an update is under way.
    #[must_use]
    pub fn key_phases(&self, handle: Handle) -> Option<(bool, bool)> {
        let flags = &self.slab[self.find(handle)?].flags;
        Some((
            flags.has(Flags::LOCAL_PHASE),
            flags.has(Flags::REMOTE_PHASE),
        ))
    }

    /// How far the sending half of a stream has come; `None` once it is over or without a stream.
    #[must_use]
    pub fn sending(&self, handle: Handle, id: u64) -> Option<Sending> {
        self.slab[self.find(handle)?].sending(id)
    }
}

impl<T: Tls> Connection<T> {
    fn sending(&self, id: u64) -> Option<Sending> {
        let Some(active) = &self.active else {
            // An idle connection has sent all and has no stream but the inline one (T18).
            let state = &self.stream0;
            let unused = self.flow.tx_max - self.flow.tx_sent;
            return (id == 0 && state.send == SendState::Open).then(|| Sending {
                written: state.written,
                released: state.written,
                permitted: state.tx_max.min(state.written + unused),
            });
        };
        let (state, buf) = match id {
            0 => (&self.stream0, &active.buf0),
            id => active.streams.get(&id).map(|s| (&s.state, &s.buf))?,
        };
        (state.send == SendState::Open).then(|| Sending {
            written: state.written,
            released: state.written - buf.tx.len() as u64,
            permitted: Self::send_limit(&self.flow, state, buf),
        })
    }
}
