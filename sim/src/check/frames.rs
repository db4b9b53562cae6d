//! What the server says on each connection.

use std::ops::Bound::Excluded;

use roadstead_proto::v1::{self, server_frame::Body};
use roadstead_proto::{ChatId, ErrorCode, Position, limits};

use super::commits::read_update;
use super::{Checker, Committed, ConnModel, Device, Expected};
use crate::client::token_of;
use crate::net::ConnId;

impl Checker {
    /// A client connects.
    pub fn connected(&mut self, id: ConnId, device: Device, counter: u64, cursor: Position) {
        let counts = cursor.generation() == self.generation();
        let model = self.device(device);
        model.counter = model.counter.max(counter);
        if counts {
            model.acked = model.acked.max(cursor);
        }
        let owed_gap = model.expired_ends.last().copied();
        let conn = ConnModel {
            device,
            counter,
            welcomed: false,
            hello: cursor,
            last: cursor,
            unacked: std::collections::VecDeque::new(),
            rude: false,
            owed_gap,
            receipts: std::collections::BTreeMap::new(),
        };
        self.conns.insert(id, conn);
    }

    /// Nothing more will be said on a connection.
    pub fn disconnected(&mut self, id: ConnId) {
        self.conns.remove(&id);
    }

    /// The client will break the protocol on this connection.
    pub fn is_rude(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.rude = true;
        }
    }

    /// An acknowledgement reached the server.
    pub fn ack_arrived(&mut self, id: ConnId, cursor: Position) {
        if let Some(conn) = self.conns.get_mut(&id) {
            while conn.unacked.front().is_some_and(|first| *first <= cursor) {
                conn.unacked.pop_front();
            }
        }
    }

    /// The server sends a frame.
    pub fn server_frame(&mut self, id: ConnId, frame: &v1::ServerFrame) {
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let (device, welcomed) = (conn.device, conn.welcomed);
        let body = frame
            .body
            .as_ref()
            .expect("the server sends no empty frames");
        let first = matches!(body, Body::Welcome(_) | Body::Error(_));
        self.require(welcomed || first, "P", || {
            format!("{body:?} before the Welcome")
        });
        if welcomed {
            self.settle_gap(id, body);
        }
        match body {
            Body::Welcome(welcome) => self.welcome(id, welcome),
            Body::SendResult(result) => self.send_result(device, result),
            Body::Deliver(deliver) => self.deliver(id, deliver),
            Body::ReceiptUpdate(update) => self.receipt_update(id, update),
            Body::Gap(gap) => self.gap(id, gap),
            Body::Error(error) => self.error(id, error),
            Body::Typing(typing) => self.typing(device, typing),
            Body::GoAway(_) | Body::Pong(_) => {}
        }
    }

    fn conn(&mut self, id: ConnId) -> &mut ConnModel {
        self.conns.get_mut(&id).expect("looked up by the caller")
    }

    fn welcome(&mut self, id: ConnId, welcome: &v1::Welcome) {
        let conn = self.conn(id);
        let (device, again) = (conn.device, std::mem::replace(&mut conn.welcomed, true));
        let hello = conn.hello;
        let generation = self.generation();
        let resync = hello != Position::ZERO && hello.generation() != generation;
        if resync {
            // Reading starts at the stored acknowledgement.
            self.conn(id).last = Position::ZERO;
            let model = self.device(device);
            (model.cursor, model.resynced) = (Position::ZERO, true);
        }
        let start = if resync { Position::ZERO } else { hello };
        let start = start.max(self.device(device).flushed);
        let owed = self.conn(id).owed_gap.filter(|owed| *owed > start);
        self.conn(id).owed_gap = owed;
        self.require(!again, "P", || format!("{device:?} was welcomed twice"));
        self.require(welcome.user == device.0.get(), "P", || {
            format!("{device:?}: another user")
        });
        let said = (welcome.generation, welcome.resync);
        self.require(said == (generation, resync), "R3", || {
            format!("{device:?} with {hello:?} is told {said:?} in generation {generation}")
        });
    }

    /// R25: of what expired before the session began a device is told first of all.
    fn settle_gap(&mut self, id: ConnId, body: &Body) {
        let conn = self.conn(id);
        let (device, owed) = (conn.device, conn.owed_gap.take());
        let Some(owed) = owed else { return };
        let told = match body {
            Body::Gap(gap) if gap.reason() == v1::GapReason::Expired => {
                Position::from_slice(&gap.cursor)
            }
            _ => None,
        };
        self.require(told.is_some_and(|told| told >= owed), "R25", || {
            format!("{device:?} is not told of what expired up to {owed:?}, but {body:?}")
        });
    }

    /// At the end nobody waits for a Gap whose Welcome he has.
    pub fn final_gaps(&mut self) {
        let mut welcomed = self.conns.values().filter(|conn| conn.welcomed);
        let owed = welcomed.find_map(|conn| Some((conn.device, conn.owed_gap?)));
        self.require(owed.is_none(), "R25", || {
            format!("nobody told of what expired: {owed:?}")
        });
    }

    /// R8, R12: an answer tells of what is durable, and always the same.
    fn send_result(&mut self, device: Device, result: &v1::SendResult) {
        let token = self.device(device).numbers.get(&result.number).copied();
        let first = token.and_then(|token| self.messages[&token].committed);
        let answer = Position::from_slice(&result.position).map(|position| Committed {
            number: result.number,
            position,
            message_id: roadstead_proto::MessageId::new(result.message_id),
            server_time_ms: result.server_time_ms,
        });
        let Some(first) = first else {
            let number = result.number;
            return self.broken("R8", format!("{device:?} number {number}: not durable"));
        };
        self.require(Some(first) == answer, "R12", || {
            format!(
                "{device:?} number {}: {first:?}, answered {answer:?}",
                result.number
            )
        });
    }

    /// R4: an entry comes in its place, with nothing left out between it and the one before.
    fn entry(&mut self, id: ConnId, cursor: &[u8]) -> Option<(Position, Option<Expected>)> {
        self.delivered += 1;
        let Some(cursor) = Position::from_slice(cursor) else {
            self.broken("P", "a cursor that is no position".into());
            return None;
        };
        let conn = self.conn(id);
        let (device, last) = (conn.device, conn.last);
        conn.last = last.max(cursor);
        conn.unacked.push_back(cursor);
        let unacked = conn.unacked.len();
        self.require(cursor > last, "R4", || {
            format!("{device:?}: {cursor:?} after {last:?}")
        });
        self.require(unacked <= limits::DELIVER_WINDOW_ENTRIES_MAX, "R26", || {
            format!("{device:?}: {unacked} entries delivered and not acknowledged")
        });
        let model = self.device(device);
        // What another session of the device has acknowledged may be gone already.
        let from = last.max(model.flushed);
        let skipped = if from < cursor {
            model
                .expected
                .range((Excluded(from), Excluded(cursor)))
                .next()
        } else {
            None
        };
        let skipped = skipped.map(|(at, expected)| (*at, expected.clone()));
        let expected = model.expected.get(&cursor).cloned();
        let expected = expected.or_else(|| {
            model
                .superseded
                .get(&cursor)
                .copied()
                .map(Expected::Receipt)
        });
        if let Some(skipped) = skipped {
            self.broken(
                "R4",
                format!("{device:?}: {cursor:?} delivered, {skipped:?} left out"),
            );
        }
        Some((cursor, expected))
    }

    fn deliver(&mut self, id: ConnId, deliver: &v1::Deliver) {
        let Some((cursor, expected)) = self.entry(id, &deliver.cursor) else {
            return;
        };
        let device = self.conn(id).device;
        let Some(envelope) = &deliver.envelope else {
            return self.broken("P", format!("{device:?}: no envelope at {cursor:?}"));
        };
        let token = token_of(&envelope.payload).unwrap_or(0);
        let expected = expected.or_else(|| self.lately_expired(device, cursor));
        if expected != Some(Expected::Message(token)) {
            let what = format!("{device:?}: token {token} at {cursor:?}, not {expected:?}");
            return self.broken("R8", what);
        }
        let message = &self.messages[&token];
        let committed = message
            .committed
            .expect("only committed messages are expected");
        let place = match Position::from_field(&deliver.chat_position) {
            Some(Position::ZERO) => Some(cursor),
            place => place,
        };
        let is = (
            (envelope.sender, envelope.sender_device, envelope.number),
            (
                envelope.message_id,
                envelope.server_time_ms,
                envelope.payload.len(),
            ),
            ChatId::from_slice(&envelope.chat).ok(),
            place,
        );
        let (user, sender) = message.sender;
        let ought = (
            (user.get(), sender.get(), committed.number),
            (
                committed.message_id.get(),
                committed.server_time_ms,
                message.bytes,
            ),
            Some(message.chat),
            Some(committed.position),
        );
        self.require(is == ought, "R2", || {
            format!("{device:?}: {is:?}, not {ought:?}")
        });
    }

    fn receipt_update(&mut self, id: ConnId, update: &v1::ReceiptUpdate) {
        let Some((cursor, expected)) = self.entry(id, &update.cursor) else {
            return;
        };
        let conn = self.conn(id);
        let device = conn.device;
        let Some(progress) = read_update(update) else {
            return self.broken(
                "P",
                format!("{device:?}: a malformed receipt at {cursor:?}"),
            );
        };
        let before = conn
            .receipts
            .insert((progress.chat, progress.user), progress);
        let expected = expected.or_else(|| self.lately_expired(device, cursor));
        self.require(expected == Some(Expected::Receipt(progress)), "R20", || {
            format!("{device:?}: {progress:?} at {cursor:?}, not {expected:?}")
        });
        let grows = before.is_none_or(|before| {
            before.delivered <= progress.delivered && before.read <= progress.read
        });
        self.require(grows, "R20", || {
            format!("{device:?}: {before:?}, then {progress:?}")
        });
    }

    fn gap(&mut self, id: ConnId, gap: &v1::Gap) {
        let Some((cursor, expected)) = self.entry(id, &gap.cursor) else {
            return;
        };
        let device = self.conn(id).device;
        if gap.reason() == v1::GapReason::Expired {
            let told = self.device(device).expired_ends.contains(&cursor);
            return self.require(told, "R25", || {
                format!("{device:?}: nothing expired up to {cursor:?}")
            });
        }
        let expected = expected.or_else(|| self.lately_expired(device, cursor));
        self.require(expected == Some(Expected::Gap), "R21", || {
            format!("{device:?}: a gap at {cursor:?}, not {expected:?}")
        });
    }

    fn error(&mut self, id: ConnId, error: &v1::Error) {
        let conn = self.conn(id);
        let (device, counter, rude) = (conn.device, conn.counter, conn.rude);
        match ErrorCode::try_from(error.code) {
            Ok(ErrorCode::SessionReplaced) => {
                let latest = self.device(device).counter;
                self.require(counter < latest, "R13", || {
                    format!("{device:?}: its latest session {counter} was replaced")
                });
            }
            Ok(
                code @ (ErrorCode::CursorInvalid
                | ErrorCode::PositionInvalid
                | ErrorCode::FrameUnexpected
                | ErrorCode::FrameMalformed
                | ErrorCode::Internal),
            ) => self.require(rude, "R19", || format!("{device:?} was refused: {code:?}")),
            _ => {}
        }
    }

    fn typing(&mut self, device: Device, typing: &v1::Typing) {
        let users = ChatId::from_slice(&typing.chat)
            .ok()
            .and_then(ChatId::users);
        let concerns = users.is_some_and(|(a, b)| {
            let all = [a.get(), b.get()];
            all.contains(&device.0.get()) && all.contains(&typing.user)
        });
        self.require(concerns, "P", || {
            format!("{device:?} was told of {typing:?}")
        });
    }
}
