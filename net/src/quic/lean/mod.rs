//! The project's own engine behind the seam: roadstead-quic with rustls and aws-lc-rs.
//!
//! The endpoint holds everything about a connection; what the seam adds is one word of [`marks`] per
//! slot. Events are translated at once after each call, while the slot they speak of is not reused.
//!
//! There is one stream per connection, the client's first (T18), and no buffer of this module's own:
//! what `write` accepts lies in the engine's send buffer until it is acknowledged.
//!
//! [`RustlsTls`] and [`AwsLc`] are what the endpoint is made with. They are public for programs that
//! drive an endpoint by themselves, with all of its streams and calls: the interoperation runs.

mod aead;
mod arrivals;
mod config;
mod departures;
mod events;
mod marks;
mod ready_keys;
mod share;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    collections::VecDeque,
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use roadstead_quic::{Connect, Endpoint, Handle, Path, Standing, Stats, Time, Transmit};

use crate::{
    config::{ANSWERS_PER_TURN, Transport},
    counters::Counters,
    error::{ConnectError, Error},
    event::{CloseReason, ConnId, ConnectParams, Event},
    quic::{Datagram, Engine, EngineConfig, Outbound, TransportMemory, wire::is_initial},
    tls::ClientTls,
};

use arrivals::Lobby;
use marks::{Mark, Marks};

pub use aead::AwsLc;
pub use tls::RustlsTls;

/// The only stream: the first bidirectional one that a client opens.
const STREAM: u64 = 0;

/// Bytes read from the endpoint at once.
const READ_BYTES: usize = 16 * 1024;

/// Room for the packets of one call of the endpoint: a full train and a little more.
const ARENA_BYTES: usize = 64 * 1024;

/// A close that goes out after what was written.
struct Closing {
    handle: Handle,
    code: u32,
    reason: Box<[u8]>,
}

/// roadstead-quic behind the engine seam.
pub struct Lean {
    endpoint: Endpoint<RustlsTls, AwsLc>,
    client: Option<Arc<ClientTls>>,
    lobby: Option<Lobby>,
    transport: Transport,
    marks: Marks,
    events: VecDeque<Event>,
    closing: Vec<Closing>,
    counters: Arc<Counters>,
    /// What of the endpoint's statistics is in the counters.
    counted: Stats,
    /// Their sum: it tells whether there is anything to count.
    counted_events: u64,
    /// A client's handshakes under way.
    connecting: usize,
    open: usize,
    epoch: Instant,
    now: Instant,
    arena: Box<[u8]>,
    transmits: Vec<Transmit>,
    scratch: Box<[u8]>,
}

impl Lean {
    fn time(&self, now: Instant) -> Time {
        let micros = now.saturating_duration_since(self.epoch).as_micros();
        Time::from_micros(u64::try_from(micros).expect("fewer than 2^64 microseconds"))
    }

    fn present(&self) -> Time {
        self.time(self.now)
    }

    /// The handle of a connection that the application may use.
    fn usable(&self, conn: ConnId) -> Option<Handle> {
        let handle = handle_of(conn);
        let marks = self.marks.of(handle);
        let open = marks.has(Mark::Open) && !marks.has(Mark::Gone) && !marks.has(Mark::Closing);
        (open && self.endpoint.contains(handle)).then_some(handle)
    }

    /// Bytes that `write` accepts: what may be in flight, and the backlog beyond it.
    fn room(&self, handle: Handle) -> usize {
        let Some(sending) = self.endpoint.sending(handle, STREAM) else {
            return 0;
        };
        let window = u64::from(self.transport.send_window);
        let flying = sending.permitted.min(sending.released + window);
        let limit = flying.saturating_add(self.transport.send_backlog as u64);
        usize::try_from(limit.saturating_sub(sending.written)).unwrap_or(usize::MAX)
    }

    /// Whether the peer refuses the stream, so that there is no one to tell.
    fn is_stopped(&self, handle: Handle) -> bool {
        let marks = self.marks.of(handle);
        marks.has(Mark::Stream) && self.endpoint.sending(handle, STREAM).is_none()
    }
}

