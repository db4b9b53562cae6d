//! Connection ids of both sides (RFC 9000 5.1, 19.15, 19.16).

use super::{Connection, Cx, OwnIds};
use crate::connection::receive::Arrival;
use crate::crypto::{Aead, Tls};
use crate::error::{TransportError, refuse};
use crate::limits::{PEER_IDS_MAX, RETIRE_PENDING_MAX};
use crate::packet::ConnectionId;
use crate::params::Side;
use crate::time::sat32;

/// A spare id that the peer gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerId {
    pub(crate) sequence: u32,
    pub(crate) id: ConnectionId,
    pub(crate) token: [u8; 16],
}

/// Progress through the TLS messages that a client skips after its handshake (T6).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PostHandshake {
    /// CRYPTO bytes consumed.
    pub(crate) offset: u64,
    pub(crate) header: [u8; 4],
    pub(crate) header_len: u8,
    pub(crate) body_left: u32,
}

/// The side box: spare ids of the peer, and what only clients keep.
#[derive(Debug, Default)]
pub(crate) struct PeerIds {
    pub(crate) spare: Option<Box<PeerId>>,
    /// Sequence numbers seen: all below `seen_base`, and the bits above it.
    seen_base: u32,
    seen: u32,
    /// The largest Retire Prior To.
    retired_below: u32,
    /// Clients: the reset token of the id in use (RFC 9000 10.3).
    pub(crate) token: Option<[u8; 16]>,
    pub(crate) post: PostHandshake,
}

impl PeerIds {
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.spare.as_ref().map_or(0, |_| size_of::<PeerId>())
    }

    /// Notes a sequence number; false when it was seen before. A gap beyond the window would need
    /// the peer to skip numbers, which it must not (RFC 9000 5.1.1). The last number of the 32 bits is
    /// refused, so that the base has an end too (T19).
    fn note(&mut self, sequence: u32) -> Result<bool, TransportError> {
        if sequence == u32::MAX {
            refuse!(CONNECTION_ID_LIMIT_ERROR, "the connection ids are used up");
        }
        if sequence < self.seen_base {
            return Ok(false);
        }
        let bit = sequence - self.seen_base;
        if bit >= 32 {
            refuse!(
                CONNECTION_ID_LIMIT_ERROR,
                "connection id sequence far ahead"
            );
        }
        let fresh = self.seen >> bit & 1 == 0;
        self.seen |= 1 << bit;
        let run = self.seen.trailing_ones();
        self.seen = self.seen.checked_shr(run).unwrap_or(0);
        self.seen_base += run;
        Ok(fresh)
    }
}

impl OwnIds {
    pub(crate) fn is_active(&self, sequence: u8) -> bool {
        self.active.contains(&Some(sequence))
    }

    /// A new id for a free place; `None` when both are in use or the numbers are used up.
    fn issue(&mut self) -> Option<u8> {
        let place = self.active.iter_mut().find(|p| p.is_none())?;
        // 255 is never issued, so that `next` does not wrap (T2: an id never recurs).
        let sequence = (self.next < u8::MAX).then_some(self.next)?;
        *place = Some(sequence);
        self.next += 1;
        Some(sequence)
    }
}

