//! What the session does with each frame of the server.

use std::time::Duration;

use bytes::Bytes;
use roadstead_proto::{ChatId, DeviceId, ErrorCode, MessageId, Position, UserId, v1};

use super::inbox::{Arrival, Identity};
use super::sends::Refusal;
use super::{Home, Now, Session, State};
use crate::error::{Cause, SendError};
use crate::event::{Confirmation, Connected, Entry, Event, Gap, GapReason, Message, Receipt};
use crate::journal::Record;

/// Node hints that are kept: more would be somebody's mistake.
const NODE_HINTS_MAX: usize = 16;
/// Events that wait for the application before typing is left out.
const EVENTS_BEFORE_TYPING: usize = 64;

/// The highest number that a server may name: a device that sends a million messages a second from there on
/// has some for 140,000 years.
const NUMBER_MAX: u64 = 1 << 62;

/// An entry that the application has to be told of.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    entry: u64,
    /// It has the message, under another id and position.
    is_moved: bool,
}

/// The server's bytes broke the protocol, in these words.
type Broken = &'static str;

impl Session {
    /// A frame arrived.
    pub(crate) fn handle_frame(&mut self, now: Now, frame: v1::ServerFrame) {
        if let Err(broken) = self.dispatch(now, frame) {
            self.abandon(
                now,
                Cause::Protocol(broken.into()),
                ErrorCode::FrameMalformed,
            );
        }
        let due = now.at + self.answer_timeout();
        self.answer_due = (self.is_active() && self.sends.awaits_answer()).then_some(due);
    }

    /// The stream holds something that is no frame.
    pub(crate) fn handle_garbage(&mut self, now: Now, cause: Cause) {
        self.abandon(now, cause, ErrorCode::FrameMalformed);
    }

    fn dispatch(&mut self, now: Now, frame: v1::ServerFrame) -> Result<(), Broken> {
        use v1::server_frame::Body;
        // A body that this version does not know is a newer server's business (P9).
        let Some(body) = frame.body else {
            return Ok(());
        };
        match (&self.state, body) {
            (_, Body::Error(error)) => self.on_error(now, error),
            (State::ExpectWelcome { resumed, .. }, Body::Welcome(welcome)) => {
                let resumed = *resumed;
                return self.on_welcome(now, welcome, resumed);
            }
            (State::ExpectWelcome { .. }, Body::GoAway(_)) => {}
            (State::Active { .. }, body) => return self.on_active(now, body),
            // Frames of a connection that this side has given up already.
            (State::Wait { .. } | State::ExpectConnection | State::Stopped, _) => {}
            (State::ExpectWelcome { .. }, _) => return Err("a frame before Welcome"),
        }
        Ok(())
    }

    fn on_active(&mut self, now: Now, body: v1::server_frame::Body) -> Result<(), Broken> {
        use v1::server_frame::Body;
        match body {
            Body::SendResult(result) => self.on_send_result(now, &result),
            Body::Deliver(deliver) => self.on_deliver(now, deliver),
            Body::ReceiptUpdate(update) => self.on_receipt(now, &update),
            Body::Gap(gap) => self.on_gap(now, &gap),
            Body::Typing(typing) => self.on_typing(&typing),
            Body::GoAway(go_away) => {
                let delay = Duration::from_millis(go_away.reconnect_after_ms.into());
                if let State::Active { leave_at, .. } = &mut self.state {
                    *leave_at = Some(now.at + delay);
                }
                Ok(())
            }
            Body::Welcome(_) => Err("a second Welcome"),
            Body::Error(_) | Body::Pong(_) => Ok(()),
        }
    }

