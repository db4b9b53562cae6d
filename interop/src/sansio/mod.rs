//! Real sockets and a real clock under a sans-IO node: Roadstead's engine and quiche are driven alike.

mod client;
mod echo;
mod server;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use roadstead_quic::Time;

pub use client::NodeClient;
pub use server::NodeServer;

use crate::{
    common::net::{Node, Note, Packet},
    script::Facts,
    udp,
};

/// What a scenario needs of a node beyond what the simulated network needs.
pub trait Peer {
    /// What the simulated network drives as well.
    type Node: Node;

    /// The node.
    fn node(&mut self) -> &mut Self::Node;

    /// Starts a connection; what is remembered of earlier ones is used.
    fn connect(&mut self, now: Time, to: SocketAddr) -> anyhow::Result<()>;

    /// Moves the connection to another of the node's sockets.
    fn migrate(&mut self, now: Time, to: SocketAddr) -> anyhow::Result<()>;

    /// Closes with a code and a phrase.
    fn close_with(&mut self, now: Time, code: u32, reason: &str);

    /// Loses all connections and keeps the keys.
    fn forget(&mut self, now: Time) -> anyhow::Result<()>;

    /// Brings the facts up to date, after every turn.
    fn observe(&mut self, facts: &mut Facts);

    /// Whether a ticket for the next connection is there.
    fn has_ticket(&self, notes: &[Note]) -> bool;

    /// Sends something that a peer without state would answer.
    fn poke(&mut self, now: Time);

    /// Lets go of a connection that has ended, so that the next one counts.
    fn release(&mut self);
}

/// A peer and its sockets.
#[derive(Debug)]
struct Wire<P> {
    peer: P,
    sockets: Vec<(SocketAddr, UdpSocket)>,
    epoch: Instant,
    buf: Vec<u8>,
}

impl<P: Peer> Wire<P> {
    fn new(socket: UdpSocket, make: impl FnOnce(SocketAddr) -> P) -> io::Result<Self> {
        let address = socket.local_addr()?;
        Ok(Self {
            peer: make(address),
            sockets: vec![(address, socket)],
            epoch: Instant::now(),
            buf: vec![0; 65_536],
        })
    }

    /// Nodes begin at one second.
    fn now(&self) -> Time {
        let micros = self.epoch.elapsed().as_micros();
        Time::from_millis(1_000) + u64::try_from(micros).expect("a short run")
    }

    /// Another socket, and its address.
    fn add_socket(&mut self) -> io::Result<SocketAddr> {
        let socket = udp::bind()?;
        let address = socket.local_addr()?;
        self.sockets.push((address, socket));
        Ok(address)
    }

    /// Sends what is due.
    fn flush(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        let now = self.now();
        self.peer.node().transmit(now, &mut out);
        for packet in out {
            let socket = self.sockets.iter().find(|(a, _)| *a == packet.from);
            let (_, socket) = socket.expect("a node sends from its own addresses");
            udp::send(socket, &packet.data, packet.to)?;
        }
        Ok(())
    }

    /// Sends, waits for a packet or a timer, at most for `wait`, and says what happened.
    fn turn(&mut self, wait: Duration, facts: &mut Facts) -> io::Result<Vec<Note>> {
        self.flush()?;
        let now = self.now();
        let timer = self.peer.node().next_timeout(now);
        let left =
            timer.map(|at| Duration::from_micros(at.as_micros().saturating_sub(now.as_micros())));
        let wait = left.map_or(wait, |left| left.min(wait));
        udp::wait(self.sockets.iter().map(|(_, s)| s), wait)?;
        for (to, socket) in &self.sockets {
            while let Some((len, from)) = udp::receive(socket, &mut self.buf)? {
                let micros = u64::try_from(self.epoch.elapsed().as_micros()).expect("a short run");
                let now = Time::from_millis(1_000) + micros;
                let data = self.buf[..len].to_vec();
                self.peer.node().receive(
                    now,
                    Packet {
                        from,
                        to: *to,
                        data,
                    },
                );
            }
        }
        let now = self.now();
        if self
            .peer
            .node()
            .next_timeout(now)
            .is_some_and(|at| at <= now)
        {
            self.peer.node().timeout(now);
        }
        self.flush()?;
        let notes = self.peer.node().notes(now);
        if notes.contains(&Note::Migrated) {
            facts.notes.push(format!("{:?}", Note::Migrated));
        }
        self.peer.observe(facts);
        Ok(notes)
    }
}
