//! quinn-proto as the first engine: the conservative choice, proven elsewhere.
//!
//! One endpoint per thread and one boxed connection per slot, in the order of the endpoint's own table.
//! A connection that received something or whose timer fired is `touched`: it may have events. One that
//! may have packets to send or a timer to move is `dirty`. Nothing ever looks at all connections.
//!
//! Two rules of TRANSPORT are met only as far as quinn-proto allows. An acknowledgement of a lone PING
//! waits for the delayed-ACK timer of 25 ms, so a heartbeat is one packet each way, and one timer (T10).
//! Half-open handshakes are found by connection id, not by id and address (T11).

mod config;
mod conn;
mod door;

use std::{
    collections::VecDeque,
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ConnectionHandle, DatagramEvent, Endpoint, EndpointEvent, Incoming, Transmit, VarInt,
};

use crate::{
    config::Transport,
    counters::Counters,
    error::{ConnectError, Error},
    event::{CloseReason, ConnId, ConnectParams, Event},
    quic::{
        Datagram, Engine, EngineConfig, Outbound,
        ids::{FirstIds, IdLink},
    },
    wheel::Wheel,
};

use conn::{Conn, Lost};
use door::{Admission, Door};

/// Packets of one train. Ten of 1,200 bytes are what a fresh congestion window allows anyway.
const TRAIN_PACKETS_MAX: usize = 10;

#[derive(Default)]
struct Slot {
    generation: u32,
    conn: Option<Box<Conn>>,
}

/// quinn-proto behind the engine seam.
pub struct Quinn {
    endpoint: Endpoint,
    client: Option<quinn_proto::ClientConfig>,
    first_ids: Arc<FirstIds>,
    door: Option<Door>,
    transport: Transport,
    slots: Vec<Slot>,
    wheel: Wheel,
    expired: Vec<u32>,
    touched: Vec<u32>,
    dirty: Vec<u32>,
    events: VecDeque<Event>,
    counters: Arc<Counters>,
    half_open: usize,
    open: usize,
    /// Connections in the table, lingering ones included.
    present: usize,
}

impl Engine for Quinn {
    fn new(config: EngineConfig, now: Instant) -> Result<Self, Error> {
        let link = Arc::new(IdLink::default());
        let first_ids = FirstIds::new();
        let (endpoint, client) = config::build(&config, &link, &first_ids)?;
        Ok(Self {
            endpoint,
            client,
            first_ids,
            door: config
                .server
                .map(|side| Door::new(side, link, config.all, now)),
            transport: config.transport,
            slots: Vec::new(),
            wheel: Wheel::new(now),
            expired: Vec::new(),
            touched: Vec::new(),
            dirty: Vec::new(),
            events: VecDeque::new(),
            counters: config.counters,
            half_open: 0,
            open: 0,
            present: 0,
        })
    }

    fn receive(&mut self, now: Instant, datagram: Datagram<'_>, out: &mut impl Outbound) {
        if let Some(door) = &mut self.door
            && door.must_wait(datagram.data)
        {
            if !door.put_aside(&datagram) {
                self.counters.drop_initial_backlog.add(1);
            }
            return;
        }
        self.handle(now, &datagram, out);
    }

    fn expire(&mut self, now: Instant, out: &mut impl Outbound) {
        let mut expired = std::mem::take(&mut self.expired);
        self.wheel.expire(now, &mut expired);
        for index in expired.drain(..) {
            self.timer_fired(index, now);
        }
        self.expired = expired;
        for _ in 0..crate::config::INITIALS_PER_TURN {
            let Some(waiting) = self.door.as_mut().and_then(Door::next_waiting) else {
                break;
            };
            let datagram = Datagram {
                socket: waiting.socket,
                peer: waiting.peer,
                data: &waiting.data,
            };
            self.handle(now, &datagram, out);
        }
    }

    fn next_event(&mut self) -> Option<Event> {
        while self.events.is_empty() {
            let index = self.touched.pop()?;
            self.poll_events(index);
        }
        let event = self.events.pop_front()?;
        if let Event::Closed { conn, .. } = event
            && let Some(conn) = self.slot_mut(conn)
        {
            conn.gone = true;
        }
        Some(event)
    }