    fn on_welcome(&mut self, now: Now, welcome: v1::Welcome, resumed: bool) -> Result<(), Broken> {
        let user = user(welcome.user)?;
        let resync = welcome.resync;
        self.user = Some(user);
        self.state = State::Active {
            since: now.at,
            leave_at: None,
        };
        self.ack_at = None;
        self.reads
            .start_session(user, self.inbox.start_session(resync));
        if resync {
            self.records.push(Record::Cursor(Position::ZERO));
        }
        self.take_hints(&welcome);
        self.take_numbers(welcome.highest_number)?;
        let limits = welcome.limits.unwrap_or_default();
        if limits.payload_bytes_max > 0 {
            self.payload_bytes_max = usize::try_from(limits.payload_bytes_max)
                .unwrap_or(usize::MAX)
                .min(roadstead_proto::limits::PAYLOAD_BYTES_MAX);
        }
        let in_flight_max = match limits.sends_in_flight_max {
            0 => u32::MAX,
            max => max,
        };
        let reads_after = u64::from(v1::ServerCapability::FinalChatRefusals as u32);
        let reads_after = welcome.capabilities & reads_after != 0;
        self.sends.start_session(now, in_flight_max, reads_after);
        self.resume_token = own(&welcome.resume_token);
        self.events.push_back(Event::Connected(Connected {
            user,
            device: self.device,
            server_time_ms: welcome.server_time_ms,
            resumed,
        }));
        if resync {
            let generation = welcome.generation;
            self.events.push_back(Event::Resynced { generation });
        }
        self.advance_cursor(now);
        Ok(())
    }

    fn take_hints(&mut self, welcome: &v1::Welcome) {
        let interval = Duration::from_millis(welcome.heartbeat_interval_ms.into());
        if !interval.is_zero() {
            self.heartbeat.welcomed(interval);
        }
        self.home = welcome.home_prefix.as_ref().and_then(|prefix| {
            let bits = u16::try_from(prefix.bits).ok()?;
            (1..=16).contains(&prefix.length).then_some(Home {
                bits,
                length: prefix.length,
            })
        });
        let hints = welcome.node_hints.iter().take(NODE_HINTS_MAX);
        self.node_hints = hints.map(ToString::to_string).collect();
    }

    fn take_numbers(&mut self, highest: Option<u64>) -> Result<(), Broken> {
        let known = self.sends.highest();
        let highest = highest.unwrap_or(0).max(known);
        if highest > NUMBER_MAX {
            return Err("no number is left");
        }
        if highest > known || !self.numbers_known {
            self.numbers_known = true;
            self.sends.learn_highest(highest);
        }
        Ok(())
    }

    fn on_send_result(&mut self, now: Now, result: &v1::SendResult) -> Result<(), Broken> {
        let position = position(&result.position)?;
        self.confirm(
            now,
            result.number,
            result.message_id,
            position,
            result.server_time_ms,
        );
        Ok(())
    }

    /// Whether the number was waited for.
    fn confirm(
        &mut self,
        now: Now,
        sent_as: u64,
        id: u64,
        position: Position,
        server_time_ms: u64,
    ) -> bool {
        let Some(committed) = self.sends.confirm(now, sent_as) else {
            return false;
        };
        self.events.push_back(Event::SendConfirmed(Confirmation {
            number: committed.message.number,
            sent_as: committed.sent_as,
            chat: committed.message.chat,
            id: MessageId::new(id),
            position,
            server_time_ms,
        }));
        true
    }

    fn on_error(&mut self, now: Now, error: v1::Error) {
        let code = ErrorCode::try_from(error.code).unwrap_or(ErrorCode::Unspecified);
        // Its number is the first of all: nothing that this device sends is taken any more (R13).
        let is_gone = code == ErrorCode::DeviceRemoved;
        if error.number != 0 && is_gone {
            self.abandon(now, Cause::Closed(code), ErrorCode::Unspecified);
        } else if error.number != 0 {
            if let Refusal::GivenUp(message) = self.sends.refuse(now, &error, &mut self.jitter) {
                let words = error.message;
                let refused = SendError::Refused {
                    code,
                    message: words,
                };
                self.give_up(&message, refused);
            }
            self.tell_delays();
        } else {
            // The close that follows names the cause too; this is for when it is lost.
            self.last_error = Some(code);
        }
    }