impl<T: Tls> Connection<T> {
    /// NEW_CONNECTION_ID (RFC 9000 5.1.1, 5.1.2, 19.15).
    pub(crate) fn on_new_cid<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        sequence: u64,
        retire_prior_to: u64,
        id: ConnectionId,
        token: [u8; 16],
    ) -> Result<(), TransportError> {
        // RFC 9000 19.15: not from a peer whose packets carry an empty destination id.
        if self.peer_cid.is_empty() {
            refuse!(PROTOCOL_VIOLATION, "NEW_CONNECTION_ID to an empty id");
        }
        let Ok(sequence) = u32::try_from(sequence) else {
            refuse!(
                CONNECTION_ID_LIMIT_ERROR,
                "connection id sequence far ahead"
            );
        };
        // RFC 9000 19.15, checked when the frame was parsed: not above the sequence.
        let prior = sat32(retire_prior_to).min(sequence);
        self.check_repeated_cid(sequence, &id, &token)?;
        let current = self.peer_seq;
        let ids = self.peer_ids.get_or_insert_default();
        if ids.seen_base == 0 {
            // The id of the handshake has number 0 (RFC 9000 5.1.1).
            ids.note(0)?;
        }
        let fresh = ids.note(sequence)?;
        ids.retired_below = ids.retired_below.max(prior);
        let below = ids.retired_below;
        let mut retire = Vec::new();
        let mut held: Vec<PeerId> = ids.spare.take().map(|b| *b).into_iter().collect();
        if fresh {
            held.push(PeerId {
                sequence,
                id,
                token,
            });
        }
        held.retain(|p| {
            let keep = p.sequence >= below;
            if !keep {
                retire.push(p.sequence);
            }
            keep
        });
        held.sort_unstable_by_key(|p| p.sequence);
        if current < below {
            // The id in use is retired: another takes its place (RFC 9000 5.1.2).
            retire.push(current);
            if held.is_empty() {
                refuse!(PROTOCOL_VIOLATION, "all connection ids retired");
            }
            let next = held.remove(0);
            self.adopt_peer_id(cx, next);
        }
        // RFC 9000 5.1.1: not more than active_connection_id_limit.
        if held.len() + 1 > PEER_IDS_MAX {
            refuse!(CONNECTION_ID_LIMIT_ERROR, "too many connection ids");
        }
        self.peer_ids.get_or_insert_default().spare = held.pop().map(Box::new);
        retire
            .into_iter()
            .try_for_each(|sequence| self.owe_retire(cx, sequence))
    }

    /// RFC 9000 19.15: the same number with another id, or the same id under another number.
    fn check_repeated_cid(
        &self,
        sequence: u32,
        id: &ConnectionId,
        token: &[u8; 16],
    ) -> Result<(), TransportError> {
        if (sequence == self.peer_seq) != (*id == self.peer_cid) {
            refuse!(PROTOCOL_VIOLATION, "connection id repeated differently");
        }
        let spare = self.peer_ids.as_ref().and_then(|p| p.spare.as_ref());
        if let Some(spare) = spare {
            let same = sequence == spare.sequence;
            if same != (*id == spare.id) || (same && *token != spare.token) {
                refuse!(PROTOCOL_VIOLATION, "connection id repeated differently");
            }
        }
        Ok(())
    }

    /// Uses an id of the peer from now on.
    fn adopt_peer_id<A: Aead>(&mut self, cx: &mut Cx<'_, A>, id: PeerId) {
        self.peer_cid = id.id;
        self.peer_seq = id.sequence;
        // Reset tokens of clients are not kept (T18): a server is never reset by its client.
        if self.side().is_client() {
            self.set_reset_token(cx, id.token);
        }
    }

    pub(crate) fn set_reset_token<A: Aead>(&mut self, cx: &mut Cx<'_, A>, token: [u8; 16]) {
        let ids = self.peer_ids.get_or_insert_default();
        if let Some(old) = ids.token.replace(token) {
            cx.resets.remove(&old);
        }
        // With empty ids the address finds the connection, and no index is needed.
        if !cx.codec.format.is_empty() {
            cx.resets.insert(token, cx.handle.index);
        }
    }

    /// Switches to the spare id of the peer, for another path (RFC 9000 9.5). False without one.
    pub(crate) fn use_spare_peer_id<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
    ) -> Result<bool, TransportError> {
        let Some(spare) = self.peer_ids.as_mut().and_then(|p| p.spare.take()) else {
            return Ok(false);
        };
        let old = self.peer_seq;
        self.adopt_peer_id(cx, *spare);
        self.owe_retire(cx, old)?;
        Ok(true)
    }

    /// Owes a RETIRE_CONNECTION_ID. A peer that makes too many of them is closed (T8; quic-go
    /// CVE-2024-22189).
    fn owe_retire<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        sequence: u32,
    ) -> Result<(), TransportError> {
        let active = self.thaw(cx);
        // Each number once: probes repeat a frame, and a record that is settled stays behind one that is not.
        let mut owed: Vec<u32> = active.data.retired_unacknowledged().collect();
        owed.extend(&active.pending.retire_cids);
        owed.sort_unstable();
        owed.dedup();
        if owed.len() >= RETIRE_PENDING_MAX {
            refuse!(
                CONNECTION_ID_LIMIT_ERROR,
                "too many connection ids to retire"
            );
        }
        active.pending.retire_cids.push(sequence);
        Ok(())
    }

    /// RETIRE_CONNECTION_ID (RFC 9000 5.1.2, 19.16).
    pub(crate) fn on_retire_cid<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        arrival: Arrival,
        sequence: u64,
    ) -> Result<(), TransportError> {
        // RFC 9000 19.16: a number that was never sent, or the id of this very packet, or any when
        // this side's ids are empty.
        if sequence >= u64::from(self.own.next) || cx.codec.format.is_empty() {
            refuse!(PROTOCOL_VIOLATION, "retired an id that was never issued");
        }
        let sequence = u8::try_from(sequence).expect("below a byte");
        if arrival.sequence == Some(sequence) {
            refuse!(PROTOCOL_VIOLATION, "retired the id of its own packet");
        }
        let Some(place) = self.own.active.iter_mut().find(|p| **p == Some(sequence)) else {
            return Ok(());
        };
        *place = None;
        if let Some(active) = &mut self.active {
            active.pending.new_cids.retain(|s| *s != sequence);
        }
        if !self.issue_own_id(cx) && self.own.active == [None; 2] {
            refuse!(CONNECTION_ID_LIMIT_ERROR, "used up all connection ids");
        }
        Ok(())
    }

    /// Issues a spare id (T18: one). Clients issue none: their peers do not move.
    pub(crate) fn issue_own_id<A: Aead>(&mut self, cx: &mut Cx<'_, A>) -> bool {
        if self.side() == Side::Client || cx.codec.format.is_empty() {
            return false;
        }
        let Some(sequence) = self.own.issue() else {
            return false;
        };
        self.thaw(cx).pending.new_cids.push(sequence);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    /// Days of NEW_CONNECTION_ID frames on a fast path, at their end.
    #[test]
    fn tf1_t19_sequence_numbers_end_before_they_wrap() {
        let mut ids = PeerIds {
            seen_base: u32::MAX - 2,
            ..PeerIds::default()
        };
        assert_eq!(ids.note(0), Ok(false));
        assert_eq!(ids.note(u32::MAX - 1), Ok(true));
        assert_eq!(ids.note(u32::MAX - 2), Ok(true));
        assert_eq!(ids.seen_base, u32::MAX);
        assert_eq!(ids.note(u32::MAX - 1), Ok(false), "seen before");
        let end = ids.note(u32::MAX).unwrap_err();
        assert_eq!(end.code, Code::CONNECTION_ID_LIMIT_ERROR);
        assert_eq!(ids.seen_base, u32::MAX, "it did not wrap");
    }
}
