//! One session as its client sees it, without I/O: bytes in, bytes and [`Happened`] out.
//!
//! ```text
//! Offline ─connecting─▶ ExpectOpen ─opened─▶ ExpectWelcome ─Welcome─▶ Active
//!    ▲                                                                  │
//!    └───────────────────────────── closed ─────────────────────────────┘
//! ```
//!
//! What an idle session needs is in [`Session`] itself, about a hundred bytes; what a sender or reader
//! needs beside is in a box that most held sessions never get. What a message says and what becomes of
//! it is the ledger's business: here it is a number.

mod chatter;
mod effects;
mod paused;

use bytes::Bytes;
use roadstead_proto::v1::{self, client_frame, server_frame};
use roadstead_proto::{ChatId, Deframer, MessageId, Position, decode_frame, encode_frame, limits};

use crate::clock::Micros;
use crate::rng::Rng;
use chatter::{Chatter, Unconfirmed};

pub(crate) use effects::{Effects, Happened, Login, Welcomed};

/// What a session is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There is no connection.
    Offline,
    /// The handshake.
    ExpectOpen,
    /// The answer to Hello.
    ExpectWelcome,
    /// Anything.
    Active,
}

/// One device's session, across all its connections.
#[derive(Debug)]
pub(crate) struct Session {
    /// The last inbox entry that is stored, that is, in the ledger's account (R19).
    cursor: Position,
    /// The number of the next message (R12); 0 until a Welcome told where to go on (R13).
    next_number: u64,
    chatter: Option<Box<Chatter>>,
    /// The beginning of a frame, in the rare case that one arrived in pieces.
    partial: Option<Box<Deframer>>,
    resume_token: Option<Box<ResumeToken>>,
    /// Connections so far: the Hello's connect counter (R13).
    connects: u32,
    /// Sends that may be unanswered at once, by the last Welcome.
    in_flight_max: u16,
    /// The server of this session reads which refusals a Send knows of (P112).
    reads_after: bool,
    phase: Phase,
    /// Whether to log in with the server's own token from the second connection on (T14).
    keeps_resume_token: bool,
    /// The last Welcome said Resync: repeats are to be expected (R3).
    resynced: bool,
    /// Entries were delivered since the last Ack.
    ack_due: bool,
    /// The stream takes no more bytes (R26).
    blocked: bool,
}

/// A token of the server's own for the next login (T14): behind one thin pointer, as most have none.
#[derive(Debug)]
pub(crate) struct ResumeToken(pub(crate) Box<[u8]>);

