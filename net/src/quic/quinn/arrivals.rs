//! Datagrams come in: to their connections, through the door, or to an answer of the endpoint's own.

use std::{net::SocketAddr, time::Instant};

use bytes::BytesMut;
use quinn_proto::{DatagramEvent, Incoming, Transmit};

use super::{
    Quinn,
    conn::{self, Conn},
    door::{self, Admission},
    table::index_of,
};
use crate::quic::{Datagram, Outbound};

impl Quinn {
    pub(super) fn handle(
        &mut self,
        now: Instant,
        datagram: &Datagram<'_>,
        proven: &mut impl FnMut(SocketAddr) -> bool,
        out: &mut impl Outbound,
    ) {
        let Datagram { socket, peer, .. } = *datagram;
        let bytes = BytesMut::from(&*datagram.data);
        match self
            .endpoint
            .handle(now, peer, None, None, bytes, out.buffer())
        {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let index = index_of(handle);
                let behind = self.behind;
                let since = now.saturating_duration_since(self.epoch);
                let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                if let Some(conn) = self.conn_mut(index) {
                    // Nothing of it is decrypted yet.
                    if behind && !conn.quota.take(now_ms) {
                        return self.counters.drop_quota.add(1);
                    }
                    conn.inner.handle_event(event);
                    // A phone that moved may have reached us on another address.
                    if conn.inner.remote_address() == peer {
                        conn.socket = socket;
                    }
                    self.touch(index);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.incoming(now, socket, incoming, proven, out);
            }
            Some(DatagramEvent::Response(transmit)) => self.respond(now, datagram, &transmit, out),
            None => self.counters.drop_unroutable.add(1),
        }
    }

    /// A newcomer: accepted, asked to prove its address, or ignored (T11).
    pub(super) fn incoming(
        &mut self,
        now: Instant,
        socket: u16,
        incoming: Incoming,
        proven: &mut impl FnMut(SocketAddr) -> bool,
        out: &mut impl Outbound,
    ) {
        let Some(door) = &mut self.door else {
            return self.endpoint.ignore(incoming);
        };
        match door.admit(now, &incoming, self.half_open) {
            Admission::Accept => self.accept(now, socket, incoming, false, out),
            Admission::AcceptProven if proven(incoming.remote_address()) => {
                door.use_up(now, &incoming);
                self.accept(now, socket, incoming, true, out);
            }
            Admission::AcceptProven => self.endpoint.ignore(incoming),
            Admission::Retry(shard) => {
                let endpoint = &mut self.endpoint;
                let retry = door
                    .link()
                    .steering_to(shard, || endpoint.retry(incoming, out.buffer()));
                match retry {
                    Ok(transmit) => {
                        self.counters.retries_sent.add(1);
                        out.send(socket, transmit.destination, None);
                    }
                    Err(error) => self.endpoint.ignore(error.into_incoming()),
                }
            }
            Admission::TooMany => {
                self.counters.drop_half_open.add(1);
                self.endpoint.ignore(incoming);
            }
            Admission::TokenReused => {
                self.counters.drop_token_reused.add(1);
                self.endpoint.ignore(incoming);
            }
        }
    }

    pub(super) fn accept(
        &mut self,
        now: Instant,
        socket: u16,
        incoming: Incoming,
        proven: bool,
        out: &mut impl Outbound,
    ) {
        let peer = incoming.remote_address();
        match self.endpoint.accept(incoming, now, out.buffer(), None) {
            Ok((handle, inner)) => {
                let place = self.door.as_mut().map(|door| door.opened(peer));
                let until = now + self.transport.handshake_timeout;
                let mut conn = Conn::new(inner, socket, until, place.unwrap_or_default());
                conn.proven = proven;
                self.insert(handle, conn);
            }
            Err(error) => {
                self.counters
                    .count_failed_handshake(&conn::reason(&error.cause));
                if let Some(transmit) = error.response {
                    out.send(socket, transmit.destination, None);
                }
            }
        }
    }

    /// Sends what the endpoint answers by itself: version negotiation, refusals, stateless resets.
    pub(super) fn respond(
        &mut self,
        now: Instant,
        datagram: &Datagram<'_>,
        transmit: &Transmit,
        out: &mut impl Outbound,
    ) {
        // A reset is the only answer to a short header. A client gives none: its ids are forgotten when
        // its process ends, so it has no token that a server could know.
        let reset = !door::is_long(datagram.data);
        let allowed = match &mut self.door {
            Some(door) if reset => door.may_reset(now),
            door => door.is_some(),
        };
        match (allowed, reset) {
            (true, true) => self.counters.resets_sent.add(1),
            (true, false) => self.counters.other_responses_sent.add(1),
            (false, _) => return self.counters.resets_suppressed.add(1),
        }
        out.send(datagram.socket, transmit.destination, None);
    }
}
