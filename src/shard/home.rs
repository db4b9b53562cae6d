//! What this shard does as the home of its users, and what homes tell it.

use roadstead_proto::{DeviceId, ErrorCode, UserId, v1};

use super::{Pending, Shard};
use crate::directory::Registered;
use crate::io::SessionId;
use crate::peer::{Claim, Holder, ShardMessage};
use crate::store::{CheckInbox, Command, EntryBody, Grown};
use crate::time::Now;

impl Shard {
    pub(super) fn handle_shard_message(&mut self, now: Now, message: ShardMessage) {
        match message {
            ShardMessage::Register {
                user,
                device,
                claim,
                holder,
            } => self.handle_register(now, (user, device), claim, holder),
            ShardMessage::Unregister {
                user,
                device,
                holder,
            } => {
                self.directory.unregister(user, device, holder);
            }
            ShardMessage::Registered(session) => self.handle_registered(now, session),
            ShardMessage::Replaced(session) => self.handle_replaced(now, session),
            ShardMessage::Overtaken(session) => self.handle_overtaken(now, session),
            ShardMessage::Ended(session, ended) => {
                self.handle_session_ended(now, session, ended);
            }
            ShardMessage::Grown(grown) => self.handle_grown(grown),
            ShardMessage::Notify(session, grown) => self.handle_notify(now, session, grown),
            ShardMessage::Typing(user, typing) => {
                let holders: Vec<Holder> = self.directory.holders(user).collect();
                for Holder { shard, session } in holders {
                    self.tell(shard, ShardMessage::TypingFor(session, typing.clone()));
                }
            }
            ShardMessage::TypingFor(session, typing) => {
                if self.active_mut(session).is_some() {
                    self.send(session, v1::server_frame::Body::Typing(typing));
                }
            }
        }
    }

    fn handle_register(&mut self, now: Now, of: (UserId, DeviceId), claim: Claim, holder: Holder) {
        let Holder { shard, session } = holder;
        if let Some(ended) = self.recent_ends.of(now.at, of, claim.issued_s) {
            return self.tell(shard, ShardMessage::Ended(session, ended));
        }
        match self.directory.register(of, claim, holder) {
            Registered::Accepted { replaced } => {
                self.tell(shard, ShardMessage::Registered(session));
                if let Some(Holder { shard, session }) = replaced {
                    self.tell(shard, ShardMessage::Replaced(session));
                }
            }
            Registered::Stale => self.tell(shard, ShardMessage::Replaced(session)),
            Registered::Overtaken => self.tell(shard, ShardMessage::Overtaken(session)),
        }
    }

    /// As the writer: tell each inbox's home that it grew.
    pub(super) fn tell_homes(&mut self, grown: Vec<Grown>) {
        for grown in grown {
            let home = self.config.placement.home(grown.user);
            self.tell(home, ShardMessage::Grown(grown));
        }
    }

    /// As the home: tell the session that serves the device, and watch how the inbox fills.
    fn handle_grown(&mut self, grown: Grown) {
        let (user, device, cursor) = (grown.user, grown.device, grown.cursor);
        let bytes = grown.entry.as_ref().map_or(0, EntryBody::counted_bytes);
        if let Some(Holder { shard, session }) = self.directory.holder(user, device) {
            self.tell(shard, ShardMessage::Notify(session, grown));
        }
        if self.inbox_watch.is_due(user, device, cursor, bytes) {
            let limits = self.config.inbox_limits;
            let command = Command::CheckInbox(CheckInbox {
                user,
                device,
                limits,
            });
            self.ask(command, Pending::CheckInbox);
        }
    }

    fn handle_replaced(&mut self, now: Now, id: SessionId) {
        if self.session_mut(id).is_some() {
            self.counters.replaced += 1;
            let message = "a later connection of this device took over";
            self.refuse(now, id, ErrorCode::SessionReplaced, message);
        }
    }
}
