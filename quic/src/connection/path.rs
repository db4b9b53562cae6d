//! Address validation and migration (RFC 9000 8, 9; T18).

use super::{Connection, Cx, Flags, NotOpen, Path, State};
use crate::connection::receive::Arrival;
use crate::crypto::{Aead, Tls};
use crate::error::TransportError;
use crate::event::Event;
use crate::limits::{AMPLIFICATION, CHALLENGES_MAX};
use crate::packet::Level;
use crate::recovery::{Rtt, Window};
use crate::time::Time;

/// A move to another path that is being validated.
#[derive(Debug)]
pub(crate) struct PathChange {
    /// The last validated path; it is challenged too (RFC 9000 9.3.3), and used again when the new
    /// one fails (9.3.2).
    pub(super) prev: Path,
    pub(super) challenge: [u8; 8],
    pub(super) prev_challenge: [u8; 8],
    /// Challenges owed on the new and on the previous path.
    pub(super) send: bool,
    pub(super) send_prev: bool,
    sends: u8,
    pub(super) next_at: Time,
    pub(super) deadline: Time,
    /// Bytes on the new path, for the amplification limit (RFC 9000 8.2.1).
    pub(super) received: u64,
    pub(super) sent: u64,
    /// A response came; what is left is to see whether full-sized packets pass (8.2.1).
    validated: bool,
    /// The last challenge was in a datagram of full size.
    pub(super) padded: bool,
}

impl<T> Connection<T> {
    /// Bytes that may be sent to the current address; `None` when it is validated.
    pub(super) fn amplification_budget(&self) -> Option<u64> {
        let active = self.active.as_ref()?;
        if let Some(path) = &active.path {
            let budget = path.received.saturating_mul(AMPLIFICATION);
            let budget = budget.saturating_sub(path.sent);
            return (!path.validated && !self.flags.has(Flags::CLIENT)).then_some(budget);
        }
        if self.flags.has(Flags::CLIENT | Flags::VALIDATED) {
            return None;
        }
        let hs = active.hs.as_ref()?;
        let budget = hs.received.saturating_mul(AMPLIFICATION);
        Some(budget.saturating_sub(hs.sent))
    }

    /// Counts bytes that arrived on a path.
    pub(super) fn credit_path(&mut self, from: Path, len: u64) {
        let current = self.path();
        let Some(active) = self.active.as_mut() else {
            return;
        };
        if let Some(path) = active.path.as_mut().filter(|_| from == current) {
            path.received += len;
        } else if let Some(hs) = active.hs.as_mut() {
            hs.received += len;
        }
    }

    /// Counts bytes that were sent to the current address.
    pub(super) fn debit_path(&mut self, len: u64) {
        let Some(active) = self.active.as_mut() else {
            return;
        };
        if let Some(path) = active.path.as_mut() {
            path.sent += len;
        } else if let Some(hs) = active.hs.as_mut() {
            hs.sent += len;
        }
    }
}

impl<T: Tls> Connection<T> {
    /// The peer's newest non-probing packet came on `arrival.path` (RFC 9000 9.2, 9.3).
    pub(super) fn on_peer_path<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        arrival: Arrival,
    ) -> Result<(), TransportError> {
        let (current, new) = (self.path(), arrival.path);
        if new == current || self.side().is_client() || !self.flags.has(Flags::CONFIRMED) {
            return Ok(());
        }
        let under_way = self.active.as_ref().and_then(|a| a.path.as_ref());
        let prev = under_way.map_or(current, |p| p.prev);
        if new == prev {
            // Back on the validated path: the other one was an attack or did not last (9.3.3).
            self.set_path(prev);
            self.active.as_mut().expect("under way").path = None;
            return Ok(());
        }
        // RFC 9000 9.4: another host starts anew; the same host behind a rebinding NAT does not.
        if new.remote.ip() != prev.remote.ip() {
            self.forget_path_estimates(cx);
        }
        self.set_path(new);
        // RFC 9000 9.5: another id for another path, where the peer gave one.
        self.use_spare_peer_id(cx)?;
        self.start_validation(cx, prev, arrival.len);
        Ok(())
    }

    fn forget_path_estimates<A: Aead>(&mut self, cx: &mut Cx<'_, A>) {
        self.rtt = Rtt::NEW;
        self.window = Window::new(self.payload_max(cx));
    }

    fn start_validation<A: Aead>(&mut self, cx: &mut Cx<'_, A>, prev: Path, received: u64) {
        // RFC 9000 8.2.4: three PTO, of the larger of the current and the initial estimate.
        let pto = self.pto(cx, Level::Data).max(3 * cx.initial_rtt());
        let (challenge, prev_challenge) = (cx.challenge(), cx.challenge());
        let now = cx.now;
        let change = PathChange {
            prev,
            challenge,
            prev_challenge,
            send: true,
            send_prev: true,
            sends: 0,
            next_at: now + pto / 3,
            deadline: now + 3 * pto,
            received,
            sent: 0,
            validated: false,
            padded: false,
        };
        self.thaw(cx).path = Some(Box::new(change));
    }

    pub(super) fn on_path_timeout<A: Aead>(&mut self, cx: &mut Cx<'_, A>) {
        let Some(active) = self.active.as_mut() else {
            return;
        };
        let Some(path) = active.path.as_mut() else {
            return;
        };
        if path.deadline <= cx.now {
            let (validated, prev) = (path.validated, path.prev);
            active.path = None;
            if !validated {
                // RFC 9000 9.3.2: back to the last validated address.
                self.set_path(prev);
            }
        } else if path.next_at <= cx.now {
            path.sends = path.sends.saturating_add(1);
            path.send = path.sends < CHALLENGES_MAX;
            let wait = (path.deadline.since(cx.now) / 4).max(1_000) << path.sends.min(8);
            path.next_at = cx.now + wait;
        }
    }

    /// PATH_RESPONSE (RFC 9000 8.2.3, 19.18): data that was not sent is ignored.
    pub(super) fn on_path_response<A: Aead>(&mut self, cx: &mut Cx<'_, A>, data: [u8; 8]) {
        let Some(active) = self.active.as_mut() else {
            return;
        };
        let Some(path) = active.path.as_mut() else {
            return;
        };
        if data == path.challenge {
            let first = !std::mem::replace(&mut path.validated, true);
            if path.padded {
                active.path = None;
            } else {
                // RFC 9000 8.2.1: validate again with a full-sized datagram, now that the limit is
                // lifted.
                path.challenge = cx.challenge();
                path.send = true;
                path.send_prev = false;
            }
            if first {
                cx.event(Event::Migrated);
            }
        }
    }

    /// Moves a client to another local socket (RFC 9000 9.2, 9.5).
    pub(crate) fn migrate<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        socket: u16,
    ) -> Result<(), NotOpen> {
        let open = self.state == State::Open && self.flags.has(Flags::CONFIRMED);
        if !open || !self.side().is_client() || self.flags.has(Flags::MIGRATION_DISABLED) {
            return Err(NotOpen);
        }
        // RFC 9000 9.5: not with an id that was seen on another path.
        if !self.peer_cid.is_empty() && !self.use_spare_peer_id(cx).is_ok_and(|used| used) {
            return Err(NotOpen);
        }
        let prev = self.path();
        self.set_path(Path { socket, ..prev });
        self.forget_path_estimates(cx);
        self.start_validation(cx, prev, 0);
        self.active
            .as_mut()
            .expect("made")
            .path
            .as_mut()
            .expect("made")
            .send_prev = false;
        Ok(())
    }
}
