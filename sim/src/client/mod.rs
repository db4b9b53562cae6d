//! A model client: what an honest device does, with a disk of its own.
//!
//! It shares nothing with the SDK but the protocol. Whatever must survive a crash of the client is in
//! [`Disk`]; all else goes with the process. It says what it wants done by [`Do`], and the world does it.

mod outbox;

use std::collections::BTreeSet;
use std::hash::Hasher;

use bytes::{BufMut, Bytes, BytesMut};
use roadstead_proto::v1::{self, client_frame::Body as Up, server_frame::Body as Down};
use roadstead_proto::{ChatId, DeviceId, ErrorCode, Position, UserId};
use siphasher::sip::SipHasher13;

pub use outbox::{Outbox, Pending};

use crate::check::{Device, Progress, read_update};
use crate::net::ConnId;

/// Messages that a client remembers to mark as read.
const READABLE_MAX: usize = 16;

/// Acknowledged entries between two looks of a slow device are stored in pieces of this size.
const STORED_AT_ONCE: usize = 100;

/// The token in a payload: what makes a message itself, whatever its number or id.
#[must_use]
pub fn token_of(payload: &[u8]) -> Option<u64> {
    payload.get(..8)?.try_into().ok().map(u64::from_be_bytes)
}

/// A payload of so many bytes around a token.
#[must_use]
pub fn payload(token: u64, bytes: usize) -> Bytes {
    let mut payload = BytesMut::zeroed(bytes.max(8));
    (&mut payload[..8]).put_u64(token);
    payload.freeze()
}

/// What a client wants done.
#[derive(Debug)]
pub enum Do {
    /// Send a frame on the connection.
    Send(Up),
    /// Come back to send again what failed, after so many ms.
    RetryAfter(u32),
    /// Come back to say again what a chat refused, after so many ms.
    RetryChatAfter(ChatId, u32),
    /// Come back to store what arrived.
    PersistSoon,
    /// This was stored.
    Stored(Vec<Arrived>),
    /// This send was refused for good.
    Refused {
        /// Its number.
        number: u64,
        /// What makes it itself.
        token: u64,
        /// Why.
        code: ErrorCode,
    },
    /// Leave the connection and come back after so many ms.
    Leave(u32),
}

/// An entry that arrived.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// Its cursor.
    pub cursor: Position,
    /// Of a message.
    pub token: Option<u64>,
    /// Of a receipt.
    pub(crate) progress: Option<Progress>,
    /// Of a message.
    identity: Option<Identity>,
    /// The client takes it for a message that it has: it came again after a resync (R3).
    pub repeat: bool,
    chat: Option<ChatId>,
}

/// By what a client recognises a message, as docs/PROTOCOL.md has it (P22): the server's name for it, or
/// the sender's, if the content is the same.
#[derive(Debug, Clone, Copy)]
struct Identity {
    id: u64,
    origin: Origin,
}

/// Sender, its device, the number, and a hash of chat and payload.
type Origin = (u64, u32, u64, u64);

impl Identity {
    fn of(envelope: &v1::Envelope) -> Self {
        let mut content = SipHasher13::new();
        content.write(&envelope.chat);
        content.write(&envelope.payload);
        let sender = (envelope.sender, envelope.sender_device);
        Self {
            id: envelope.message_id,
            origin: (sender.0, sender.1, envelope.number, content.finish()),
        }
    }
}

/// What a client has on disk.
#[derive(Debug, Default)]
pub struct Disk {
    /// Everything up to here is stored.
    pub cursor: Position,
    /// Counts connections (R13).
    pub connect_counter: u64,
    /// Sends that nobody has confirmed, and the numbers used.
    pub outbox: Outbox,
    /// Messages of others that may be marked as read.
    readable: Vec<(ChatId, Position)>,
    /// Every message that is stored, to recognise repeats.
    ids: BTreeSet<u64>,
    origins: BTreeSet<Origin>,
}

impl Disk {
    /// Whether a message was known.
    fn remember(&mut self, message: Identity, by_id_alone: bool) -> bool {
        let new_id = self.ids.insert(message.id);
        let new_origin = self.origins.insert(message.origin);
        !new_id || (!new_origin && !by_id_alone)
    }
}

impl Arrived {
    fn at(cursor: &[u8]) -> Self {
        Self {
            cursor: Position::from_slice(cursor).expect("the checker saw to it"),
            token: None,
            progress: None,
            identity: None,
            repeat: false,
            chat: None,
        }
    }
}

/// How far a client's connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has none.
    Offline,
    /// It said Hello on this one.
    ExpectWelcome(ConnId),
    /// It is welcome on this one.
    Active(ConnId),
}

