//! What the endpoint tells its caller.

use bytes::Bytes;

use crate::error::CloseReason;
use crate::frame::Dir;

/// Names a connection of an endpoint. It stays unique: a slot's generation grows with each use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Handle {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Handle {
    /// The dense index of the connection: below 2^24, reused after the connection is gone.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// How often the index was used before.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// The handle of these parts. One that no connection has finds nothing.
    #[must_use]
    pub const fn of(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }
}

/// What the handshake found out, copied before TLS is dropped (T6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connected {
    /// The protocol agreed on.
    pub alpn: Box<[u8]>,
    /// The name the client asked for (server side).
    pub server_name: Option<Box<str>>,
    /// The peer's certificates, end entity first.
    pub peer_certificates: Vec<Vec<u8>>,
    /// The session was resumed from a ticket.
    pub resumed: bool,
}

/// An event of one connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The handshake is complete: data may flow.
    Connected(Box<Connected>),
    /// The handshake is confirmed (RFC 9001 4.1.2).
    Confirmed,
    /// The peer opened a stream.
    StreamOpened(u64),
    /// Data or the end of a stream can be read. Not repeated before a read found nothing more.
    StreamReadable(u64),
    /// A stream that refused bytes has room again.
    StreamWritable(u64),
    /// Everything up to the end of a stream was acknowledged.
    StreamDelivered(u64),
    /// The peer abandoned its half of a stream.
    StreamReset {
        /// The stream.
        id: u64,
        /// The application's code.
        code: u64,
    },
    /// The peer does not want this side's half of a stream; it was reset.
    StreamStopped {
        /// The stream.
        id: u64,
        /// The application's code.
        code: u64,
    },
    /// The peer permits more streams.
    StreamsAvailable(Dir),
    /// An unreliable datagram (RFC 9221).
    Datagram(Bytes),
    /// A PING of this side was acknowledged (T10).
    Pong,
    /// The peer moved to another address and it was validated (RFC 9000 9).
    Migrated,
    /// A token for the next connection to this server (RFC 9000 8.1.3; client side).
    NewToken(Bytes),
    /// A TLS ticket arrived (client side).
    Ticket,
    /// The connection is over; its handle is invalid once its last packets are sent.
    Closed(CloseReason),
}
