//! The checker: a model of its own, made from DELIVERY.md, that shares no code with core or records.
//!
//! It is told three things: what a commit did, in the order of commits and at the moment each is durable
//! ([`commits`]); what the server says and hears ([`frames`]); what clients do and store ([`clients`]).
//! From the first it knows what every inbox must hold, and so which frame every session must see next. At
//! intervals and at the end it looks at the engine's keys and the shards' counters ([`audit`]).

pub mod audit;
pub mod clients;
pub mod commits;
pub mod expiry;
pub mod frames;
pub mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use roadstead::store::{SendItem, StoreError};
use roadstead::time::Time;
use roadstead_proto::{ChatId, DeviceId, MessageId, Position, UserId};

use crate::net::ConnId;
use crate::swarm::Engine;

pub(crate) use commits::read_update;
use expiry::{Gone, Minutes};

/// A device of a user.
pub type Device = (UserId, DeviceId);

/// Devices of one user.
pub const DEVICES_MAX: usize = 4;

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which, as in DELIVERY.md.
    pub rule: &'static str,
    /// When.
    pub at: Time,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}: {}", self.rule, self.at, self.what)
    }
}

/// One entry that an inbox must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The message with this token.
    Message(u64),
    Receipt(Progress),
    Gap,
}

/// How far a user has got in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) chat: ChatId,
    pub(crate) user: UserId,
    pub(crate) delivered: Position,
    pub(crate) read: Position,
}

/// What is known of a device.
#[derive(Debug, Default, Clone)]
pub(crate) struct DeviceModel {
    pub(crate) registered: bool,
    pub(crate) removed: bool,
    /// The cursor of its gap, if it is suspended (R21).
    pub(crate) suspended: Option<Position>,
    /// What its inbox was given and nothing took back, acknowledged or not.
    pub(crate) expected: BTreeMap<Position, Expected>,
    /// Receipts that later ones took back: a page read before may still bring them.
    pub(crate) superseded: BTreeMap<Position, Progress>,
    /// What expired of that (R25).
    pub(crate) expired: BTreeMap<Position, Gone>,
    /// Where a step of the expiry job ended in its inbox.
    pub(crate) expired_ends: BTreeSet<Position>,
    /// The newest receipt per chat and user.
    pub(crate) told: BTreeMap<(ChatId, UserId), (Position, Progress)>,
    /// The stored acknowledgement.
    pub(crate) flushed: Position,
    /// Committed numbers and their tokens (R12).
    pub(crate) numbers: BTreeMap<u64, u64>,
    /// Numbers whose answer is a refusal for good (R12, R16).
    pub(crate) kept: BTreeMap<u64, Kept>,
    /// The last message of each chat that was committed, in the order in which its client made them (R16).
    pub(crate) last_token: BTreeMap<ChatId, u64>,
    /// The client has forgotten its numbers, and with them what it had sent.
    pub(crate) forgetful: bool,
    /// Its senders are counted one by one (R21): how many messages of each it was given since, and whether it was
    /// told that one has no more room.
    pub(crate) shares: Option<BTreeMap<UserId, Share>>,
    /// Whether they are is decided as of a moment ago: all are taken to be.
    pub(crate) shares_are_soft: bool,
    /// The last committed number per chat (R16).
    pub(crate) last_number: BTreeMap<ChatId, u64>,
    /// A number that failed retryably: until it is evaluated again, nothing above it commits (R16).
    pub(crate) failed: Option<u64>,
    /// Numbers refused for good.
    pub(crate) refused: BTreeSet<u64>,
    /// The furthest that the client has acknowledged, in a Hello or an Ack.
    pub(crate) acked: Position,
    /// The furthest that the client has stored, as it knows itself.
    pub(crate) cursor: Position,
    /// The furthest that it has ever stored.
    pub(crate) furthest: Position,
    /// It was told to forget its cursor: messages may come again (R3).
    pub(crate) resynced: bool,
    /// An older export took the store's place: the client may know more than the store.
    pub(crate) restored: bool,
    /// Tokens of the messages that the client has stored.
    pub(crate) stored: BTreeSet<u64>,
    /// Receipts that the client has stored.
    pub(crate) seen: BTreeMap<(ChatId, UserId), Progress>,
    /// The client's last connection.
    pub(crate) counter: u64,
}

impl DeviceModel {
    /// The token that a number has its answer for.
    pub(crate) fn answered(&self, number: u64) -> Option<u64> {
        let kept = self.kept.get(&number).map(|kept| kept.token);
        self.numbers.get(&number).copied().or(kept)
    }

    /// The highest number that has its answer, 0 if there is none.
    pub(crate) fn highest(&self) -> u64 {
        let committed = self.numbers.last_key_value().map(|(number, _)| *number);
        let kept = self.kept.last_key_value().map(|(number, _)| *number);
        committed.max(kept).unwrap_or(0)
    }

    /// Whether a number of the chat was refused like this one, for a while, below it and not known to its client
    /// (R16).
    pub(crate) fn refused_alike_before(&self, item: &SendItem, error: StoreError) -> bool {
        let code = error.code();
        let (from, to) = (item.after + 1, item.number.max(item.after + 1));
        let mut before = self.kept.range(from..to);
        code.refuses_chat_for_now()
            && before.any(|(_, kept)| kept.chat == item.chat && kept.error.code() == code)
    }

    /// Messages that wait in its inbox.
    pub(crate) fn waiting(&self) -> u64 {
        let waits = (
            std::ops::Bound::Excluded(self.flushed),
            std::ops::Bound::Unbounded,
        );
        let messages = self.expected.range(waits);
        messages
            .filter(|(_, expected)| matches!(expected, Expected::Message(_)))
            .count() as u64
    }

