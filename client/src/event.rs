//! What the client tells the application.

use std::time::Duration;

use bytes::Bytes;
use roadstead_proto::{ChatId, DeviceId, ErrorCode, MessageId, Position, UserId};
use tokio::sync::mpsc::UnboundedSender;

use crate::error::{Cause, SendError};

/// One thing that happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A session is open.
    Connected(Connected),
    /// The session ended, or could not be opened.
    Disconnected(Disconnected),
    /// A message of the inbox. Store it, then call [`Message::stored`].
    Message(Message),
    /// A message that is shown already stands under another id and position: the server's store was
    /// restored to an earlier state (R3), and the sender repeated what it held unconfirmed. Replace both
    /// where the message of this sender, device and number is kept, then call [`Message::stored`].
    Moved(Message),
    /// Somebody received or read messages of this user, or another device of this user read.
    Receipt(Receipt),
    /// Somebody is typing now.
    Typing {
        /// Where.
        chat: ChatId,
        /// Who.
        user: UserId,
    },
    /// Entries were not kept for this device: what the application shows is incomplete.
    Gap(Gap),
    /// The server's store is of another generation (R3): entries may come again, and those that this
    /// client has shown before it keeps to itself.
    Resynced {
        /// The store's generation.
        generation: u32,
    },
    /// A message is committed: single tick.
    SendConfirmed(Confirmation),
    /// A message waits, because its chat takes none at the moment. It is sent again by itself;
    /// [`Client::take_back`](crate::Client::take_back) takes it back. Told at each refusal of the message,
    /// and once of each that waits behind it.
    SendDelayed(SendDelay),
    /// A message was given up.
    SendFailed(SendFailure),
}

impl Event {
    /// Says that the application has durably stored what this event brought, if it brought anything.
    pub fn stored(&self) {
        match self {
            Self::Message(message) | Self::Moved(message) => message.stored(),
            Self::Receipt(receipt) => receipt.stored(),
            Self::Gap(gap) => gap.stored(),
            _ => {}
        }
    }

    pub(crate) fn entry_mut(&mut self) -> Option<&mut Entry> {
        match self {
            Self::Message(message) | Self::Moved(message) => Some(&mut message.entry),
            Self::Receipt(receipt) => Some(&mut receipt.entry),
            Self::Gap(gap) => Some(&mut gap.entry),
            _ => None,
        }
    }
}

/// The inbox entry behind an event, by which the application acknowledges it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) door: Option<UnboundedSender<u64>>,
}

impl Entry {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, door: None }
    }

    fn stored(&self) {
        if let Some(door) = &self.door {
            // A client that has stopped acknowledges in its next session: the entry comes again.
            let _ = door.send(self.id);
        }
    }
}

/// An open session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Who the server takes this client for.
    pub user: UserId,
    /// The device of this installation.
    pub device: DeviceId,
    /// The server's clock, Unix time.
    pub server_time_ms: u64,
    /// Whether a resume token took the place of a signed one.
    pub resumed: bool,
}

/// A session that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnected {
    /// Why.
    pub cause: Cause,
    /// When the client tries again; `None` if it has stopped for good.
    pub retry_in: Option<Duration>,
}

/// A message of the inbox.
#[derive(Debug, Clone)]
pub struct Message {
    /// Identifies the message everywhere; by it an application recognises a repeat after a restart. If the
    /// server's store was restored meanwhile, sender, device and number with the same chat and payload
    /// tell that it is the same message under another id.
    pub id: MessageId,
    /// The chat.
    pub chat: ChatId,
    /// Who sent it. A message of the own user comes from another of its devices.
    pub sender: UserId,
    /// The device that sent it.
    pub sender_device: DeviceId,
    /// The number that the sending device sent it under: [`Confirmation::sent_as`] there.
    pub number: u64,
    /// Where the chat shows it: order a chat by this, never by arrival (R2).
    pub position: Position,
    /// Its place in this device's inbox.
    pub cursor: Position,
    /// When the server accepted it, Unix time.
    pub server_time_ms: u64,
    /// What was sent.
    pub payload: Bytes,
    pub(crate) entry: Entry,
}

impl Message {
    /// Says that the application has stored the message durably. Only then may the server forget it.
    pub fn stored(&self) {
        self.entry.stored();
    }
}

/// How far a user has got in a chat. Both positions only grow.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The chat.
    pub chat: ChatId,
    /// Who received or read; the own user if another of its devices read.
    pub user: UserId,
    /// Everything up to here is on a device of that user: double tick.
    pub delivered: Position,
    /// Everything up to here was seen: blue tick.
    pub read: Position,
    /// Its place in this device's inbox.
    pub cursor: Position,
    pub(crate) entry: Entry,
}

impl Receipt {
    /// Says that the application has stored the receipt durably.
    pub fn stored(&self) {
        self.entry.stored();
    }
}

/// Entries that were not kept for this device.
#[derive(Debug, Clone)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// Its place in this device's inbox.
    pub cursor: Position,
    pub(crate) entry: Entry,
}

impl Gap {
    /// Says that the application has taken note; a suspended device gets entries again after this.
    pub fn stored(&self) {
        self.entry.stored();
    }
}

/// Why entries were not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapReason {
    /// The server did not say, or said something that this version does not know.
    Unspecified,
    /// The inbox passed its limit.
    InboxLimit,
    /// They were older than the retention time.
    Expired,
    /// They were of one sender, who had as much in the inbox as one sender may.
    SenderLimit,
}

/// A committed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// The number that [`Client::send`](crate::Client::send) gave it.
    pub number: u64,
    /// The number that it was committed under, which is [`Message::number`] on other devices. Another one if
    /// the message was refused for a while before.
    pub sent_as: u64,
    /// Its chat.
    pub chat: ChatId,
    /// Its identity.
    pub id: MessageId,
    /// Where the chat shows it.
    pub position: Position,
    /// When the server accepted it, Unix time.
    pub server_time_ms: u64,
}

/// A message that waits for its chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendDelay {
    /// The number that [`Client::send`](crate::Client::send) gave it.
    pub number: u64,
    /// Its chat.
    pub chat: ChatId,
    /// Why the chat takes nothing: [`ErrorCode::RecipientFull`] or [`ErrorCode::ChatBusy`].
    pub code: ErrorCode,
    /// When the first message that waits for the chat is sent again, if a session is open then.
    pub retry_in: Duration,
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendFailure {
    /// The number that [`Client::send`](crate::Client::send) gave it.
    pub number: u64,
    /// Its chat.
    pub chat: ChatId,
    /// Why.
    pub error: SendError,
}
