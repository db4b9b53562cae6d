//! The ends of a connection (RFC 9000 10): close, draining, stateless reset, timeouts.

use super::{Connection, Cx, Flags, Path, State, local_error};
use crate::crypto::{Aead, Tls, same};
use crate::error::{CloseReason, Code, TransportError};
use crate::event::Event;
use crate::limits::{AMPLIFICATION, CLOSE_REASON_MAX, CLOSE_REPEATS_MAX};
use crate::time::Time;

/// What is left of a connection that closes.
#[derive(Debug)]
pub(crate) struct CloseState {
    /// When the slot is given back: three PTO (RFC 9000 10.2).
    pub(crate) until: Time,
    /// The code, and the frame type unless an application closed.
    pub(crate) code: u64,
    pub(crate) frame: Option<u64>,
    pub(crate) reason: Box<[u8]>,
    /// A CONNECTION_CLOSE is to be sent, to this path.
    pub(crate) send: Option<Path>,
    repeats: u8,
    /// Packets received since the last answer: answers thin out (RFC 9000 10.2.1).
    since: u32,
    received: u64,
    pub(crate) sent: u64,
}

impl CloseState {
    /// RFC 9000 10.2.1: an address that is not validated gets no more than three times its bytes.
    pub(crate) fn may_send(&self, len: usize, validated: bool) -> bool {
        validated || self.sent + len as u64 <= self.received.saturating_mul(AMPLIFICATION)
    }
}

impl<T: Tls> Connection<T> {
    /// Closes because the peer broke a rule, or because an invariant of this side is broken.
    ///
    /// # Panics
    /// Panics for a broken invariant when the endpoint is strict ([`crate::Config::strict`]).
    pub(crate) fn close_with_error<A: Aead>(&mut self, cx: &mut Cx<'_, A>, error: TransportError) {
        if self.is_alive() && error.code == Code::INTERNAL_ERROR {
            assert!(!cx.strict, "broken invariant: {}", error.reason);
            cx.stats.invariants_broken += 1;
        }
        self.close_for(cx, error);
    }

    /// Closes for a reason that is no fault of this side.
    pub(crate) fn close_for<A: Aead>(&mut self, cx: &mut Cx<'_, A>, error: TransportError) {
        if !self.is_alive() {
            return;
        }
        cx.event(Event::Closed(local_error(error)));
        let reason = error.reason.as_bytes();
        self.enter_closing(cx, error.code.0, Some(error.frame), reason);
    }

    /// Closes because the application asked. Of the phrase, what a peer of this crate keeps is sent.
    pub(crate) fn close_by_application<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        code: u64,
        reason: &[u8],
    ) {
        if !self.is_alive() {
            return;
        }
        cx.event(Event::Closed(CloseReason::LocalApplication(code)));
        let reason = &reason[..reason.len().min(CLOSE_REASON_MAX)];
        self.enter_closing(cx, code, None, reason);
    }

    fn enter_closing<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        code: u64,
        frame: Option<u64>,
        reason: &[u8],
    ) {
        let until = cx.now + self.three_ptos(cx);
        let path = self.path();
        let (received, sent) = self.amplification();
        self.strip(cx);
        let active = self.thaw(cx);
        active.close = Some(Box::new(CloseState {
            until,
            code,
            frame,
            reason: reason.into(),
            send: Some(path),
            repeats: 0,
            since: 0,
            received,
            sent,
        }));
        self.state = State::Closing;
    }

    /// Bytes received from and sent to an unvalidated address.
    fn amplification(&self) -> (u64, u64) {
        let active = self.active.as_ref();
        if let Some(path) = active.and_then(|a| a.path.as_ref()) {
            return (path.received, path.sent);
        }
        active
            .and_then(|a| a.hs.as_ref())
            .map_or((0, 0), |hs| (hs.received, hs.sent))
    }

    /// Drops what a closing or draining connection does not need (RFC 9000 10.2: only enough to
    /// recognise and answer packets). The keys of the handshake stay, to close at every level.
    fn strip<A: Aead>(&mut self, cx: &mut Cx<'_, A>) {
        let hs = self.active.take().and_then(|mut a| a.hs.take());
        self.flags.set(Flags::PING_SENT, false);
        self.flags.set(Flags::PING_WANTED, false);
        self.flags.set(Flags::ACK_PENDING, false);
        let Some(mut hs) = hs else { return };
        for space in hs.spaces.iter_mut().flatten() {
            space.sent = crate::space::SentSpace::default();
        }
        self.thaw(cx).hs = Some(hs);
    }

    /// The peer closed (RFC 9000 10.2.2).
    pub(crate) fn on_peer_close<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        transport: Option<(Code, u64)>,
        code: u64,
        reason: &[u8],
    ) {
        let reason = reason[..reason.len().min(CLOSE_REASON_MAX)].into();
        let reason = match transport {
            Some((code, frame)) => CloseReason::PeerTransport {
                code,
                frame,
                reason,
            },
            None => CloseReason::PeerApplication { code, reason },
        };
        cx.event(Event::Closed(reason));
        self.drain(cx);
    }

    /// Nothing is sent any more; the slot stays for three PTO, so that late packets of the peer do
    /// not meet a stranger. What arrived on stream 0 before the end can still be read.
    fn drain<A: Aead>(&mut self, cx: &mut Cx<'_, A>) {
        let until = cx.now + self.three_ptos(cx);
        let unread = self.active.as_mut().map(|active| {
            let buf = &mut active.buf0;
            (std::mem::take(&mut buf.rx), buf.final_size, active.rx_sum)
        });
        self.strip(cx);
        let active = self.thaw(cx);
        active.hs = None;
        if let Some((rx, final_size, rx_sum)) = unread {
            (active.buf0.rx, active.buf0.final_size) = (rx, final_size);
            active.rx_sum = rx_sum;
        }
        active.close = Some(Box::new(CloseState {
            until,
            code: 0,
            frame: None,
            reason: Box::default(),
            send: None,
            repeats: 0,
            since: 0,
            received: 0,
            sent: 0,
        }));
        self.state = State::Draining;
    }

    /// Ends without a packet: timeouts, resets. Of one that was closed before, nothing more is told.
    pub(crate) fn vanish<A: Aead>(&mut self, cx: &mut Cx<'_, A>, reason: CloseReason) {
        if self.is_alive() {
            cx.event(Event::Closed(reason));
        }
        self.active = None;
        self.state = State::Drained;
    }

    /// Answers packets of a peer that did not see the close, ever more rarely (RFC 9000 10.2.1).
    pub(crate) fn on_packet_while_closing(&mut self, path: Path, len: usize) {
        let current = self.path();
        let Some(close) = self.active.as_mut().and_then(|a| a.close.as_mut()) else {
            return;
        };
        close.since = close.since.saturating_add(1);
        close.received += len as u64;
        // Only the known path is answered: another might be spoofed.
        if path == current && close.repeats < CLOSE_REPEATS_MAX && close.since >= 1 << close.repeats
        {
            close.repeats += 1;
            close.since = 0;
            close.send = Some(path);
        }
    }

    /// RFC 9000 10.3.1: a datagram that could not be opened and ends with the token of the id in
    /// use is a stateless reset.
    pub(crate) fn check_stateless_reset<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        tail: Option<[u8; 16]>,
    ) -> bool {
        let token = self.peer_ids.as_ref().and_then(|p| p.token);
        let (Some(token), Some(tail)) = (token, tail) else {
            return false;
        };
        if !same(&token, &tail) || !self.is_alive() {
            return false;
        }
        cx.event(Event::Closed(CloseReason::StatelessReset));
        self.drain(cx);
        true
    }
}
