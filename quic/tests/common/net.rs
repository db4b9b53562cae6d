//! A seeded network between two nodes: loss, reordering, duplication, corruption, delay, MTU,
//! rebinding. Everything follows from the seed.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use roadstead_quic::Time;

/// While so many packets are under way none is doubled: two ends that answer each other's packets one for
/// one, as a closing client and a server that asks for Retry do, would multiply them without bound.
const DOUBLED_BELOW: usize = 64;

/// SplitMix64.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }

    pub fn seed(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        out.chunks_mut(8)
            .for_each(|c| c.copy_from_slice(&self.next().to_le_bytes()));
        out
    }
}

/// What a node tells its application.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    Connected,
    Confirmed,
    Opened(u64),
    Readable(u64),
    Writable(u64),
    Delivered(u64),
    Reset(u64, u64),
    Stopped(u64, u64),
    Datagram(Vec<u8>),
    Pong,
    Migrated,
    Ticket,
    NewToken(Vec<u8>),
    Closed(String),
}

/// A datagram under way.
#[derive(Clone, Debug)]
pub struct Packet {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub data: Vec<u8>,
}

/// One end, of either engine, with at most one connection of interest.
pub trait Node {
    fn receive(&mut self, now: Time, packet: Packet);
    fn transmit(&mut self, now: Time, out: &mut Vec<Packet>);
    fn next_timeout(&mut self, now: Time) -> Option<Time>;
    fn timeout(&mut self, now: Time);
    fn notes(&mut self, now: Time) -> Vec<Note>;
    fn open(&mut self, now: Time, uni: bool) -> Option<u64>;
    fn write(&mut self, now: Time, id: u64, data: &[u8]) -> usize;
    /// Whether it could.
    fn finish(&mut self, now: Time, id: u64) -> bool;
    /// Abandons the sending half; whether it could.
    fn reset(&mut self, now: Time, id: u64, code: u64) -> bool;
    /// Asks the peer to abandon its half; whether it could.
    fn stop(&mut self, now: Time, id: u64, code: u64) -> bool;
    fn read(&mut self, now: Time, id: u64) -> (Vec<u8>, bool);
    fn send_datagram(&mut self, now: Time, data: Vec<u8>) -> bool;
    fn ping(&mut self, now: Time) -> bool;
    fn close(&mut self, now: Time);
    fn update_keys(&mut self, now: Time) -> bool;
    /// Invariants after every event.
    fn check(&mut self) {}
    /// True when the connection holds only what an idle one does; always true where unknown.
    fn is_idle(&self) -> bool {
        true
    }
}

/// How the network treats packets.
#[derive(Clone, Debug)]
pub struct Weather {
    pub loss: u64,
    pub duplicate: u64,
    pub corrupt: u64,
    /// Base delay and jitter in microseconds.
    pub delay: u64,
    pub jitter: u64,
    pub mtu: usize,
    /// How often the NAT gives the client another address, where the test asks whether it does.
    pub rebind: u64,
}

impl Weather {
    pub const CALM: Self = Self {
        loss: 0,
        duplicate: 0,
        corrupt: 0,
        delay: 10_000,
        jitter: 0,
        mtu: 1_500,
        rebind: 0,
    };

    /// A mix drawn from the seed.
    pub fn draw(dice: &mut Dice) -> Self {
        Self {
            loss: [0, 0, 2, 5, 10, 20][usize::try_from(dice.below(6)).unwrap()],
            duplicate: [0, 0, 5, 20][usize::try_from(dice.below(4)).unwrap()],
            corrupt: [0, 0, 0, 5][usize::try_from(dice.below(4)).unwrap()],
            delay: 200 + dice.below(80_000),
            jitter: [0, 1_000, 40_000][usize::try_from(dice.below(3)).unwrap()],
            mtu: [1_500, 1_500, 1_400, 1_250, 1_200][usize::try_from(dice.below(5)).unwrap()],
            rebind: 0,
        }
    }
}

