//! The port to the store: what a shard asks, and what it is answered.
//!
//! These are plain data. `store/` carries them out as transactions; the simulator does the same on an
//! engine in memory. A shard may have many requests under way; answers come in any order, except that a
//! session never has two [`Command::Send`] under way (R16).

use roadstead_proto::v1::{Envelope, GapReason, ReceiptUpdate};
use roadstead_proto::{ChatId, DeviceId, ErrorCode, MessageId, Position, UserId};

use crate::limits;
use crate::time::Time;

/// Names a request of a shard, so that its answer finds the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request of a shard.
#[derive(Debug, Clone)]
pub struct Request {
    /// Comes back in the [`Completion`].
    pub id: RequestId,
    /// What to do.
    pub command: Command,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone)]
pub struct Completion {
    /// The request's.
    pub id: RequestId,
    /// What came of it.
    pub outcome: Result<Outcome, StoreError>,
}

/// What a shard can ask. Every write is one transaction; several may share a commit.
#[derive(Debug, Clone)]
pub enum Command {
    /// Look up a device, registering it if the user has room for another one.
    OpenDevice(OpenDevice),
    /// Commit the sends of one device, in order. One transaction each, or all in one.
    Send(Sends),
    /// Read an inbox in order after a cursor: the only thing that moves a delivered cursor (R4).
    ReadInbox(ReadInbox),
    /// Acknowledge: the one door by which entries leave an inbox (R18).
    Flush(Flush),
    /// Move a read position forward (R20).
    MarkRead(MarkRead),
    /// Look at what an inbox holds, and suspend the device if it is above the limit (R21).
    CheckInbox(CheckInbox),
}

/// See [`Command::OpenDevice`].
#[derive(Debug, Clone)]
pub struct OpenDevice {
    /// The authenticated user.
    pub user: UserId,
    /// The device that its Hello names.
    pub device: DeviceId,
    /// The Hello's cursor; of another generation it acknowledges nothing (R3).
    pub cursor: Position,
    /// Whether to look up the highest number used (R13).
    pub want_highest_number: bool,
    /// Unix time in ms, recorded as the time of registration.
    pub unix_ms: u64,
    /// [`Identity::issued_s`](crate::Identity::issued_s): a user who was signed out after that has to show
    /// another token.
    pub issued_s: u64,
}

/// See [`Command::Send`].
#[derive(Debug, Clone)]
pub struct Sends {
    /// The sending user.
    pub user: UserId,
    /// The sending device.
    pub device: DeviceId,
    /// What an inbox may hold (R21).
    pub limits: InboxLimits,
    /// In order of arrival. A retryable failure of one fails all behind it, a refusal of a chat for a while
    /// those behind it that go to the same chat (R16).
    pub items: Vec<SendItem>,
}

/// One message to commit.
#[derive(Debug, Clone)]
pub struct SendItem {
    /// The device's number (R12).
    pub number: u64,
    /// A hash of chat and payload, to tell a retry from a reused number (R12).
    pub request_hash: u64,
    /// The highest number of this chat that its client knew to be refused for a while; 0 for none (R16).
    pub after: u64,
    /// It is refused for good already: the store keeps this as the number's answer, unless it has one (R16).
    pub refused: Option<StoreError>,
    /// The chat.
    pub chat: ChatId,
    /// The other user of the pair; the sender itself for notes to its own devices.
    pub recipient: UserId,
    /// What every device gets. Holds the proposed message id; a retry is answered with the first one.
    pub envelope: Envelope,
    /// Past this it is not committed any more (R26).
    pub deadline: Time,
}

/// See [`Command::ReadInbox`].
#[derive(Debug, Clone)]
pub struct ReadInbox {
    /// Whose inbox.
    pub user: UserId,
    /// Which device's.
    pub device: DeviceId,
    /// Entries after this.
    pub after: Position,
    /// At most so many entries, at least 1.
    pub entries_max: usize,
    /// Stop once the values read exceed this; a first entry is always returned.
    pub bytes_max: usize,
}

/// See [`Command::Flush`].
#[derive(Debug, Clone)]
pub struct Flush {
    /// Whose inbox.
    pub user: UserId,
    /// Which device's.
    pub device: DeviceId,
    /// Everything up to and including this is stored on the device.
    pub upto: Position,
    /// The entries in `(from, upto]`, if the session knows them all: it stands in for the range read
    /// only if `from` is the stored acknowledgement (R18).
    pub known: Option<KnownEntries>,
}

/// A session's own list of what it delivered.
#[derive(Debug, Clone)]
pub struct KnownEntries {
    /// The list starts after this.
    pub from: Position,
    /// In order of position.
    pub entries: Vec<KnownEntry>,
}

/// What a flush has to know of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownEntry {
    /// The entry's key.
    pub cursor: Position,
    /// For a message from someone else: its chat, its place in it, and who gets the receipt.
    pub receipt: Option<(ChatId, Position, UserId)>,
    /// A gap entry lifts the suspension (R21).
    pub is_gap: bool,
    /// What it counts for in its inbox, in bytes: [`EntryBody::counted_bytes`].
    pub bytes: u32,
}

