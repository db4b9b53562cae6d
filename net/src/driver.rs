//! What an application of a loop is, and what it may do. The loop itself is in `looper`.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    counters::Counters,
    error::ConnectError,
    event::{ConnId, ConnectParams, Event},
    quic::{Engine, TransportMemory},
};

/// An application of one thread's loop: the edge's shard, or loadgen's sessions.
pub trait App<E: Engine> {
    /// What other threads send to it through its [`Mailbox`](crate::Mailbox).
    type Message: Send + 'static;

    /// Whether a handshake from this address may begin or go on; without, its Initials are dropped. Asked
    /// before anything of them is decrypted. Whoever sent one may have put down any address, so nothing
    /// should be remembered of it: count in [`App::proven`] or in [`Event::Opened`].
    fn admits(&self, _now: Instant, _peer: SocketAddr) -> bool {
        true
    }

    /// An address has proven itself with the token of a Retry: may its handshake begin? Asked before TLS. Count
    /// it here, and not again in [`Event::Opened`], which says so: whoever has proven an address may begin
    /// handshakes and finish none.
    fn proven(&mut self, _now: Instant, _peer: SocketAddr) -> bool {
        true
    }

    /// Something happened to a connection.
    fn event(&mut self, io: &mut Io<'_, E>, event: Event);

    /// Another thread sent something.
    fn message(&mut self, io: &mut Io<'_, E>, message: Self::Message);

    /// Called once per turn, after all events and messages of it and before packets are sent; the first
    /// time before anything was received. Returns when to be called again if nothing happens.
    fn turn(&mut self, io: &mut Io<'_, E>) -> Option<Instant>;
}

/// What the loop wants to know after the application was called.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(crate) stop: bool,
    pub(crate) next_socket: u16,
    /// Sockets to bind anew.
    pub(crate) rebind: Vec<u16>,
}

/// The application's way to its connections, for the time of one call.
pub struct Io<'a, E> {
    pub(crate) engine: &'a mut E,
    pub(crate) now: Instant,
    pub(crate) control: &'a mut Control,
    pub(crate) counters: &'a Counters,
    pub(crate) sockets: &'a [SocketAddr],
    pub(crate) thread: u16,
}

impl<E: Engine> Io<'_, E> {
    /// The time of this turn. One clock reading serves all its events.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Which shard, or client thread, this is.
    pub fn thread(&self) -> u16 {
        self.thread
    }

    /// The local addresses of this thread's sockets, in their order.
    pub fn sockets(&self) -> &[SocketAddr] {
        self.sockets
    }

    /// Starts a connection (clients only). `Opened` or `Closed` follows, and after `Opened`, in the end,
    /// `Closed`.
    pub fn connect(&mut self, params: &ConnectParams) -> Result<ConnId, ConnectError> {
        let socket = self.choose_socket(params)?;
        self.engine.connect(self.now, socket, params)
    }

    fn choose_socket(&mut self, params: &ConnectParams) -> Result<u16, ConnectError> {
        let fits = |socket: u16| {
            self.sockets
                .get(usize::from(socket))
                .is_some_and(|local| local.is_ipv4() == params.remote.is_ipv4())
        };
        let count = u16::try_from(self.sockets.len()).unwrap_or(u16::MAX).max(1);
        let chosen = match params.socket {
            Some(socket) => Some(socket).filter(|socket| fits(*socket)),
            None => (0..count)
                .map(|n| (self.control.next_socket + n) % count)
                .find(|s| fits(*s)),
        };
        let chosen = chosen.ok_or(ConnectError::NoSocket(params.remote))?;
        self.control.next_socket = (chosen + 1) % count;
        Ok(chosen)
    }

    /// The next bytes of the peer, in order, in whatever pieces they came. `None` when there are none
    /// now. Bytes left unread grant the peer no flow control, so a slow application slows its peer (R26).
    pub fn read(&mut self, conn: ConnId) -> Option<Bytes> {
        self.engine.read(conn)
    }

    /// Queues bytes for the peer and returns how many were accepted. If that is fewer than given,
    /// `Writable` follows when there is room again.
    pub fn write(&mut self, conn: ConnId, data: &[u8]) -> usize {
        self.engine.write(conn, data)
    }

    /// How many bytes `write` would accept now, at least. A frame not longer than this goes in whole.
    pub fn write_capacity(&self, conn: ConnId) -> usize {
        self.engine.write_capacity(conn)
    }

    /// Says that this end will write nothing more. The peer sees `Finished`.
    pub fn finish(&mut self, conn: ConnId) {
        self.engine.finish(conn);
    }

    /// Sends a DATAGRAM frame: unreliable, unordered, dropped when old. False if the connection cannot.
    pub fn send_datagram(&mut self, conn: ConnId, data: Bytes) -> bool {
        self.engine.send_datagram(conn, data)
    }

    /// Largest payload for `send_datagram`.
    pub fn datagram_max(&mut self, conn: ConnId) -> Option<usize> {
        self.engine.datagram_max(conn)
    }

    /// Sends a PING frame, the heartbeat of QUIC sessions (T10).
    pub fn ping(&mut self, conn: ConnId) {
        self.engine.ping(conn);
    }

    /// Raises the window that the peer may fill, to at most `receive_window_max`. For authenticated
    /// sessions, from the shard's budget (T8).
    pub fn raise_receive_window(&mut self, conn: ConnId, bytes: u32) {
        self.engine.raise_receive_window(conn, bytes);
    }

    /// Closes: what was written goes out first as far as the peer's windows allow, then the code and the
    /// reason (at most some hundred bytes). `Closed` with `CloseReason::Local` follows.
    pub fn close(&mut self, conn: ConnId, code: u32, reason: &[u8]) {
        self.engine.close(self.now, conn, code, reason);
    }

    /// Closes every connection of this thread.
    pub fn close_all(&mut self, code: u32, reason: &[u8]) {
        for conn in self.engine.open_connections() {
            self.engine.close(self.now, conn, code, reason);
        }
    }

    /// The peer's present address.
    pub fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        self.engine.peer(conn)
    }

    /// The smoothed round-trip time.
    pub fn rtt(&self, conn: ConnId) -> Option<Duration> {
        self.engine.rtt(conn)
    }

    /// What the connections of this thread hold; `None` if the engine does not know. Walks over all of
    /// them: some 20 ns each.
    pub fn memory(&self) -> Option<TransportMemory> {
        self.engine.memory()
    }

    /// Whether the connection still exists for this application.
    pub fn is_open(&self, conn: ConnId) -> bool {
        self.engine.is_open(conn)
    }

    /// Ends the loop after this turn's packets are sent. Connections that are open are left as they are:
    /// their peers will learn of it by a stateless reset or a timeout, so close them first.
    pub fn stop(&mut self) {
        self.control.stop = true;
    }

    /// Binds a client's socket to another port at the end of this turn, as when a NAT forgets its mapping.
    /// What is on its way to the old port is lost, and nobody is told: the peers learn the new address
    /// from the next packet of each connection (RFC 9000 section 9).
    ///
    /// # Panics
    /// Panics if this thread has no such socket.
    pub fn rebind(&mut self, socket: u16) {
        assert!(
            usize::from(socket) < self.sockets.len(),
            "a socket of this thread"
        );
        self.control.rebind.push(socket);
    }

    /// This thread's counters.
    pub fn counters(&self) -> &Counters {
        self.counters
    }
}

impl<E> fmt::Debug for Io<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}
