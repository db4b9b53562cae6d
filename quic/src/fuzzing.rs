//! The door for the fuzz targets (`fuzz/`) and for this crate's own tests: what they call and nobody else
//! can. Absent without the feature.

use std::net::SocketAddr;

use crate::crypto::{Aead, Tls};
use crate::endpoint::Endpoint;
use crate::event::Handle;
use crate::packet::ConnectionId;
use crate::time::Time;
use crate::token::{Tokens, Verdict};

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// Takes a connection's 1-RTT packet numbers to where no test can walk: as if the peer had left out
    /// numbers and `received` was its largest one.
    pub fn leap_received(&mut self, handle: Handle, received: u64) {
        if let Some(conn) = self.find(handle).map(|index| self.connection(index)) {
            conn.pn.on_received(received);
        }
    }

    /// The same for the next number that this side sends, under keys that are still fresh.
    pub fn leap_sent(&mut self, handle: Handle, next: u64) {
        if let Some(conn) = self.find(handle).map(|index| self.connection(index)) {
            conn.pn.next = conn.pn.next.max(next);
            conn.phases.local_first = conn.pn.next;
        }
    }

    /// Breaks an invariant of a connection with something in flight: a byte came that nobody can read.
    pub fn break_invariant(&mut self, handle: Handle) {
        let conn = self.find(handle).map(|index| self.connection(index));
        if let Some(active) = conn.and_then(|conn| conn.active.as_mut()) {
            active.rx_sum += 1;
        }
    }
}

/// What a token proved of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// It was in a Retry to a client whose first id was this.
    Retried(ConnectionId),
    /// It was in a NEW_TOKEN frame.
    Known,
}

/// Issues and checks address validation tokens.
#[derive(Debug)]
pub struct AddressTokens<A> {
    tokens: Tokens,
    aead: A,
}

impl<A: Aead> AddressTokens<A> {
    /// With the key of an endpoint, and the wall clock at [`Time::ZERO`].
    #[must_use]
    pub const fn new(key: [u8; 32], wall_clock_s: u64, aead: A) -> Self {
        Self {
            tokens: Tokens::new(key, wall_clock_s),
            aead,
        }
    }

    /// The token of a Retry.
    #[must_use]
    pub fn retry(
        &self,
        now: Time,
        remote: SocketAddr,
        odcid: &ConnectionId,
        retry_scid: &ConnectionId,
    ) -> Vec<u8> {
        self.tokens
            .retry(&self.aead, now, remote, odcid, retry_scid)
    }

    /// The token of a NEW_TOKEN frame.
    #[must_use]
    pub fn fresh(&self, now: Time, remote: SocketAddr, nonce: u64) -> Vec<u8> {
        self.tokens.fresh(&self.aead, now, remote, nonce)
    }

    /// What a token in an Initial proves, if anything; it is used up by that.
    pub fn check(
        &mut self,
        now: Time,
        remote: SocketAddr,
        dcid: &ConnectionId,
        token: &[u8],
    ) -> Option<Proof> {
        match self.tokens.check(&self.aead, now, remote, dcid, token) {
            Verdict::Retried { odcid, tag } => {
                self.tokens.use_up(now, tag);
                Some(Proof::Retried(odcid))
            }
            Verdict::Known => Some(Proof::Known),
            Verdict::Spent | Verdict::Unknown => None,
        }
    }
}