    fn on_deliver(&mut self, now: Now, deliver: v1::Deliver) -> Result<(), Broken> {
        let cursor = position(&deliver.cursor)?;
        let chat_position = match deliver.chat_position.len() {
            0 => cursor,
            _ => position(&deliver.chat_position)?,
        };
        let envelope = deliver.envelope.ok_or("a Deliver without an envelope")?;
        let id = MessageId::new(envelope.message_id);
        let mut message = Message {
            id,
            chat: chat(&envelope.chat)?,
            sender: user(envelope.sender)?,
            sender_device: DeviceId::new(envelope.sender_device).map_err(|_| "device 0")?,
            number: envelope.number,
            position: chat_position,
            cursor,
            server_time_ms: envelope.server_time_ms,
            payload: own(&envelope.payload),
            entry: Entry::default(),
        };
        let Some(arrived) = self.arrive(now, cursor, Some(Identity::of(&message)))? else {
            return Ok(());
        };
        let entry = arrived.entry;
        // An own message whose answer was lost with the old generation comes back as an entry (R3).
        let own = message.sender_device == self.device && Some(message.sender) == self.user;
        if own
            && self.confirm(
                now,
                message.number,
                id.get(),
                chat_position,
                message.server_time_ms,
            )
        {
            self.mark_stored(now, entry);
            return Ok(());
        }
        message.entry = Entry::new(entry);
        self.events.push_back(if arrived.is_moved {
            Event::Moved(message)
        } else {
            Event::Message(message)
        });
        Ok(())
    }

    fn on_receipt(&mut self, now: Now, update: &v1::ReceiptUpdate) -> Result<(), Broken> {
        let optional = |bytes: &[u8]| Position::from_field(bytes).ok_or("a position has 16 bytes");
        let mut receipt = Receipt {
            chat: chat(&update.chat)?,
            user: user(update.user)?,
            delivered: optional(&update.delivered)?,
            read: optional(&update.read)?,
            cursor: position(&update.cursor)?,
            entry: Entry::default(),
        };
        if let Some(arrived) = self.arrive(now, receipt.cursor, None)? {
            receipt.entry = Entry::new(arrived.entry);
            self.events.push_back(Event::Receipt(receipt));
        }
        Ok(())
    }

    fn on_gap(&mut self, now: Now, gap: &v1::Gap) -> Result<(), Broken> {
        let cursor = position(&gap.cursor)?;
        let reason = match v1::GapReason::try_from(gap.reason) {
            Ok(v1::GapReason::InboxLimit) => GapReason::InboxLimit,
            Ok(v1::GapReason::Expired) => GapReason::Expired,
            Ok(v1::GapReason::SenderLimit) => GapReason::SenderLimit,
            _ => GapReason::Unspecified,
        };
        if let Some(arrived) = self.arrive(now, cursor, None)? {
            let entry = Entry::new(arrived.entry);
            self.events.push_back(Event::Gap(Gap {
                reason,
                cursor,
                entry,
            }));
        }
        Ok(())
    }

    /// What the application has to be told.
    fn arrive(
        &mut self,
        now: Now,
        cursor: Position,
        message: Option<Identity>,
    ) -> Result<Option<Arrived>, Broken> {
        self.reads.deliver(cursor);
        let tell = |entry, is_moved| Ok(Some(Arrived { entry, is_moved }));
        match self.inbox.arrive(cursor, message) {
            Arrival::New(entry) => tell(entry, false),
            Arrival::Moved(entry) => tell(entry, true),
            Arrival::Repeat => {
                self.advance_cursor(now);
                Ok(None)
            }
            Arrival::Violation(broken) => Err(broken),
        }
    }

    fn on_typing(&mut self, typing: &v1::Typing) -> Result<(), Broken> {
        let (chat, user) = (chat(&typing.chat)?, user(typing.user)?);
        if self.events.len() < EVENTS_BEFORE_TYPING {
            self.events.push_back(Event::Typing { chat, user });
        }
        Ok(())
    }
}

/// A copy that does not keep the whole received packet alive.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn user(id: u64) -> Result<UserId, Broken> {
    UserId::new(id).map_err(|_| "user 0")
}

fn chat(bytes: &[u8]) -> Result<ChatId, Broken> {
    ChatId::from_slice(bytes).map_err(|_| "an invalid chat id")
}

fn position(bytes: &[u8]) -> Result<Position, Broken> {
    Position::from_slice(bytes).ok_or("a position has 16 bytes")
}
