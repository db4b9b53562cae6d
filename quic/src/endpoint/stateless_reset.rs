//! Stateless resets (RFC 9000 10.3; T1): clients recognise them, servers send them within a budget.

use super::Endpoint;
use crate::cid::{CidFormat, reset_token};
use crate::connection::{Cx, Path};
use crate::crypto::{Aead, Tls};
use crate::event::Handle;
use crate::packet::Packet;
use crate::time::Time;

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// A datagram without a packet can still be a stateless reset (RFC 9000 10.3.1).
    pub(super) fn on_unparsed(&mut self, now: Time, path: Path, data: &[u8]) -> Option<Handle> {
        let handle = self.try_reset(now, path, data);
        self.stats.dropped += u64::from(handle.is_none());
        handle
    }

    /// RFC 9000 10.3.1: clients compare the end of datagrams that they cannot place with the tokens
    /// of their peers.
    pub(super) fn try_reset(&mut self, now: Time, path: Path, data: &[u8]) -> Option<Handle> {
        let tail: [u8; 16] = *data.last_chunk()?;
        let index = match self.codec.format {
            CidFormat::Empty => self.find(*self.paths.get(&path)?)?,
            _ => *self.resets.get(&tail)?,
        };
        let (conn, mut cx) = parts!(self, now, index);
        let handle = cx.handle;
        // RFC 9000 10.3.1: only tokens associated with the remote address.
        if conn.path().remote != path.remote || !conn.check_stateless_reset(&mut cx, Some(tail)) {
            return None;
        }
        self.settle(now, index, true);
        Some(handle)
    }

    /// RFC 9000 10.3; T1: only the owner of an id answers, within its own budget.
    pub(super) fn send_stateless_reset(
        &mut self,
        now: Time,
        path: Path,
        packet: &Packet,
        len: usize,
    ) {
        if !self.codec.format.owns(packet.dcid.as_slice()) {
            self.stats.strays += 1;
            return;
        }
        // RFC 9000 10.3.3: shorter than what caused it, so that resets do not loop. And a reset is
        // at least 21 bytes.
        let len = (len - 1).min(42);
        let answers = self.server.is_some() && !self.codec.format.is_empty();
        if !answers || len < 21 {
            self.stats.dropped += 1;
            return;
        }
        if !self.resets_allowed.take(now) {
            self.stats.resets_suppressed += 1;
            return;
        }
        let mut bytes = vec![0; len];
        self.rng.fill(&mut bytes);
        bytes[0] = 0x40 | (bytes[0] & 0x3f);
        let token = reset_token(&self.aead, &self.config.reset_key, &packet.dcid);
        bytes[len - 16..].copy_from_slice(&token);
        self.stats.resets_sent += 1;
        self.push_stateless(path, bytes);
    }
}