/// Two nodes and what flies between them.
pub struct Net<C, S> {
    pub now: Time,
    pub client: C,
    pub server: S,
    pub weather: Weather,
    pub dice: Dice,
    pub server_addr: SocketAddr,
    /// A NAT before the client: its address as the server sees it.
    pub nat: BTreeMap<SocketAddr, SocketAddr>,
    flight: BTreeMap<(Time, u64), Packet>,
    sequence: u64,
    /// A running hash of everything delivered: equal seeds give equal traces.
    pub trace: u64,
    pub events: u64,
    pub client_notes: Vec<Note>,
    pub server_notes: Vec<Note>,
    /// Packets sent by each side.
    pub sent: [u64; 2],
    /// And their bytes.
    pub sent_bytes: [u64; 2],
    /// Nothing reaches the client.
    pub client_is_deaf: bool,
}

impl<C: Node, S: Node> Net<C, S> {
    pub fn new(seed: u64, weather: Weather, client: C, server: S, server_addr: SocketAddr) -> Self {
        Self {
            now: Time::from_millis(1_000),
            client,
            server,
            weather,
            dice: Dice(seed ^ 0x00c0_ffee),
            server_addr,
            nat: BTreeMap::new(),
            flight: BTreeMap::new(),
            sequence: 0,
            trace: 0,
            events: 0,
            client_notes: Vec::new(),
            server_notes: Vec::new(),
            sent: [0; 2],
            sent_bytes: [0; 2],
            client_is_deaf: false,
        }
    }

    fn launch(&mut self, mut packet: Packet) {
        let from_client = packet.to == self.server_addr;
        self.sent[usize::from(!from_client)] += 1;
        self.sent_bytes[usize::from(!from_client)] += packet.data.len() as u64;
        if from_client && let Some(outside) = self.nat.get(&packet.from) {
            packet.from = *outside;
        }
        if !from_client {
            let inside = self
                .nat
                .iter()
                .find(|(_, o)| **o == packet.to)
                .map(|(i, _)| *i);
            match inside {
                Some(inside) => packet.to = inside,
                // The NAT forgot this mapping.
                None if self.nat.contains_key(&packet.to) => return,
                None => {}
            }
        }
        let Weather {
            loss,
            duplicate,
            corrupt,
            delay,
            jitter,
            mtu,
            rebind: _,
        } = self.weather;
        let unheard = self.client_is_deaf && !from_client;
        if self.dice.percent(loss) || packet.data.len() > mtu || unheard {
            return;
        }
        if self.dice.percent(corrupt) {
            let at = usize::try_from(self.dice.below(packet.data.len() as u64)).unwrap();
            packet.data[at] ^= 1 << self.dice.below(8);
        }
        let doubled = self.dice.percent(duplicate) && self.flight.len() < DOUBLED_BELOW;
        let copies = 1 + u64::from(doubled);
        for _ in 0..copies {
            let at = self.now + delay + self.dice.below(jitter + 1);
            self.sequence += 1;
            self.flight.insert((at, self.sequence), packet.clone());
        }
    }

    /// Delivers what both nodes have to send.
    pub fn flush(&mut self) {
        let mut out = Vec::new();
        self.client.transmit(self.now, &mut out);
        self.server.transmit(self.now, &mut out);
        out.into_iter().for_each(|p| self.launch(p));
        self.client_notes.extend(self.client.notes(self.now));
        self.server_notes.extend(self.server.notes(self.now));
        self.client.check();
        self.server.check();
    }