impl Session {
    pub(crate) fn new(keeps_resume_token: bool) -> Self {
        Self {
            keeps_resume_token,
            cursor: Position::ZERO,
            next_number: 0,
            chatter: None,
            partial: None,
            resume_token: None,
            connects: 0,
            in_flight_max: 1,
            reads_after: false,
            phase: Phase::Offline,
            resynced: false,
            ack_due: false,
            blocked: false,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn is_active(&self) -> bool {
        self.phase == Phase::Active
    }

    /// Whether a Welcome ever came.
    pub(crate) fn was_active(&self) -> bool {
        self.next_number > 0
    }

    /// Takes the resume token out: it is good for one try, and the next Welcome brings another.
    pub(crate) fn take_resume_token(&mut self) -> Option<Box<[u8]>> {
        self.resume_token.take().map(|token| token.0)
    }

    /// Sends without an answer.
    #[cfg(test)]
    pub(crate) fn unconfirmed(&self) -> usize {
        self.chatter
            .as_ref()
            .map_or(0, |chatter| chatter.unconfirmed.len())
    }

    /// A connection was started.
    pub(crate) fn connecting(&mut self) {
        assert_eq!(self.phase, Phase::Offline, "one connection at a time");
        self.phase = Phase::ExpectOpen;
        self.connects += 1;
    }

    /// The handshake is complete: says Hello.
    pub(crate) fn opened(&mut self, login: Login, effects: &mut Effects) {
        assert_eq!(self.phase, Phase::ExpectOpen, "opened once");
        self.phase = Phase::ExpectWelcome;
        let cursor = match self.cursor {
            Position::ZERO => Bytes::new(),
            cursor => field(&cursor),
        };
        // R13: a device that was used by an earlier run goes on above the numbers it used then.
        let ask = match self.next_number {
            0 => v1::Capability::AskHighestNumber,
            _ => v1::Capability::None,
        };
        let hello = v1::Hello {
            version: roadstead_proto::VERSION,
            credential: Some(login.credential),
            device: login.device.get(),
            connect_counter: login.counter_base + u64::from(self.connects),
            cursor,
            capabilities: u64::try_from(i32::from(ask)).unwrap_or(0),
        };
        write(client_frame::Body::Hello(hello), effects);
    }

    /// The connection is gone. What was not confirmed will be sent again under the same numbers (R12).
    pub(crate) fn closed(&mut self) {
        self.phase = Phase::Offline;
        self.partial = None;
        self.ack_due = false;
        self.blocked = false;
        if let Some(chatter) = &mut self.chatter {
            chatter.closed();
        }
    }

    /// The stream takes no more bytes, or does so again.
    pub(crate) fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
    }

    /// Takes over a message that [`Session::flush`] will send to a chat, which the caller may name as it likes.
    pub(crate) fn enqueue(&mut self, message: u64, chat: u32) {
        assert!(
            self.next_number > 0,
            "numbers are known from the first Welcome on"
        );
        if !self.chatter_mut().paused.keep(chat, message) {
            self.number(message, chat);
        }
    }

    /// Gives up the messages of these chats that wait without a number (P113).
    pub(crate) fn give_up(&mut self, of: impl FnMut(u32) -> bool) -> Vec<u64> {
        let chatter = self.chatter.as_mut();
        chatter.map_or_else(Vec::new, |chatter| chatter.paused.give_up(of))
    }

    /// Gives a message the next number.
    fn number(&mut self, message: u64, chat: u32) {
        let number = self.next_number;
        self.next_number += 1;
        let chatter = self.chatter_mut();
        let after = chatter.paused.after(chat);
        chatter.unconfirmed.push_back(Unconfirmed {
            number,
            message,
            chat,
            after,
            sent: false,
            again: false,
        });
    }

    /// The user has seen a chat up to here; [`Session::flush`] will say so.
    pub(crate) fn read(&mut self, chat: ChatId, position: Position) {
        let reads = &mut self.chatter_mut().reads;
        match reads.iter_mut().find(|(known, _)| *known == chat) {
            Some((_, furthest)) => *furthest = position.max(*furthest),
            None => reads.push((chat, position)),
        }
    }

    /// Takes bytes of the stream. What is delivered counts as stored once `happened` is booked; call
    /// [`Session::flush`] after that to acknowledge it.
    pub(crate) fn received(
        &mut self,
        mut chunk: Bytes,
        now: Micros,
        rng: &mut Rng,
        effects: &mut Effects,
    ) {
        let mut deframer = match self.partial.take() {
            Some(partial) => *partial,
            None => Deframer::new(limits::FRAME_BYTES_MAX),
        };
        loop {
            match deframer.next_frame(&mut chunk) {
                Ok(Some(frame)) => self.frame(frame, now, rng, effects),
                Ok(None) => break,
                Err(error) => return effects.happened.push(Happened::Broken(error.to_string())),
            }
        }
        if deframer.buffered() > 0 {
            self.partial = Some(Box::new(deframer));
        }
    }

    /// Writes what is due: the acknowledgement, read marks, sends. `compose` gives the frame of a message.
    pub(crate) fn flush(
        &mut self,
        now: Micros,
        mut compose: impl FnMut(u64, u64) -> v1::Send,
        effects: &mut Effects,
    ) {
        if self.phase != Phase::Active || self.blocked {
            return;
        }
        if self.ack_due {
            self.ack_due = false;
            write(
                client_frame::Body::Ack(v1::Ack {
                    cursor: field(&self.cursor),
                }),
                effects,
            );
        }
        let in_flight_max = u64::from(self.in_flight_max);
        let reads_after = self.reads_after;
        if let Some(chatter) = &mut self.chatter {
            while let Some(next) = chatter.paused.try_one(now, self.next_number) {
                self.next_number += 1;
                chatter.unconfirmed.push_back(next);
            }
            if let Some(at) = chatter.paused.arm(now) {
                effects.wake(at);
            }
            for (chat, position) in chatter.reads.drain(..) {
                let read = v1::Read {
                    chat: Bytes::copy_from_slice(chat.as_bytes()),
                    position: field(&position),
                };
                write(client_frame::Body::Read(read), effects);
            }
            while let Some(next) = chatter.next(now, in_flight_max) {
                let mut send = compose(next.message, next.number);
                send.after = if reads_after { next.after } else { 0 };
                write(client_frame::Body::Send(send), effects);
            }
        }
    }

    fn frame(&mut self, frame: Bytes, now: Micros, rng: &mut Rng, effects: &mut Effects) {
        let body = match decode_frame::<v1::ServerFrame>(frame) {
            Ok(v1::ServerFrame { body: Some(body) }) => body,
            // A frame of a later version (unknown field): ignored.
            Ok(v1::ServerFrame { body: None }) => return,
            Err(error) => return effects.happened.push(Happened::Broken(error.to_string())),
        };
        let happened = match (self.phase, body) {
            (Phase::ExpectWelcome, server_frame::Body::Welcome(welcome)) => self.welcome(welcome),
            (_, server_frame::Body::Error(error)) if error.number == 0 => {
                Some(Happened::SessionError { code: error.code() })
            }
            (_, server_frame::Body::GoAway(go)) => Some(Happened::GoAway {
                after: u64::from(go.reconnect_after_ms) * 1_000,
            }),
            (Phase::Active, body) => self.active(body, now, rng, effects),
            (phase, body) => Some(Happened::Broken(format!(
                "{} while {phase:?}",
                name_of(&body)
            ))),
        };
        effects.happened.extend(happened);
    }

    fn welcome(&mut self, welcome: v1::Welcome) -> Option<Happened> {
        self.phase = Phase::Active;
        self.resynced = welcome.resync;
        if welcome.resync {
            self.cursor = Position::ZERO;
        }
        if self.next_number == 0 {
            self.next_number = welcome.highest_number.unwrap_or(0) + 1;
        }
        // P15: 0 stands for the default.
        let in_flight = match welcome
            .limits
            .as_ref()
            .map_or(0, |limits| limits.sends_in_flight_max)
        {
            0 => limits::SENDS_IN_FLIGHT_MAX,
            announced => announced as usize,
        };
        self.in_flight_max = u16::try_from(in_flight).unwrap_or(u16::MAX);
        let reads_after = v1::ServerCapability::FinalChatRefusals as i32;
        self.reads_after = welcome.capabilities & u64::try_from(reads_after).unwrap_or(0) != 0;
        if self.keeps_resume_token && !welcome.resume_token.is_empty() {
            let token = ResumeToken(welcome.resume_token.as_ref().into());
            self.resume_token = Some(Box::new(token));
        }
        Some(Happened::Welcomed(Welcomed {
            user: welcome.user,
            heartbeat: u64::from(welcome.heartbeat_interval_ms) * 1_000,
            home: welcome.home_prefix.map(|home| (home.bits, home.length)),
        }))
    }

    fn active(
        &mut self,
        body: server_frame::Body,
        now: Micros,
        rng: &mut Rng,
        effects: &mut Effects,
    ) -> Option<Happened> {
        match body {
            server_frame::Body::SendResult(result) => Some(self.answered(&result, now, rng)),
            server_frame::Body::Error(error) => self.refused(&error, now, rng, effects),
            server_frame::Body::Deliver(deliver) => self.delivered(deliver, effects),
            server_frame::Body::ReceiptUpdate(update) => {
                self.advance(&update.cursor, effects)?;
                Some(Happened::Receipt(update))
            }
            server_frame::Body::Gap(gap) => {
                self.advance(&gap.cursor, effects)?;
                Some(Happened::Gap { reason: gap.reason })
            }
            body @ (server_frame::Body::Typing(_) | server_frame::Body::Pong(_)) => {
                Some(Happened::Ephemeral(name_of(&body)))
            }
            other => Some(Happened::Broken(format!(
                "{} while Active",
                name_of(&other)
            ))),
        }
    }

    fn answered(&mut self, result: &v1::SendResult, now: Micros, rng: &mut Rng) -> Happened {
        let number = result.number;
        let Some(position) = Position::from_slice(&result.position) else {
            return Happened::Broken(format!("the answer to {number} has no position"));
        };
        match self.settle(number, now, rng) {
            Some(entry) if entry.again => {
                Happened::Broken(format!("an answer to {number}, which was refused for good"))
            }
            Some(entry) => Happened::Answered {
                message: entry.message,
                number,
                id: MessageId::new(result.message_id),
                position,
            },
            None if number < self.next_number => Happened::AnsweredAgain { number },
            None => Happened::Broken(format!("an answer to {number}, which was never sent")),
        }
    }

    /// A number has its first answer. If it tried a paused chat, what waits there goes.
    fn settle(&mut self, number: u64, now: Micros, rng: &mut Rng) -> Option<Unconfirmed> {
        let chatter = self.chatter.as_mut()?;
        let entry = chatter.confirm(number)?;
        let freed = chatter.paused.answered(entry.chat, number);
        let unconfirmed = &chatter.unconfirmed;
        let has_open = |chat| unconfirmed.iter().any(|open| open.chat == chat);
        chatter.paused.settle(now, rng, has_open);
        for message in freed {
            self.number(message, entry.chat);
        }
        Some(entry)
    }

    fn refused(
        &mut self,
        error: &v1::Error,
        now: Micros,
        rng: &mut Rng,
        effects: &mut Effects,
    ) -> Option<Happened> {
        let code = error.code();
        if code.refuses_chat_for_now() {
            return self.refused_by_chat(error, now, rng);
        }
        if !error.retryable {
            let entry = self.settle(error.number, now, rng)?;
            return (!entry.again).then_some(Happened::Refused {
                message: entry.message,
                code,
            });
        }
        let chatter = self.chatter.as_mut()?;
        let wait = chatter.postpone(error.number, error.retry_after_ms)?;
        chatter.retry_at = now + rng.jitter(wait.time);
        effects.wake(chatter.retry_at);
        wait.begins.then_some(Happened::Postponed { code })
    }

    /// A number is spent, and its message waits with all of its chat that was not sent yet; other chats go on
    /// (P112).
    fn refused_by_chat(
        &mut self,
        error: &v1::Error,
        now: Micros,
        rng: &mut Rng,
    ) -> Option<Happened> {
        let chatter = self.chatter.as_mut()?;
        let entry = chatter.confirm(error.number)?;
        let unsent = chatter.take_back(entry.chat);
        let wait = u64::from(error.retry_after_ms) * 1_000;
        chatter.paused.refused(entry, unsent, wait);
        let unconfirmed = &chatter.unconfirmed;
        let has_open = |chat| unconfirmed.iter().any(|open| open.chat == chat);
        chatter.paused.settle(now, rng, has_open);
        Some(Happened::ChatRefused { code: error.code() })
    }

    fn delivered(&mut self, deliver: v1::Deliver, effects: &mut Effects) -> Option<Happened> {
        let cursor = self.advance(&deliver.cursor, effects)?;
        let position = match deliver.chat_position.len() {
            0 => Some(cursor),
            _ => Position::from_slice(&deliver.chat_position),
        };
        match (position, deliver.envelope) {
            (Some(position), Some(envelope)) => Some(Happened::Delivered {
                position,
                envelope,
                resynced: self.resynced,
            }),
            _ => Some(Happened::Broken(
                "a Deliver without envelope or position".into(),
            )),
        }
    }

    /// Moves the cursor to that of an entry; `None` if the entry has none or repeats one, which is
    /// booked.
    fn advance(&mut self, cursor: &[u8], effects: &mut Effects) -> Option<Position> {
        let Some(cursor) = Position::from_slice(cursor) else {
            effects
                .happened
                .push(Happened::Broken("an inbox entry without cursor".into()));
            return None;
        };
        if cursor <= self.cursor {
            effects.happened.push(Happened::Backwards {
                cursor,
                after: self.cursor,
            });
            return None;
        }
        self.cursor = cursor;
        self.ack_due = true;
        Some(cursor)
    }

    fn chatter_mut(&mut self) -> &mut Chatter {
        self.chatter.get_or_insert_default()
    }
}

fn write(body: client_frame::Body, effects: &mut Effects) {
    encode_frame(&v1::ClientFrame { body: Some(body) }, &mut effects.out);
}

fn field(position: &Position) -> Bytes {
    Bytes::copy_from_slice(position.as_bytes())
}

fn name_of(body: &server_frame::Body) -> &'static str {
    match body {
        server_frame::Body::Welcome(_) => "a Welcome",
        server_frame::Body::SendResult(_) => "a SendResult",
        server_frame::Body::Deliver(_) => "a Deliver",
        server_frame::Body::ReceiptUpdate(_) => "a ReceiptUpdate",
        server_frame::Body::Gap(_) => "a Gap",
        server_frame::Body::Error(_) => "an Error",
        server_frame::Body::GoAway(_) => "a GoAway",
        server_frame::Body::Typing(_) => "a Typing",
        server_frame::Body::Pong(_) => "a Pong",
    }
}

#[cfg(test)]
mod tests;