/// See the [module](self).
#[derive(Debug)]
pub struct Client {
    /// Who it is.
    pub device: Device,
    /// What survives.
    pub disk: Disk,
    /// Its connection.
    pub state: State,
    /// Counts processes and connections: a timer of an earlier one means nothing.
    pub epoch: u32,
    /// It stores slowly.
    pub slow: bool,
    /// Its device was removed, or never got in: it does nothing any more.
    pub retired: bool,
    /// The planted bug: messages are recognised by their ids alone.
    pub by_id_alone: bool,
    /// What arrived and is not stored.
    arrived: Vec<Arrived>,
    persisting: bool,
}

impl Client {
    /// A fresh installation.
    #[must_use]
    pub fn new(user: UserId, device: DeviceId, window: usize, slow: bool) -> Self {
        Self {
            device: (user, device),
            disk: Disk {
                outbox: Outbox::new(window, device.get().is_multiple_of(2)),
                ..Disk::default()
            },
            state: State::Offline,
            epoch: 0,
            slow,
            retired: false,
            by_id_alone: false,
            arrived: Vec::new(),
            persisting: false,
        }
    }

    /// The connection, if there is one.
    #[must_use]
    pub fn conn(&self) -> Option<ConnId> {
        match self.state {
            State::Offline => None,
            State::ExpectWelcome(conn) | State::Active(conn) => Some(conn),
        }
    }

