//! The door for the fuzz targets (`fuzz/`): what they call and nobody else can. Absent without the feature.

use std::net::SocketAddr;

use crate::Time;
use crate::crypto::Aead;
use crate::packet::ConnectionId;
use crate::token::{Tokens, Verdict};

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

    /// What a token in an Initial proves, if anything.
    pub fn check(
        &mut self,
        now: Time,
        remote: SocketAddr,
        dcid: &ConnectionId,
        token: &[u8],
    ) -> Option<Proof> {
        match self.tokens.check(&self.aead, now, remote, dcid, token) {
            Verdict::Retried { odcid } => Some(Proof::Retried(odcid)),
            Verdict::Known => Some(Proof::Known),
            Verdict::Spent | Verdict::Unknown => None,
        }
    }
}
