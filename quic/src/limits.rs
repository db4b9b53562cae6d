//! Every cap of the engine in one place, with its reason (T8). What an operator may choose is in
//! [`crate::Config`] instead.

/// Own connection ids a peer may hold at once: one in use and one spare (T2, T18).
pub const OWN_IDS_MAX: usize = 2;

/// The `active_connection_id_limit` that is advertised: the least that RFC 9000 18.2 permits.
pub const PEER_IDS_MAX: usize = 2;

/// RETIRE_CONNECTION_ID frames waiting to be sent (T8; quic-go CVE-2024-22189): a peer that
/// makes more is closed.
pub const RETIRE_PENDING_MAX: usize = 4;

/// Gaps in the received data of one stream (T8): a packet that would make more is dropped without
/// an acknowledgement. Bounds the metadata of tiny fragments (quinn).
pub const STREAM_GAPS_MAX: usize = 32;

/// CRYPTO bytes buffered per level before the peer's address is validated: a client hello with a
/// post-quantum key share is 1.8 KB (T8, T11).
pub const CRYPTO_UNVALIDATED_MAX: u64 = 4 << 10;

/// CRYPTO bytes buffered per level afterwards; RFC 9000 7.5 asks for at least 4,096.
pub const CRYPTO_VALIDATED_MAX: u64 = 64 << 10;

/// CRYPTO bytes a client buffers after its handshake, when only tickets may come (T6).
pub const CRYPTO_POST_HANDSHAKE_MAX: u64 = 4 << 10;

/// Sent-packet records per connection: above any window that 1,200-byte packets fill, and a cap
/// where tiny packets would not be (T8).
pub const SENT_RECORDS_MAX: usize = 8_192;

/// Streams waiting for STREAM frames are visited at most this often per packet.
pub const STREAMS_PER_PACKET_MAX: usize = 8;

/// Bytes an unvalidated address may be sent for each byte it sent (RFC 9000 8.1).
pub const AMPLIFICATION: u64 = 3;

/// The initial congestion window and the smallest one, in packets (RFC 9002 7.2).
pub const INITIAL_WINDOW_PACKETS: u32 = 10;
/// The smallest congestion window, in packets (RFC 9002 7.2).
pub const MINIMUM_WINDOW_PACKETS: u32 = 2;

/// Packets sent back to back before pacing spreads the rest (RFC 9002 7.7).
pub const BURST_PACKETS: u64 = 16;

/// After so many packet numbers without an acknowledgement one is built, whatever the caller does (T20): what falls out
/// of the window of 128 unacknowledged is lost to the peer.
pub const ACK_AFTER: u8 = 48;

/// What is over (a closed connection, a key that was replaced) is kept for three probe timeouts, and no longer than this.
/// A peer that acknowledges late by just under the idle timeout makes its round trip grow to hours.
pub const KEPT_MAX: u64 = 10_000_000;

/// A connection without a word outlives its idle timeout by so much at the most, however long three probe timeouts are.
pub const IDLE_EXTENSION_MAX: u64 = 60_000_000;

/// The longest time between two probes of a session that is open, but for a path whose probe timeout is longer still
/// (T21). RFC 9002 6.2.1 doubles it without an end: after a minute without a network a message would wait for another.
pub const PTO_BACKED_OFF_MAX: u64 = 10_000_000;

/// Bytes that an active part sends before it searches for a larger MTU (RFC 8899): chat never does.
pub const MTU_SEARCH_AFTER: u32 = 64 << 10;
/// Probes of one size that are lost before the size is held to be too large (RFC 8899 5.1.2).
pub const MTU_PROBES_MAX: u8 = 3;
/// A search ends when what is left to gain is less than this many bytes.
pub const MTU_STEP_MIN: u16 = 16;
/// Losses of packets above the base size, with none of them arriving since, that make a black hole
/// (RFC 8899 4.3).
pub const BLACK_HOLE_LOSSES: u8 = 4;
/// Probe timeouts in a row that make packets above the base size suspect.
pub const BLACK_HOLE_PTOS: u8 = 2;

/// The `max_udp_payload_size` that is advertised (RFC 9000 18.2): what fits an Ethernet frame over IPv4. A
/// larger datagram may be dropped unread, which bounds what waits (T8).
pub const UDP_PAYLOAD_MAX: u16 = 1_472;

