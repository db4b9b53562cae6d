//! One session and its connection: what a worker keeps of each.

use bytes::BytesMut;
use roadstead_net::{ConnId, HomePrefix};

use crate::clock::Micros;
use crate::session::Session;

/// A session's place in its worker. Every byte counts: there may be millions.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) session: Session,
    pub(crate) conn: Option<ConnId>,
    /// Bytes that the connection did not take yet.
    pub(crate) unsent: Option<Box<BytesMut>>,
    /// When the present attempt to connect began.
    pub(crate) connecting_since: Micros,
    /// When the session came online because the scenario wanted it: what was meant for an earlier time
    /// waited for it, and its latency says nothing about the server.
    pub(crate) online_since: Micros,
    /// A GoAway asked not to come back earlier.
    pub(crate) not_before: Micros,
    /// In ms of the run; wraps after 49 days, when a needless heartbeat does no harm.
    pub(crate) last_write_ms: u32,
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

impl Slot {
    pub(crate) fn new(keeps_resume_token: bool) -> Self {
        Self {
            session: Session::new(keeps_resume_token),
            conn: None,
            unsent: None,
            connecting_since: 0,
            online_since: 0,
            not_before: 0,
            last_write_ms: 0,
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

    /// Whether a message may be sent from here: a lost session sends when it is back.
    pub(crate) fn can_send(&self) -> bool {
        self.session.was_active() && !self.away && !self.gave_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_stays_below_200_bytes() {
        let bytes = size_of::<Slot>();
        assert!(bytes < 200, "{bytes} bytes");
    }
}
