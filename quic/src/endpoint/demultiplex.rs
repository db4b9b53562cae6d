//! Which connection a datagram belongs to, and what becomes of one that belongs to none
//! (RFC 9000 5.2).

use std::net::SocketAddr;

use super::Endpoint;
use crate::connection::{Arrival, Cx, Path};
use crate::crypto::{Aead, Tls};
use crate::event::Handle;
use crate::limits;
use crate::packet::{Kind, Packet};
use crate::time::Time;

/// A path's probe and an MTU probe at the most go before an ACK.
const ACK_TRIES: usize = 3;

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// Takes a datagram that arrived on a local socket. It is decrypted in place. Returns the
    /// connection it belonged to.
    ///
    /// An idle connection remembers which of the last 128 packet numbers arrived; what falls out of them
    /// unacknowledged is sent again by the peer. So an acknowledgement is built here when many packets of a
    /// connection came since the last one, and waits for the caller's next poll (T20).
    pub fn handle_datagram(
        &mut self,
        now: Time,
        socket: u16,
        remote: SocketAddr,
        data: &mut [u8],
    ) -> Option<Handle> {
        self.stats.datagrams_received += 1;
        let path = Path { socket, remote };
        let Ok(packet) = Packet::parse(data, self.codec.format.len()) else {
            return self.on_unparsed(now, path, data);
        };
        let len = data.len() as u64;
        if let Some((index, sequence)) = self.route(&packet, path) {
            // Before anything of it is decrypted, which is most of what a small packet costs.
            if self.behind && !self.slab[index].quota.take(now.as_millis()) {
                self.stats.quota_dropped += 1;
                return None;
            }
            let arrival = Arrival {
                path,
                sequence,
                len,
            };
            return Some(self.deliver(now, index, arrival, data));
        }
        self.on_stranger(now, path, &packet, data)
    }

    /// Says whether the caller has no time to spare. Then a connection's packets beyond
    /// [`limits::QUOTA_PACKETS`] in [`limits::QUOTA_WINDOW_MS`] are dropped: nothing else bounds small
    /// packets, and a peer chooses the shard that it sends them to (T21).
    pub fn set_behind(&mut self, behind: bool) {
        self.behind = behind;
    }

    fn deliver(&mut self, now: Time, index: u32, arrival: Arrival, data: &mut [u8]) -> Handle {
        let (conn, mut cx) = parts!(self, now, index);
        let handle = cx.handle;
        conn.handle_datagram(&mut cx, arrival, data);
        if conn.must_acknowledge() {
            self.acknowledge(now, index);
        }
        self.settle(now, index, true);
        handle
    }

    /// Builds the ACK of a connection that has received much, ahead of the caller's poll (T20).
    fn acknowledge(&mut self, now: Time, index: u32) {
        let mut room = vec![0; self.config.transport.datagram_room()];
        // What else is due, a probe of a path, may come before it.
        for _ in 0..ACK_TRIES {
            if self.stateless.len() >= limits::STATELESS_QUEUE_MAX {
                return;
            }
            let (conn, mut cx) = parts!(self, now, index);
            let built = conn.poll_datagram(&mut cx, &mut room);
            let done = !conn.must_acknowledge();
            let Some((len, path)) = built else {
                return;
            };
            self.push_stateless(path, room[..len].to_vec());
            if done {
                return;
            }
        }
    }

    /// Finds the connection of a packet: by its id, by the client's first id, or by its path.
    pub(super) fn route(&self, packet: &Packet, path: Path) -> Option<(u32, Option<u8>)> {
        if self.codec.format.is_empty() {
            let usable = packet.dcid.is_empty();
            let handle = self.paths.get(&path).filter(|_| usable)?;
            return self.is_live(*handle).then_some((handle.index, None));
        }
        if matches!(packet.kind, Kind::Initial | Kind::ZeroRtt | Kind::Handshake)
            && let Some(handle) = self.initials.get(&(packet.dcid, path.remote))
            && self.is_live(*handle)
        {
            return Some((handle.index, None));
        }
        let place = self.codec.decode(&self.aead, packet.dcid.as_slice())?;
        let conn = self.slab.get(place.index)?;
        let ours = self
            .codec
            .same_generation(place.generation, conn.generation)
            && conn.own.is_active(place.sequence);
        ours.then_some((place.index, Some(place.sequence)))
    }

    /// A packet that no connection claims (RFC 9000 5.2.2).
    fn on_stranger(
        &mut self,
        now: Time,
        path: Path,
        packet: &Packet,
        data: &mut [u8],
    ) -> Option<Handle> {
        match packet.kind {
            Kind::Initial if self.server.is_some() => {
                return self.on_initial(now, path, packet, data);
            }
            Kind::OtherVersion(_) if self.server.is_some() => {
                self.send_version_negotiation(path, packet, data.len());
                return None;
            }
            Kind::OneRtt => {
                if let Some(handle) = self.try_reset(now, path, data) {
                    return Some(handle);
                }
                self.send_stateless_reset(now, path, packet, data.len());
                return None;
            }
            _ => {}
        }
        self.stats.dropped += 1;
        None
    }

    pub(super) fn push_stateless(&mut self, path: Path, bytes: Vec<u8>) {
        if self.stateless.len() < limits::STATELESS_QUEUE_MAX {
            self.stateless.push_back((path, bytes));
        }
    }
}
