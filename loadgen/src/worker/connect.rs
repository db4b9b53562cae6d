//! Opening sessions, losing them and getting them back.

use bytes::Bytes;
use roadstead_net::{CloseReason, ConnectParams, Engine, HomePrefix, Io};
use roadstead_proto::ErrorCode;
use roadstead_proto::v1::hello;

use super::slot::Millis;
use super::upset::RETURN;
use super::{Alarm, CLOSES_PER_MS, Worker};
use crate::clock::Micros;
use crate::control::Stage;
use crate::findings::Kind;
use crate::rng::Shuffle;
use crate::session::{Login, Phase, Welcomed};

/// Sessions that one thread may be opening at once, from the first packet to the Welcome. It starts low,
/// grows with every Welcome and halves when a server is too slow, so that a ramp that asks for too much is
/// slowed down instead of failing; the report's handshakes per second tell. More than the most would only
/// queue in the server, which asks newcomers to prove their address from 1,000 on (T11).
const OPENING_MIN: u32 = 16;
pub(super) const OPENING_START: u32 = 64;
const OPENING_MAX: u32 = 400;

/// Timeouts within this time of each other halve the limit once: they have one cause.
const OPENING_PAUSE: Micros = 1_000_000;

/// When to look again if as many are under way.
pub(super) const LIMIT_POLL: Micros = 2_000;

/// From the end of the handshake to Welcome. A server that dies in between leaves a client that can not
/// notice: before the handshake is confirmed nothing of the session is sent again (RFC 9002, 6.2.1), so
/// no stateless reset comes either.
const LOGIN_TIMEOUT: Micros = 12_000_000;

/// The first wait before connecting again; doubles with every failure up to the longest. A phone waits up
/// to a minute (P46); a run ends before that, and jitter spreads its sessions well enough.
const BACKOFF_MIN: Micros = 500_000;
const BACKOFF_MAX: Micros = 5_000_000;

impl Worker {
    pub(super) fn may_connect(&self) -> bool {
        self.opening < self.opening_max
    }

    /// Opens the sessions of the ramp that are due.
    pub(super) fn go_on_ramping<E: Engine>(&mut self, io: &mut Io<'_, E>, now: Micros) {
        while self.may_connect() && self.ramp.take(now).is_some() {
            let session = self.next_of_ramp();
            self.connect(io, session, now);
        }
        let interval = self.heartbeat();
        if self.stage == Stage::Ramp && interval > 0 && now > interval {
            self.start_heartbeats(now);
        }
    }

    /// Sessions open in order, and come back in an order drawn by lot.
    fn next_of_ramp(&mut self) -> u32 {
        let place = self.ramped;
        self.ramped += 1;
        match self.returning {
            true => {
                Shuffle::new(self.plan.topology.seed ^ RETURN, self.roster.sessions()).at(place)
            }
            false => place,
        }
    }

