//! A hostile peer: it has the keys of a real connection and puts what it likes into authentic
//! packets.

use roadstead_quic::coding::Writer;
use roadstead_quic::crypto::{DirectionKeys, KeyRef, Suite, initial_keys, protect};
use roadstead_quic::packet::{ConnectionId, Level, Packet as Header};
use roadstead_quic::{CidFormat, CloseReason, Code, Config, Side};

use super::fake::{FakeAead, FakeConfig, SECRETS};
use super::net::{Net, Node, Packet, Weather};
use super::own::{FakeOwn, client_addr, fake_client, fake_server, server_addr};

/// A pair, and the numbers and ids that the hostile side uses.
pub struct Rig {
    pub net: Net<FakeOwn, FakeOwn>,
    /// Destination ids by victim: the server's and the client's.
    pub cids: [ConnectionId; 2],
    /// The client's first destination id.
    pub odcid: ConnectionId,
    pub next_pn: u64,
    /// Bits to flip in the first byte before protection.
    pub flip: u8,
    /// Which generation of keys, and the phase bit that goes with it.
    pub generation: u32,
}

pub type Edit = fn(&mut Config, &mut FakeConfig);

pub fn varint(value: u64) -> Vec<u8> {
    let mut buf = [0; 8];
    let mut w = Writer::new(&mut buf);
    w.varint(value);
    w.written().to_vec()
}

/// The concatenation of variable-length integers.
pub fn ints(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|v| varint(*v)).collect()
}

impl Rig {
    /// A pair before its first packet.
    pub fn start(format: CidFormat, client: Edit, server: Edit) -> Self {
        let client = fake_client(1, format, client);
        let server = fake_server(1, |c, t| {
            c.transport.streams_uni = 1;
            server(c, t);
        });
        let net = Net::new(1, Weather::CALM, client, server, server_addr());
        let empty = ConnectionId::EMPTY;
        Self {
            net,
            cids: [empty; 2],
            odcid: empty,
            next_pn: 10_000,
            flip: 0,
            generation: 0,
        }
    }

    /// An established, idle pair.
    pub fn established(format: CidFormat, client: Edit, server: Edit) -> Self {
        let mut rig = Self::start(format, client, server);
        rig.hello();
        rig.net.establish();
        rig.net.run_for(3_000_000);
        rig
    }

    pub fn default() -> Self {
        Self::established(CidFormat::Compact, |_, _| {}, |_, _| {})
    }

    /// Lets the client's first flight leave, and the server answer; reads the ids off the wire.
    pub fn hello(&mut self) -> Vec<Packet> {
        let now = self.net.now;
        let mut out = Vec::new();
        self.net.client.transmit(now, &mut out);
        let first = Header::parse(&out[0].data, 0).unwrap();
        self.odcid = first.dcid;
        self.cids[1] = first.scid;
        for packet in out {
            self.net.server.receive(now, packet);
        }
        let mut back = Vec::new();
        self.net.server.transmit(now, &mut back);
        if let Some(first) = back.first() {
            self.cids[0] = Header::parse(&first.data, 0).unwrap().scid;
        }
        for packet in back.clone() {
            self.net.client.receive(now, packet);
        }
        back
    }

    fn keys(&self, level: Level, from: Side) -> DirectionKeys {
        let side = from as usize;
        let secret = |label| SECRETS.with_borrow(|s| s[label][side]);
        match level {
            Level::Initial => {
                let (client, server) = initial_keys(&FakeAead, &self.odcid);
                if from.is_client() { client } else { server }
            }
            Level::Handshake => {
                DirectionKeys::derive(&FakeAead, Suite::Aes128Gcm, &secret("handshake"))
            }
            Level::Data => {
                let mut secret = secret("traffic");
                let hp = DirectionKeys::derive(&FakeAead, Suite::Aes128Gcm, &secret).hp;
                for _ in 0..self.generation {
                    let old = secret;
                    roadstead_quic::crypto::next_secret(
                        &FakeAead,
                        Suite::Aes128Gcm,
                        &old,
                        &mut secret,
                    );
                }
                let keys = DirectionKeys::derive(&FakeAead, Suite::Aes128Gcm, &secret);
                DirectionKeys {
                    key: keys.key,
                    iv: keys.iv,
                    hp,
                }
            }
        }
    }

    /// An authentic packet from `from` with these frames.
    pub fn forge(&mut self, level: Level, from: Side, frames: &[u8]) -> Vec<u8> {
        let to = from.peer();
        let dcid = match (level, to) {
            (Level::Initial, Side::Server) if self.cids[0].is_empty() => self.odcid,
            (_, Side::Server) => self.cids[0],
            (_, Side::Client) => self.cids[1],
        };
        let scid = if from.is_client() {
            self.cids[1]
        } else {
            self.cids[0]
        };
        let pn = self.next_pn;
        self.next_pn = self.next_pn.saturating_add(1);
        let mut buf = vec![0; 4_096];
        let mut w = Writer::new(&mut buf);
        let mut length_at = None;
        if level == Level::Data {
            let phase = u8::from(self.generation % 2 == 1) << 2;
            w.u8((0x43 | phase) ^ self.flip);
            w.bytes(dcid.as_slice());
        } else {
            w.u8((if level == Level::Initial { 0xc3 } else { 0xe3 }) ^ self.flip);
            w.u32(1);
            for id in [dcid, scid] {
                w.u8(u8::try_from(id.len()).unwrap());
                w.bytes(id.as_slice());
            }
            if level == Level::Initial {
                w.u8(0);
            }
            length_at = Some(w.len());
            w.zeroes(2);
        }
        let pn_offset = w.len();
        w.u32(u32::try_from(pn & 0xffff_ffff).unwrap());
        w.bytes(frames);
        w.zeroes(16);
        let len = w.len();
        if let Some(at) = length_at {
            w.varint2_at(at, len - pn_offset);
        }
        buf.truncate(len);
        let keys = self.keys(level, from);
        protect(
            &FakeAead,
            KeyRef::of(Suite::Aes128Gcm, &keys),
            &mut buf,
            pn,
            pn_offset,
            4,
        );
        if level == Level::Initial && from.is_client() {
            // RFC 9000 14.1: in a full-sized datagram. What follows the packet is none (12.2).
            buf.resize(buf.len().max(1_200), 0);
        }
        buf
    }

    /// Hands the victim a datagram.
    pub fn deliver(&mut self, from: Side, data: Vec<u8>) {
        let (now, client, server) = (self.net.now, client_addr(), server_addr());
        if from.is_client() {
            self.net.server.receive(
                now,
                Packet {
                    from: client,
                    to: server,
                    data,
                },
            );
        } else {
            self.net.client.receive(
                now,
                Packet {
                    from: server,
                    to: client,
                    data,
                },
            );
        }
        let notes = self.net.server.notes(now);
        self.net.server_notes.extend(notes);
        let notes = self.net.client.notes(now);
        self.net.client_notes.extend(notes);
        self.net.server.endpoint.check_invariants();
        self.net.client.endpoint.check_invariants();
    }

    pub fn inject(&mut self, level: Level, from: Side, frames: &[u8]) {
        let data = self.forge(level, from, frames);
        self.deliver(from, data);
    }

    /// The code with which a side closed by itself.
    pub fn closed_with(&self, victim: Side) -> Option<Code> {
        let node = if victim.is_client() {
            &self.net.client
        } else {
            &self.net.server
        };
        match &node.last_close {
            Some(CloseReason::Local(error)) => Some(error.code),
            _ => None,
        }
    }
}