impl KnownEntry {
    /// What a flush of `reader` has to know of an entry. Receipts make no receipts, nor do one's own messages
    /// (R20), nor what names nobody.
    #[must_use]
    pub fn of(reader: UserId, cursor: Position, body: &EntryBody) -> Self {
        let receipt = match body {
            EntryBody::Message {
                chat_position,
                envelope,
            } if envelope.sender != reader.get() => {
                let place = match *chat_position {
                    Position::ZERO => cursor,
                    place => place,
                };
                let chat = ChatId::from_slice(&envelope.chat).ok();
                let sender = UserId::new(envelope.sender).ok();
                chat.zip(sender).map(|(chat, sender)| (chat, place, sender))
            }
            _ => None,
        };
        Self {
            cursor,
            receipt,
            // What expired left no entry behind, and suspends nobody.
            is_gap: matches!(body, EntryBody::Gap(GapReason::InboxLimit)),
            bytes: body.counted_bytes(),
        }
    }
}

/// See [`Command::MarkRead`].
#[derive(Debug, Clone)]
pub struct MarkRead {
    /// Who has read.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    /// Where.
    pub chat: ChatId,
    /// Up to where.
    pub position: Position,
}

/// See [`Command::CheckInbox`].
#[derive(Debug, Clone)]
pub struct CheckInbox {
    /// Whose inbox.
    pub user: UserId,
    /// Which device's.
    pub device: DeviceId,
    /// More than this suspends the device.
    pub limits: InboxLimits,
}

/// How much one device's inbox holds before the device is suspended, and what follows from that (R21). Only
/// messages count: receipts and gaps never fail on a limit, and there is at most one for each chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxLimits {
    /// Messages.
    pub entries_max: u64,
    /// Their bytes, as [`EntryBody::counted_bytes`] has them.
    pub bytes_max: u64,
}

impl InboxLimits {
    /// Where nobody has set others.
    pub const DEFAULT: Self = Self {
        entries_max: limits::INBOX_ENTRIES_MAX,
        bytes_max: limits::INBOX_BYTES_MAX,
    };

    /// What one sender may have in an inbox that is crowded.
    #[must_use]
    pub fn share(self) -> Self {
        self.part(limits::INBOX_SHARES)
    }

    /// What makes an inbox crowded, so that its senders are counted one by one.
    #[must_use]
    pub fn crowded(self) -> Self {
        self.part(limits::INBOX_CROWDED_PART)
    }

    /// Whether so much is more than that.
    #[must_use]
    pub fn is_above(self, entries: u64, bytes: u64) -> bool {
        entries > self.entries_max || bytes > self.bytes_max
    }

    fn part(self, part: u64) -> Self {
        Self {
            entries_max: self.entries_max / part,
            bytes_max: self.bytes_max / part,
        }
    }
}

/// What came of a [`Command`].
#[derive(Debug, Clone)]
pub enum Outcome {
    /// To [`Command::OpenDevice`].
    DeviceOpened(DeviceOpened),
    /// To [`Command::Send`]: one answer per item, in order, and the inboxes that grew.
    Sent {
        /// One per item.
        answers: Vec<Result<Sent, StoreError>>,
        /// Which inboxes grew.
        grown: Vec<Grown>,
    },
    /// To [`Command::ReadInbox`].
    Inbox(InboxPage),
    /// To [`Command::Flush`].
    Flushed {
        /// The stored acknowledgement after it.
        stored_ack: Position,
        /// It did a piece of the work, up to there: the rest has to be asked for again.
        more: bool,
        /// Inboxes that grew by receipts.
        grown: Vec<Grown>,
    },
    /// To [`Command::MarkRead`].
    MarkedRead {
        /// Inboxes that grew by receipts; empty if the position did not advance.
        grown: Vec<Grown>,
    },
    /// To [`Command::CheckInbox`].
    InboxChecked {
        /// Whether the device is suspended now.
        suspended: bool,
        /// The gap entry, if this call suspended it.
        grown: Vec<Grown>,
    },
}

impl Outcome {
    /// The inboxes that it says grew.
    pub fn grown_mut(&mut self) -> &mut [Grown] {
        match self {
            Self::Sent { grown, .. }
            | Self::Flushed { grown, .. }
            | Self::MarkedRead { grown }
            | Self::InboxChecked { grown, .. } => grown,
            Self::DeviceOpened(_) | Self::Inbox(_) => &mut [],
        }
    }
}

/// What is known of a device when its session opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceOpened {
    /// The store's generation (R3).
    pub generation: u32,
    /// The stored acknowledgement: reading never starts before it.
    pub stored_ack: Position,
    /// Entries up to here were removed by age before this device had them; zero if none were.
    pub expired_through: Position,
    /// The Hello's cursor was of another generation.
    pub resync: bool,
    /// The highest committed number, if asked for.
    pub highest_number: Option<u64>,
    /// How far the store had committed then, as a number that grows with its commits (R13).
    pub version: u64,
}

