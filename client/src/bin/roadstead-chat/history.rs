//! What the chat has stored: one file to which every message, answer and receipt is appended before it
//! is acknowledged.
//!
//! The records are frames of the protocol, so its framing, its decoder and their tests serve here too.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use roadstead_client::{ChatId, DeviceId, Event, MessageId, Position, UserId};
use roadstead_proto::limits::FRAME_BYTES_MAX;
use roadstead_proto::v1::{self, server_frame::Body};
use roadstead_proto::{Deframer, decode_frame, encode_frame};

/// One thing that the chat remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// A message that arrived.
    Message {
        id: MessageId,
        sender: UserId,
        device: DeviceId,
        number: u64,
        position: Position,
        text: String,
    },
    /// A message of this device, without an answer yet.
    Sent { number: u64, text: String },
    /// Its answer.
    Confirmed { number: u64, position: Position },
    /// It was given up.
    Failed { number: u64, why: String },
    /// How far a user has got.
    Receipt {
        user: UserId,
        delivered: Position,
        read: Position,
    },
}

impl Record {
    /// What of an event is worth keeping, if it is about this chat.
    pub(crate) fn of(event: &Event, chat: ChatId) -> Option<Self> {
        Some(match event {
            Event::Message(message) | Event::Moved(message) if message.chat == chat => {
                Self::Message {
                    id: message.id,
                    sender: message.sender,
                    device: message.sender_device,
                    number: message.number,
                    position: message.position,
                    text: String::from_utf8_lossy(&message.payload).into_owned(),
                }
            }
            Event::Receipt(receipt) if receipt.chat == chat => Self::Receipt {
                user: receipt.user,
                delivered: receipt.delivered,
                read: receipt.read,
            },
            Event::SendConfirmed(confirmation) if confirmation.chat == chat => Self::Confirmed {
                number: confirmation.number,
                position: confirmation.position,
            },
            Event::SendFailed(failure) if failure.chat == chat => Self::Failed {
                number: failure.number,
                why: failure.error.to_string(),
            },
            _ => return None,
        })
    }

    fn to_frame(&self) -> v1::ServerFrame {
        let body = match self {
            Self::Message {
                id,
                sender,
                device,
                number,
                position,
                text,
            } => Body::Deliver(v1::Deliver {
                cursor: field(*position),
                envelope: Some(v1::Envelope {
                    message_id: id.get(),
                    sender: sender.get(),
                    sender_device: device.get(),
                    number: *number,
                    payload: Bytes::from(text.clone()),
                    ..v1::Envelope::default()
                }),
                ..v1::Deliver::default()
            }),
            // No sender: it is this device.
            Self::Sent { number, text } => Body::Deliver(v1::Deliver {
                envelope: Some(v1::Envelope {
                    number: *number,
                    payload: Bytes::from(text.clone()),
                    ..v1::Envelope::default()
                }),
                ..v1::Deliver::default()
            }),
            Self::Confirmed { number, position } => Body::SendResult(v1::SendResult {
                number: *number,
                position: field(*position),
                ..v1::SendResult::default()
            }),
            Self::Failed { number, why } => Body::Error(v1::Error {
                number: *number,
                message: why.clone(),
                ..v1::Error::default()
            }),
            Self::Receipt {
                user,
                delivered,
                read,
            } => Body::ReceiptUpdate(v1::ReceiptUpdate {
                user: user.get(),
                delivered: field(*delivered),
                read: field(*read),
                ..v1::ReceiptUpdate::default()
            }),
        };
        v1::ServerFrame { body: Some(body) }
    }

