//! A model of a client that keeps to the protocol: what it stores, what it sends again, what it forgets
//! when its power goes.

use std::collections::BTreeMap;
use std::time::Duration;

use roadstead_proto::v1::{self, server_frame::Body as Down};
use roadstead_proto::{ChatId, Position, UserId};

use super::fake_store::Device;
use super::frames::{cursor_of, read_mark, shard_id};
use super::world::{ConnId, World};
use crate::time::Time;

/// An inbox entry as the phone stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Message {
        chat: ChatId,
        id: u64,
        sender: u64,
        number: u64,
    },
    Receipt {
        chat: ChatId,
        user: u64,
        delivered: Position,
        read: Position,
    },
}

#[derive(Debug)]
pub(super) struct Phone {
    pub(super) device: Device,
    pub(super) conn: Option<ConnId>,
    /// The inbox as far as it came; only the first `durable` lines survive a crash.
    pub(super) log: Vec<(Position, Line)>,
    durable: usize,
    /// Every send ever made: its chat and text.
    pub(super) sent: BTreeMap<u64, (ChatId, String)>,
    /// What was answered: message id and position.
    pub(super) confirmed: BTreeMap<u64, (u64, Position)>,
    resend_at: Option<Time>,
    /// It has seen the Welcome of its connection.
    is_welcomed: bool,
}

impl Phone {
    pub(super) fn new(device: Device) -> Self {
        Self {
            device,
            conn: None,
            log: Vec::new(),
            durable: 0,
            sent: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            resend_at: None,
            is_welcomed: false,
        }
    }

    pub(super) fn unconfirmed(&self) -> usize {
        self.sent.len() - self.confirmed.len()
    }

    pub(super) fn connect(&mut self, world: &mut World, shard: usize) {
        let cursor = self.durable_cursor();
        // What was not stored durably will come again.
        self.log.truncate(self.durable);
        self.is_welcomed = false;
        self.conn = Some(world.greet(shard_id(shard), self.device, cursor));
    }

    fn durable_cursor(&self) -> Position {
        let last = self.durable.checked_sub(1).map(|last| self.log[last].0);
        last.unwrap_or_default()
    }

    /// The connection is lost, with every frame that was under way.
    pub(super) fn disconnect(&mut self, world: &mut World) {
        if let Some(conn) = self.conn.take() {
            world.disconnect(conn);
        }
        self.resend_at = None;
        self.log.truncate(self.durable);
    }

    /// The phone has lost its connection and the server does not know yet.
    pub(super) fn abandon(&mut self) {
        self.conn = None;
        self.resend_at = None;
    }

    pub(super) fn say(&mut self, world: &mut World, to: UserId) {
        let number = self.sent.len() as u64 + 1;
        let chat = ChatId::pair(self.device.0, to);
        let text = format!("{:?} {number}", self.device);
        self.sent.insert(number, (chat, text.clone()));
        // Behind one that is to be sent again, it waits for its turn.
        if let Some(conn) = self.welcomed(world).filter(|_| self.resend_at.is_none()) {
            world.send(conn, number, chat, &text);
        }
    }

    pub(super) fn welcomed(&self, world: &World) -> Option<ConnId> {
        let conn = self.conn.filter(|_| self.is_welcomed);
        conn.filter(|conn| world.conns[*conn].closed.is_none())
    }

    /// Stores durably what has come, and says so.
    pub(super) fn persist(&mut self, world: &mut World, say_so: bool) {
        self.durable = self.log.len();
        let cursor = self.durable_cursor();
        if let Some(conn) = self
            .welcomed(world)
            .filter(|_| say_so && cursor != Position::ZERO)
        {
            world.ack(conn, cursor);
        }
    }

    pub(super) fn mark_read(&mut self, world: &mut World, at: usize) {
        let (Some(conn), false) = (self.welcomed(world), self.log.is_empty()) else {
            return;
        };
        if let (cursor, Line::Message { chat, .. }) = &self.log[at % self.log.len()] {
            world.frame(conn, read_mark(*chat, *cursor));
        }
    }

    /// Looks at some of the frames that have come.
    pub(super) fn look(&mut self, world: &mut World, frames_max: usize) {
        for _ in 0..frames_max {
            let Some(conn) = self.conn else { return };
            let Some(frame) = world.conns[conn].frames.pop_front() else {
                if world.conns[conn].closed.is_some() {
                    self.disconnect(world);
                }
                return;
            };
            self.take_in(world, frame);
        }
    }

    fn take_in(&mut self, world: &mut World, frame: Down) {
        let cursor = cursor_of(&frame);
        match frame {
            Down::Welcome(_) => {
                self.is_welcomed = true;
                self.resend(world);
            }
            Down::SendResult(result) => {
                let position = Position::from_slice(&result.position).expect("16 bytes");
                let answer = (result.message_id, position);
                let first = *self.confirmed.entry(result.number).or_insert(answer);
                assert_eq!(first, answer, "R12: every retry gets the first answer");
            }
            Down::Error(error) if error.number > 0 => {
                assert!(error.retryable, "nothing here deserves {error:?}");
                let wait = Duration::from_millis(error.retry_after_ms.into());
                self.resend_at.get_or_insert(world.now.at + wait);
            }
            Down::Error(error) => assert!(error.retryable || replaced(&error), "{error:?}"),
            Down::Deliver(deliver) => {
                let envelope = deliver.envelope.expect("a message");
                let line = Line::Message {
                    chat: ChatId::from_slice(&envelope.chat).expect("a chat"),
                    id: envelope.message_id,
                    sender: envelope.sender,
                    number: envelope.number,
                };
                self.append(cursor.expect("it has one"), line);
            }
            Down::ReceiptUpdate(update) => {
                let line = Line::Receipt {
                    chat: ChatId::from_slice(&update.chat).expect("a chat"),
                    user: update.user,
                    delivered: Position::from_field(&update.delivered).expect("a position"),
                    read: Position::from_field(&update.read).expect("a position"),
                };
                self.append(cursor.expect("it has one"), line);
            }
            Down::Typing(_) | Down::Pong(_) | Down::GoAway(_) => {}
            Down::Gap(gap) => panic!("nothing was too much or too old: {gap:?}"),
        }
    }

    fn append(&mut self, cursor: Position, line: Line) {
        let last = self.log.last().map(|(last, _)| *last);
        assert!(
            last < Some(cursor),
            "{:?} got {cursor:?} after {last:?}",
            self.device
        );
        self.log.push((cursor, line));
    }

    pub(super) fn resend_if_due(&mut self, world: &mut World) {
        if self.resend_at.is_some_and(|at| at <= world.now.at) {
            self.resend(world);
        }
    }

    /// Everything that is not confirmed, in order of its numbers (R16).
    fn resend(&mut self, world: &mut World) {
        self.resend_at = None;
        let Some(conn) = self.welcomed(world) else {
            return;
        };
        for (number, (chat, text)) in &self.sent {
            if !self.confirmed.contains_key(number) {
                world.send(conn, *number, *chat, text);
            }
        }
    }
}

fn replaced(error: &v1::Error) -> bool {
    error.code() == roadstead_proto::ErrorCode::SessionReplaced
}
