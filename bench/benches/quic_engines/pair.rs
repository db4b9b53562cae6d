//! A client and a server of one engine, and the time and memory that each takes.
//!
//! Time is virtual: a hop takes [`HOP`], and nothing else moves the clock but [`Pair::advance`], so
//! timers fire, packets count and acknowledgements wait the same in every run. Only the cost is real.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::end::{End, Identity, Note, Wire, addresses};
use super::memory::{Owner, owned_by};

/// The one-way delay of the network.
pub const HOP: Duration = Duration::from_micros(50);

/// What a server's application does with what it reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Echo,
    Drop,
}

/// What an end has cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub time: Duration,
    /// Packets that it sent.
    pub packets: u64,
}

/// One end with its address, its cost and its packets on their way.
struct Half<E: End> {
    end: E,
    owner: Owner,
    peer: SocketAddr,
    out: Wire,
    cost: Cost,
}

impl<E: End> Half<E> {
    /// Takes what arrived, lets the application react, sends.
    fn turn(
        &mut self,
        now: Instant,
        arrived: &mut Wire,
        mut app: impl FnMut(&mut E, Note<E::Conn>),
    ) {
        let begin = Instant::now();
        owned_by(self.owner, || {
            for range in arrived.packets.drain(..) {
                let data = &mut arrived.bytes[range];
                self.end.receive(now, self.peer, data, &mut self.out);
            }
            self.end.expire(now, &mut self.out);
            while let Some(note) = self.end.next() {
                app(&mut self.end, note);
            }
            self.end.flush(now, &mut self.out);
        });
        self.cost.time += begin.elapsed();
        self.cost.packets += self.out.packets.len() as u64;
        arrived.clear();
    }

    fn is_due(&self, now: Instant) -> bool {
        self.end.deadline().is_some_and(|at| at <= now)
    }
}

/// Both ends.
pub struct Pair<E: End> {
    client: Half<E>,
    server: Half<E>,
    now: Instant,
    answer: Answer,
    /// The clients' connections, in the order in which they opened.
    pub open: Vec<E::Conn>,
    pub resumed: u64,
    /// Bytes that the client read, and that the server read.
    pub read: [u64; 2],
    writable: Vec<E::Conn>,
    sockets: Option<Sockets>,
}

/// The loopback instead of the virtual network: then time is real too.
struct Sockets {
    client: UdpSocket,
    server: UdpSocket,
    seen: Instant,
}

impl Sockets {
    fn carry(from: &UdpSocket, to: &UdpSocket, wire: &mut Wire) {
        let target = to.local_addr().expect("an address");
        for range in &wire.packets {
            let sent = from.send_to(&wire.bytes[range.clone()], target);
            assert_eq!(sent.expect("sent"), range.len());
        }
        for range in &wire.packets {
            let (got, _) = to.recv_from(&mut wire.bytes[range.clone()]).expect("there");
            assert_eq!(got, range.len(), "loopback keeps the order");
        }
    }
}

impl<E: End> Pair<E> {
    pub fn new(identity: &Identity, resumption: bool, answer: Answer) -> Self {
        let now = Instant::now();
        let [server_at, client_at] = addresses();
        let half = |end, owner, peer| Half {
            end,
            owner,
            peer,
            out: Wire::default(),
            cost: Cost::default(),
        };
        let server = owned_by(Owner::Server, || E::server(identity, now));
        let client = owned_by(Owner::Client, || E::client(identity, resumption, now));
        Self {
            client: half(client, Owner::Client, server_at),
            server: half(server, Owner::Server, client_at),
            now,
            answer,
            open: Vec::new(),
            resumed: 0,
            read: [0; 2],
            writable: Vec::new(),
            sockets: None,
        }
    }

    /// From now on packets go through two UDP sockets, one system call each way for each.
    pub fn use_sockets(&mut self) {
        let bind = || UdpSocket::bind("127.0.0.1:0").expect("a socket");
        self.sockets = Some(Sockets {
            client: bind(),
            server: bind(),
            seen: Instant::now(),
        });
    }

    /// One hop of everything under way.
    fn hop(&mut self, to_server: &mut Wire, to_client: &mut Wire) {
        let Some(sockets) = &mut self.sockets else {
            self.now += HOP;
            return;
        };
        Sockets::carry(&sockets.client, &sockets.server, to_server);
        Sockets::carry(&sockets.server, &sockets.client, to_client);
        let real = Instant::now();
        self.now += real - std::mem::replace(&mut sockets.seen, real);
    }

