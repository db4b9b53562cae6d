//! What the operator chooses, per endpoint.

use crate::blocks::Blocks;
use crate::cid::CidFormat;
use crate::limits;
use crate::params::{Params, Side};

/// Limits and sizes of connections.
#[derive(Clone, Debug)]
pub struct Transport {
    /// Idle timeout; zero for none (RFC 9000 10.1).
    pub idle_timeout_ms: u32,
    /// First receive window of each stream: memory promised per stream (T8).
    pub stream_window: u32,
    /// First receive window of the connection.
    pub connection_window: u32,
    /// Bidirectional streams the peer may have open.
    pub streams_bidi: u32,
    /// Unidirectional streams the peer may have open.
    pub streams_uni: u32,
    /// The largest DATAGRAM frame accepted; zero refuses them (RFC 9221 3).
    pub datagram_frame_max: u16,
    /// Bytes of unsent datagrams kept; the oldest go first.
    pub datagram_send_buffer: usize,
    /// Bytes of each stream that were written and not yet acknowledged.
    pub stream_send_buffer: usize,
    /// UDP payload that is sent: 1,200 to 1,452 (T12).
    pub payload_max: u16,
    /// The largest UDP payload that path MTU discovery tries; none above `payload_max` (RFC 8899).
    pub mtu_max: u16,
    /// The round-trip time assumed before the first sample (RFC 9002 6.2.2).
    pub initial_rtt_ms: u32,
    /// How long this side may take to acknowledge (RFC 9000 13.2.1): an ACK waits for a packet to ride
    /// on, for a second packet, and until 5 ms before this. Up to 5 ms it waits for nothing but the end
    /// of the batch, which is also how an idle connection acknowledges (T10).
    pub max_ack_delay_ms: u16,
    /// Clients: keep TLS for the first ticket (T6).
    pub resumption: bool,
    /// Servers: send a NEW_TOKEN to each validated client.
    pub new_tokens: bool,
    /// Packets sent under one key before it is updated; the limit of the suite binds besides
    /// (RFC 9001 6.6).
    pub key_update_after: u64,
    /// Packets that may be sent under one key at all, and packets that may fail authentication in the
    /// life of a connection, where that is below the limits of the suite (RFC 9001 6.6).
    pub key_limits: KeyLimits,
    /// Spread a full window over the round trip (RFC 9002 7.7).
    pub pacing: bool,
    /// How long a handshake may take: slow ones hold half-open state.
    pub handshake_timeout_ms: u32,
    /// How long, of that, the client's first message may take at a server.
    pub hello_timeout_ms: u32,
}

/// Limits on the use of keys, in packets, below those of the cipher suite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyLimits {
    /// Sent under one key.
    pub confidentiality: u64,
    /// Received without being authentic.
    pub integrity: u64,
}

impl KeyLimits {
    /// Those of the suite alone.
    pub const NONE: Self = Self {
        confidentiality: u64::MAX,
        integrity: u64::MAX,
    };
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            idle_timeout_ms: 90_000,
            stream_window: 8 << 10,
            connection_window: 16 << 10,
            streams_bidi: 1,
            streams_uni: 0,
            datagram_frame_max: 1_200,
            datagram_send_buffer: 16 << 10,
            stream_send_buffer: 64 << 10,
            payload_max: 1_200,
            mtu_max: 1_452,
            initial_rtt_ms: 333,
            max_ack_delay_ms: 25,
            resumption: false,
            new_tokens: false,
            key_update_after: 1 << 22,
            key_limits: KeyLimits::NONE,
            pacing: true,
            handshake_timeout_ms: limits::HANDSHAKE_TIMEOUT_MS,
            hello_timeout_ms: limits::HELLO_TIMEOUT_MS,
        }
    }
}

impl Transport {
    /// Room that the largest datagram takes.
    pub(crate) fn datagram_room(&self) -> usize {
        usize::from(self.payload_max.max(self.mtu_max))
    }

    /// The parameters to advertise; ids and the reset token are added by the endpoint.
    pub(crate) fn params(&self, side: Side) -> Params {
        let streams = |n: u32| u64::from(n);
        let window = u64::from(self.stream_window);
        Params {
            max_idle_timeout_ms: u64::from(self.idle_timeout_ms),
            max_udp_payload_size: limits::UDP_PAYLOAD_MAX.into(),
            initial_max_data: u64::from(self.connection_window),
            initial_max_stream_data_bidi_local: window,
            initial_max_stream_data_bidi_remote: window,
            initial_max_stream_data_uni: window,
            initial_max_streams_bidi: streams(self.streams_bidi),
            initial_max_streams_uni: streams(self.streams_uni),
            max_ack_delay_ms: u64::from(self.max_ack_delay_ms),
            // Our clients move only on purpose of the application, servers never.
            disable_active_migration: side.is_client(),
            active_connection_id_limit: limits::PEER_IDS_MAX as u64,
            max_datagram_frame_size: u64::from(self.datagram_frame_max),
            ..Params::default()
        }
    }
}

/// Keys, seeds and identity of an endpoint: one per shard.
#[derive(Clone)]
pub struct Config {
    /// How own ids look.
    pub cid_format: CidFormat,
    /// Key of the permutation behind own ids (T2); shared by all shards.
    pub cid_key: [u8; 16],
    /// Key of stateless reset tokens (T1); a file, persistent, shared by all shards.
    pub reset_key: [u8; 32],
    /// Key of address validation tokens; a file, persistent, shared by all shards.
    pub token_key: [u8; 32],
    /// A persisted counter of process starts, so that an id never recurs under its key (T2).
    pub epoch: u16,
    /// Seed of the endpoint's generator (T3).
    pub seed: [u8; 32],
    /// Seconds of wall clock at [`crate::Time::ZERO`]: tokens outlive the process.
    pub wall_clock_s: u64,
    /// Handshakes under way before a newcomer takes the place of another, or none (T11).
    pub half_open_max: usize,
    /// What counts as one peer of those handshakes (T11).
    pub blocks: Blocks,
    /// Handshakes from unvalidated addresses under way before Retry is asked of new ones (T11).
    pub retry_above: usize,
    /// Bytes that all connections together may have in flight: active parts, reassembly, data not
    /// acknowledged (T8). Beyond it the connection with the most is closed.
    pub in_flight_bytes_max: usize,
    /// Stateless resets a second (T1); zero sends none.
    pub resets_per_s: u32,
    /// Whether a broken invariant of one connection panics, as tests want it, or closes that connection
    /// and is counted ([`crate::Stats::invariants_broken`]), as a server with many others wants it.
    pub strict: bool,
    /// Limits of connections.
    pub transport: Transport,
}

impl Config {
    /// A configuration with the given secrets and the defaults of production.
    #[must_use]
    pub fn new(cid_format: CidFormat, seed: [u8; 32]) -> Self {
        Self {
            cid_format,
            cid_key: [0; 16],
            reset_key: [0; 32],
            token_key: [0; 32],
            epoch: 0,
            seed,
            wall_clock_s: 0,
            half_open_max: 4_096,
            blocks: Blocks::default(),
            retry_above: 1_000,
            in_flight_bytes_max: limits::IN_FLIGHT_BYTES_MAX,
            resets_per_s: limits::RESETS_PER_S,
            strict: cfg!(debug_assertions),
            transport: Transport::default(),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("cid_format", &self.cid_format)
            .field("epoch", &self.epoch)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}