    /// Messages of these senders have left its inbox.
    pub(crate) fn left(&mut self, senders: impl IntoIterator<Item = UserId>) {
        let Some(shares) = &mut self.shares else {
            return;
        };
        for sender in senders {
            if let Some(share) = shares.get_mut(&sender) {
                share.messages = share.messages.saturating_sub(1);
                share.told = false;
            }
        }
        shares.retain(|_, share| share.messages > 0);
        if self.waiting() == 0 && !self.shares_are_soft {
            self.shares = None;
        }
    }
}

/// A refusal that is a number's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) token: u64,
    pub(crate) chat: ChatId,
    pub(crate) error: StoreError,
}

/// What one sender has in a crowded inbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) messages: u64,
    pub(crate) told: bool,
}

/// What is known of a message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) sender: Device,
    pub(crate) chat: ChatId,
    pub(crate) recipient: UserId,
    pub(crate) bytes: usize,
    /// A number used twice, on purpose: must never be committed.
    pub(crate) forbidden: bool,
    pub(crate) committed: Option<Committed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) number: u64,
    pub(crate) position: Position,
    pub(crate) message_id: MessageId,
    pub(crate) server_time_ms: u64,
}

/// What is known of a connection.
#[derive(Debug)]
pub(crate) struct ConnModel {
    pub(crate) device: Device,
    pub(crate) counter: u64,
    pub(crate) welcomed: bool,
    /// The cursor of its Hello.
    pub(crate) hello: Position,
    /// The last entry that the server sent on it, or where its Hello began.
    pub(crate) last: Position,
    /// Sent by the server and not acknowledged to it.
    pub(crate) unacked: std::collections::VecDeque<Position>,
    /// The client broke the protocol on it, on purpose.
    pub(crate) rude: bool,
    /// Up to where something had expired that the device did not have, as of its Hello: the first that it is told of
    /// after the Welcome is a Gap up to there, or further (R25).
    pub(crate) owed_gap: Option<Position>,
    /// Receipts sent on it.
    pub(crate) receipts: BTreeMap<(ChatId, UserId), Progress>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Checker {
    now: Time,
    /// Messages of an inbox before its device is suspended (R21).
    inbox_max: u64,
    /// Whether transactions meet others, so that what a sender has in an inbox is known as of a moment ago.
    shares_are_soft: bool,
    /// How often the store was imported, which is also its generation but for the first.
    imports: u32,
    violations: Vec<Violation>,
    devices: BTreeMap<Device, DeviceModel>,
    users: BTreeMap<UserId, BTreeSet<DeviceId>>,
    messages: BTreeMap<u64, Message>,
    message_ids: BTreeSet<MessageId>,
    progress: BTreeMap<(ChatId, UserId), Progress>,
    conns: BTreeMap<ConnId, ConnModel>,
    minutes: Minutes,
    /// The furthest position that any commit has given.
    last_position: Position,
    /// Messages committed.
    pub committed: u64,
    /// Entries sent to clients.
    pub delivered: u64,
    /// Receipts committed.
    pub receipts: u64,
}

impl Checker {
    /// Of a deployment in which an inbox may hold so many messages, on such an engine.
    #[must_use]
    pub fn new(inbox_max: u64, engine: Engine) -> Self {
        Self {
            inbox_max,
            shares_are_soft: engine == Engine::Many,
            ..Self::default()
        }
    }

    /// A client forgets which numbers it has used.
    pub fn forgets(&mut self, device: Device) {
        self.device(device).forgetful = true;
    }

    /// What happens from now on happens at this time.
    pub fn set_now(&mut self, now: Time) {
        self.now = now;
    }

    /// The store was imported: a cursor of before acknowledges nothing that it has not acknowledged yet (R3).
    pub fn imported(&mut self, generation: u32) {
        self.imports += 1;
        let counted = self.generation();
        self.require(generation == counted, "R3", || {
            format!("generation {generation} after {counted}")
        });
        for model in self.devices.values_mut() {
            model.acked = model.flushed;
        }
        self.minutes.import();
    }

    /// The store's generation.
    pub(crate) fn generation(&self) -> u32 {
        self.imports + 1
    }

    /// What was broken so far.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Takes what was broken.
    #[must_use]
    pub fn into_violations(self) -> Vec<Violation> {
        self.violations
    }

    pub(crate) fn broken(&mut self, rule: &'static str, what: String) {
        if self.violations.len() < 20 {
            self.violations.push(Violation {
                rule,
                at: self.now,
                what,
            });
        }
    }

    pub(crate) fn require(
        &mut self,
        holds: bool,
        rule: &'static str,
        what: impl FnOnce() -> String,
    ) {
        if !holds {
            self.broken(rule, what());
        }
    }

    pub(crate) fn device(&mut self, device: Device) -> &mut DeviceModel {
        self.devices.entry(device).or_default()
    }

    /// The registered devices of a user.
    pub(crate) fn devices_of(&self, user: UserId) -> Vec<Device> {
        let ids = self.users.get(&user).into_iter().flatten();
        ids.map(|id| (user, *id)).collect()
    }

    /// Those of them that get entries.
    pub(crate) fn receiving(&self, user: UserId) -> Vec<Device> {
        let mut devices = self.devices_of(user);
        devices.retain(|device| self.devices[device].suspended.is_none());
        devices
    }

    /// Every commit gives positions above all that were given before (R1, R9).
    pub(crate) fn check_position(&mut self, position: Position) {
        let last = self.last_position;
        self.require(position > last, "R9", || {
            format!("position {position:?} was given after {last:?}")
        });
        self.last_position = last.max(position);
    }
}