    fn flush(&mut self, now: Instant, out: &mut impl Outbound) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.flush_one(index, now, out);
        }
        self.dirty = dirty;
        self.counters.half_open.set(self.half_open as u64);
        self.counters.connections.set(self.open as u64);
    }

    fn deadline(&self) -> Option<Instant> {
        let waiting = self.door.as_ref().is_some_and(Door::has_waiting);
        if waiting || !self.events.is_empty() || !self.touched.is_empty() || !self.dirty.is_empty()
        {
            // Any time in the past will do, and the wheel's epoch is one.
            return Some(self.wheel.epoch());
        }
        self.wheel.next()
    }

    fn connect(
        &mut self,
        now: Instant,
        socket: u16,
        params: &ConnectParams,
    ) -> Result<ConnId, ConnectError> {
        let config = self.client.clone().ok_or(ConnectError::NotAClient)?;
        self.first_ids.aim(params.home);
        let (handle, inner) = self
            .endpoint
            .connect(now, config, params.remote, &params.server_name)
            .map_err(|e| ConnectError::Engine(e.to_string()))?;
        let until = now + self.transport.handshake_timeout;
        Ok(self.insert(handle, Conn::new(inner, socket, until, 0)))
    }

    fn read(&mut self, conn: ConnId) -> Option<Bytes> {
        let found = self.open_mut(conn)?;
        let read = found.read();
        if read.finished {
            self.events.push_back(Event::Finished { conn });
        }
        if read.transmit {
            self.mark_dirty(conn.index);
        }
        read.bytes
    }

    fn write(&mut self, conn: ConnId, data: &[u8]) -> usize {
        let limit = self.transport.send_backlog;
        let Some(found) = self.open_mut(conn) else {
            return 0;
        };
        let accepted = found.write(data, limit);
        self.mark_dirty(conn.index);
        accepted
    }

    fn write_capacity(&self, conn: ConnId) -> usize {
        self.open_ref(conn)
            .map_or(0, |found| found.write_capacity(self.transport.send_backlog))
    }

    fn finish(&mut self, conn: ConnId) {
        if let Some(found) = self.open_mut(conn) {
            found.finish();
            self.mark_dirty(conn.index);
        }
    }

    fn send_datagram(&mut self, conn: ConnId, data: Bytes) -> bool {
        let Some(found) = self.open_mut(conn) else {
            return false;
        };
        // With `drop`, an old one makes room for a new one: what is ephemeral is worth least when old.
        let sent = found.inner.datagrams().send(data, true).is_ok();
        self.mark_dirty(conn.index);
        sent
    }

    fn datagram_max(&mut self, conn: ConnId) -> Option<usize> {
        self.open_mut(conn)?.inner.datagrams().max_size()
    }

    fn ping(&mut self, conn: ConnId) {
        if let Some(found) = self.open_mut(conn) {
            found.inner.ping();
            self.mark_dirty(conn.index);
        }
    }

    fn raise_receive_window(&mut self, conn: ConnId, bytes: u32) {
        let bytes = bytes.min(self.transport.receive_window_max);
        if let Some(found) = self.open_mut(conn) {
            found.inner.set_receive_window(VarInt::from_u32(bytes));
            self.mark_dirty(conn.index);
        }
    }

    fn close(&mut self, _now: Instant, conn: ConnId, code: u32, reason: &[u8]) {
        let Some(found) = self.slot_mut(conn).filter(|found| !found.closed) else {
            return;
        };
        found.closing = Some(Box::new((
            VarInt::from_u32(code),
            Bytes::copy_from_slice(reason),
        )));
        self.tell_closed(conn.index, CloseReason::Local);
        self.mark_dirty(conn.index);
    }

    fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        self.open_ref(conn)
            .map(|found| found.inner.remote_address())
    }

    fn rtt(&self, conn: ConnId) -> Option<Duration> {
        self.open_ref(conn).map(|found| found.inner.rtt())
    }

    fn is_open(&self, conn: ConnId) -> bool {
        self.open_ref(conn).is_some()
    }

    fn open_connections(&self) -> Vec<ConnId> {
        let named = (0..).zip(&self.slots).filter(|(_, slot)| {
            // A server's application never heard of a handshake that is not complete.
            let known = |conn: &Conn| !conn.closed && (conn.open || self.door.is_none());
            slot.conn.as_deref().is_some_and(known)
        });
        named
            .map(|(index, slot)| ConnId {
                index,
                generation: slot.generation,
            })
            .collect()
    }

    fn is_drained(&self) -> bool {
        self.present == 0
    }
}

impl Quinn {
    fn handle(&mut self, now: Instant, datagram: &Datagram<'_>, out: &mut impl Outbound) {
        let Datagram { socket, peer, data } = *datagram;
        let bytes = BytesMut::from(data);
        match self
            .endpoint
            .handle(now, peer, None, None, bytes, out.buffer())
        {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let index = index_of(handle);
                if let Some(conn) = self.conn_mut(index) {
                    conn.inner.handle_event(event);
                    // A phone that moved may have reached us on another address.
                    if conn.inner.remote_address() == peer {
                        conn.socket = socket;
                    }
                    self.touch(index);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.incoming(now, socket, incoming, out);
            }
            Some(DatagramEvent::Response(transmit)) => self.respond(now, datagram, &transmit, out),
            None => self.counters.drop_unroutable.add(1),
        }
    }