    fn client_turn(&mut self, arrived: &mut Wire) {
        let (open, read) = (&mut self.open, &mut self.read[0]);
        let (resumed, writable) = (&mut self.resumed, &mut self.writable);
        self.client.turn(self.now, arrived, |end, note| match note {
            Note::Opened {
                conn,
                resumed: from_ticket,
            } => {
                open.push(conn);
                *resumed += u64::from(from_ticket);
            }
            Note::Readable(conn) => {
                while let Some(bytes) = end.read(conn) {
                    *read += bytes.len() as u64;
                }
            }
            Note::Writable(conn) => writable.push(conn),
        });
    }

    fn server_turn(&mut self, arrived: &mut Wire) {
        let (answer, read) = (self.answer, &mut self.read[1]);
        self.server.turn(self.now, arrived, |end, note| match note {
            Note::Opened { conn, .. } if answer == Answer::Drop => end.widen(conn),
            Note::Readable(conn) => {
                while let Some(bytes) = end.read(conn) {
                    *read += bytes.len() as u64;
                    if answer == Answer::Echo {
                        assert_eq!(end.write(conn, &bytes), bytes.len(), "small echoes");
                    }
                }
            }
            _ => {}
        });
    }

    /// Carries packets until none is under way.
    pub fn exchange(&mut self) {
        self.client_turn(&mut Wire::default());
        while !self.client.out.packets.is_empty() || !self.server.out.packets.is_empty() {
            let mut to_server = std::mem::take(&mut self.client.out);
            let mut to_client = std::mem::take(&mut self.server.out);
            self.hop(&mut to_server, &mut to_client);
            self.server_turn(&mut to_server);
            self.client_turn(&mut to_client);
            // The arenas go back to their owners, or are freed by them.
            owned_by(Owner::Client, || {
                give_back(&mut self.client.out, to_server);
            });
            owned_by(Owner::Server, || {
                give_back(&mut self.server.out, to_client);
            });
        }
    }

    /// Lets time pass, timer by timer.
    pub fn advance(&mut self, span: Duration) {
        let until = self.now + span;
        loop {
            let due = [self.client.end.deadline(), self.server.end.deadline()];
            match due.into_iter().flatten().min().filter(|at| *at <= until) {
                Some(at) => self.now = self.now.max(at),
                None => break,
            }
            if self.server.is_due(self.now) {
                self.server_turn(&mut Wire::default());
            }
            self.exchange();
        }
        self.now = self.now.max(until);
    }

    /// Starts handshakes and lets them end.
    pub fn connect(&mut self, count: usize) {
        let (server, begin) = (self.client.peer, Instant::now());
        owned_by(Owner::Client, || {
            for _ in 0..count {
                self.client.end.connect(self.now, server);
            }
        });
        self.client.cost.time += begin.elapsed();
        let wanted = self.open.len() + count;
        self.exchange();
        while self.open.len() < wanted || self.server.is_due(self.now) {
            // A server begins a few handshakes a turn (T11).
            self.server_turn(&mut Wire::default());
            self.exchange();
            if !self.server.is_due(self.now) && self.open.len() < wanted {
                self.advance(Duration::from_millis(1));
            }
        }
    }

    /// Writes to a connection; what it takes goes out with the next exchange.
    pub fn write(&mut self, conn: E::Conn, data: &[u8]) -> usize {
        let begin = Instant::now();
        let written = owned_by(Owner::Client, || self.client.end.write(conn, data));
        self.client.cost.time += begin.elapsed();
        written
    }

    /// The half-open state of the server: hellos are taken and answered, and no client reacts.
    pub fn half_open(&mut self, count: usize) {
        let server = self.client.peer;
        owned_by(Owner::Client, || {
            for _ in 0..count {
                self.client.end.connect(self.now, server);
            }
        });
        self.client_turn(&mut Wire::default());
        let mut hellos = std::mem::take(&mut self.client.out);
        self.server_turn(&mut hellos);
        while self.server.is_due(self.now) {
            self.server_turn(&mut Wire::default());
        }
    }

    /// Whether a short write can go on; forgets that it was told.
    pub fn take_writable(&mut self) -> bool {
        let told = !self.writable.is_empty();
        self.writable.clear();
        told
    }

    /// Client's and server's cost since the last time.
    pub fn take_costs(&mut self) -> [Cost; 2] {
        let take = std::mem::take;
        [take(&mut self.client.cost), take(&mut self.server.cost)]
    }
}

fn give_back(to: &mut Wire, mut arena: Wire) {
    if to.packets.is_empty() {
        arena.clear();
        *to = arena;
    }
}
