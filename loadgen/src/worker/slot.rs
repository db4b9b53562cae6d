//! One session and its connection: what a worker keeps of each.

use bytes::BytesMut;
use roadstead_net::{ConnId, HomePrefix};

use crate::clock::Micros;
use crate::session::Session;

/// No connection.
const NONE: u32 = u32::MAX;

/// A session's place in its worker. Every byte counts: there may be millions.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) session: Session,
    /// Bytes that the connection did not take yet.
    pub(crate) unsent: Option<Box<BytesMut>>,
    conn: ConnId,
    /// When the present attempt to connect began: microseconds that wrap after 71 minutes, and an attempt
    /// is over long before.
    connecting_since: u32,
    /// When the session came online because the scenario wanted it, rounded up: what was meant for an
    /// earlier time waited for it, and its latency says nothing about the server.
    pub(crate) online_since: Millis,
    /// A GoAway asked not to come back earlier.
    pub(crate) not_before: Millis,
    pub(crate) last_write: Millis,
    /// The hint of the last Welcome (T9).
    pub(crate) home: Option<HomePrefix>,
    /// Attempts since the last Welcome.
    pub(crate) failures: u8,
    /// Wants a flush at the end of the turn.
    pub(crate) dirty: bool,
    /// Some Welcome came.
    pub(crate) welcomed: bool,
    /// Away because the scenario wants it.
    pub(crate) away: bool,
    /// Lost, and not back yet.
    pub(crate) lost: bool,
    /// Refused for good.
    pub(crate) gave_up: bool,
    /// The last Hello showed a resume token.
    pub(crate) resumed_login: bool,
}

/// A time of the run in milliseconds: half the space, and 49 days of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Millis(u32);

impl Millis {
    /// Not before this time.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "wraps after 49 days, longer than any run"
    )]
    pub(crate) fn after(at: Micros) -> Self {
        Self(at.div_ceil(1_000) as u32)
    }

    pub(crate) fn micros(self) -> Micros {
        Micros::from(self.0) * 1_000
    }

    pub(crate) fn is_set(self) -> bool {
        self.0 > 0
    }
}

impl Slot {
    pub(crate) fn new(keeps_resume_token: bool) -> Self {
        Self {
            session: Session::new(keeps_resume_token),
            conn: ConnId {
                index: NONE,
                generation: 0,
            },
            unsent: None,
            connecting_since: 0,
            online_since: Millis::default(),
            not_before: Millis::default(),
            last_write: Millis::default(),
            home: None,
            failures: 0,
            dirty: false,
            welcomed: false,
            away: false,
            lost: false,
            gave_up: false,
            resumed_login: false,
        }
    }

    pub(crate) fn conn(&self) -> Option<ConnId> {
        (self.conn.index != NONE).then_some(self.conn)
    }

    pub(crate) fn set_conn(&mut self, conn: Option<ConnId>) {
        self.conn = conn.unwrap_or(ConnId {
            index: NONE,
            generation: 0,
        });
    }

    /// An attempt to connect begins.
    pub(crate) fn begin(&mut self, now: Micros) {
        self.connecting_since = low(now);
    }

    /// Names the attempt that is under way.
    pub(crate) fn attempt(&self) -> u32 {
        self.connecting_since
    }

    /// How long the attempt has taken by now.
    pub(crate) fn connecting_for(&self, now: Micros) -> Micros {
        low(now).wrapping_sub(self.connecting_since).into()
    }

    /// Whether a message may be sent from here: a lost session sends when it is back.
    pub(crate) fn can_send(&self) -> bool {
        self.session.was_active() && !self.away && !self.gave_up
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "wraps, and is only compared by difference"
)]
fn low(at: Micros) -> u32 {
    at as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_takes_112_bytes() {
        assert_eq!(size_of::<Slot>(), 112);
    }

    #[test]
    fn an_attempt_is_measured_across_the_wrap() {
        let mut slot = Slot::new(false);
        let began = Micros::from(u32::MAX) - 100;
        slot.begin(began);
        assert_eq!(slot.connecting_for(began + 250), 250);
    }

    #[test]
    fn times_are_rounded_up_to_milliseconds() {
        assert_eq!(Millis::after(1_001).micros(), 2_000);
        assert_eq!(Millis::after(2_000).micros(), 2_000);
        assert!(!Millis::default().is_set() && Millis::after(1).is_set());
    }

    #[test]
    fn a_connection_is_there_or_not() {
        let mut slot = Slot::new(false);
        assert_eq!(slot.conn(), None);
        let conn = ConnId {
            index: 7,
            generation: 3,
        };
        slot.set_conn(Some(conn));
        assert_eq!(slot.conn(), Some(conn));
        slot.set_conn(None);
        assert_eq!(slot.conn(), None);
    }
}
