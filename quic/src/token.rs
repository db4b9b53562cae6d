//! Address validation tokens (RFC 9000 8.1; T11): authenticated, stateless but for single use.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use crate::coding::Reader;
use crate::crypto::{Aead, same};
use crate::limits::{NEW_TOKEN_LIFE_S, RETRY_TOKEN_LIFE_S, USED_TOKENS_MAX};
use crate::packet::ConnectionId;

const RETRY: u8 = 1;
const NEW: u8 = 2;

/// What a token in an Initial proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// From a Retry of ours: the address is validated, and this was the client's first id. The tag is what
    /// [`Tokens::use_up`] takes once the handshake begins.
    Retried { odcid: ConnectionId, tag: [u8; 16] },
    /// From a NEW_TOKEN of ours: the address is validated.
    Known,
    /// A Retry token of ours that is stale, used, or for another address: INVALID_TOKEN
    /// (RFC 9000 8.1.3).
    Spent,
    /// Not ours, or stale: as if it were absent (RFC 9000 8.1.3).
    Unknown,
}

/// Makes and checks tokens.
pub(crate) struct Tokens {
    key: [u8; 32],
    wall_clock_s: u64,
    used: BTreeSet<[u8; 16]>,
    used_order: VecDeque<(u64, [u8; 16])>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("used", &self.used.len())
            .finish_non_exhaustive()
    }
}

impl Tokens {
    pub(crate) const fn new(key: [u8; 32], wall_clock_s: u64) -> Self {
        Self {
            key,
            wall_clock_s,
            used: BTreeSet::new(),
            used_order: VecDeque::new(),
        }
    }

    fn now_s(&self, now: crate::Time) -> u64 {
        self.wall_clock_s + now.as_millis() / 1_000
    }

    /// A Retry token: type, time, the original id, a tag that binds them to address, port and the
    /// id of the Retry.
    pub(crate) fn retry<A: Aead>(
        &self,
        aead: &A,
        now: crate::Time,
        remote: SocketAddr,
        odcid: &ConnectionId,
        retry_scid: &ConnectionId,
    ) -> Vec<u8> {
        let mut token = vec![RETRY];
        token.extend_from_slice(&self.now_s(now).to_be_bytes());
        token.extend_from_slice(odcid.as_slice());
        let port = remote.port().to_be_bytes();
        let tag = self.tag(
            aead,
            &token,
            &ip_bytes(remote),
            &port,
            retry_scid.as_slice(),
        );
        token.extend_from_slice(&tag);
        token
    }

    /// A NEW_TOKEN token: type, time, and a tag that binds them to the address without its port,
    /// which changes between connections (RFC 9000 8.1.3). The nonce makes each unique.
    pub(crate) fn fresh<A: Aead>(
        &self,
        aead: &A,
        now: crate::Time,
        remote: SocketAddr,
        nonce: u64,
    ) -> Vec<u8> {
        let mut token = vec![NEW];
        // Minutes, so that the time in a token does not identify a session.
        token.extend_from_slice(&(self.now_s(now) / 60 * 60).to_be_bytes());
        token.extend_from_slice(&nonce.to_be_bytes());
        let tag = self.tag(aead, &token, &ip_bytes(remote), &[], &[]);
        token.extend_from_slice(&tag);
        token
    }

    fn tag<A: Aead>(&self, aead: &A, body: &[u8], ip: &[u8], port: &[u8], id: &[u8]) -> [u8; 16] {
        // Each part has a fixed length or is the last one.
        let length = [body.len().to_le_bytes()[0], ip.len().to_le_bytes()[0]];
        let mac = aead.hmac(&self.key, &[b"token", &length, body, ip, port, id]);
        mac[..16].try_into().expect("16 of 32 bytes")
    }