    pub(super) fn connect<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32, now: Micros) {
        if !self.may_connect() {
            let at = now + self.rng.jitter(10 * LIMIT_POLL);
            return self.set_alarm(at, session, Alarm::Connect);
        }
        let slot = &mut self.slots[session as usize];
        if slot.session.phase() != Phase::Offline || slot.away || slot.gave_up {
            return;
        }
        let params = ConnectParams {
            home: slot.home,
            ..ConnectParams::new(self.plan.target, self.plan.server_name.clone())
        };
        match io.connect(&params) {
            Ok(conn) => {
                slot.session.connecting();
                slot.set_conn(Some(conn));
                slot.begin(now);
                self.opening += 1;
                let index = conn.index as usize;
                if self.sessions_by_conn.len() <= index {
                    self.sessions_by_conn.resize(index + 1, u32::MAX);
                }
                self.sessions_by_conn[index] = session;
            }
            Err(error) => {
                self.count_close(format!("not started: {error}"));
                self.try_again(session, now);
            }
        }
    }

    /// The handshake is complete: says Hello, with a token signed now and not kept (T14).
    pub(super) fn opened<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32, resumed: bool) {
        let now = self.clock.now();
        match resumed {
            true => self.status.handshakes_resumed += 1,
            false => self.status.handshakes_full += 1,
        }
        let user = self.roster.user_id(self.roster.user(session));
        let slot = &mut self.slots[session as usize];
        let (attempt, took) = (slot.attempt(), slot.connecting_for(now));
        let resume_token = slot.session.take_resume_token();
        slot.resumed_login = resume_token.is_some();
        let credential = match resume_token {
            Some(token) => hello::Credential::ResumeToken(Bytes::from(token.into_vec())),
            None => match self.plan.signer.sign(user) {
                Ok(token) => hello::Credential::Token(token),
                Err(error) => {
                    self.ledger.note(Kind::SessionFailed, session, error);
                    return self.hang_up(io, session);
                }
            },
        };
        match slot.resumed_login {
            true => self.status.logins_with_resume_token += 1,
            false => self.status.logins_with_token += 1,
        }
        let login = Login {
            credential,
            device: self.roster.device_id(session),
            counter_base: self.plan.counter_base,
        };
        slot.session.opened(login, &mut self.effects);
        self.latencies.handshake.record(0, 0, took);
        self.write(io, session, now);
        self.set_alarm(now + LOGIN_TIMEOUT, session, Alarm::Login(attempt));
    }

    pub(super) fn welcomed(&mut self, session: u32, welcomed: Welcomed, now: Micros) {
        let expected = self.roster.user_id(self.roster.user(session)).get();
        if welcomed.user != expected {
            let what = format!("welcomed as user {}", welcomed.user);
            self.ledger.note(Kind::ProtocolBroken, session, what);
        }
        let slot = &mut self.slots[session as usize];
        let took = slot.connecting_for(now);
        slot.failures = 0;
        slot.not_before = Millis::default();
        slot.home = welcomed.home.and_then(home_prefix);
        if !slot.online_since.is_set() {
            slot.online_since = Millis::after(now);
        }
        if std::mem::take(&mut slot.lost) {
            self.status.reconnected += 1;
            if matches!(self.stage, Stage::Storm | Stage::Restart) {
                let took = now - self.upset_at;
                self.latencies.come_back.record(0, 0, took);
            }
        }
        if !slot.welcomed {
            slot.welcomed = true;
            self.status.established += 1;
            self.status.last_established_at = now;
        }
        self.opening -= 1;
        self.opening_max = OPENING_MAX.min(self.opening_max + 1);
        self.status.active += 1;
        self.status.heartbeat = welcomed.heartbeat;
        self.latencies.login.record(0, 0, took);
        for (chat, position) in self.ledger.read_marks(session) {
            self.slot(session).session.read(chat, position);
        }
    }

    pub(super) fn check_login<E: Engine>(
        &mut self,
        io: &mut Io<'_, E>,
        session: u32,
        attempt: u32,
    ) {
        let slot = &self.slots[session as usize];
        if slot.attempt() == attempt && slot.session.phase() == Phase::ExpectWelcome {
            self.count_close("no Welcome in time".into());
            self.hang_up(io, session);
        }
    }

    /// The server asks to come back at `at`.
    pub(super) fn go_away<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32, at: Micros) {
        self.status.goaways += 1;
        self.count_close("go_away".into());
        self.slot(session).not_before = Millis::after(at);
        self.hang_up(io, session);
    }

    pub(super) fn hang_up<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32) {
        if let Some(conn) = self.slot(session).conn() {
            io.close(conn, 0, b"");
        }
    }

    pub(super) fn closed(&mut self, session: u32, reason: &CloseReason) {
        let now = self.clock.now();
        let slot = &mut self.slots[session as usize];
        let phase = slot.session.phase();
        slot.session.closed();
        slot.set_conn(None);
        slot.unsent = None;
        let (away, resumed_login) = (slot.away, slot.resumed_login);
        match phase {
            Phase::ExpectOpen | Phase::ExpectWelcome => {
                self.opening -= 1;
                self.open_fewer(now);
            }
            Phase::Active => self.status.active -= 1,
            Phase::Offline => {}
        }
        if away || self.stage == Stage::Stopped {
            return;
        }
        // What this end closed it has counted already, under the reason for closing.
        if *reason != CloseReason::Local {
            self.count_close(describe(reason));
        }
        if phase == Phase::Active {
            self.lose(session, reason);
        }
        if is_final(reason, resumed_login) {
            self.slot(session).gave_up = true;
            self.status.gave_up += 1;
            self.ledger
                .note(Kind::SessionFailed, session, describe(reason));
        } else {
            self.try_again(session, now);
        }
    }

    /// An open session lost its connection.
    fn lose(&mut self, session: u32, reason: &CloseReason) {
        let was_lost = std::mem::replace(&mut self.slot(session).lost, true);
        if self.stage == Stage::Restart && !was_lost {
            self.left += 1;
            // A session that was told to go has closed the connection itself.
            if *reason != CloseReason::Local {
                self.ledger.note(Kind::NoGoAway, session, describe(reason));
            }
            return;
        }
        self.status.disconnected += 1;
        if self.plan.cuts_fail {
            self.ledger
                .note(Kind::SessionCut, session, describe(reason));
        }
        if *reason != CloseReason::Local {
            self.probe.want();
        }
    }

    fn try_again(&mut self, session: u32, now: Micros) {
        let slot = &mut self.slots[session as usize];
        let wait = (BACKOFF_MIN << slot.failures.min(10)).min(BACKOFF_MAX);
        slot.failures = slot.failures.saturating_add(1);
        let at = (now + self.rng.jitter(wait)).max(slot.not_before.micros());
        self.set_alarm(at, session, Alarm::Connect);
    }

    fn open_fewer(&mut self, now: Micros) {
        if now > self.opening_cut_at + OPENING_PAUSE {
            self.opening_max = OPENING_MIN.max(self.opening_max / 2);
            self.opening_cut_at = now;
        }
    }

    fn count_close(&mut self, reason: String) {
        *self.status.closes.entry(reason).or_default() += 1;
    }

    /// Books who is not there. The turns that follow let everyone go.
    pub(super) fn stop(&mut self) {
        self.stage = Stage::Stopped;
        for session in 0..self.roster.sessions() {
            let slot = &self.slots[session as usize];
            if slot.session.is_active() || slot.gave_up {
                continue;
            }
            let (kind, what) = match slot.welcomed {
                true => (Kind::SessionLost, "established, and not there at the end"),
                false => (Kind::SessionFailed, "never established"),
            };
            self.ledger.note(kind, session, what);
        }
    }

    /// Closes the next of the sessions. Answers whether any are left.
    pub(super) fn close_some<E: Engine>(&mut self, io: &mut Io<'_, E>) -> bool {
        let until = (self.closed_up_to + CLOSES_PER_MS).min(self.roster.sessions());
        for session in self.closed_up_to..until {
            if let Some(conn) = self.slots[session as usize].conn() {
                io.close(conn, 0, b"done");
            }
        }
        self.closed_up_to = until;
        let more = until < self.roster.sessions();
        if !more {
            io.stop();
        }
        more
    }
}

