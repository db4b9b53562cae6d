//! What is passed on and never stored.

use roadstead_proto::{ErrorCode, v1};

use super::Shard;
use super::sends::peer_in;
use crate::io::SessionId;
use crate::limits;
use crate::peer::ShardMessage;
use crate::time::Now;

impl Shard {
    /// Tells the other user of the chat, at most [`limits::TYPING_BURST`] times per interval.
    pub(super) fn handle_typing(&mut self, now: Now, id: SessionId, typing: v1::Typing) {
        let session = self.active_mut(id).expect("it sent the frame");
        let (user, _) = session.identity();
        let Some((_, peer)) = peer_in(&typing.chat, user) else {
            return self.refuse(now, id, ErrorCode::ChatInvalid, "no chat of this user");
        };
        let active = session.in_flight(now.at);
        if active.typing_until <= now.at {
            active.typing_until = now.at + limits::TYPING_INTERVAL;
            active.typing_left = limits::TYPING_BURST;
        }
        if active.typing_left == 0 {
            self.counters.typing_dropped += 1;
            return;
        }
        active.typing_left -= 1;
        let home = self.config.placement.home(peer);
        let typing = v1::Typing {
            user: user.get(),
            ..typing
        };
        self.tell(home, ShardMessage::Typing(peer, typing));
    }
}