    /// What a token proves. It can be asked again: a token is used up by [`Tokens::use_up`] alone.
    pub(crate) fn check<A: Aead>(
        &self,
        aead: &A,
        now: crate::Time,
        remote: SocketAddr,
        dcid: &ConnectionId,
        token: &[u8],
    ) -> Verdict {
        let Some((body, tag)) = token.len().checked_sub(16).map(|at| token.split_at(at)) else {
            return Verdict::Unknown;
        };
        let mut r = Reader::new(body);
        let (Some(kind), Some(time)) = (r.u8(), r.array::<8>().map(u64::from_be_bytes)) else {
            return Verdict::Unknown;
        };
        let now_s = self.now_s(now);
        let age = now_s.saturating_sub(time);
        let ip = ip_bytes(remote);
        match kind {
            RETRY => {
                let Some(odcid) = ConnectionId::new(r.take_rest()) else {
                    return Verdict::Unknown;
                };
                let port = remote.port().to_be_bytes();
                let expected = self.tag(aead, body, &ip, &port, dcid.as_slice());
                let used = self.used.contains(&expected);
                if !same(&expected, tag) || age > RETRY_TOKEN_LIFE_S || used {
                    return Verdict::Spent;
                }
                Verdict::Retried {
                    odcid,
                    tag: expected,
                }
            }
            NEW if age <= NEW_TOKEN_LIFE_S + 60 => {
                let expected = self.tag(aead, body, &ip, &[], &[]);
                if same(&expected, tag) {
                    Verdict::Known
                } else {
                    Verdict::Unknown
                }
            }
            _ => Verdict::Unknown,
        }
    }

    /// Notes the use of a Retry token, of which each shard takes one (T11). Returns how many others it had to
    /// forget before they were stale, at most one.
    ///
    /// They are forgotten in the order of their use. Refusing tokens instead while too many are remembered
    /// would let whoever uses many keep all others out; one that is forgotten early can be used again by the
    /// address that it is bound to, or by whoever saw it there, for what is left of its 15 s.
    pub(crate) fn use_up(&mut self, now: crate::Time, tag: [u8; 16]) -> u64 {
        let now_s = self.now_s(now);
        while self
            .used_order
            .front()
            .is_some_and(|(until, _)| *until < now_s)
        {
            self.forget_oldest();
        }
        let full = self.used.len() >= USED_TOKENS_MAX;
        if full {
            self.forget_oldest();
        }
        if self.used.insert(tag) {
            self.used_order
                .push_back((now_s + RETRY_TOKEN_LIFE_S + 1, tag));
        }
        u64::from(full)
    }

    fn forget_oldest(&mut self) {
        if let Some((_, tag)) = self.used_order.pop_front() {
            self.used.remove(&tag);
        }
    }
}

fn ip_bytes(remote: SocketAddr) -> Vec<u8> {
    match remote.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;

    /// Who uses many tokens must not make those of others useless.
    #[test]
    fn tf2_t11_a_full_table_of_used_tokens_forgets_its_oldest() {
        let mut tokens = Tokens::new([0; 32], 1_000);
        let now = Time::from_millis(1_000);
        let tag = |n: usize| (n as u128).to_be_bytes();
        let forgotten = |tokens: &mut Tokens, from: usize, to: usize| -> u64 {
            (from..to).map(|n| tokens.use_up(now, tag(n))).sum()
        };
        assert_eq!(forgotten(&mut tokens, 0, USED_TOKENS_MAX), 0);
        assert_eq!(
            forgotten(&mut tokens, USED_TOKENS_MAX, USED_TOKENS_MAX + 3),
            3
        );
        assert_eq!(tokens.used.len(), USED_TOKENS_MAX);
        let used = [2, 3, USED_TOKENS_MAX + 2].map(|n| tokens.used.contains(&tag(n)));
        assert_eq!(used, [false, true, true]);
        // The stale ones go by themselves.
        let later = now + (RETRY_TOKEN_LIFE_S + 2) * 1_000_000;
        assert_eq!(tokens.use_up(later, tag(9)), 0);
        assert_eq!((tokens.used.len(), tokens.used_order.len()), (1, 1));
    }
}