/// Whether trying again can not help. A refused resume token can: the next try shows a fresh token.
fn is_final(reason: &CloseReason, resumed_login: bool) -> bool {
    match reason {
        CloseReason::Alpn | CloseReason::VersionMismatch | CloseReason::Tls { .. } => true,
        CloseReason::Application { code, .. } => match ErrorCode::from_close_code(*code) {
            Some(ErrorCode::TokenInvalid) => !resumed_login,
            Some(
                ErrorCode::VersionUnsupported
                | ErrorCode::DeviceInvalid
                | ErrorCode::DeviceLimit
                | ErrorCode::DeviceRemoved
                | ErrorCode::CursorInvalid
                // P45: somebody else is this device.
                | ErrorCode::SessionReplaced,
            ) => true,
            _ => false,
        },
        _ => false,
    }
}

fn describe(reason: &CloseReason) -> String {
    match reason {
        CloseReason::Application { code, .. } => match ErrorCode::from_close_code(*code) {
            Some(code) => code
                .as_str_name()
                .trim_start_matches("ERROR_CODE_")
                .to_lowercase(),
            None => format!("application code {code}"),
        },
        CloseReason::Tls { alert } => format!("tls alert {alert}"),
        CloseReason::Transport { code, by_peer } => {
            format!(
                "transport error {code:#x}{}",
                if *by_peer { " by peer" } else { "" }
            )
        }
        other => other.name().into(),
    }
}

fn home_prefix((bits, length): (u32, u32)) -> Option<HomePrefix> {
    let prefix = u16::try_from(bits).ok()?;
    let bits = u8::try_from(length).ok().filter(|length| *length <= 16)?;
    Some(HomePrefix { prefix, bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(code: ErrorCode) -> CloseReason {
        CloseReason::Application {
            code: code.as_close_code().into(),
            reason: Bytes::new(),
        }
    }

    #[test]
    fn only_what_can_not_be_mended_is_final() {
        assert!(is_final(&application(ErrorCode::TokenInvalid), false));
        assert!(
            !is_final(&application(ErrorCode::TokenInvalid), true),
            "a fresh token may do"
        );
        assert!(!is_final(&application(ErrorCode::Overloaded), false));
        assert!(!is_final(&CloseReason::StatelessReset, false));
        assert!(is_final(&CloseReason::Tls { alert: 48 }, false));
    }

    #[test]
    fn reasons_have_names() {
        assert_eq!(
            describe(&application(ErrorCode::SlowConsumer)),
            "slow_consumer"
        );
        assert_eq!(describe(&CloseReason::StatelessReset), "stateless_reset");
        assert_eq!(describe(&CloseReason::Tls { alert: 48 }), "tls alert 48");
    }

    #[test]
    fn t9_a_hint_of_more_bits_than_there_are_is_ignored() {
        assert_eq!(home_prefix((0x8000, 17)), None);
        assert_eq!(home_prefix((0x1_0000, 1)), None);
        assert_eq!(
            home_prefix((0x8000, 1)),
            Some(HomePrefix {
                prefix: 0x8000,
                bits: 1
            })
        );
    }
}
