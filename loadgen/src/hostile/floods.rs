//! Packets as fast as they can be written: PING after PING, and packet numbers that walk towards 2^62 (T19, T21).
//!
//! One counter refuses both. So they take turns, and each has what the counter grew by in its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use roadstead_hostile::{Packets, frames};

use super::counters::{Counters, dropped_by_kernel};
use super::table::Row;
use super::{Done, Logins};

const ADDRESS: u8 = 3;

/// Behind the users of the other kinds.
const FIRST: u64 = 3_000;

/// How long a turn lasts, and how long the server has after it for what it has received.
const TURN: Duration = Duration::from_millis(800);
const REST: Duration = Duration::from_millis(200);

/// Packets between two looks at the clock.
const BURST: u64 = 64;

/// By how much the number of each packet of the walk is above the last. A server that misses up to two thousand in a row
/// still knows the next one's number (RFC 9000 section A.3).
const STEP: u64 = 1 << 20;

/// How long the walk waits for an answer to a burst, so that it does not run out of what the server follows.
const ANSWER: Duration = Duration::from_millis(2);

const REFUSES: &str = "roadstead_net_drop_quota_total";

/// All of one round.
pub(super) struct Floods {
    admin: SocketAddr,
    floods: Vec<Flood>,
}

struct Flood {
    kind: &'static str,
    step: u64,
    packets: Packets,
    sent: u64,
    /// Packets of the server: it goes on to answer.
    answers: usize,
    refused: u64,
    /// Of them, beyond the last number (T19).
    numbers_refused: u64,
    /// Dropped by the kernel, of this flood or of others' packets meanwhile.
    lost: u64,
}

impl Floods {
    pub(super) fn new(logins: &Logins<'_>, pings: bool, walk: bool) -> Result<Self> {
        let kinds = [("PING flood", 1, pings), ("packet-number walk", STEP, walk)];
        let mut floods = Vec::new();
        for (place, (kind, step, wanted)) in (0..).zip(kinds) {
            if wanted {
                let (peer, _) = logins.log_in(ADDRESS, logins.user(FIRST + place)?)?;
                floods.push(Flood {
                    kind,
                    step,
                    packets: peer.take_over()?,
                    sent: 0,
                    answers: 0,
                    refused: 0,
                    numbers_refused: 0,
                    lost: 0,
                });
            }
        }
        Ok(Self {
            admin: logins.campaign.admin,
            floods,
        })
    }

    pub(super) fn run(mut self, stop: &AtomicBool) -> Result<Done> {
        while !stop.load(Ordering::Relaxed) && !self.floods.is_empty() {
            for flood in &mut self.floods {
                flood.take_turn(self.admin, stop)?;
            }
        }
        let row = |flood: &mut Flood| {
            flood.packets.send(flood.step, frames::CLOSE);
            let row = Row::new(flood.kind, flood.sent, REFUSES)
                .increased(flood.refused)
                .remark(flood.remark());
            // It takes 2^31 packets to the end, where it is refused: a day, at the rate of the quota. Until
            // then it is but a flood, and a patient one.
            // A shard that has time to spare answers: the quota is for one that has none (T21).
            row.beside()
        };
        let rows = self.floods.iter_mut().map(row).collect();
        Ok(Done { rows })
    }
}

impl Flood {
    fn take_turn(&mut self, admin: SocketAddr, stop: &AtomicBool) -> Result<()> {
        const NUMBERS: &str = "roadstead_net_drop_packet_number_total";
        let (before, lost) = (Counters::read(admin)?, dropped_by_kernel());
        let until = Instant::now() + TURN;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            for _ in 0..BURST {
                self.packets.send(self.step, frames::PING);
            }
            self.sent += BURST;
            self.answers += self.packets.forget_answers();
            if self.walks() {
                self.wait_for_answer();
            }
        }
        std::thread::sleep(REST);
        self.lost += dropped_by_kernel() - lost;
        let after = Counters::read(admin)?;
        let grown = |name| after.sum(name).saturating_sub(before.sum(name));
        self.refused += grown(REFUSES);
        self.numbers_refused += grown(NUMBERS);
        Ok(())
    }

    fn walks(&self) -> bool {
        self.step > 1
    }

    fn wait_for_answer(&mut self) {
        let until = Instant::now() + ANSWER;
        loop {
            let answers = self.packets.forget_answers();
            self.answers += answers;
            if answers > 0 || Instant::now() >= until {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn remark(&self) -> String {
        let (number, answers, lost) = (self.packets.number(), self.answers, self.lost);
        let seen = format!("{answers} answers, {lost} dropped by the kernel meanwhile");
        match self.walks() {
            false => seen,
            true => format!(
                "{seen}; from 0 to {number}, of 2^62; {} refused for their number",
                self.numbers_refused
            ),
        }
    }
}
