//! Heartbeats: a PING for every session that was silent for half an interval (T10).

use roadstead_net::{Engine, Io};

use super::Worker;
use super::sweep::Sweep;
use crate::clock::Micros;

impl Worker {
    pub(super) fn send_heartbeats<E: Engine>(&mut self, io: &mut Io<'_, E>, now: Micros) {
        let quiet = self.heartbeat() / 2;
        while let Some(session) = self.heartbeats.take(now) {
            let slot = &self.slots[session as usize];
            if now.saturating_sub(slot.last_write.micros()) >= quiet {
                self.status.heartbeats += u64::from(self.ping(io, session));
            }
        }
        while let Some(session) = self.probe.take(now) {
            self.ping(io, session);
        }
    }

    /// Pings a session, and answers whether it was there.
    pub(super) fn ping<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32) -> bool {
        let slot = &self.slots[session as usize];
        let conn = slot.conn().filter(|_| slot.session.is_active());
        conn.is_some_and(|conn| {
            io.ping(conn);
            true
        })
    }

    pub(super) fn heartbeat(&self) -> Micros {
        self.plan.heartbeat.unwrap_or(self.status.heartbeat)
    }

    /// The first round starts with the first turn after the ramp; in a ramp longer than an interval it
    /// starts while it lasts (T10).
    pub(super) fn start_heartbeats(&mut self, now: Micros) {
        let interval = self.heartbeat();
        if interval > 0 && self.heartbeats.is_over() {
            self.heartbeats = Sweep::endless(now, interval, self.roster.sessions());
        }
    }
}