    /// A newcomer: accepted, asked to prove its address, or ignored (T11).
    fn incoming(&mut self, now: Instant, socket: u16, incoming: Incoming, out: &mut impl Outbound) {
        let Some(door) = &mut self.door else {
            return self.endpoint.ignore(incoming);
        };
        match door.admit(now, &incoming, self.half_open) {
            Admission::Accept => self.accept(now, socket, incoming, out),
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

    fn accept(&mut self, now: Instant, socket: u16, incoming: Incoming, out: &mut impl Outbound) {
        match self.endpoint.accept(incoming, now, out.buffer(), None) {
            Ok((handle, inner)) => {
                let id = self.door.as_mut().map_or(0, Door::opened);
                let until = now + self.transport.handshake_timeout;
                self.insert(handle, Conn::new(inner, socket, until, id));
            }
            Err(error) => {
                self.count_failed_handshake(&conn::reason(&error.cause));
                if let Some(transmit) = error.response {
                    out.send(socket, transmit.destination, None);
                }
            }
        }
    }

    /// Sends what the endpoint answers by itself: version negotiation, refusals, stateless resets.
    fn respond(
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

    fn insert(&mut self, handle: ConnectionHandle, conn: Conn) -> ConnId {
        let index = index_of(handle);
        if self.slots.len() <= handle.0 {
            self.slots.resize_with(handle.0 + 1, Slot::default);
        }
        let slot = &mut self.slots[handle.0];
        assert!(
            slot.conn.is_none(),
            "the endpoint reused a handle that is in use"
        );
        slot.conn = Some(Box::new(conn));
        let generation = slot.generation;
        self.present += 1;
        self.half_open += 1;
        self.touch(index);
        ConnId { index, generation }
    }

    fn remove(&mut self, index: u32) {
        let slot = &mut self.slots[slot_of(index)];
        if let Some(conn) = slot.conn.take() {
            slot.generation = slot.generation.wrapping_add(1);
            self.present -= 1;
            if !conn.settled {
                self.settle(conn.id_tail);
            }
            self.wheel.cancel(index);
        }
    }

    /// A handshake is no longer half open.
    fn settle(&mut self, id_tail: u64) {
        self.half_open -= 1;
        if let Some(door) = &mut self.door {
            door.settled(id_tail);
        }
    }

    fn timer_fired(&mut self, index: u32, now: Instant) {
        let Some(conn) = self.conn_mut(index) else {
            return;
        };
        if conn.inner.is_handshaking() && !conn.closed && now >= conn.handshake_until {
            conn.closing = Some(Box::default());
            self.lose(index, CloseReason::HandshakeTimeout);
            return self.mark_dirty(index);
        }
        conn.inner.handle_timeout(now);
        self.touch(index);
    }

    fn poll_events(&mut self, index: u32) {
        let Some(conn) = self.conn_mut(index) else {
            return;
        };
        conn.touched = false;
        let polled = conn.poll();
        let id = self.id_of(index);
        if let Some(opened) = polled.opened {
            self.opened(index, id, opened);
        }
        if polled.readable {
            self.events.push_back(Event::Readable { conn: id });
        }
        for data in polled.datagrams {
            self.events.push_back(Event::Datagram { conn: id, data });
        }
        if polled.writable {
            self.events.push_back(Event::Writable { conn: id });
        }
        if let Some(Lost(reason)) = polled.lost {
            self.lose(index, reason);
        }
    }

    fn opened(&mut self, index: u32, id: ConnId, opened: conn::Opened) {
        if let Some(tail) = self.conn_mut(index).and_then(Conn::settle) {
            self.settle(tail);
        }
        match opened.resumed {
            true => self.counters.handshakes_resumed.add(1),
            false => self.counters.handshakes_full.add(1),
        }
        let conn = self.conn_mut(index).expect("it was just polled");
        if conn.closed {
            return;
        }
        conn.open = true;
        self.open += 1;
        let conn::Opened { peer, resumed } = opened;
        self.events.push_back(Event::Opened {
            conn: id,
            peer,
            resumed,
        });
    }

    /// A connection is lost. The application hears of it if it knew of it.
    fn lose(&mut self, index: u32, reason: CloseReason) {
        let server = self.door.is_some();
        let Some(conn) = self.conn_mut(index) else {
            return;
        };
        let (closed, open) = (conn.closed, conn.open);
        if let Some(tail) = conn.settle() {
            self.settle(tail);
            if !closed {
                self.count_failed_handshake(&reason);
            }
        }
        if closed {
            return;
        }
        if open || !server {
            self.tell_closed(index, reason);
        } else if let Some(conn) = self.conn_mut(index) {
            conn.closed = true;
            conn.gone = true;
        }
    }

    fn tell_closed(&mut self, index: u32, reason: CloseReason) {
        let id = self.id_of(index);
        let Some(conn) = self.conn_mut(index) else {
            return;
        };
        conn.closed = true;
        if conn.open {
            self.open -= 1;
            self.count_closed(&reason);
        }
        self.events.push_back(Event::Closed { conn: id, reason });
    }

    fn count_closed(&self, reason: &CloseReason) {
        let counter = match reason {
            CloseReason::Application { .. } => &self.counters.closed_by_peer,
            CloseReason::Local => &self.counters.closed_locally,
            CloseReason::IdleTimeout => &self.counters.closed_idle,
            CloseReason::StatelessReset => &self.counters.closed_reset,
            _ => &self.counters.closed_error,
        };
        counter.add(1);
    }

    fn count_failed_handshake(&self, reason: &CloseReason) {
        self.counters.handshakes_failed.add(1);
        match reason {
            CloseReason::Alpn => self.counters.handshakes_failed_alpn.add(1),
            CloseReason::HandshakeTimeout | CloseReason::IdleTimeout => {
                self.counters.handshakes_failed_timeout.add(1);
            }
            _ => {}
        }
    }

    fn flush_one(&mut self, index: u32, now: Instant, out: &mut impl Outbound) {
        let Some(conn) = self.slots[slot_of(index)].conn.as_deref_mut() else {
            return;
        };
        conn.dirty = false;
        let train = if self.transport.gso {
            TRAIN_PACKETS_MAX
        } else {
            1
        };
        endpoint_events(&mut self.endpoint, index, conn);
        conn.transmit(now, train, out);
        if let Some(closing) = conn.closing.take() {
            conn.inner.close(now, closing.0, closing.1);
            conn.transmit(now, 1, out);
        }
        if endpoint_events(&mut self.endpoint, index, conn) {
            return self.remove(index);
        }
        match conn.deadline() {
            Some(at) => self.wheel.set(index, at),
            None => self.wheel.cancel(index),
        }
    }

    /// It may have events, and therefore packets.
    fn touch(&mut self, index: u32) {
        let conn = self.slots[slot_of(index)].conn.as_deref_mut();
        if let Some(conn) = conn.filter(|conn| !conn.touched) {
            conn.touched = true;
            self.touched.push(index);
        }
        self.mark_dirty(index);
    }

    /// It may have packets to send, or its timer may have moved.
    fn mark_dirty(&mut self, index: u32) {
        let conn = self.slots[slot_of(index)].conn.as_deref_mut();
        if let Some(conn) = conn.filter(|conn| !conn.dirty) {
            conn.dirty = true;
            self.dirty.push(index);
        }
    }

    fn id_of(&self, index: u32) -> ConnId {
        ConnId {
            index,
            generation: self.slots[slot_of(index)].generation,
        }
    }

    fn conn_mut(&mut self, index: u32) -> Option<&mut Conn> {
        self.slots.get_mut(slot_of(index))?.conn.as_deref_mut()
    }

    fn slot_mut(&mut self, conn: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(slot_of(conn.index))?;
        slot.conn
            .as_deref_mut()
            .filter(|_| slot.generation == conn.generation)
    }

    fn open_mut(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.slot_mut(conn).filter(|found| found.usable())
    }

    fn open_ref(&self, conn: ConnId) -> Option<&Conn> {
        let slot = self.slots.get(slot_of(conn.index))?;
        let found = slot
            .conn
            .as_deref()
            .filter(|_| slot.generation == conn.generation);
        found.filter(|found| found.usable())
    }
}

/// Carries events between a connection and its endpoint. Answers whether the connection is drained, in
/// which case the endpoint has forgotten it.
fn endpoint_events(endpoint: &mut Endpoint, index: u32, conn: &mut Conn) -> bool {
    let handle = ConnectionHandle(slot_of(index));
    while let Some(event) = conn.inner.poll_endpoint_events() {
        let drained = EndpointEvent::is_drained(&event);
        if let Some(answer) = endpoint.handle_event(handle, event) {
            conn.inner.handle_event(answer);
        }
        conn.drained |= drained;
    }
    conn.drained
}

fn index_of(handle: ConnectionHandle) -> u32 {
    u32::try_from(handle.0).expect("fewer connections than 2^32")
}

fn slot_of(index: u32) -> usize {
    index as usize
}

impl fmt::Debug for Quinn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quinn")
            .field("open", &self.open)
            .field("half_open", &self.half_open)
            .field("present", &self.present)
            .finish_non_exhaustive()
    }
}
