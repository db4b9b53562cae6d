//! quinn-proto as the first engine: the conservative choice, proven elsewhere.
//!
//! One endpoint per thread and one boxed connection per slot, in the order of the endpoint's own table.
//! A connection that received something or whose timer fired is `touched`: it may have events. One that
//! may have packets to send or a timer to move is `dirty`. Nothing ever looks at all connections.
//!
//! Some rules of TRANSPORT are met only as far as quinn-proto allows. An acknowledgement of a lone PING
//! waits for the delayed-ACK timer of 25 ms, so a heartbeat is one packet each way, and one timer (T10).
//! Half-open handshakes are found by connection id, not by id and address; what a newcomer's token proves is
//! known only once quinn-proto has taken its Initial, so all wait in one queue; where there is no room a newcomer
//! is dropped, as no handshake of another can be given up before its time; and a hello that is not complete has
//! the time of a whole handshake (T11). The ends of its numbers are quinn-proto's own matter (T19).

mod arrivals;
mod config;
mod conn;
mod door;
mod events;
mod table;

use std::{
    collections::VecDeque,
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{Endpoint, VarInt};

use crate::{
    config::{ANSWERS_PER_TURN, INITIALS_PER_TURN, Transport},
    counters::Counters,
    error::{ConnectError, Error},
    event::{CloseReason, ConnId, ConnectParams, Event},
    quic::{
        Datagram, Engine, EngineConfig, Outbound,
        ids::{FirstIds, IdLink},
    },
    wheel::Wheel,
};

use conn::Conn;
use door::{Door, Place};

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
    /// The loop has no time to spare (T21).
    behind: bool,
    epoch: Instant,
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
            behind: false,
            epoch: now,
        })
    }

    fn receive(&mut self, now: Instant, datagram: Datagram<'_>, out: &mut impl Outbound) {
        if let Some(door) = &mut self.door
            && door.must_wait(datagram.data)
        {
            let dropped = door.put_aside(&datagram);
            return self.counters.drop_initial_backlog.add(dropped);
        }
        // A newcomer waits, and is asked for its proof when its turn comes.
        self.handle(now, &datagram, &mut |_| false, out);
    }

    fn knows(&self, datagram: &Datagram<'_>) -> bool {
        let door = self.door.as_ref();
        door.is_some_and(|door| !door.must_wait(datagram.data))
    }

    fn set_behind(&mut self, behind: bool) {
        self.behind = behind && self.door.is_some();
    }

    fn expire(&mut self, now: Instant) {
        let mut expired = std::mem::take(&mut self.expired);
        self.wheel.expire(now, &mut expired);
        for index in expired.drain(..) {
            self.timer_fired(index, now);
        }
        self.expired = expired;
    }

    fn admit(
        &mut self,
        now: Instant,
        proven: &mut impl FnMut(SocketAddr) -> bool,
        out: &mut impl Outbound,
    ) {
        let (mut handshakes, mut begun) = (0, None);
        while handshakes < INITIALS_PER_TURN {
            let Some(mut waiting) = self.door.as_mut().and_then(Door::next_waiting) else {
                return;
            };
            let begun = *begun.get_or_insert_with(Instant::now);
            let present = self.present;
            let datagram = Datagram {
                socket: waiting.socket,
                peer: waiting.peer,
                data: &mut waiting.data,
            };
            self.handle(now, &datagram, proven, out);
            if self.present > present {
                handshakes += 1;
            } else if begun.elapsed() >= ANSWERS_PER_TURN {
                return;
            }
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
        Ok(self.insert(handle, Conn::new(inner, socket, until, Place::default())))
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

impl fmt::Debug for Quinn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quinn")
            .field("open", &self.open)
            .field("half_open", &self.half_open)
            .field("present", &self.present)
            .finish_non_exhaustive()
    }
}
