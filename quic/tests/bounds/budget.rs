//! The shard's memory for what is in flight (T8): counted, bounded, taken back from the biggest.

use crate::common::fake::FakeConfig;
use crate::common::net::{Node as _, Note, Packet};
use crate::common::own::{FakeOwn, address, config, fake_server, server_addr};
use roadstead_quic::{CidFormat, CloseReason, Code, Event, Handle, Time};

use crate::common::fake::FakeAead;
use crate::common::own::Own;

const BUDGET: usize = 400_000;

/// Clients, each at an address of its own, and one server.
struct Town {
    now: Time,
    clients: Vec<FakeOwn>,
    server: FakeOwn,
    /// The server's side of each client, in the order in which they connected.
    handles: Vec<Handle>,
    closed: Vec<(Handle, CloseReason)>,
}

impl Town {
    fn new(budget: usize) -> Self {
        let server = fake_server(3, |c, _| {
            c.in_flight_bytes_max = budget;
            c.transport.stream_send_buffer = 1 << 20;
        });
        Self {
            now: Time::from_millis(1_000),
            clients: Vec::new(),
            server,
            handles: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// A client that begins its handshake.
    fn arrive(&mut self) -> usize {
        let n = u8::try_from(self.clients.len()).unwrap();
        let config = config(u64::from(n) + 40, CidFormat::Compact);
        let mut client = Own::new(config, None, FakeAead, address(20 + n, 5_000));
        client.connect(
            self.now,
            &FakeConfig::new(u64::from(n) << 20),
            server_addr(),
        );
        self.clients.push(client);
        usize::from(n)
    }

    /// Carries packets; those to the clients in `deaf` are lost.
    fn settle(&mut self, deaf: bool) {
        for _ in 0..40 {
            let mut out: Vec<Packet> = Vec::new();
            for client in &mut self.clients {
                client.transmit(self.now, &mut out);
            }
            self.server.transmit(self.now, &mut out);
            for packet in out {
                if packet.to == server_addr() {
                    self.server.receive(self.now, packet);
                } else if !deaf {
                    let to = self
                        .clients
                        .iter_mut()
                        .find(|c| c.addresses[0] == packet.to);
                    to.unwrap().receive(self.now, packet);
                }
            }
            while let Some((handle, event)) = self.server.endpoint.poll_event() {
                match event {
                    Event::Connected(_) => self.handles.push(handle),
                    Event::Closed(reason) => self.closed.push((handle, reason)),
                    _ => {}
                }
            }
            self.server.endpoint.check_invariants();
            self.now = self.now + 1_000;
        }
    }

    fn connect(&mut self) {
        let n = self.arrive();
        self.settle(false);
        let id = self.clients[n].open(self.now, false).unwrap();
        self.clients[n].write(self.now, id, b"x");
        self.settle(false);
        assert_eq!(self.handles.len(), n + 1, "connected");
        let handle = self.handles[n];
        let read = self.server.endpoint.read(self.now, handle, 0, &mut [0; 8]);
        assert_eq!(read.map(|r| r.len), Ok(1));
    }

    /// The server has so many bytes for a client, who takes none of them.
    fn hoard(&mut self, client: usize, bytes: usize) {
        let handle = self.handles[client];
        let data = vec![0; bytes];
        let written = self.server.endpoint.write(self.now, handle, 0, &data);
        assert_eq!(written, Ok(bytes));
    }
}

#[test]
fn the_biggest_hoarder_is_closed_and_the_others_stay_t8() {
    let mut town = Town::new(BUDGET);
    for _ in 0..3 {
        town.connect();
    }
    town.hoard(0, 50_000);
    town.hoard(1, 160_000);
    town.hoard(2, 60_000);
    town.settle(true);
    assert!(town.closed.is_empty(), "within the budget");
    town.hoard(2, 250_000);
    town.settle(false);
    let [(closed, CloseReason::Local(error))] = &town.closed[..] else {
        panic!("{:?}", town.closed)
    };
    assert_eq!(*closed, town.handles[2]);
    assert_eq!(error.code, Code::INTERNAL_ERROR);
    assert!(error.reason.contains("memory"), "{}", error.reason);
    assert_eq!(town.server.endpoint.stats().hoarders_closed, 1);
    assert!(town.server.endpoint.in_flight_bytes() < BUDGET);
    // The peer hears it, and the others stay.
    let now = town.now;
    for (n, client) in town.clients.iter_mut().enumerate() {
        let told = Note::Closed("closed by the peer: error 0x1 in frame 0x0".to_owned());
        let notes = client.notes(now);
        assert_eq!(notes.contains(&told), n == 2, "{notes:?}");
    }
}

#[test]
fn under_pressure_nothing_more_is_promised_t8() {
    let mut town = Town::new(BUDGET);
    town.connect();
    let (now, first) = (town.now, town.handles[0]);
    let raised = town
        .server
        .endpoint
        .set_windows(now, first, 64 << 10, 64 << 10);
    assert_eq!(raised, Ok(true));
    town.settle(false);
    town.hoard(0, 350_000);
    let raised = town
        .server
        .endpoint
        .set_windows(now, first, 1 << 20, 1 << 20);
    assert_eq!(raised, Ok(false));
    // A newcomer proves its address, and is then served.
    let before = town.server.endpoint.stats().retries_sent;
    town.arrive();
    town.settle(true);
    assert_eq!(town.server.endpoint.stats().retries_sent, before + 1);
    assert!(town.closed.is_empty());
}

/// Many small ones are a busy hour, not an attack.
#[test]
fn small_ones_are_not_closed_t8() {
    let mut town = Town::new(20_000);
    for _ in 0..12 {
        town.connect();
    }
    for n in 0..12 {
        town.hoard(n, 1_000);
    }
    assert!(town.server.endpoint.in_flight_bytes() > 20_000);
    assert!(town.closed.is_empty());
    // But nobody else comes in meanwhile.
    let before = town.server.endpoint.stats();
    town.arrive();
    town.settle(true);
    let after = town.server.endpoint.stats();
    assert!(after.no_room > before.no_room);
    assert_eq!(after.refused, before.refused, "in silence (T11)");
}
