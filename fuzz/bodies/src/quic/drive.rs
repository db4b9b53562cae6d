//! A pair of endpoints driven by operations over the seeded network, and what must come of it (T15):
//! everything sent arrives once and in order or the connection closes with a reason; afterwards an end
//! holds what an idle one holds.

use arbitrary::Arbitrary;
use roadstead_quic::CidFormat;

use super::common::net::{Net, Node, Note, Packet, Weather};
use super::common::own::{
    Own, address, client_addr, fake_client, fake_server, server_addr, steered,
};
use super::common::quinn::Quinn;
use super::model::{Model, at};

/// Operations of one input: beyond these a run is long and finds nothing that a shorter one does not.
const OPERATIONS_MAX: usize = 96;

/// An end of the pair.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// It connected.
    Client,
    /// It accepted.
    Server,
}

/// How the network treats packets from now on; percentages.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Sky {
    loss: u8,
    duplicate: u8,
    corrupt: u8,
    delay_ms: u8,
    jitter_ms: u8,
}

impl Sky {
    /// The weather of the test network.
    #[must_use]
    pub(super) fn weather(self) -> Weather {
        Weather {
            loss: u64::from(self.loss % 40),
            duplicate: u64::from(self.duplicate % 30),
            corrupt: u64::from(self.corrupt % 20),
            delay: 200 + 1_000 * u64::from(self.delay_ms % 100),
            jitter: 1_000 * u64::from(self.jitter_ms % 100),
            mtu: 1_500,
            rebind: 0,
        }
    }
}

/// What an application or the network does.
#[derive(Arbitrary, Clone, Copy, Debug)]
#[allow(
    missing_docs,
    reason = "the names say it; streams are counted among those known"
)]
pub(super) enum Operation {
    Open {
        end: End,
        uni: bool,
    },
    Write {
        end: End,
        stream: u8,
        len: u16,
    },
    Finish {
        end: End,
        stream: u8,
    },
    Reset {
        end: End,
        stream: u8,
        code: u8,
    },
    Stop {
        end: End,
        stream: u8,
        code: u8,
    },
    Read {
        end: End,
        stream: u8,
    },
    Datagram {
        end: End,
        len: u16,
    },
    Ping {
        end: End,
    },
    UpdateKeys {
        end: End,
    },
    /// A NAT gives the client another address.
    Rebind {
        host: bool,
        port: u8,
    },
    /// The client moves to another socket.
    Migrate,
    Weather(Sky),
    /// So many events happen.
    Step {
        events: u8,
    },
    Advance {
        ms: u16,
    },
    Close {
        end: End,
    },
}

/// A client that can move to a socket of its own accord.
pub(super) trait Mover: Node {
    /// Moves to another address; nothing where it may not.
    fn migrate(&mut self, net_now: roadstead_quic::Time, n: u8);
}

impl<T: roadstead_quic::crypto::Tls, A: roadstead_quic::crypto::Aead> Mover for Own<T, A> {
    fn migrate(&mut self, now: roadstead_quic::Time, n: u8) {
        let (Some(handle), Ok(socket)) = (self.handle, u16::try_from(self.addresses.len())) else {
            return;
        };
        if self.addresses.len() < 6 && self.endpoint.migrate(now, handle, socket).is_ok() {
            self.addresses.push(address(30 + n, 7_000));
        }
    }
}

impl Mover for Quinn {
    fn migrate(&mut self, _: roadstead_quic::Time, n: u8) {
        self.rebind(address(30 + n, 7_000));
    }
}

/// Runs the operations, then fair weather until nothing is left to do.
pub(super) fn drive<C: Mover, S: Node>(net: &mut Net<C, S>, operations: &[Operation]) -> Model {
    let mut model = Model::default();
    let mut moves = 0;
    for operation in operations.iter().take(OPERATIONS_MAX) {
        match *operation {
            Operation::Open { end, uni } => model.open(net, end, uni),
            Operation::Write { end, stream, len } => model.write(net, end, stream, len),
            Operation::Finish { end, stream } => model.finish(net, end, stream),
            Operation::Reset { end, stream, code } => model.reset(net, end, stream, code),
            Operation::Stop { end, stream, code } => model.stop(net, end, stream, code),
            Operation::Read { end, stream } => model.read(net, end, stream),
            Operation::Datagram { end, len } => model.datagram(net, end, len),
            Operation::Ping { end } => {
                at!(net, end, ping());
            }
            Operation::UpdateKeys { end } => {
                at!(net, end, update_keys());
            }
            Operation::Rebind { host, port } => {
                let host = if host { 9 } else { 1 };
                let outside = address(host, 6_000 + u16::from(port));
                net.nat.insert(client_addr(), outside);
            }
            Operation::Migrate => {
                moves += 1;
                net.client.migrate(net.now, moves);
            }
            Operation::Weather(sky) => net.weather = sky.weather(),
            Operation::Step { events } => {
                let until = net.now + 1_000_000;
                for _ in 0..1 + events % 32 {
                    net.step(until);
                }
            }
            Operation::Advance { ms } => net.run_for(1_000 * u64::from(ms)),
            Operation::Close { end } => at!(net, end, close()),
        }
        net.flush();
        model.take_notes(net);
    }
    net.weather = Weather::CALM;
    net.run_until(60_000_000, |net| net.connected() || net.closed().is_some());
    model.settle(net);
    model
}

/// What a handshake and a little traffic put on the wire.
#[must_use]
pub(super) fn datagrams() -> Vec<Vec<u8>> {
    let mut client = fake_client(1, CidFormat::Compact, |_, _| {});
    let mut server = fake_server(1, |_, _| {});
    let mut now = roadstead_quic::Time::from_millis(1_000);
    let mut seen = Vec::new();
    for _ in 0..6 {
        let mut out = Vec::new();
        client.transmit(now, &mut out);
        server.transmit(now, &mut out);
        if out.is_empty() {
            client.ping(now);
        }
        for packet in out {
            seen.push(packet.data.clone());
            deliver(&mut client, &mut server, now, packet);
        }
        client.notes(now);
        server.notes(now);
        now = now + 5_000;
    }
    seen
}

fn deliver<C: Node, S: Node>(
    client: &mut C,
    server: &mut S,
    now: roadstead_quic::Time,
    packet: Packet,
) {
    if packet.to == server_addr() {
        server.receive(now, packet);
    } else {
        client.receive(now, packet);
    }
}

/// How own ids look.
#[must_use]
pub(super) fn format(choice: u8) -> CidFormat {
    [CidFormat::Empty, CidFormat::Compact, steered()][usize::from(choice % 3)]
}

/// Whether an end has told that its connection is over.
pub(super) fn is_closed(notes: &[Note]) -> bool {
    notes.iter().any(|note| matches!(note, Note::Closed(_)))
}
