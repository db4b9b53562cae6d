//! What the store ends: the sessions of a device that was removed, and of a user who was signed out.
//!
//! The user's home hears of it and tells the sessions. One whose device was opened just before and which
//! registers just after is told then: the home remembers what ended for as long as an opening may take.

use std::collections::VecDeque;

use roadstead_proto::{DeviceId, ErrorCode, UserId};

use super::Shard;
use crate::io::{Ended, SessionId};
use crate::limits;
use crate::peer::{Holder, ShardMessage};
use crate::store::StoreError;
use crate::time::{Now, Time};

/// What ended a moment ago, the latest last.
#[derive(Debug, Default)]
pub(super) struct RecentEnds(VecDeque<(Time, Ended)>);

impl RecentEnds {
    fn push(&mut self, now: Time, ended: Ended) {
        self.forget(now);
        if self.0.len() >= limits::ENDS_REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((now, ended));
    }

    fn forget(&mut self, now: Time) {
        let is_old = |(at, _): &(Time, Ended)| *at + limits::HELLO_TIMEOUT < now;
        while self.0.front().is_some_and(is_old) {
            self.0.pop_front();
        }
    }

    /// What ends a session that was opened before it, if anything does.
    pub(super) fn of(
        &mut self,
        now: Time,
        session: (UserId, DeviceId),
        issued_s: u64,
    ) -> Option<Ended> {
        self.forget(now);
        let mut ends = self.0.iter().map(|(_, ended)| *ended);
        ends.find(|ended| ended.ends(session, issued_s).is_some())
    }
}

impl Shard {
    /// As the home: tell the sessions of the user, of which each knows what let it in.
    pub(super) fn handle_ended(&mut self, now: Now, ended: Ended) {
        self.recent_ends.push(now.at, ended);
        let holders: Vec<Holder> = self.directory.holders(ended.user()).collect();
        for Holder { shard, session } in holders {
            self.tell(shard, ShardMessage::Ended(session, ended));
        }
    }

    /// As the holder.
    pub(super) fn handle_session_ended(&mut self, now: Now, id: SessionId, ended: Ended) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let (Some(user), Some(device)) = (session.user, session.device) else {
            return;
        };
        let code = ended.ends((user, device), session.issued_s.into());
        if let Some(code) = code {
            self.refuse(now, id, code, why(code));
        }
    }

    /// As the holder: an answer of the store says so.
    pub(super) fn end_session(&mut self, now: Now, id: SessionId, error: StoreError) {
        let code = error.code();
        self.refuse(now, id, code, why(code));
    }

    /// As the holder: the home knows of a later token of the device.
    pub(super) fn handle_overtaken(&mut self, now: Now, id: SessionId) {
        if self.session_mut(id).is_some() {
            self.counters.tokens_overtaken += 1;
            let message = "the device has shown a later resume token";
            self.refuse(now, id, ErrorCode::TokenInvalid, message);
        }
    }
}

/// In words.
fn why(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::DeviceRemoved => "this device was removed",
        _ => "this user was signed out",
    }
}
