//! What an engine tells an application, and the names they use for a connection.

use std::net::SocketAddr;

use bytes::Bytes;

/// A connection of one thread: dense, so that an application can index its own slab with it, and
/// checked by a generation, so that a name of a connection that is gone finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Slot of the thread's connection table. Reused after the connection is gone.
    pub index: u32,
    /// How often the slot was used before.
    pub generation: u32,
}

/// What happened to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is complete. On a server this is the first that the application hears of the
    /// connection; on a client it follows a `connect`, and writing is possible from here on.
    Opened {
        /// The connection.
        conn: ConnId,
        /// The peer's address at this moment; a phone may move later.
        peer: SocketAddr,
        /// Whether the TLS session was resumed from a ticket.
        resumed: bool,
        /// Whether a token proved the peer's address before, and [`App::proven`](crate::App::proven) was asked.
        proven: bool,
    },
    /// There are bytes to `read`. Said again only when more arrive, so read until `None`, or come back.
    Readable {
        /// The connection.
        conn: ConnId,
    },
    /// A `write` that accepted less than it was given can be continued.
    Writable {
        /// The connection.
        conn: ConnId,
    },
    /// The peer will send nothing more, and everything that it sent was read.
    Finished {
        /// The connection.
        conn: ConnId,
    },
    /// The peer gave up a half of the stream: its own (RESET_STREAM), so that what was not read yet is lost, or
    /// this end's (STOP_SENDING), so that nothing that is written arrives any more. Once for each half.
    Aborted {
        /// The connection.
        conn: ConnId,
    },
    /// A DATAGRAM frame (RFC 9221).
    Datagram {
        /// The connection.
        conn: ConnId,
        /// Its payload.
        data: Bytes,
    },
    /// The connection is gone; the last event of it. Comes exactly once for every `Opened` on a server
    /// and for every successful `connect` on a client, whoever closed.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer's application closed it.
    Application {
        /// The peer's code.
        code: u64,
        /// The peer's words, not to be trusted.
        reason: Bytes,
    },
    /// This application closed it.
    Local,
    /// No protocol in common (TLS alert 120).
    Alpn,
    /// No QUIC version in common.
    VersionMismatch,
    /// The TLS handshake failed with this alert, sent or received.
    Tls {
        /// The alert's number.
        alert: u8,
    },
    /// A QUIC transport error.
    Transport {
        /// Code of RFC 9000 section 20.1.
        code: u64,
        /// Whether the peer reported it; otherwise this end found it.
        by_peer: bool,
    },
    /// Nothing was heard for the idle timeout.
    IdleTimeout,
    /// The handshake was not complete in its time.
    HandshakeTimeout,
    /// The peer has no memory of the connection (RFC 9000 section 10.3): it restarted.
    StatelessReset,
    /// The engine had no connection ids left.
    Exhausted,
}

impl CloseReason {
    /// A name for metrics and reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Application { .. } => "application",
            Self::Local => "local",
            Self::Alpn => "alpn",
            Self::VersionMismatch => "version_mismatch",
            Self::Tls { .. } => "tls",
            Self::Transport { .. } => "transport",
            Self::IdleTimeout => "idle_timeout",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::StatelessReset => "stateless_reset",
            Self::Exhausted => "exhausted",
        }
    }
}

/// The home hint of T9: the first `bits` bits of the next first connection id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomePrefix {
    /// The bits, left aligned: the first bit is the most significant.
    pub prefix: u16,
    /// How many of them count, at most 16.
    pub bits: u8,
}

/// Where a client connects to.
#[derive(Clone, Debug)]
pub struct ConnectParams {
    /// The server's address.
    pub remote: SocketAddr,
    /// The name that the server's certificate must have.
    pub server_name: String,
    /// The home hint of the last `Welcome`, if there was one (T9).
    pub home: Option<HomePrefix>,
    /// Which socket of this thread to use; `None` takes them in turn.
    pub socket: Option<u16>,
}

impl ConnectParams {
    /// Connects to `remote`, whose certificate names `server_name`, with no hint, on any socket.
    pub fn new(remote: SocketAddr, server_name: impl Into<String>) -> Self {
        Self {
            remote,
            server_name: server_name.into(),
            home: None,
            socket: None,
        }
    }
}