    /// The next thing that happens, not after `until`. False when nothing does.
    pub fn step(&mut self, until: Time) -> bool {
        self.flush();
        let flight = self.flight.first_key_value().map(|((t, _), _)| *t);
        let timers = [
            self.client.next_timeout(self.now),
            self.server.next_timeout(self.now),
        ];
        let next = [flight, timers[0], timers[1]].into_iter().flatten().min();
        let Some(next) = next.filter(|t| *t <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(next);
        self.events += 1;
        if flight == Some(next) {
            let (_, packet) = self.flight.pop_first().unwrap();
            self.hash(&packet.data);
            if packet.to == self.server_addr {
                self.server.receive(self.now, packet);
            } else {
                self.client.receive(self.now, packet);
            }
        } else {
            if timers[0] == Some(next) {
                self.client.timeout(self.now);
            }
            if timers[1] == Some(next) {
                self.server.timeout(self.now);
            }
        }
        self.flush();
        true
    }

    fn hash(&mut self, data: &[u8]) {
        self.trace = (self.trace ^ self.now.as_micros()).wrapping_mul(0x0100_0000_01b3);
        for byte in data {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Perhaps the NAT gives the client with this address another one.
    pub fn perhaps_rebind(&mut self, client: SocketAddr) {
        let Weather { rebind, .. } = self.weather;
        if rebind > 0 && self.dice.percent(rebind) {
            let mut outside = client;
            outside.set_port(6_000 + u16::try_from(self.dice.below(1_000)).unwrap());
            self.nat.insert(client, outside);
        }
    }

    pub fn run_for(&mut self, us: u64) {
        let until = self.now + us;
        while self.step(until) {}
    }

    /// Runs until `done`, at most `us`; true when it came.
    pub fn run_until(&mut self, us: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let until = self.now + us;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(until) {
                return done(self);
            }
        }
    }

    pub fn connected(&self) -> bool {
        self.client_notes.contains(&Note::Connected) && self.server_notes.contains(&Note::Connected)
    }

    pub fn establish(&mut self) {
        assert!(self.run_until(20_000_000, |n| n.connected()), "handshake");
    }

    pub fn closed(&self) -> Option<&Note> {
        self.client_notes
            .iter()
            .chain(&self.server_notes)
            .find(|n| matches!(n, Note::Closed(_)))
    }

    /// Sends a pattern of `len` bytes on a stream of the client, which the server echoes; true when
    /// all came back and both ends of the stream are finished (when `fin`), or within time.
    pub fn echo(&mut self, id: u64, len: usize, fin: bool, us: u64) -> bool {
        let mut echo = Echo::new(id, len, fin);
        let until = self.now + us;
        loop {
            echo.drive(self);
            if echo.done() {
                return true;
            }
            if !self.step(until) || self.closed().is_some() {
                return false;
            }
        }
    }
}

pub fn pattern(n: usize) -> u8 {
    (n.wrapping_mul(31) ^ (n >> 8)).to_le_bytes()[0]
}

/// An echo on one stream, checked byte by byte.
#[derive(Debug)]
pub struct Echo {
    id: u64,
    len: usize,
    fin: bool,
    written: usize,
    finished: bool,
    back: usize,
    server_buffer: Vec<u8>,
    server_fin: bool,
    server_finished: bool,
    client_fin: bool,
}

impl Echo {
    pub fn new(id: u64, len: usize, fin: bool) -> Self {
        Self {
            id,
            len,
            fin,
            written: 0,
            finished: false,
            back: 0,
            server_buffer: Vec::new(),
            server_fin: false,
            server_finished: false,
            client_fin: false,
        }
    }

    pub fn done(&self) -> bool {
        self.back == self.len && (!self.fin || self.client_fin)
    }

    pub fn drive<C: Node, S: Node>(&mut self, net: &mut Net<C, S>) {
        let now = net.now;
        while self.written < self.len {
            let piece: Vec<u8> = (self.written..self.len.min(self.written + 4_096))
                .map(pattern)
                .collect();
            let n = net.client.write(now, self.id, &piece);
            self.written += n;
            if n == 0 {
                break;
            }
        }
        if self.fin && self.written == self.len && !self.finished {
            net.client.finish(now, self.id);
            self.finished = true;
        }
        if self.server_buffer.len() < 1 << 20 {
            let (data, fin) = net.server.read(now, self.id);
            self.server_buffer.extend_from_slice(&data);
            self.server_fin |= fin;
        }
        while !self.server_buffer.is_empty() {
            let n = net.server.write(now, self.id, &self.server_buffer);
            self.server_buffer.drain(..n);
            if n == 0 {
                break;
            }
        }
        if self.server_fin && self.server_buffer.is_empty() && !self.server_finished {
            net.server.finish(now, self.id);
            self.server_finished = true;
        }
        let (data, fin) = net.client.read(now, self.id);
        for byte in data {
            assert_eq!(
                byte,
                pattern(self.back),
                "byte {} of stream {}",
                self.back,
                self.id
            );
            self.back += 1;
        }
        assert!(self.back <= self.len, "no more comes back than was sent");
        self.client_fin |= fin;
    }
}
