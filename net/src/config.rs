//! What a server or a client is made from, with every default and its reason.

use std::{net::SocketAddr, sync::Arc, time::Duration};

pub use roadstead_quic::Blocks;

use crate::tls::{ClientTls, ServerTls};

/// Messages that may wait in one thread's mailbox before `send` gives them back.
pub const MAILBOX_DEFAULT: usize = 16 * 1024;

/// Strays that may wait for one shard (T1). A stray is rare: a GSO tail or a first contact without hint.
pub const STRAYS_MAX: usize = 4 * 1024;

/// Largest datagram that is looked at: what both engines advertise (RFC 9000 section 18.2). One that waits for its
/// turn or for its shard takes no more (T8).
pub const DATAGRAM_BYTES_MAX: usize = roadstead_quic::limits::UDP_PAYLOAD_MAX as usize;

/// Half-open handshakes of a shard past which newcomers must prove their address (T11).
pub const RETRY_HALF_OPEN_DEFAULT: usize = 1_000;

/// Half-open handshakes of a shard past which a newcomer takes the place of another, or none: 4,096 of about 20 KB
/// are 80 MB.
pub const HALF_OPEN_MAX_DEFAULT: usize = 4_096;

/// Initials that may wait for their turn: established sessions go first (T11). The oldest give way, first
/// those whose address proved nothing: who waited longest has asked again.
pub const INITIAL_BACKLOG_MAX: usize = 4_096;

/// Handshakes begun per turn of the loop: 8 are about a millisecond of CPU.
pub const INITIALS_PER_TURN: u64 = 8;

/// How long a turn may answer Initials that begin none: some 200 of Retry, each a fiftieth of a handshake.
pub const ANSWERS_PER_TURN: Duration = Duration::from_millis(1);

/// Stateless resets per second and shard (T1): 50,000 clients of a restarted shard hear of it in 5 s.
pub const RESETS_PER_SECOND_DEFAULT: u32 = 10_000;

/// Bytes that one connection may hold for its application beside what is in flight: two frames of the
/// largest size, so that a frame is accepted whole while another is on its way.
pub const SEND_BACKLOG_BYTES_DEFAULT: usize = 128 * 1024;

/// The least idle timeout (T10).
pub const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(90);

/// Keys that every shard shares and that outlive the process, so that a restart is recognised (T1).
#[derive(Clone)]
pub struct SecretKeys {
    /// Makes stateless reset tokens: token = HMAC(key, connection id).
    pub reset: [u8; 32],
    /// Seals Retry tokens.
    pub token: [u8; 32],
    /// How often a process started with these keys. Kept in a file and counted up, so that a
    /// connection id never recurs under its key (T2, RFC 9000 section 10.3.2).
    pub epoch: u16,
}

impl std::fmt::Debug for SecretKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKeys(..)")
    }
}

impl SecretKeys {
    /// New keys from the library's random source.
    pub fn random() -> Self {
        Self {
            reset: crate::tls::random_bytes(),
            token: crate::tls::random_bytes(),
            epoch: 0,
        }
    }
}

/// The QUIC parameters of both ends. The defaults are the smallest configuration of an idle session.
#[derive(Clone, Debug)]
pub struct Transport {
    /// Silence after which a connection is gone. See [`Transport::idle_timeout_for`].
    pub idle_timeout: Duration,
    /// Time that a handshake may take.
    pub handshake_timeout: Duration,
    /// Connection window advertised before authentication (T8): flow control advertised is memory promised.
    pub receive_window_initial: u32,
    /// Largest window that `raise_receive_window` may set.
    pub receive_window_max: u32,
    /// Bytes in flight per connection that the engine keeps for retransmission.
    pub send_window: u32,
    /// Bytes that `write` accepts beyond that. See [`SEND_BACKLOG_BYTES_DEFAULT`].
    pub send_backlog: usize,
    /// Bytes of DATAGRAM frames kept per direction. With 0, the default, this end announces none (RFC 9221
    /// section 3), and the connection of a peer that sends one all the same is closed.
    pub datagram_buffer: usize,
    /// UDP payload of every packet: 1,200 to 1,252 until a path's limit is discovered (T12).
    pub udp_payload: u16,
    /// Whether to send trains of one session with segmentation offload (T12).
    pub gso: bool,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            idle_timeout: IDLE_TIMEOUT_MIN,
            handshake_timeout: Duration::from_secs(10),
            receive_window_initial: 8 * 1024,
            receive_window_max: 256 * 1024,
            send_window: 64 * 1024,
            send_backlog: SEND_BACKLOG_BYTES_DEFAULT,
            // Nothing is said in them yet, and what is announced must be kept.
            datagram_buffer: 0,
            udp_payload: 1_200,
            gso: true,
        }
    }
}

