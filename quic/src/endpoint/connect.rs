//! A client's new connections.

use std::fmt;

use super::Endpoint;
use crate::connection::{Cx, Flags, Handshake, Path, initial_level};
use crate::crypto::{Aead, Tls, TlsError};
use crate::event::Handle;
use crate::packet::ConnectionId;
use crate::params::{Params, Side};
use crate::time::Time;

/// Where a new client connection goes.
#[derive(Clone, Debug)]
pub struct Connect<'a> {
    /// The name that TLS checks.
    pub server_name: &'a str,
    /// From where to where.
    pub path: Path,
    /// A token of an earlier connection (RFC 9000 8.1.3); may be empty.
    pub token: Vec<u8>,
    /// The home that the server's `Welcome` named: a prefix and how many bits of it count (T9).
    pub home: Option<(u16, u8)>,
    /// The application's index.
    pub app: u32,
}

/// Why no connection was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectError {
    /// All slots are in use.
    Full,
    /// With empty ids, one connection per socket and peer.
    PathInUse,
    /// TLS refused the name or the configuration.
    Tls(TlsError),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("all slots are in use"),
            Self::PathInUse => f.write_str("the path already has a connection with an empty id"),
            Self::Tls(e) => write!(f, "TLS refused: alert {}", e.alert),
        }
    }
}

impl std::error::Error for ConnectError {}

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// Starts a client's connection.
    pub fn connect(
        &mut self,
        now: Time,
        tls: &T::ClientConfig,
        connect: Connect<'_>,
    ) -> Result<Handle, ConnectError> {
        let empty = self.codec.format.is_empty();
        let taken = |handle: &Handle| self.is_live(*handle);
        if empty && self.paths.get(&connect.path).is_some_and(taken) {
            return Err(ConnectError::PathInUse);
        }
        let dcid = self.first_id(connect.home);
        let index = self.slab.allocate().ok_or(ConnectError::Full)?;
        let (conn, mut cx) = parts!(self, now, index);
        let handle = cx.handle;
        let params = Params {
            initial_source_connection_id: Some(cx.own_cid(0)),
            ..cx.transport.params(Side::Client)
        };
        let grease = cx.rng.next();
        let tls = match T::client(tls, connect.server_name, params.encode(Some(grease))) {
            Ok(tls) => tls,
            Err(error) => {
                self.slab.release(index);
                return Err(ConnectError::Tls(error));
            }
        };
        let keys = initial_level(cx.aead, Side::Client, &dcid);
        let until = now + u64::from(cx.transport.handshake_timeout_ms) * 1_000;
        let mut hs = Handshake::new(tls, keys, dcid, None, (until, until));
        hs.token = connect.token;
        conn.app = connect.app;
        conn.peer_cid = dcid;
        conn.start(&mut cx, Side::Client, connect.path, hs);
        conn.flags.set(Flags::VALIDATED, true);
        if let Err(error) = conn.pump_tls(&mut cx) {
            conn.close_with_error(&mut cx, error);
        }
        if empty {
            self.paths.insert(connect.path, handle);
        }
        self.settle(now, index, true);
        Ok(handle)
    }

    /// A client's first destination id: ten bytes, of which the named bits lead home (T9), and at
    /// least eight are random (RFC 9000 7.2).
    fn first_id(&mut self, home: Option<(u16, u8)>) -> ConnectionId {
        let mut bytes: [u8; 10] = self.rng.bytes();
        if let Some((prefix, bits)) = home {
            let keep = u16::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
            let random = u16::from_be_bytes([bytes[0], bytes[1]]);
            let mixed = (prefix & !keep) | (random & keep);
            bytes[..2].copy_from_slice(&mixed.to_be_bytes());
        }
        ConnectionId::new(&bytes).expect("10 bytes")
    }
}
