//! What clients say and what they are told, in as few words as a test wants.

use bytes::Bytes;
use roadstead_proto::v1::{self, client_frame::Body as Up, server_frame::Body as Down};
use roadstead_proto::{ChatId, DeviceId, ErrorCode, Position, UserId};

use super::fake_store::Device;
use super::world::ISSUED_S;
use crate::io::{Credential, Identity, Proof};
use crate::placement::ShardId;

pub(super) fn shard_id(index: usize) -> ShardId {
    ShardId(u16::try_from(index).expect("few shards"))
}

/// Device `number` of a user; ids differ between users, too.
pub(super) fn device(user: u64, number: u32) -> Device {
    let id = u32::try_from(user).expect("small") * 16 + number;
    (
        UserId::new(user).expect("not 0"),
        DeviceId::new(id).expect("not 0"),
    )
}

pub(super) fn chat(a: Device, b: Device) -> ChatId {
    ChatId::pair(a.0, b.0)
}

/// Who writes in most tests.
pub(super) fn alice() -> Device {
    device(1, 1)
}

/// To whom.
pub(super) fn bob() -> Device {
    device(2, 1)
}

/// Their chat.
pub(super) fn ours() -> ChatId {
    chat(alice(), bob())
}

pub(super) fn hello((user, device): Device, connect_counter: u64, cursor: Position) -> Up {
    Up::Hello(v1::Hello {
        version: roadstead_proto::VERSION,
        credential: Some(v1::hello::Credential::Token(format!("user:{user}"))),
        device: device.get(),
        connect_counter,
        cursor: match cursor {
            Position::ZERO => Bytes::new(),
            cursor => wire(cursor),
        },
        capabilities: 0,
    })
}

pub(super) fn send(number: u64, chat: ChatId, text: &str) -> Up {
    send_after(number, 0, chat, text)
}

pub(super) fn send_after(number: u64, after: u64, chat: ChatId, text: &str) -> Up {
    Up::Send(v1::Send {
        number,
        chat: Bytes::copy_from_slice(chat.as_bytes()),
        payload: Bytes::copy_from_slice(text.as_bytes()),
        deadline_ms: 0,
        after,
    })
}

pub(super) fn ack(cursor: Position) -> Up {
    Up::Ack(v1::Ack {
        cursor: wire(cursor),
    })
}

pub(super) fn read_mark(chat: ChatId, position: Position) -> Up {
    Up::Read(v1::Read {
        chat: Bytes::copy_from_slice(chat.as_bytes()),
        position: wire(position),
    })
}

pub(super) fn typing(chat: ChatId) -> Up {
    Up::Typing(v1::Typing {
        chat: Bytes::copy_from_slice(chat.as_bytes()),
        user: 0,
    })
}

pub(super) fn wire(position: Position) -> Bytes {
    Bytes::copy_from_slice(position.as_bytes())
}

pub(super) fn text_of(frame: &Down) -> Option<String> {
    let Down::Deliver(deliver) = frame else {
        return None;
    };
    let payload = &deliver.envelope.as_ref()?.payload;
    Some(String::from_utf8_lossy(payload).into_owned())
}

/// A number for each frame that answers a send: the committed ones, and the refused with their codes.
pub(super) fn answers(frames: &[Down]) -> Vec<(u64, Result<(), ErrorCode>)> {
    let answer = |frame: &Down| match frame {
        Down::SendResult(result) => Some((result.number, Ok(()))),
        Down::Error(error) if error.number > 0 => Some((error.number, Err(error.code()))),
        _ => None,
    };
    frames.iter().filter_map(answer).collect()
}

/// The cursor of a frame that comes from the inbox.
pub(super) fn cursor_of(frame: &Down) -> Option<Position> {
    let cursor = match frame {
        Down::Deliver(deliver) => &deliver.cursor,
        Down::ReceiptUpdate(update) => &update.cursor,
        Down::Gap(gap) => &gap.cursor,
        _ => return None,
    };
    Some(Position::from_slice(cursor).expect("a cursor has 16 bytes"))
}

/// Signed tokens say their user, and were issued at [`ISSUED_S`]. Resume tokens say their user, the connect counter
/// and when they were checked.
pub(super) fn authenticate(
    credential: &Credential,
    connect_counter: u64,
) -> Result<Identity, ErrorCode> {
    let (user, issued_s, proof) = match credential {
        Credential::Token(token) => {
            let user = token.strip_prefix("user:").and_then(|id| id.parse().ok());
            (
                user.ok_or(ErrorCode::TokenInvalid)?,
                ISSUED_S,
                Proof::Signed,
            )
        }
        Credential::Resume(token) => {
            let token = std::str::from_utf8(token).map_err(|_| ErrorCode::TokenInvalid)?;
            let parts: Vec<u64> = token.split(' ').filter_map(|it| it.parse().ok()).collect();
            let [user, counter, issued_s] = parts[..] else {
                return Err(ErrorCode::TokenExpired);
            };
            let counter = Some(counter);
            (user, issued_s, Proof::Resumed { counter })
        }
    };
    let token = format!("{user} {connect_counter} {issued_s}");
    Ok(Identity {
        user: UserId::new(user).expect("tests use no 0"),
        resume_token: token.into(),
        issued_s,
        proof,
    })
}
