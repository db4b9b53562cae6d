//! What hangs off a connection only while something is in flight (T7, T18).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::ack::DelayedAck;
use super::mtu::MtuSearch;
use super::receive::Arrival;
use super::{Path, close, path};
use crate::crypto::LevelKeys;
use crate::keys::OldKey;
use crate::limits;
use crate::packet::{ConnectionId, Level};
use crate::recovery::Recovery;
use crate::rng::Rng;
use crate::space::{PnSpace, SentSpace};
use crate::streams::{Stream, StreamBuf, StreamState};
use crate::time::Time;

/// Everything that exists only in flight.
pub(crate) struct Active<T> {
    pub(crate) hs: Option<Box<Handshake<T>>>,
    /// One packet that arrived before its keys (T8), with how it arrived.
    pub(crate) undecryptable: Option<Box<(Arrival, Vec<u8>)>>,
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
    pub(crate) delayed_ack: DelayedAck,
    /// The peer spoke after a probe timeout, and nothing has been probed since (T21).
    pub(crate) heard: bool,
    pub(crate) path: Option<Box<path::PathChange>>,
    /// The peer's previous key and when to forget it (RFC 9001 6.5).
    pub(crate) old_key: Option<(OldKey, Time)>,
    /// Clients: TLS kept for tickets after the handshake (T6).
    pub(crate) tail: Option<(Box<T>, Time)>,
    pub(crate) close: Option<Box<close::CloseState>>,
    /// The next packet number to leave out, and the last one left out.
    pub(crate) skip_at: u64,
    pub(crate) skipped: Option<u64>,
    pub(crate) mtu: MtuSearch,
    /// The peer was told that its present limit on the connection's data, or on streams by direction,
    /// holds this side back: once per limit (RFC 9000 4.1, 4.6).
    pub(crate) told_data_blocked: bool,
    pub(crate) told_streams_blocked: [bool; 2],
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
    pub(crate) data_blocked: bool,
    pub(crate) streams_blocked: [bool; 2],
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
    pub(super) fn is_empty(&self) -> bool {
        !self.max_data
            && self.max_streams == [false; 2]
            && !self.data_blocked
            && self.streams_blocked == [false; 2]
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
    /// When it is given up: soon while the peer's first message is not complete, then when all of its time is
    /// over.
    pub(crate) deadline: Time,
    pub(crate) until: Time,
}

impl<T> Active<T> {
    pub(super) fn new(
        now: Time,
        state: &StreamState,
        pn: u64,
        rx_sum: u64,
        cx_rng: &mut Rng,
        burst: u64,
    ) -> Self {
        Self {
            hs: None,
            undecryptable: None,
            data: SentSpace::default(),
            rec: Recovery::new(now, burst),
            buf0: StreamBuf::of(state),
            streams: BTreeMap::new(),
            queue: VecDeque::new(),
            rx_sum,
            pending: Pending::default(),
            datagrams: VecDeque::new(),
            datagram_bytes: 0,
            delayed_ack: DelayedAck::default(),
            heard: false,
            path: None,
            old_key: None,
            tail: None,
            close: None,
            skip_at: pn + 16 + cx_rng.below(limits::SKIP_EVERY),
            skipped: None,
            mtu: MtuSearch::default(),
            told_data_blocked: false,
            told_streams_blocked: [false; 2],
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

    pub(super) fn is_quiescent(&self, state: &StreamState) -> bool {
        self.hs.is_none()
            && self.undecryptable.is_none()
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
            let kept = self.undecryptable.as_ref().map_or(0, |kept| {
                size_of::<(Arrival, Vec<u8>)>() + kept.1.capacity()
            });
            size_of::<Handshake<T>>() + spaces + hs.token.capacity() + kept
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
            + self.queue.capacity() * size_of::<u64>()
            + self.datagrams.capacity() * size_of::<Bytes>()
            + self.datagram_bytes
    }
}

impl<T> Handshake<T> {
    pub(crate) fn new(
        tls: T,
        keys: LevelKeys,
        odcid: ConnectionId,
        retry_scid: Option<ConnectionId>,
        (deadline, until): (Time, Time),
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
            deadline: deadline.min(until),
            until,
        }
    }
}

/// The active part: not idle, but a million may wake at once.
const _: () = assert!(size_of::<Active<[u64; 64]>>() <= 1_024);
