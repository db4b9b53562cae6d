//! What the chat has stored: one file to which every message, answer and receipt is appended before it
//! is acknowledged.
//!
//! The records are frames of the protocol, so its framing, its decoder and their tests serve here too. A
//! record belongs to the chat that the last mark before it names; a mark is a receipt of nobody. A file of
//! an older version has no marks: its records are of the chat that was on the screen.

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
    /// What of an event is worth keeping, and the chat that it is of, whichever is on the screen.
    pub(crate) fn of(event: &Event) -> Option<(ChatId, Self)> {
        Some(match event {
            Event::Message(message) | Event::Moved(message) => {
                let record = Self::Message {
                    id: message.id,
                    sender: message.sender,
                    device: message.sender_device,
                    number: message.number,
                    position: message.position,
                    text: String::from_utf8_lossy(&message.payload).into_owned(),
                };
                (message.chat, record)
            }
            Event::Receipt(receipt) => {
                let record = Self::Receipt {
                    user: receipt.user,
                    delivered: receipt.delivered,
                    read: receipt.read,
                };
                (receipt.chat, record)
            }
            Event::SendConfirmed(confirmation) => {
                let record = Self::Confirmed {
                    number: confirmation.number,
                    position: confirmation.position,
                };
                (confirmation.chat, record)
            }
            Event::SendFailed(failure) => {
                let record = Self::Failed {
                    number: failure.number,
                    why: failure.error.to_string(),
                };
                (failure.chat, record)
            }
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

/// The chat that the records behind this one are of.
fn mark(chat: ChatId) -> v1::ServerFrame {
    let body = Body::ReceiptUpdate(v1::ReceiptUpdate {
        chat: Bytes::copy_from_slice(chat.as_bytes()),
        ..v1::ReceiptUpdate::default()
    });
    v1::ServerFrame { body: Some(body) }
}

fn marked(frame: &v1::ServerFrame) -> Option<ChatId> {
    match frame.body.as_ref()? {
        Body::ReceiptUpdate(update) if update.user == 0 => ChatId::from_slice(&update.chat).ok(),
        _ => None,
    }
}

/// A record and its chat; none in a file of an older version.
pub(crate) type Kept = (Option<ChatId>, Record);

/// The file.
#[derive(Debug)]
pub(crate) struct History {
    file: File,
    /// The chat that the last mark in the file names.
    marked: Option<ChatId>,
}

impl History {
    /// Opens or creates it and reads what is there. What a crash cut short is cut off.
    pub(crate) fn open(path: impl AsRef<Path>) -> anyhow::Result<(Self, Vec<Kept>)> {
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
        let mut chat = None;
        while let Some(frame) = deframer.next_frame(&mut rest)? {
            let frame: v1::ServerFrame = decode_frame(frame)?;
            if let Some(named) = marked(&frame) {
                chat = Some(named);
            } else if let Some(record) = Record::from_frame(frame) {
                records.push((chat, record));
            }
        }
        let intact = length - deframer.buffered();
        file.set_len(u64::try_from(intact)?)?;
        let marked = chat;
        Ok((Self { file, marked }, records))
    }

    /// Adds a record of a chat; durable on return.
    pub(crate) fn append(&mut self, chat: ChatId, record: &Record) -> anyhow::Result<()> {
        let mut bytes = BytesMut::new();
        if self.marked != Some(chat) {
            encode_frame(&mark(chat), &mut bytes);
        }
        encode_frame(&record.to_frame(), &mut bytes);
        self.file.write_all(&bytes).context("the history")?;
        self.file.sync_data().context("the history")?;
        self.marked = Some(chat);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(peer: u64) -> ChatId {
        let user = |id| UserId::new(id).expect("not 0");
        ChatId::pair(user(1), user(peer))
    }

    fn kept(records: Vec<Record>) -> Vec<Kept> {
        let of_2 = |record| (Some(chat(2)), record);
        records.into_iter().map(of_2).collect()
    }

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
            history.append(chat(2), &record).expect("appends");
        }
        drop(history);
        assert_eq!(History::open(&path).expect("opens").1, kept(records()));
        let whole = std::fs::read(&path).expect("reads");
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("writes");
            let (mut history, survivors) = History::open(&path).expect("opens");
            assert!(kept(records()).starts_with(&survivors), "cut at {cut}");
            history.append(chat(2), &records()[0]).expect("appends");
            let (_, after) = History::open(&path).expect("opens");
            assert_eq!(after.len(), survivors.len() + 1, "cut at {cut}");
        }
    }

    #[test]
    fn df8_r19_every_record_is_of_its_chat_and_old_ones_are_of_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history");
        let mut old = BytesMut::new();
        encode_frame(&records()[0].to_frame(), &mut old);
        std::fs::write(&path, &old).expect("writes");
        let mut expected = vec![(None, records()[0].clone())];
        for (peer, record) in [2, 3, 3, 2, 3].into_iter().zip(records()) {
            // Opened each time: the mark is known again, and written where it must be.
            let (mut history, found) = History::open(&path).expect("opens");
            assert_eq!(found, expected);
            history.append(chat(peer), &record).expect("appends");
            expected.push((Some(chat(peer)), record));
        }
        assert_eq!(History::open(&path).expect("opens").1, expected);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn df8_r19_a_full_disk_is_an_error_and_no_record() {
        let file = OpenOptions::new().append(true).open("/dev/full");
        let mut history = History {
            file: file.expect("always there"),
            marked: None,
        };
        let error = history.append(chat(2), &records()[0]).expect_err("full");
        assert!(
            format!("{error:#}").starts_with("the history: "),
            "{error:#}"
        );
        assert_eq!(history.marked, None);
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