impl Transport {
    /// T10: three heartbeats may be lost, and never less than 90 s.
    pub fn idle_timeout_for(heartbeat: Duration) -> Duration {
        (heartbeat * 3).max(IDLE_TIMEOUT_MIN)
    }
}

/// A server: one thread per shard, one socket per shard and address.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen. Wildcards are expanded at start (T12); port 0 chooses one, the same for all shards.
    pub addresses: Vec<SocketAddr>,
    /// How many shards.
    pub shards: u16,
    /// Certificate, ALPN and tickets.
    pub tls: Arc<ServerTls>,
    /// Keys that outlive the process.
    pub keys: SecretKeys,
    /// QUIC parameters.
    pub transport: Transport,
    /// See [`MAILBOX_DEFAULT`].
    pub mailbox_capacity: usize,
    /// See [`RETRY_HALF_OPEN_DEFAULT`].
    pub retry_half_open: usize,
    /// See [`HALF_OPEN_MAX_DEFAULT`].
    pub half_open_max: usize,
    /// Which addresses are one peer, whose part of the half-open handshakes is bounded (T11).
    pub blocks: Blocks,
    /// See [`RESETS_PER_SECOND_DEFAULT`].
    pub resets_per_second: u32,
    /// Receive buffer wanted per socket. The kernel may give less.
    pub receive_buffer: usize,
    /// Whether the kernel steers packets to their shards. Without, it spreads them by address, and the
    /// loops forward what is not theirs: right, and slow.
    pub steer_in_kernel: bool,
}

impl ServerConfig {
    /// A server with every default.
    pub fn new(
        addresses: Vec<SocketAddr>,
        shards: u16,
        tls: Arc<ServerTls>,
        keys: SecretKeys,
    ) -> Self {
        Self {
            addresses,
            shards,
            tls,
            keys,
            transport: Transport::default(),
            mailbox_capacity: MAILBOX_DEFAULT,
            retry_half_open: RETRY_HALF_OPEN_DEFAULT,
            half_open_max: HALF_OPEN_MAX_DEFAULT,
            blocks: Blocks::default(),
            resets_per_second: RESETS_PER_SECOND_DEFAULT,
            // A reader that drains lost nothing with 4 MiB; a burst while nobody reads wants more.
            receive_buffer: 16 * 1024 * 1024,
            steer_in_kernel: true,
        }
    }
}

/// Client endpoints for load: many sessions share few sockets (T5).
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// How many threads, each with its own ring and sockets.
    pub threads: u16,
    /// How many sockets in all, dealt out to the threads. At least one per thread.
    pub sockets: u16,
    /// Local addresses to bind to, in turn. The port is chosen by the kernel.
    pub local: Vec<SocketAddr>,
    /// Trust, ALPN and resumption.
    pub tls: Arc<ClientTls>,
    /// QUIC parameters.
    pub transport: Transport,
    /// Length of this end's connection ids, 4 to 8 bytes (T5).
    pub connection_id_length: u8,
    /// See [`MAILBOX_DEFAULT`].
    pub mailbox_capacity: usize,
    /// Receive buffer wanted per socket. 64 of 4 MiB stay under a small machine's udp_mem.
    pub receive_buffer: usize,
}

impl ClientConfig {
    /// A client of `threads` threads and `sockets` sockets on all IPv4 addresses, with every default.
    pub fn new(threads: u16, sockets: u16, tls: Arc<ClientTls>) -> Self {
        // A client trusts the server that it chose with the memory of some large frames.
        let transport = Transport {
            receive_window_initial: 64 * 1024,
            ..Transport::default()
        };
        Self {
            threads,
            sockets,
            local: vec![SocketAddr::from(([0, 0, 0, 0], 0))],
            tls,
            transport,
            connection_id_length: 8,
            mailbox_capacity: MAILBOX_DEFAULT,
            receive_buffer: 4 * 1024 * 1024,
        }
    }
}