/// A committed send, or the first answer to a retried one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The message.
    pub message_id: MessageId,
    /// Its place in the chat.
    pub position: Position,
    /// When the server accepted it, Unix time in ms.
    pub server_time_ms: u64,
    /// This number had been committed before.
    pub repeated: bool,
}

/// A piece of an inbox, in order.
#[derive(Debug, Clone)]
pub struct InboxPage {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The inbox is known completely up to here: the last entry if there are more, else everything that
    /// was committed when it was read.
    pub through: Position,
    /// A limit ended the page.
    pub more: bool,
}

/// One entry of an inbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its cursor.
    pub cursor: Position,
    /// What it says.
    pub body: EntryBody,
}

/// The kinds of inbox entries.
#[derive(Debug, Clone, PartialEq)]
pub enum EntryBody {
    /// A message. Its chat position is `chat_position`, or the cursor if that is zero.
    Message {
        /// Zero means: the cursor.
        chat_position: Position,
        /// The message.
        envelope: Envelope,
    },
    /// Someone received or read. The update's own `cursor` field is empty in the store.
    Receipt(ReceiptUpdate),
    /// Entries were not kept.
    Gap(GapReason),
}

impl EntryBody {
    /// What it counts for in its inbox, in bytes: nothing if it is no message.
    #[must_use]
    pub fn counted_bytes(&self) -> u32 {
        match self {
            Self::Message { envelope, .. } => {
                let bytes = limits::ENTRY_BYTES + envelope.payload.len();
                u32::try_from(bytes).unwrap_or(u32::MAX)
            }
            Self::Receipt(_) | Self::Gap(_) => 0,
        }
    }
}

/// An inbox grew: a hint, never the truth (R4), unless `previous` proves that nothing lies between.
#[derive(Debug, Clone)]
pub struct Grown {
    /// Whose.
    pub user: UserId,
    /// Which device's.
    pub device: DeviceId,
    /// The entry that was appended to this inbox before this one, if the engine knows it because it
    /// alone commits: then `(previous, cursor]` holds this entry and no other.
    pub previous: Option<Position>,
    /// The new entry's cursor.
    pub cursor: Position,
    /// The entry, while it is worth carrying along.
    pub entry: Option<EntryBody>,
}

/// Why a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreError {
    /// The engine can not commit or read now: disk full, I/O error, no quorum. Retryable.
    Unavailable,
    /// Its queue is full. Retryable.
    Overloaded,
    /// Not committed, because its deadline passed first. Retryable.
    DeadlinePassed,
    /// Not tried, because a send before it failed (R16). Retryable.
    EarlierSendFailed,
    /// No such user.
    UserUnknown,
    /// No device of the recipient takes anything from this sender: each is suspended, or holds as much of it
    /// as one sender may have there (R21). Final for the number.
    RecipientFull,
    /// The sender has sent too much to this recipient. Final for the number.
    ChatBusy {
        /// When the next message is taken.
        retry_after_ms: u32,
    },
    /// A record of the chat, the recipient or the sender can not be read. Final for the number.
    RecordDamaged,
    /// The number was used for another message (R12).
    NumberReused,
    /// A newer number took the slot of this one's answer (R12).
    NumberSpent,
    /// The user has as many devices as it may.
    DeviceLimit,
    /// The device was removed; its id is never used again (R13).
    DeviceRemoved,
    /// The user was signed out after what it showed was issued.
    SignedOut,
    /// The cursor lies beyond everything committed.
    CursorInvalid,
    /// Stored bytes can not be read.
    Corrupt,
}

impl StoreError {
    /// The code that tells a client.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Unavailable => ErrorCode::StoreUnavailable,
            Self::EarlierSendFailed => ErrorCode::EarlierRefused,
            Self::Overloaded => ErrorCode::Overloaded,
            Self::DeadlinePassed => ErrorCode::DeadlinePassed,
            Self::UserUnknown => ErrorCode::UserUnknown,
            Self::RecipientFull => ErrorCode::RecipientFull,
            Self::ChatBusy { .. } => ErrorCode::ChatBusy,
            Self::RecordDamaged => ErrorCode::RecordDamaged,
            Self::NumberReused => ErrorCode::NumberReused,
            Self::NumberSpent => ErrorCode::NumberSpent,
            Self::DeviceLimit => ErrorCode::DeviceLimit,
            Self::DeviceRemoved => ErrorCode::DeviceRemoved,
            Self::SignedOut => ErrorCode::TokenExpired,
            Self::CursorInvalid => ErrorCode::CursorInvalid,
            Self::Corrupt => ErrorCode::Internal,
        }
    }

    /// Whether it is kept as a number's answer, so that no later copy of the send is executed (R12, R16).
    #[must_use]
    pub fn is_kept(self) -> bool {
        matches!(
            self,
            Self::UserUnknown | Self::RecipientFull | Self::ChatBusy { .. } | Self::RecordDamaged
        )
    }

    /// Whether the session that asked has nothing to ask any more.
    #[must_use]
    pub fn ends_session(self) -> bool {
        matches!(self, Self::DeviceRemoved | Self::SignedOut)
    }

    /// Whether the same command may succeed later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        self.code().is_retryable()
    }
}
