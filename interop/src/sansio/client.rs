//! A sans-IO node as a client that takes steps.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use roadstead_quic::{Dir, Side, direction, initiator};

use super::{Peer, Wire};
use crate::{
    common::net::{Node, Note},
    script::{Client, Expected, Facts, Step, payload},
    udp,
};

/// How long a step may take, on a machine that is busy with other things.
const STEP_TIME: Duration = Duration::from_secs(60);

/// How long a turn waits for a packet: how late a poke may come.
const TURN: Duration = Duration::from_millis(50);

/// A client and what it observed.
#[derive(Debug)]
pub struct NodeClient<P> {
    wire: Wire<P>,
    facts: Facts,
    notes: Vec<Note>,
}

impl<P: Peer> NodeClient<P> {
    /// A client whose node is made for its first address.
    pub fn new(make: impl FnOnce(std::net::SocketAddr) -> P) -> Result<Self> {
        Ok(Self {
            wire: Wire::new(udp::bind()?, make)?,
            facts: Facts::default(),
            notes: Vec::new(),
        })
    }

    /// Turns until `done` is content, and fails when the connection ends before.
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + STEP_TIME;
        loop {
            if done(self)? {
                return Ok(self.wire.flush()?);
            }
            ensure!(
                Instant::now() < deadline,
                "{what}: not within {STEP_TIME:?}"
            );
            if let Some(Note::Closed(why)) =
                self.notes.iter().find(|n| matches!(n, Note::Closed(_)))
            {
                bail!("{what}: {why}");
            }
            let notes = self.wire.turn(TURN, &mut self.facts)?;
            self.notes.extend(notes);
        }
    }

    fn is_closed(&self) -> bool {
        self.notes.iter().any(|n| matches!(n, Note::Closed(_)))
    }

    fn connect(&mut self, to: std::net::SocketAddr) -> Result<()> {
        self.notes.clear();
        self.wire.peer.release();
        let now = self.wire.now();
        self.wire.peer.connect(now, to)
    }

    fn echo(&mut self, streams: usize, bytes: usize, uni: bool) -> Result<()> {
        let mut expected = Expected::new(streams, bytes);
        let mut sending: Vec<(Option<u64>, Vec<u8>)> =
            (0..streams).map(|n| (None, payload(n, bytes))).collect();
        let mut back: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        self.until("echo", |client| {
            let now = client.wire.now();
            let node = client.wire.peer.node();
            for (id, left) in &mut sending {
                if id.is_none() {
                    *id = node.open(now, uni);
                    if let (Some(id), false) = (*id, uni) {
                        back.insert(id, Vec::new());
                    }
                }
                let Some(id) = *id else { continue };
                let n = node.write(now, id, left);
                left.drain(..n);
                if left.is_empty() {
                    node.finish(now, id);
                }
            }
            sending.retain(|(id, left)| id.is_none() || !left.is_empty());
            for note in &client.notes {
                if let Note::Opened(id) | Note::Readable(id) = note
                    && direction(*id) == Dir::Uni
                    && initiator(*id) == Side::Server
                {
                    back.entry(*id).or_default();
                }
            }
            client
                .notes
                .retain(|n| !matches!(n, Note::Opened(_) | Note::Readable(_)));
            let mut ended = Vec::new();
            for (id, received) in &mut back {
                let (data, fin) = node.read(now, *id);
                received.extend(data);
                if fin {
                    ended.push(*id);
                }
            }
            for id in ended {
                let received = back.remove(&id).expect("it was there");
                expected.take(&received, &mut client.facts)?;
            }
            Ok(expected.is_empty())
        })
    }

    fn datagram(&mut self) -> Result<()> {
        let data = payload(0, 700);
        let mut last = None;
        let before = self.facts.datagrams;
        self.until("datagram", |client| {
            let back = client
                .notes
                .iter()
                .any(|n| *n == Note::Datagram(data.clone()));
            client.facts.datagrams = before + u32::from(back);
            // They are unreliable: again after a while.
            if !back && last.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(1)) {
                last = Some(Instant::now());
                let now = client.wire.now();
                ensure!(
                    client.wire.peer.node().send_datagram(now, data.clone()),
                    "no datagrams"
                );
            }
            Ok(back)
        })
    }

    fn update_keys(&mut self) -> Result<()> {
        self.until("key update", |client| {
            let now = client.wire.now();
            Ok(client.wire.peer.node().update_keys(now))
        })
    }

    /// Waits for the end, and sends now and then, as a peer without state answers only to packets.
    fn await_end(&mut self) -> Result<()> {
        let deadline = Instant::now() + STEP_TIME;
        while !self.is_closed() {
            ensure!(Instant::now() < deadline, "the connection does not end");
            let now = self.wire.now();
            self.wire.peer.poke(now);
            let notes = self.wire.turn(TURN, &mut self.facts)?;
            self.notes.extend(notes);
        }
        Ok(())
    }
}

impl<P: Peer> Client for NodeClient<P> {
    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Connect { to } => {
                self.connect(*to)?;
                // Confirmed, so that the first steps find all that a connection may do.
                let ready = [Note::Connected, Note::Confirmed];
                self.until("handshake", |c| {
                    Ok(ready.iter().all(|n| c.notes.contains(n)))
                })
            }
            Step::ConnectInVain { to } => {
                self.connect(*to)?;
                let deadline = Instant::now() + STEP_TIME;
                while !self.is_closed() {
                    ensure!(
                        Instant::now() < deadline,
                        "the handshake neither ends nor fails"
                    );
                    let notes = self.wire.turn(TURN, &mut self.facts)?;
                    self.notes.extend(notes);
                    ensure!(!self.notes.contains(&Note::Connected), "it connected");
                }
                Ok(())
            }
            Step::Echo { streams, bytes } => self.echo(*streams, *bytes, false),
            Step::EchoUni { streams, bytes } => self.echo(*streams, *bytes, true),
            Step::Datagram => self.datagram(),
            Step::AwaitTicket => self.until("ticket", |c| Ok(c.wire.peer.has_ticket(&c.notes))),
            Step::UpdateKeys => self.update_keys(),
            Step::Migrate => {
                let address = self.wire.add_socket()?;
                let now = self.wire.now();
                self.wire.peer.migrate(now, address)
            }
            Step::Close { code, reason } => {
                let now = self.wire.now();
                self.wire.peer.close_with(now, *code, reason);
                let notes = self.wire.turn(Duration::ZERO, &mut self.facts)?;
                self.notes.extend(notes);
                Ok(())
            }
            Step::AwaitEnd => self.await_end(),
        }
    }

    fn facts(&mut self) -> Result<Facts> {
        self.wire.peer.observe(&mut self.facts);
        Ok(self.facts.clone())
    }
}
