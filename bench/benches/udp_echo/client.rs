//! The load: a window that is kept full, or a pace.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::mmsg::{BATCH, Batch, Peer};
use crate::{MARK, PAYLOAD};

/// Datagrams under way when saturated: about half of what a default receive buffer holds.
pub(crate) const WINDOW: usize = 128;

/// Datagrams per second when paced, at most.
pub(crate) const PACE: u32 = 20_000;

const SATURATED_ECHOES: usize = 100_000;
const PACED_ECHOES: u32 = 15_000;

/// After this silence, what is under way is lost.
const SILENCE: Duration = Duration::from_millis(200);

/// A client of one server.
pub(crate) struct Client {
    socket: UdpSocket,
    batch: Batch,
    lost: usize,
}

impl Client {
    pub(crate) fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port is free");
        socket.connect(server).expect("loopback");
        socket.set_read_timeout(Some(SILENCE)).expect("not zero");
        Self {
            socket,
            batch: Batch::new(Peer::Connected),
            lost: 0,
        }
    }

    /// Asks the server for a reading.
    pub(crate) fn mark(&self) {
        let sent = self.socket.send(&[0; MARK]).expect("loopback");
        assert_eq!(sent, MARK);
    }

    /// Echoes that did not come since the last call.
    pub(crate) fn take_lost(&mut self) -> u32 {
        u32::try_from(std::mem::take(&mut self.lost)).expect("few")
    }

    /// Keeps the window full. Returns how long it took.
    pub(crate) fn saturate(&mut self) -> Duration {
        let began = Instant::now();
        let (mut sent, mut under_way) = (0, 0_usize);
        while sent < SATURATED_ECHOES || under_way > 0 {
            let room = (WINDOW - under_way).min(SATURATED_ECHOES - sent);
            if room > 0 {
                let count = room.min(BATCH);
                self.send(count);
                sent += count;
                under_way += count;
                if under_way < WINDOW && sent < SATURATED_ECHOES {
                    continue;
                }
            }
            under_way = under_way.saturating_sub(self.receive(under_way));
        }
        began.elapsed()
    }

    /// Sends at the pace, whatever comes back. Returns how long it took. What the client is late by, when it
    /// had to wait for its core, it does not make up for: a burst would find the server awake.
    pub(crate) fn pace(&mut self) -> Duration {
        let began = Instant::now();
        let interval = Duration::from_secs(1) / PACE;
        let (mut due, mut under_way) = (began, 0_usize);
        for _ in 0..PACED_ECHOES {
            // A sleep is too coarse for 50 us.
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            due = (due + interval).max(Instant::now());
            self.send(1);
            under_way += 1;
            let echoes = self.batch.receive_available(&self.socket);
            // What was given up for lost may come after all.
            under_way = under_way.saturating_sub(echoes.expect("loopback"));
        }
        let took = began.elapsed();
        while under_way > 0 {
            under_way = under_way.saturating_sub(self.receive(under_way));
        }
        took
    }

    fn send(&mut self, count: usize) {
        self.batch
            .send(&self.socket, &[PAYLOAD; BATCH][..count])
            .expect("loopback");
    }

    /// Waits for echoes. Everything under way counts as gone after a silence.
    fn receive(&mut self, under_way: usize) -> usize {
        match self.batch.receive(&self.socket) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.lost += under_way;
                under_way
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => panic!("{error}"),
        }
    }
}