    fn from_frame(frame: v1::ServerFrame) -> Option<Self> {
        Some(match frame.body? {
            Body::Deliver(deliver) => {
                let envelope = deliver.envelope?;
                let text = String::from_utf8_lossy(&envelope.payload).into_owned();
                let number = envelope.number;
                match UserId::new(envelope.sender) {
                    Err(_) => Self::Sent { number, text },
                    Ok(sender) => Self::Message {
                        id: MessageId::new(envelope.message_id),
                        sender,
                        device: DeviceId::new(envelope.sender_device).ok()?,
                        number,
                        position: Position::from_slice(&deliver.cursor)?,
                        text,
                    },
                }
            }
            Body::SendResult(result) => Self::Confirmed {
                number: result.number,
                position: Position::from_slice(&result.position)?,
            },
            Body::Error(error) => Self::Failed {
                number: error.number,
                why: error.message,
            },
            Body::ReceiptUpdate(update) => Self::Receipt {
                user: UserId::new(update.user).ok()?,
                delivered: Position::from_field(&update.delivered)?,
                read: Position::from_field(&update.read)?,
            },
            _ => return None,
        })
    }
}

fn field(position: Position) -> Bytes {
    Bytes::copy_from_slice(position.as_bytes())
}

/// The file.
#[derive(Debug)]
pub(crate) struct History {
    file: File,
}

impl History {
    /// Opens or creates it and reads what is there. What a crash cut short is cut off.
    pub(crate) fn open(path: impl AsRef<Path>) -> anyhow::Result<(Self, Vec<Record>)> {
        let path = path.as_ref();
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options
            .open(path)
            .with_context(|| path.display().to_string())?;
        // One that was there, restored from a backup say. If it belongs to another user, that one decides.
        #[cfg(unix)]
        let _ = file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600));
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let length = bytes.len();
        let mut deframer = Deframer::new(FRAME_BYTES_MAX);
        let mut rest = Bytes::from(bytes);
        let mut records = Vec::new();
        while let Some(frame) = deframer.next_frame(&mut rest)? {
            records.extend(Record::from_frame(decode_frame(frame)?));
        }
        let intact = length - deframer.buffered();
        file.set_len(u64::try_from(intact)?)?;
        Ok((Self { file }, records))
    }

    /// Adds a record; durable on return.
    pub(crate) fn append(&mut self, record: &Record) -> anyhow::Result<()> {
        let mut bytes = BytesMut::new();
        encode_frame(&record.to_frame(), &mut bytes);
        self.file.write_all(&bytes)?;
        self.file.sync_data().context("the history")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let user = UserId::new(2).expect("not 0");
        let position = |n| Position::new(1, [0; 10], n);
        vec![
            Record::Sent {
                number: 1,
                text: "hello".into(),
            },
            Record::Confirmed {
                number: 1,
                position: position(1),
            },
            Record::Message {
                id: MessageId::new(9),
                sender: user,
                device: DeviceId::new(5).expect("not 0"),
                number: 3,
                position: position(2),
                text: "¡hola!".into(),
            },
            Record::Receipt {
                user,
                delivered: position(1),
                read: Position::ZERO,
            },
            Record::Failed {
                number: 2,
                why: "nobody".into(),
            },
        ]
    }

    #[test]
    fn what_was_appended_is_there_again_whatever_byte_a_crash_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history");
        let (mut history, empty) = History::open(&path).expect("opens");
        assert!(empty.is_empty());
        for record in records() {
            history.append(&record).expect("appends");
        }
        drop(history);
        assert_eq!(History::open(&path).expect("opens").1, records());
        let whole = std::fs::read(&path).expect("reads");
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("writes");
            let (mut history, survivors) = History::open(&path).expect("opens");
            assert!(records().starts_with(&survivors), "cut at {cut}");
            history.append(&records()[0]).expect("appends");
            let (_, after) = History::open(&path).expect("opens");
            assert_eq!(after.len(), survivors.len() + 1, "cut at {cut}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn fc4_a_history_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history");
        std::fs::write(&path, b"").expect("writes");
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&path, open).expect("it is ours");
        History::open(&path).expect("opens");
        let found = std::fs::metadata(&path).expect("it is there");
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
    }
}
