//! Datagrams come in: newcomers wait until the established sessions are served (T11).

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Instant};

use super::{Lean, Mark, share::Share};
use roadstead_quic::{Handle, Standing, Stats};

use crate::{
    config::{INITIAL_BACKLOG_MAX, INITIALS_PER_TURN},
    counters::Counters,
    quic::{Datagram, ServerSide},
    steer,
};

/// An Initial that waits for its turn.
struct Waiting {
    socket: u16,
    peer: SocketAddr,
    data: Box<[u8]>,
}

/// Where a server's newcomers wait.
pub(super) struct Lobby {
    retry_half_open: usize,
    /// Counters of all shards, by shard.
    all: Vec<Arc<Counters>>,
    /// Those with a token for their address: they do not wait behind the others.
    proven: VecDeque<Waiting>,
    strangers: VecDeque<Waiting>,
    /// What handshakes take of this thread's time.
    share: Share,
}

impl Lobby {
    pub(super) fn new(side: &ServerSide, all: Vec<Arc<Counters>>, now: Instant) -> Self {
        Self {
            retry_half_open: side.retry_half_open,
            all,
            proven: VecDeque::new(),
            strangers: VecDeque::new(),
            share: Share::new(now),
        }
    }

    /// Puts an Initial aside. Returns how many that waited longer had to go for it: who is at the head has
    /// waited for so long that it has asked again, and a queue that drops its tail serves nobody in time.
    pub(super) fn put_aside(&mut self, datagram: &Datagram<'_>, proven: bool) -> u64 {
        let full = self.waiting() >= INITIAL_BACKLOG_MAX;
        if full && self.strangers.pop_front().is_none() {
            self.proven.pop_front();
        }
        let queue = match proven {
            true => &mut self.proven,
            false => &mut self.strangers,
        };
        queue.push_back(Waiting {
            socket: datagram.socket,
            peer: datagram.peer,
            data: (&*datagram.data).into(),
        });
        u64::from(full)
    }

    fn next(&mut self) -> Option<Waiting> {
        self.proven
            .pop_front()
            .or_else(|| self.strangers.pop_front())
    }

    fn waiting(&self) -> usize {
        self.proven.len() + self.strangers.len()
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.waiting() > 0
    }

    /// Handshakes that take more than their share of the time, or wait in a backlog, count like
    /// half-open ones: a Retry costs a fiftieth of a handshake.
    fn retry_above(&self, now: Instant) -> usize {
        match self.waiting() >= self.retry_half_open || self.share.is_exceeded(now) {
            true => 0,
            false => self.retry_half_open,
        }
    }

    /// The prefixes of the shard with the fewest handshakes: where a Retry sends the newcomer.
    fn least_loaded(&self) -> (u16, u16) {
        let loads = (0_u16..)
            .zip(&self.all)
            .map(|(shard, c)| (c.half_open.get(), shard));
        let shard = loads.min().map_or(0, |(_, shard)| shard);
        let shards = u16::try_from(self.all.len()).unwrap_or(u16::MAX).max(1);
        let (first, count) = steer::prefixes_of(shard, shards);
        let narrow = |prefix: u32| u16::try_from(prefix).unwrap_or(u16::MAX);
        (narrow(first), narrow(first + count - 1))
    }
}

impl Lean {
    pub(super) fn standing(&self, datagram: &Datagram<'_>) -> Standing {
        let Datagram { socket, peer, .. } = *datagram;
        self.endpoint
            .standing(self.present(), socket, peer, datagram.data)
    }

    /// Begins some of the handshakes that wait, and answers others while there is time for it.
    pub(super) fn admit_some(
        &mut self,
        proven: &mut impl FnMut(SocketAddr) -> bool,
        mut is_late: impl FnMut() -> bool,
    ) {
        let until = self.endpoint.stats().accepted + INITIALS_PER_TURN;
        while self.endpoint.stats().accepted < until {
            let Some(lobby) = &mut self.lobby else { return };
            let Some(mut waiting) = lobby.next() else {
                return;
            };
            let (first, last) = lobby.least_loaded();
            self.endpoint.set_retry_above(lobby.retry_above(self.now));
            self.endpoint.steer_retries(first, last);
            let accepted = self.endpoint.stats().accepted;
            let datagram = Datagram {
                socket: waiting.socket,
                peer: waiting.peer,
                data: &mut waiting.data,
            };
            // Again: the token may have been used meanwhile, by the first of two datagrams.
            let has_proof = self.standing(&datagram) == Standing::Proven;
            if !has_proof || proven(datagram.peer) {
                self.take(datagram, has_proof);
            }
            let is_answer = self.endpoint.stats().accepted == accepted;
            if is_answer && is_late() {
                return;
            }
        }
    }

    /// Gives a datagram to the endpoint and tells what came of it; of one who begins a handshake, whether a token
    /// proved the address.
    pub(super) fn take(&mut self, datagram: Datagram<'_>, proven: bool) {
        let handle = match self.lobby.is_some() && is_long(datagram.data) {
            true => self.take_timed(datagram, proven),
            false => self.hand_over(datagram),
        };
        self.translate();
        if let Some(handle) = handle
            && self.marks.of(handle).has(Mark::ShortWrite)
        {
            self.tell_writable(handle);
        }
    }

    fn hand_over(&mut self, datagram: Datagram<'_>) -> Option<Handle> {
        let now = self.present();
        let Datagram { socket, peer, data } = datagram;
        self.endpoint.handle_datagram(now, socket, peer, data)
    }

    /// A server's handshakes are timed (T11), and one that begins has a slot of its own.
    fn take_timed(&mut self, datagram: Datagram<'_>, proven: bool) -> Option<Handle> {
        let begun = Instant::now();
        let before = self.endpoint.stats();
        let handle = self.hand_over(datagram);
        let after = self.endpoint.stats();
        let grown = |pick: fn(&Stats) -> u64| u32::from(pick(&after) > pick(&before));
        let (accepted, retried) = (grown(|s| s.accepted), grown(|s| s.retries_sent));
        if let Some(lobby) = &mut self.lobby {
            let end = Instant::now();
            lobby.share.note(end, end - begun, accepted, retried);
        }
        if let Some(handle) = handle.filter(|_| accepted > 0) {
            self.marks.clear(handle);
            if proven {
                self.marks.set(handle, Mark::Proven);
            }
        }
        handle
    }
}

/// RFC 9000 section 17.2: a packet of a handshake.
fn is_long(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0x80 != 0)
}