impl Engine for Lean {
    fn new(config: EngineConfig, now: Instant) -> Result<Self, Error> {
        let endpoint = config::endpoint(&config)?;
        Ok(Self {
            endpoint,
            client: config.client,
            lobby: config.server.map(|side| Lobby::new(&side, config.all, now)),
            transport: config.transport,
            marks: Marks::default(),
            events: VecDeque::new(),
            closing: Vec::new(),
            counters: config.counters,
            counted: Stats::default(),
            counted_events: 0,
            connecting: 0,
            open: 0,
            epoch: now,
            now,
            arena: vec![0; ARENA_BYTES].into(),
            transmits: Vec::new(),
            scratch: vec![0; READ_BYTES].into(),
        })
    }

    fn receive(&mut self, now: Instant, datagram: Datagram<'_>, _out: &mut impl Outbound) {
        self.now = now;
        if self.lobby.is_none() || !is_initial(datagram.data) {
            return self.take(datagram, false);
        }
        let standing = self.standing(&datagram);
        match &mut self.lobby {
            Some(lobby) if standing != Standing::Connected => {
                let dropped = lobby.put_aside(&datagram, standing == Standing::Proven);
                self.counters.drop_initial_backlog.add(dropped);
            }
            _ => self.take(datagram, false),
        }
    }

    fn knows(&self, datagram: &Datagram<'_>) -> bool {
        self.lobby.is_some() && self.standing(datagram) == Standing::Connected
    }

    fn set_behind(&mut self, behind: bool) {
        // A client chose its server, and asked for what comes.
        self.endpoint.set_behind(behind && self.lobby.is_some());
    }

    fn expire(&mut self, now: Instant) {
        self.now = now;
        self.endpoint.handle_timeout(self.time(now));
        self.translate();
    }

    fn admit(
        &mut self,
        now: Instant,
        proven: &mut impl FnMut(SocketAddr) -> bool,
        _out: &mut impl Outbound,
    ) {
        self.now = now;
        if self.lobby.as_ref().is_some_and(Lobby::has_waiting) {
            let begun = Instant::now();
            self.admit_some(proven, || begun.elapsed() >= ANSWERS_PER_TURN);
        }
    }

    fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Closed { conn, .. } = event
            && self.endpoint.contains(handle_of(conn))
        {
            self.marks.set(handle_of(conn), Mark::Gone);
        }
        Some(event)
    }

    fn flush(&mut self, now: Instant, out: &mut impl Outbound) {
        self.now = now;
        self.send_all(out);
        if !self.closing.is_empty() {
            self.send_closes();
            self.send_all(out);
        }
        self.count();
    }

    fn deadline(&self) -> Option<Instant> {
        let waiting = self.lobby.as_ref().is_some_and(Lobby::has_waiting);
        if waiting || !self.events.is_empty() || !self.closing.is_empty() {
            return Some(self.epoch);
        }
        let at = self.endpoint.next_timeout(self.present())?;
        Some(self.epoch + Duration::from_micros(at.as_micros()))
    }

    fn connect(
        &mut self,
        now: Instant,
        socket: u16,
        params: &ConnectParams,
    ) -> Result<ConnId, ConnectError> {
        self.now = now;
        let tls = self.client.clone().ok_or(ConnectError::NotAClient)?;
        let remote = params.remote;
        let wrong = remote.port() == 0 || remote.ip().is_unspecified();
        if wrong {
            return Err(ConnectError::NoSocket(remote));
        }
        let connect = Connect {
            server_name: &params.server_name,
            path: Path { socket, remote },
            token: Vec::new(),
            home: params.home.map(|home| (home.prefix, home.bits.min(16))),
            app: 0,
        };
        let handle = self
            .endpoint
            .connect(self.time(now), &tls.lean, connect)
            .map_err(|error| ConnectError::Engine(error.to_string()))?;
        self.marks.clear(handle);
        self.connecting += 1;
        self.translate();
        Ok(conn_of(handle))
    }

    fn read(&mut self, conn: ConnId) -> Option<Bytes> {
        let handle = self.usable(conn)?;
        let now = self.present();
        let read = self
            .endpoint
            .read(now, handle, STREAM, &mut self.scratch)
            .ok()?;
        if read.fin {
            self.tell_finished(handle);
        }
        (read.len > 0).then(|| Bytes::copy_from_slice(&self.scratch[..read.len]))
    }

    fn write(&mut self, conn: ConnId, data: &[u8]) -> usize {
        let Some(handle) = self.usable(conn) else {
            return 0;
        };
        if self.marks.of(handle).has(Mark::Finishing) {
            return 0;
        }
        if self.is_stopped(handle) {
            return data.len();
        }
        let wanted = data.len().min(self.room(handle));
        let now = self.present();
        let accepted = match &data[..wanted] {
            [] => 0,
            data => self.endpoint.write(now, handle, STREAM, data).unwrap_or(0),
        };
        if accepted < data.len() {
            self.marks.set(handle, Mark::ShortWrite);
        }
        accepted
    }

    fn write_capacity(&self, conn: ConnId) -> usize {
        match self.usable(conn) {
            Some(handle) if self.is_stopped(handle) => self.transport.send_backlog,
            Some(handle) => self.room(handle),
            None => 0,
        }
    }

    fn finish(&mut self, conn: ConnId) {
        if let Some(handle) = self.usable(conn) {
            self.marks.set(handle, Mark::Finishing);
            // It fails only if the stream is over already, or not there yet: then it is told later.
            let _ = self.endpoint.finish(self.present(), handle, STREAM);
        }
    }

    fn send_datagram(&mut self, conn: ConnId, data: Bytes) -> bool {
        let now = self.present();
        self.usable(conn)
            .is_some_and(|handle| self.endpoint.send_datagram(now, handle, data).is_ok())
    }

    fn datagram_max(&mut self, conn: ConnId) -> Option<usize> {
        let handle = self.usable(conn)?;
        self.endpoint.datagram_max(handle).filter(|max| *max > 0)
    }

    fn ping(&mut self, conn: ConnId) {
        if let Some(handle) = self.usable(conn) {
            // It fails only while the connection closes.
            let _ = self.endpoint.ping(self.present(), handle);
        }
    }

    fn raise_receive_window(&mut self, conn: ConnId, bytes: u32) {
        let bytes = bytes.min(self.transport.receive_window_max);
        if let Some(handle) = self.usable(conn) {
            // It fails only while the connection closes; when memory is tight the window stays (T8).
            let _ = self
                .endpoint
                .set_windows(self.present(), handle, bytes, bytes);
        }
    }

    fn close(&mut self, now: Instant, conn: ConnId, code: u32, reason: &[u8]) {
        self.now = now;
        let handle = handle_of(conn);
        if !self.endpoint.contains(handle) || self.marks.of(handle).has(Mark::Closed) {
            return;
        }
        self.marks.set(handle, Mark::Closing);
        self.closing.push(Closing {
            handle,
            code,
            reason: reason.into(),
        });
        self.tell_closed(handle, CloseReason::Local);
    }

    fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        let handle = self.usable(conn)?;
        self.endpoint.path(handle).map(|path| path.remote)
    }

    fn rtt(&self, conn: ConnId) -> Option<Duration> {
        let handle = self.usable(conn)?;
        self.endpoint.rtt_us(handle).map(Duration::from_micros)
    }

    fn memory(&self) -> Option<TransportMemory> {
        let memory = self.endpoint.memory();
        Some(TransportMemory {
            connections: memory.connections,
            active: memory.active,
            table_bytes: memory.slab + self.marks.bytes(),
            active_bytes: memory.heap,
        })
    }

    fn is_open(&self, conn: ConnId) -> bool {
        self.usable(conn).is_some()
    }

    fn open_connections(&self) -> Vec<ConnId> {
        let mut conns = Vec::new();
        self.endpoint.for_each(|handle| {
            let marks = self.marks.of(handle);
            // A server's application never heard of a handshake that is not complete.
            if !marks.has(Mark::Closed) && (marks.has(Mark::Open) || self.lobby.is_none()) {
                conns.push(conn_of(handle));
            }
        });
        conns
    }

    fn is_drained(&self) -> bool {
        self.endpoint.is_empty()
    }
}

impl fmt::Debug for Lean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lean")
            .field("open", &self.open)
            .field("present", &self.endpoint.len())
            .finish_non_exhaustive()
    }
}

fn conn_of(handle: Handle) -> ConnId {
    ConnId {
        index: handle.index(),
        generation: handle.generation(),
    }
}

fn handle_of(conn: ConnId) -> Handle {
    Handle::of(conn.index, conn.generation)
}