    /// Whether it is welcome.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Active(_))
    }

    /// Whether it has nothing left to do.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.is_active() && self.disk.outbox.is_empty() && self.arrived.is_empty()
    }

    /// Begins a session.
    pub fn hello(&mut self, conn: ConnId) -> v1::Hello {
        self.leave();
        self.state = State::ExpectWelcome(conn);
        self.disk.connect_counter += 1;
        let cursor = match self.disk.cursor {
            Position::ZERO => Bytes::new(),
            cursor => Bytes::copy_from_slice(cursor.as_bytes()),
        };
        v1::Hello {
            version: roadstead_proto::VERSION,
            credential: Some(v1::hello::Credential::Token(self.device.0.to_string())),
            device: self.device.1.get(),
            connect_counter: self.disk.connect_counter,
            cursor,
            capabilities: u64::from(self.disk.outbox.asks_for_numbers()),
        }
    }

    /// The connection is over for this client.
    pub fn leave(&mut self) {
        self.state = State::Offline;
        self.epoch += 1;
        self.arrived.clear();
        self.persisting = false;
        self.disk.outbox.end_session();
    }

    /// The process dies; what is on disk stays.
    pub fn crash(&mut self, forgets_numbers: bool) {
        self.leave();
        if forgets_numbers {
            self.disk.outbox.forget();
        }
    }

    /// A frame arrived on the connection.
    pub fn handle_frame(&mut self, conn: ConnId, frame: v1::ServerFrame, todo: &mut Vec<Do>) {
        match frame.body.expect("the checker saw to it") {
            Down::Welcome(welcome) => {
                if welcome.resync {
                    self.disk.cursor = Position::ZERO;
                }
                self.state = State::Active(conn);
                self.disk.outbox.begin_session(welcome.highest_number);
                self.disk.outbox.pump(todo);
            }
            Down::SendResult(result) => {
                let chat = self.disk.outbox.chat_of(result.number);
                self.disk.outbox.confirm(result.number);
                self.answered(chat, 0, todo);
            }
            Down::Deliver(deliver) => {
                let envelope = deliver.envelope.unwrap_or_default();
                let entry = Arrived {
                    token: token_of(&envelope.payload),
                    identity: Some(Identity::of(&envelope)),
                    chat: ChatId::from_slice(&envelope.chat).ok(),
                    ..Arrived::at(&deliver.cursor)
                };
                self.arrive(entry, todo);
            }
            Down::ReceiptUpdate(update) => {
                let entry = Arrived {
                    progress: read_update(&update),
                    ..Arrived::at(&update.cursor)
                };
                self.arrive(entry, todo);
            }
            Down::Gap(gap) => self.arrive(Arrived::at(&gap.cursor), todo),
            Down::Error(error) => self.handle_error(&error, todo),
            Down::GoAway(go_away) => todo.push(Do::Leave(go_away.reconnect_after_ms)),
            Down::Typing(_) | Down::Pong(_) => {}
        }
    }

    fn handle_error(&mut self, error: &v1::Error, todo: &mut Vec<Do>) {
        let code = ErrorCode::try_from(error.code).unwrap_or(ErrorCode::Internal);
        if matches!(code, ErrorCode::DeviceRemoved | ErrorCode::DeviceLimit) {
            self.retired = true;
        }
        if error.number == 0 {
            // The server closes the connection: the client learns of it when it does.
            return;
        }
        if error.retryable {
            // One retry sends everything again, however many sends were refused.
            if self.disk.outbox.hold() {
                todo.push(Do::RetryAfter(error.retry_after_ms));
            }
            return;
        }
        if code.refuses_chat_for_now() {
            return self.handle_chat_refusal(error, code, todo);
        }
        if code == ErrorCode::NumberReused && self.disk.outbox.renumber(error.number) {
            return self.disk.outbox.pump(todo);
        }
        let chat = self.disk.outbox.chat_of(error.number);
        if let Some(token) = self.disk.outbox.drop_number(error.number) {
            todo.push(Do::Refused {
                number: error.number,
                token,
                code,
            });
        }
        self.answered(chat, 0, todo);
    }

    /// Its chat takes nothing more for a while: whatever this client does about it, its other chats go on.
    fn handle_chat_refusal(&mut self, error: &v1::Error, code: ErrorCode, todo: &mut Vec<Do>) {
        let (number, outbox) = (error.number, &mut self.disk.outbox);
        let chat = outbox.chat_of(number);
        if let Some(token) = outbox.refuse_for_now(number) {
            todo.push(Do::Refused {
                number,
                token,
                code,
            });
        }
        self.answered(chat, error.retry_after_ms, todo);
    }

    /// A number of that chat has its answer: it may have been the last that a paused chat waited for.
    fn answered(&mut self, chat: Option<ChatId>, retry_after_ms: u32, todo: &mut Vec<Do>) {
        let outbox = &mut self.disk.outbox;
        if let Some(chat) = chat.filter(|chat| outbox.may_resume(*chat)) {
            todo.push(Do::RetryChatAfter(chat, retry_after_ms));
        }
        outbox.pump(todo);
    }

    /// Says again what a chat refused.
    pub fn retry_chat(&mut self, chat: ChatId, todo: &mut Vec<Do>) {
        if self.is_active() {
            self.disk.outbox.resume(chat);
            self.disk.outbox.pump(todo);
        }
    }

    /// Sends again from the first that is not confirmed.
    pub fn retry(&mut self, todo: &mut Vec<Do>) {
        if self.is_active() {
            self.disk.outbox.send_again();
            self.disk.outbox.pump(todo);
        }
    }

    /// What a chat refuses from now on is given up.
    pub fn lose_patience(&mut self, todo: &mut Vec<Do>) {
        self.disk.outbox.lose_patience();
        if self.is_active() {
            self.disk.outbox.pump(todo);
        }
    }

    /// Puts a message into the outbox.
    pub fn submit(&mut self, message: (u64, ChatId, Bytes), todo: &mut Vec<Do>) {
        self.disk.outbox.push(message);
        if self.is_active() {
            self.disk.outbox.pump(todo);
        }
    }

    fn arrive(&mut self, entry: Arrived, todo: &mut Vec<Do>) {
        self.arrived.push(entry);
        if !self.persisting {
            self.persisting = true;
            todo.push(Do::PersistSoon);
        }
    }

    /// Stores what arrived, and acknowledges it if `acks`.
    pub fn persist(&mut self, acks: bool, todo: &mut Vec<Do>) {
        self.persisting = false;
        let count = self.arrived.len().min(STORED_AT_ONCE);
        let mut stored: Vec<Arrived> = self.arrived.drain(..count).collect();
        for entry in &mut stored {
            let by_id_alone = self.by_id_alone;
            let knows = |identity| self.disk.remember(identity, by_id_alone);
            entry.repeat = entry.identity.is_some_and(knows);
        }
        let Some(last) = stored.last() else { return };
        self.disk.cursor = last.cursor;
        for entry in &stored {
            if let (Some(chat), Some(_)) = (entry.chat, entry.token) {
                self.disk.readable.push((chat, entry.cursor));
            }
        }
        let surplus = self.disk.readable.len().saturating_sub(READABLE_MAX);
        self.disk.readable.drain(..surplus);
        todo.push(Do::Stored(stored));
        if acks {
            todo.push(Do::Send(self.ack()));
        }
        if !self.arrived.is_empty() {
            self.persisting = true;
            todo.push(Do::PersistSoon);
        }
    }

    /// Acknowledges what is stored.
    #[must_use]
    pub fn ack(&self) -> Up {
        Up::Ack(v1::Ack {
            cursor: Bytes::copy_from_slice(self.disk.cursor.as_bytes()),
        })
    }

    /// Messages that may be marked as read.
    #[must_use]
    pub fn readable(&self) -> &[(ChatId, Position)] {
        &self.disk.readable
    }
}
