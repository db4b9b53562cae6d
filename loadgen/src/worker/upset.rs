//! What a run does to its sessions on purpose: a cut of all, a change of their ports, a restart of the
//! server.

use roadstead_net::{Engine, Io};

use super::sweep::Sweep;
use super::{Alarm, Worker};
use crate::clock::Micros;
use crate::control::Stage;
use crate::profile::Profile;
use crate::schedule::{Arrivals, Schedule};

/// Sessions that one thread opens at once when all come back: as impatient as a limit of 40 MB of
/// handshakes allows.
const OPENING_STORM: u32 = 2_000;

/// A rate that makes everything due at once.
const AT_ONCE: f64 = 1e9;

/// Makes the order of return independent of other choices by the same seed.
pub(super) const RETURN: u64 = 0x7265_7475;

impl Worker {
    /// Begins a storm: this turn is the last on these sockets, unless this is the control group.
    pub(super) fn cut(&mut self, spread: Micros, control_rate: f64, now: Micros) {
        self.stage = Stage::Storm;
        if self.is_control {
            return self.start_control(control_rate, now);
        }
        self.severing = Some(spread);
    }

    /// Whether the sockets must go, and with them all connections.
    pub(crate) fn is_severing(&self) -> bool {
        self.severing.is_some()
    }

    /// The sockets are gone, and nobody was told. From now on the sessions come back.
    pub(crate) fn sever(&mut self) {
        let now = self.clock.now();
        let spread = self.severing.take().unwrap_or(0);
        self.upset_at = now;
        for slot in &mut self.slots {
            slot.lost |= slot.session.is_active();
            slot.session.closed();
            slot.set_conn(None);
            slot.unsent = None;
        }
        self.status.cut += u64::from(self.status.active);
        self.status.active = 0;
        self.opening = 0;
        self.opening_max = OPENING_STORM;
        self.sessions_by_conn.clear();
        self.alarms
            .retain(|alarm| !matches!(alarm.0.2, Alarm::Connect | Alarm::Login(_)));
        let sessions = self.roster.sessions();
        let rate = match spread {
            0 => AT_ONCE,
            spread => f64::from(sessions) / crate::clock::seconds(spread),
        };
        self.ramp = Schedule::new(
            Arrivals::Constant,
            Profile::constant(rate),
            now,
            Micros::MAX,
            sessions.into(),
            self.rng.clone(),
        );
        self.ramped = 0;
        self.returning = true;
    }

    /// Begins to change the ports.
    pub(super) fn start_rebind<E: Engine>(&mut self, io: &Io<'_, E>, over: Micros, now: Micros) {
        self.stage = Stage::Rebind;
        let sockets = u32::try_from(io.sockets().len()).unwrap_or(u32::MAX);
        self.rebinds = Sweep::once(now, over, sockets);
        self.rebound_all = false;
    }

    /// Changes the ports that are due. After the last every session says something, so that the server
    /// learns its new address.
    pub(super) fn go_on_rebinding<E: Engine>(&mut self, io: &mut Io<'_, E>, now: Micros) {
        while let Some(socket) = self.rebinds.take(now) {
            io.rebind(u16::try_from(socket).unwrap_or(u16::MAX));
            self.status.rebinds += 1;
        }
        if self.stage == Stage::Rebind && !self.rebound_all && self.rebinds.is_over() {
            self.rebound_all = true;
            self.probe.begin(now);
        }
    }

    pub(super) fn has_rebound(&self) -> bool {
        self.rebound_all && self.probe.is_over()
    }

    /// The server is about to end.
    pub(super) fn expect_restart(&mut self, now: Micros) {
        self.stage = Stage::Restart;
        self.upset_at = now;
        // Who is not there can not be sent away.
        self.left = self.roster.sessions() - self.status.active;
    }

    /// Whether every session was sent away and is back.
    pub(super) fn is_back(&self) -> bool {
        self.left + self.status.gave_up >= self.roster.sessions()
    }
}
