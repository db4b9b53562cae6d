//! Datagrams come in: newcomers wait until the established sessions are served (T11).

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Instant};

use super::{Lean, Mark, share::Share};
use roadstead_quic::Stats;

use crate::{
    config::{INITIAL_BACKLOG_MAX, INITIALS_PER_TURN},
    counters::Counters,
    quic::{Datagram, ServerSide, wire::is_initial},
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
    waiting: VecDeque<Waiting>,
    /// What handshakes take of this thread's time.
    share: Share,
}

impl Lobby {
    pub(super) fn new(side: &ServerSide, all: Vec<Arc<Counters>>, now: Instant) -> Self {
        Self {
            retry_half_open: side.retry_half_open,
            all,
            waiting: VecDeque::new(),
            share: Share::new(now),
        }
    }

    /// Puts an Initial aside, or answers that too many wait.
    pub(super) fn put_aside(&mut self, datagram: &Datagram<'_>) -> bool {
        let room = self.waiting.len() < INITIAL_BACKLOG_MAX;
        if room {
            self.waiting.push_back(Waiting {
                socket: datagram.socket,
                peer: datagram.peer,
                data: (&*datagram.data).into(),
            });
        }
        room
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Handshakes that take more than their share of the time, or wait in a backlog, count like
    /// half-open ones: a Retry costs a fiftieth of a handshake.
    fn retry_above(&self, now: Instant) -> usize {
        match self.waiting.len() >= self.retry_half_open || self.share.is_exceeded(now) {
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
    /// Whether a datagram begins with the Initial of a newcomer. A handshake costs as much as a hundred
    /// messages, so established sessions are served first.
    pub(super) fn must_wait(&self, datagram: &Datagram<'_>) -> bool {
        self.lobby.is_some() && is_initial(datagram.data) && {
            !self
                .endpoint
                .expects(datagram.socket, datagram.peer, datagram.data)
        }
    }

    /// Begins some of the handshakes that wait.
    pub(super) fn admit(&mut self) {
        for _ in 0..INITIALS_PER_TURN {
            let Some(lobby) = &mut self.lobby else { return };
            let Some(mut waiting) = lobby.waiting.pop_front() else {
                return;
            };
            let (first, last) = lobby.least_loaded();
            self.endpoint.set_retry_above(lobby.retry_above(self.now));
            self.endpoint.steer_retries(first, last);
            self.take(Datagram {
                socket: waiting.socket,
                peer: waiting.peer,
                data: &mut waiting.data,
            });
        }
    }

    /// Gives a datagram to the endpoint and tells what came of it. Those of handshakes, at a server,
    /// are timed (T11).
    pub(super) fn take(&mut self, datagram: Datagram<'_>) {
        let handshake = self.lobby.is_some() && is_long(datagram.data);
        let begun = handshake.then(Instant::now);
        let before = self.endpoint.stats();
        let now = self.present();
        let Datagram { socket, peer, data } = datagram;
        let handle = self.endpoint.handle_datagram(now, socket, peer, data);
        let after = self.endpoint.stats();
        if let (Some(lobby), Some(begun)) = (&mut self.lobby, begun) {
            let grown = |pick: fn(&Stats) -> u64| u32::from(pick(&after) > pick(&before));
            let (accepted, retried) = (grown(|s| s.accepted), grown(|s| s.retries_sent));
            let end = Instant::now();
            lobby.share.note(end, end - begun, accepted, retried);
        }
        if let Some(handle) = handle
            && after.accepted != before.accepted
        {
            self.marks.clear(handle);
        }
        self.translate();
        if let Some(handle) = handle
            && self.marks.of(handle).has(Mark::ShortWrite)
        {
            self.tell_writable(handle);
        }
    }
}

/// RFC 9000 section 17.2: a packet of a handshake.
fn is_long(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0x80 != 0)
}