/// Packets of one connection that are served in a [`QUOTA_WINDOW_MS`] while the shard is behind (T21). A
/// client that fills its window of 64 KiB four times in it has sent 220; a byte counts to it.
pub const QUOTA_PACKETS: u8 = u8::MAX;
/// See [`QUOTA_PACKETS`].
pub const QUOTA_WINDOW_MS: u64 = 10;

/// The longest reason phrase kept from a peer's close.
pub const CLOSE_REASON_MAX: usize = 128;

/// Handshakes that take longer are dropped, unless configured otherwise.
pub const HANDSHAKE_TIMEOUT_MS: u32 = 10_000;

/// How long a server waits for a ClientHello that is not complete. It has nearly always come in one flight,
/// and one piece of it holds a place (T11).
pub const HELLO_TIMEOUT_MS: u32 = 3_000;

/// Handshakes that one block of addresses may have under way (T11): a sixteenth of those that are begun
/// without a proof of the address. At a round trip of 100 ms that is 640 new sessions a second.
pub const HALF_OPEN_BLOCK_MAX: usize = 64;

/// No block holds more than one in so many of the places for handshakes (T11).
pub const HALF_OPEN_PARTS: usize = 16;

/// A handshake younger than this is not given up for one that has as good a claim (T11): among equals its next
/// packet is on its way.
pub const DISPLACED_AFTER_MS: u64 = 1_000;

/// Refusals of a stale or used Retry token that are told to the client (RFC 9000 8.1.3), a second. Each costs
/// the keys of an Initial; beyond it such clients time out.
pub const REFUSALS_PER_S: u32 = 100;

/// Retry tokens live this long: a flood's tokens must not be collected.
pub const RETRY_TOKEN_LIFE_S: u64 = 15;

/// NEW_TOKEN tokens live this long.
pub const NEW_TOKEN_LIFE_S: u64 = 24 * 3_600;

/// Used Retry tokens remembered for single use (T11): more than handshakes can begin in the life of one. When
/// full, the oldest is forgotten.
pub const USED_TOKENS_MAX: usize = 65_536;

/// Bytes in flight of all connections of a shard, unless configured otherwise (T8): room for 4,096
/// handshakes and, beside them, thousands of full windows.
pub const IN_FLIGHT_BYTES_MAX: usize = 256 << 20;

/// Stateless resets a second, per endpoint, unless configured otherwise (T1): a restarted server
/// must tell a whole shard's clients within seconds, and no more traffic leaves than came in.
pub const RESETS_PER_S: u32 = 20_000;
/// Burst of the stateless reset budget.
pub const RESET_BURST: u64 = 4_000;

/// Version negotiation, Retry and refusal datagrams, and acknowledgements built early (T20), waiting for the caller to send them.
pub const STATELESS_QUEUE_MAX: usize = 1_024;

/// Of every so many packets, one number is skipped while data flows, to catch acknowledgements of
/// packets that were never received (RFC 9000 21.4; quiche CVE-2025-4820).
pub const SKIP_EVERY: u64 = 256;

/// The timer of a delayed ACK runs out this long before `max_ack_delay`: a loop may wake late, and the
/// promise covers that too (RFC 9000 18.2).
pub const ACK_TIMER_SLACK_MS: u16 = 5;

/// A closing connection answers at most this many packets (RFC 9000 10.2.1).
pub const CLOSE_REPEATS_MAX: u8 = 8;

/// Packets under a key that stay reserved for saying that it is used up: a closing connection sends
/// one close, and [`CLOSE_REPEATS_MAX`] again (RFC 9001 6.6).
pub const KEY_RESERVE: u64 = 16;

/// Packet numbers that stay reserved for saying that they are used up (RFC 9000 12.3): one close and
/// [`CLOSE_REPEATS_MAX`] again, and what a datagram takes before the check is made anew.
pub const NUMBER_RESERVE: u64 = 64;

/// PATH_CHALLENGE transmissions before a path is given up early.
pub const CHALLENGES_MAX: u8 = 4;

const _: () = assert!(KEY_RESERVE > CLOSE_REPEATS_MAX as u64);
const _: () = assert!(NUMBER_RESERVE > KEY_RESERVE);
const _: () = assert!(RETIRE_PENDING_MAX >= PEER_IDS_MAX);
const _: () = assert!(CRYPTO_UNVALIDATED_MAX >= 4_096, "RFC 9000 7.5");
