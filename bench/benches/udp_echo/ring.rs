//! This project's loop: sockets, steering check, ring and application are those of the edge; only the
//! engine is another one, which sends every datagram back.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use roadstead_net::quic::{Datagram, EngineConfig, Outbound};
use roadstead_net::tls::{ALPN, ServerTls};
use roadstead_net::{
    App, ConnId, ConnectError, ConnectParams, Engine, Error, Event, Io, SecretKeys, Server,
    ServerConfig,
};

use crate::Meter;

thread_local! {
    /// The way of the meter into the engine, which is made from nothing but its configuration.
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// Sends every datagram back.
struct EchoEngine {
    meter: Meter,
}

impl Engine for EchoEngine {
    fn new(_config: EngineConfig, _now: Instant) -> Result<Self, Error> {
        let meter = METER.take().expect("left there by `serve`");
        Ok(Self { meter })
    }

    fn receive(&mut self, _now: Instant, datagram: Datagram<'_>, out: &mut impl Outbound) {
        if self.meter.took(datagram.data.len()) {
            out.buffer().extend_from_slice(datagram.data);
            out.send(datagram.socket, datagram.peer, None);
        }
    }

    fn connect(
        &mut self,
        _now: Instant,
        _socket: u16,
        _params: &ConnectParams,
    ) -> Result<ConnId, ConnectError> {
        Err(ConnectError::NotAClient)
    }

    // There are no connections.
    fn set_behind(&mut self, _behind: bool) {}

    fn knows(&self, _datagram: &Datagram<'_>) -> bool {
        false
    }

    fn expire(&mut self, _now: Instant) {}

    fn admit(
        &mut self,
        _now: Instant,
        _proven: &mut impl FnMut(SocketAddr) -> bool,
        _out: &mut impl Outbound,
    ) {
    }
    fn next_event(&mut self) -> Option<Event> {
        None
    }
    fn flush(&mut self, _now: Instant, _out: &mut impl Outbound) {}
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn read(&mut self, _conn: ConnId) -> Option<Bytes> {
        None
    }
    fn write(&mut self, _conn: ConnId, _data: &[u8]) -> usize {
        0
    }
    fn write_capacity(&self, _conn: ConnId) -> usize {
        0
    }
    fn finish(&mut self, _conn: ConnId) {}
    fn send_datagram(&mut self, _conn: ConnId, _data: Bytes) -> bool {
        false
    }
    fn datagram_max(&mut self, _conn: ConnId) -> Option<usize> {
        None
    }
    fn ping(&mut self, _conn: ConnId) {}
    fn raise_receive_window(&mut self, _conn: ConnId, _bytes: u32) {}
    fn close(&mut self, _now: Instant, _conn: ConnId, _code: u32, _reason: &[u8]) {}
    fn peer(&self, _conn: ConnId) -> Option<SocketAddr> {
        None
    }
    fn rtt(&self, _conn: ConnId) -> Option<Duration> {
        None
    }
    fn is_open(&self, _conn: ConnId) -> bool {
        false
    }
    fn open_connections(&self) -> Vec<ConnId> {
        Vec::new()
    }
    fn is_drained(&self) -> bool {
        true
    }
}

/// An application that is never told anything.
struct Nothing;

impl App<EchoEngine> for Nothing {
    type Message = ();

    fn event(&mut self, _io: &mut Io<'_, EchoEngine>, _event: Event) {}

    fn message(&mut self, _io: &mut Io<'_, EchoEngine>, (): ()) {}

    fn turn(&mut self, _io: &mut Io<'_, EchoEngine>) -> Option<Instant> {
        None
    }
}

/// Echoes for ever.
pub(crate) fn serve(meter: Meter, address: Sender<SocketAddr>) {
    let made = rcgen::generate_simple_self_signed(["echo.test".to_owned()]).expect("a certificate");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = ServerTls::from_pem(chain.as_bytes(), key.as_bytes(), &[ALPN], None).expect("TLS");
    let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    let config = ServerConfig::new(listen, 1, Arc::new(tls), SecretKeys::random());
    let mut server = Server::<(), EchoEngine>::bind_with_engine(config).expect("a port is free");
    METER.set(Some(meter));
    let seed = server.take_seeds().pop().expect("one shard");
    address.send(server.addresses()[0]).expect("main waits");
    seed.run(Nothing).map(drop).expect("the loop runs");
}
