//! What a caller asks of an endpoint beside the drive contract: who is there, who is known, how much
//! room a stream has.

use std::net::SocketAddr;

use super::Endpoint;
use crate::connection::{Connection, Path};
use crate::crypto::{Aead, Tls};
use crate::event::Handle;
use crate::packet::Packet;
use crate::streams::SendState;

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
    /// True for the handle of a connection that is not forgotten yet.
    #[must_use]
    pub fn contains(&self, handle: Handle) -> bool {
        self.is_live(handle)
    }

    /// True when a datagram's first packet belongs to a connection of this endpoint, so that it need
    /// not wait behind newcomers (T11).
    #[must_use]
    pub fn expects(&self, socket: u8, remote: SocketAddr, data: &[u8]) -> bool {
        let path = Path { socket, remote };
        Packet::parse(data, self.codec.format.len())
            .is_ok_and(|packet| self.route(&packet, path).is_some())
    }

    /// Changes how many handshakes from unvalidated addresses may be under way before Retry is asked
    /// of new ones: an overload that only the caller sees (T11).
    pub fn set_retry_above(&mut self, handshakes: usize) {
        self.config.retry_above = handshakes;
    }

    /// Visits every connection, those that close included.
    pub fn for_each(&self, mut each: impl FnMut(Handle)) {
        self.slab.sweep(
            |_| true,
            |index, conn| each(Handle::of(index, conn.generation)),
        );
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
