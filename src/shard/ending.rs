//! How sessions end: by the peer, by an offence, by a drain.

use std::hash::Hasher;
use std::time::Duration;

use roadstead_proto::ErrorCode;
use roadstead_proto::v1::{self, server_frame};
use siphasher::sip::SipHasher13;

use super::Shard;
use crate::io::{CloseReason, Output, SessionId};
use crate::limits;
use crate::peer::ShardMessage;
use crate::session::State;
use crate::time::{Now, Time};

impl Shard {
    /// The server ends a session. What it acknowledged is flushed (R18), its home forgets it (R13).
    pub(super) fn close(&mut self, now: Now, id: SessionId, reason: CloseReason) {
        self.counters.closed_by_code.add(reason.code);
        self.leave(now, id);
        self.outputs.push_back(Output::Close(id, reason));
    }

    /// The connection is gone.
    pub(super) fn handle_closed(&mut self, now: Now, id: SessionId) {
        if self.session_mut(id).is_none() {
            return;
        }
        self.leave(now, id);
        let session = self.sessions.remove(id.index).expect("checked above");
        self.timers.remove(&(session.timer, id));
        self.counters.sessions -= 1;
    }

    /// Takes a session out of service: once.
    fn leave(&mut self, now: Now, id: SessionId) {
        let holder = self.holder(id);
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let state = std::mem::replace(&mut session.state, State::Closing);
        session.close_at = Time::NEVER;
        match state {
            State::Closing => return,
            State::ExpectHello | State::ExpectIdentity(_) | State::ExpectDevice(_) => return,
            State::Active => self.counters.sessions_active -= 1,
            State::ExpectRegistered(_) => {}
        }
        let session = self.session_mut(id).expect("it was there");
        let (user, device) = session.identity();
        self.flush(id);
        self.submit_all_read_marks(now, id);
        self.forget_outbox(id);
        if let Some(session) = self.session_mut(id) {
            session.retire();
        }
        let home = self.config.placement.home(user);
        self.tell(
            home,
            ShardMessage::Unregister {
                user,
                device,
                holder,
            },
        );
    }

    /// GoAway to all, each with its own delay so that they do not come back as one (DESIGN 7).
    pub(super) fn handle_drain(&mut self, now: Now) {
        self.draining = true;
        self.send_all_away(now);
    }

    /// Tells a session to go; what is there at the end of its grace is closed.
    pub(super) fn send_away(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        if matches!(session.state, State::Closing) {
            return;
        }
        session.close_at = now.at + limits::DRAIN_GRACE;
        if session.is_active() {
            let delay = self.drain_delay(now, id).as_millis();
            let go_away = v1::GoAway {
                reconnect_after_ms: u32::try_from(delay).expect("a few seconds"),
                reason: "this server is going away".into(),
            };
            self.send(id, server_frame::Body::GoAway(go_away));
        }
    }

    fn drain_delay(&self, now: Now, id: SessionId) -> Duration {
        let mut hasher = SipHasher13::new_with_key(&self.config.hash_key);
        hasher.write_u64(now.at.as_micros());
        hasher.write_u32(id.index);
        let spread = u64::try_from(limits::DRAIN_SPREAD.as_millis()).expect("a few seconds");
        Duration::from_millis(hasher.finish() % spread)
    }

    /// A Hello did not come, or the grace of a drain is over.
    pub(super) fn handle_close_due(&mut self, now: Now, id: SessionId) {
        if self.draining {
            let message = "this server is going away";
            self.close(
                now,
                id,
                CloseReason {
                    code: ErrorCode::Draining,
                    message,
                },
            );
        } else {
            self.refuse(
                now,
                id,
                ErrorCode::HelloTimeout,
                "no session within the time for it",
            );
        }
    }
}
