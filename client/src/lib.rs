//! The client SDK of Roadstead: one device's session with the edge, kept alive across networks,
//! restarts and lost packets.
//!
//! [`Client::connect`] starts it and returns at once; the client connects, and connects again, by
//! itself. [`Events`] tells what happens. Three promises make an application simple:
//!
//! - A message that [`Client::send`] gave a number is sent until the server confirms it, in the order of
//!   its chat, across restarts of the application if the journal is a [`FileJournal`], and never twice (R12).
//!   A chat that takes nothing at the moment holds up no other ([`Event::SendDelayed`]), and what waits for
//!   it can be taken back ([`Client::take_back`]).
//! - A message that arrived is the server's to keep until the application calls
//!   [`Message::stored`]; acknowledge only what is durable.
//! - An event is shown once while the process lives. After a restart the last ones may come again:
//!   recognise them by [`Message::id`].
//!
//! No call waits for the network but [`Client::send_confirmed`] and [`Client::wait_active`]: an application
//! may send from the loop that reads its events. With too many messages unconfirmed [`Client::send`] says so.
//!
//! Order a chat by [`Message::position`] and [`Confirmation::position`], never by arrival (R2).
//!
//! `docs/PROTOCOL.md` is what it speaks; P-numbers in this crate are its requirements.

mod client;
mod config;
mod driver;
mod error;
mod event;
pub mod journal;
mod pace;
mod session;
mod transport;

pub use client::{Client, Events, Status};
pub use config::{Config, CredentialProvider, TokenFuture, Trust};
pub use error::{Blame, Cause, ClientError, CredentialError, SendError};
pub use event::{
    Confirmation, Connected, Disconnected, Event, Gap, GapReason, Message, Receipt, SendDelay,
    SendFailure,
};
pub use journal::{FileJournal, Journal, JournalError, MemoryJournal};
/// Identifiers, positions and error codes of the protocol.
pub use roadstead_proto::{ChatId, DeviceId, ErrorCode, MessageId, Position, UserId};
