//! What the session sends, and in which order.

use std::time::Duration;

use bytes::Bytes;
use roadstead_proto::{ChatId, Position, v1};

use super::{ANSWER_TIMEOUT, Now, Session, State};

impl Session {
    /// The next frame to send. Acknowledgements go ahead of reads, and both ahead of new sends.
    pub(crate) fn poll_transmit(&mut self, now: Now) -> Option<v1::ClientFrame> {
        use v1::client_frame::Body;
        assert!(!self.has_records(), "records first");
        if let Some(hello) = self.hello.take() {
            return Some(frame(Body::Hello(hello)));
        }
        // After a GoAway nothing new is begun: the next server takes it.
        let State::Active { leave_at, .. } = &self.state else {
            return None;
        };
        let leaving = leave_at.is_some();
        if let Some(ack) = self.take_ack() {
            return Some(frame(Body::Ack(ack)));
        }
        if let Some(read) = self.take_read() {
            return Some(frame(Body::Read(read)));
        }
        if let Some(chat) = self.typing.take() {
            let chat = chat_field(chat);
            return Some(frame(Body::Typing(v1::Typing { chat, user: 0 })));
        }
        if leaving {
            return None;
        }
        let send = self.sends.poll_transmit()?;
        self.answer_due
            .get_or_insert(now.at + self.answer_timeout());
        Some(frame(Body::Send(send)))
    }

    pub(super) fn answer_timeout(&self) -> Duration {
        let deadline = Duration::from_millis(self.settings.send_deadline_ms.into());
        ANSWER_TIMEOUT.max(2 * deadline)
    }

    fn take_ack(&mut self) -> Option<v1::Ack> {
        if !std::mem::take(&mut self.ack_ready) {
            return None;
        }
        self.ack_at = None;
        let cursor = self.inbox.ack_due()?;
        self.inbox.acknowledged(cursor);
        Some(v1::Ack {
            cursor: field(cursor),
        })
    }

    fn take_read(&mut self) -> Option<v1::Read> {
        let (chat, position) = self.reads.poll_transmit()?;
        Some(v1::Read {
            chat: chat_field(chat),
            position: field(position),
        })
    }
}

fn frame(body: v1::client_frame::Body) -> v1::ClientFrame {
    v1::ClientFrame { body: Some(body) }
}

/// A position as a field, where no bytes mean none.
pub(super) fn field(position: Position) -> Bytes {
    if position == Position::ZERO {
        Bytes::new()
    } else {
        Bytes::copy_from_slice(position.as_bytes())
    }
}

fn chat_field(chat: ChatId) -> Bytes {
    Bytes::copy_from_slice(chat.as_bytes())
}
