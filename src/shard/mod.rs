//! The shard: sessions, directory and requests to the store, put together.
//!
//! One file per matter: [`opening`] takes a connection from its first frame to its Welcome, [`sends`]
//! commits messages, [`inbox`] reads and delivers, [`acks`] flushes, [`read_marks`]
//! tells how far chats are read, [`home`] keeps the directory,
//! [`ephemeral`] passes on what is never stored, [`ending`] closes and drains, [`ends`] follows what the
//! store ends, [`rereads`] reads all inboxes again after the store failed, [`sweep`] sends all away.

mod acks;
mod counters;
mod ending;
mod ends;
mod ephemeral;
mod home;
mod inbox;
mod latency;
mod opening;
mod read_marks;
mod rereads;
mod sends;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use roadstead_proto::v1::{self, client_frame, server_frame};
use roadstead_proto::{ChatId, DeviceId, ErrorCode, Position, UserId};
use slab::Slab;

use crate::directory::{Directory, InboxWatch};
use crate::io::{CloseReason, Input, Output, SessionId};
use crate::limits;
use crate::message_id::MessageIds;
use crate::peer::{Holder, ShardMessage};
use crate::placement::{Placement, ShardId};
use crate::rate::{Rate, RateTable};
use crate::session::{Session, State};
use crate::slots::Slots;
use crate::store::{Command, Completion, InboxLimits, Outcome, Request, RequestId};
use crate::time::{Now, Time};
pub use counters::{CountByCode, Counters};
use ends::RecentEnds;
pub use latency::Latencies;
use rereads::Rereads;
use sweep::Sweep;

/// How a shard is set up.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Which of the node's shards this is.
    pub id: ShardId,
    /// The node's number, below 1,024: part of message ids.
    pub node: u16,
    /// Where users live.
    pub placement: Placement,
    /// Keys the hash tables and the jitter. Any 16 bytes that a client can not guess.
    pub hash_key: [u8; 16],
    /// What Welcome asks clients to keep to.
    pub heartbeat_interval: Duration,
    /// What Welcome tells of other nodes.
    pub node_hints: Vec<String>,
    /// See [`limits::INBOX_ENTRIES_MAX`] and [`limits::INBOX_BYTES_MAX`].
    pub inbox_limits: InboxLimits,
    /// See [`limits::SLOW_CONSUMER_AFTER`].
    pub slow_consumer_after: Duration,
    /// Sends that a user may make, or `None` for as many as the store takes. Counted by each shard for the
    /// sessions that it holds: a user's sessions are on one, unless a client goes elsewhere on purpose (T9).
    pub send_rate: Option<Rate>,
    /// Of those, what a user may send to one other user, or `None` for no less.
    pub recipient_rate: Option<Rate>,
}

impl ShardConfig {
    /// The defaults of [`limits`].
    #[must_use]
    pub fn new(id: ShardId, placement: Placement, hash_key: [u8; 16]) -> Self {
        Self {
            id,
            node: 0,
            placement,
            hash_key,
            heartbeat_interval: Duration::from_secs(120),
            node_hints: Vec::new(),
            inbox_limits: InboxLimits::DEFAULT,
            slow_consumer_after: limits::SLOW_CONSUMER_AFTER,
            send_rate: None,
            recipient_rate: None,
        }
    }

    fn inbox_check_every(&self) -> u32 {
        let part = u32::try_from(self.inbox_limits.entries_max / 64).unwrap_or(u32::MAX);
        part.clamp(1, limits::INBOX_CHECK_EVERY)
    }
}

/// Who waits for an answer of the store.
#[derive(Debug)]
enum Pending {
    OpenDevice(SessionId),
    Send {
        session: SessionId,
        numbers: Vec<(u64, ChatId)>,
        bytes: usize,
    },
    ReadInbox(SessionId),
    /// The same after the store failed, for each session in its turn.
    Reread(SessionId),
    /// The session may be gone: then only the receipts matter, and that it is done to its end.
    Flush {
        session: SessionId,
        device: (UserId, DeviceId),
        upto: Position,
    },
    /// As with a flush, the session may be gone.
    MarkRead(SessionId),
    CheckInbox,
}

/// One shard: see the [module](self) and the drive contract of the [crate](crate).
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    /// By the transport's index.
    sessions: Slots<Session>,
    directory: Directory,
    inbox_watch: InboxWatch,
    message_ids: MessageIds,
    pending: Slab<Pending>,
    sends_pending: usize,
    send_bytes_pending: usize,
    /// By user.
    send_rates: Option<RateTable<UserId>>,
    /// By sender and recipient.
    recipient_rates: Option<RateTable<(UserId, UserId)>>,
    timers: BTreeSet<(Time, SessionId)>,
    /// No timer is looked at before this: the last slice of them fired just before it.
    timers_from: Time,
    /// Under way: GoAway to every session.
    going_away: Option<Sweep>,
    rereads: Rereads,
    recent_ends: RecentEnds,
    /// Messages of this shard to itself, handled before the next input.
    to_self: VecDeque<ShardMessage>,
    outputs: VecDeque<Output>,
    draining: bool,
    counters: Counters,
}

impl Shard {
    /// An empty shard.
    #[must_use]
    pub fn new(config: ShardConfig) -> Self {
        Self {
            directory: Directory::new(config.hash_key),
            inbox_watch: InboxWatch::new(config.hash_key, config.inbox_check_every()),
            message_ids: MessageIds::new(config.node, config.id, config.placement.shards()),
            sessions: Slots::default(),
            pending: Slab::new(),
            sends_pending: 0,
            send_bytes_pending: 0,
            send_rates: config
                .send_rate
                .map(|rate| RateTable::new(rate, limits::SEND_RATES_MAX, config.hash_key)),
            recipient_rates: config
                .recipient_rate
                .map(|rate| RateTable::new(rate, limits::RECIPIENT_RATES_MAX, config.hash_key)),
            timers: BTreeSet::new(),
            timers_from: Time::ZERO,
            going_away: None,
            rereads: Rereads::new(),
            recent_ends: RecentEnds::default(),
            to_self: VecDeque::new(),
            outputs: VecDeque::new(),
            draining: false,
            counters: Counters::default(),
            config,
        }
    }

    /// Takes in something that happened. Then [`Self::poll`] until `None`.
    ///
    /// # Panics
    /// If outputs of an earlier input have not been polled, or the driver breaks the contract otherwise:
    /// a session opened twice, an answer to a request that was never made.
    pub fn handle(&mut self, now: Now, input: Input) {
        debug_assert!(
            self.outputs.is_empty(),
            "poll every output before the next input"
        );
        match input {
            Input::Opened(id) => self.handle_opened(now, id),
            Input::Frame(id, frame) => self.handle_frame(now, id, frame),
            Input::Malformed(id, error) => {
                self.refuse(now, id, error.code(), "the bytes are no frame");
            }
            Input::Paused(id) => self.handle_heard(now, id, false),
            Input::Resumed(id) => self.handle_heard(now, id, true),
            Input::Closed(id) => self.handle_closed(now, id),
            Input::Authenticated(id, result) => self.handle_authenticated(now, id, result),
            Input::Shard(_, message) => self.handle_shard_message(now, message),
            Input::Store(completion) => self.handle_completion(now, completion),
            Input::MessageIdsReserved { from_ms, until_ms } => {
                self.message_ids.reserve(from_ms, until_ms);
            }
            Input::Ended(ended) => self.handle_ended(now, ended),
            Input::StoreReopened => self.handle_store_reopened(now),
            Input::Drain => self.handle_drain(now),
        }
        self.drain_to_self(now);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let timer = self.timers.first().map(|(at, _)| self.timers_from.max(*at));
        let due = [timer, self.sweep_due(), self.rereads.due()];
        due.into_iter().flatten().min()
    }

    /// Does what is due, or a slice of it and the rest a microsecond later. Then [`Self::poll`] until
    /// `None`.
    pub fn handle_timeout(&mut self, now: Now) {
        debug_assert!(
            self.outputs.is_empty(),
            "poll every output before the next input"
        );
        self.sweep(now);
        self.reread(now);
        self.timers_from = now.at + Duration::from_micros(1);
        for _ in 0..limits::SWEEP_SLICE {
            let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now.at)
            else {
                break;
            };
            self.timers.remove(&(at, id));
            if let Some(session) = self.session_mut(id) {
                session.timer = Time::NEVER;
                self.handle_session_due(now, id);
                self.arm(now, id);
            }
        }
        self.drain_to_self(now);
    }

    /// Whether the driver should leave further sends where they are until the store has caught up (R26). Whatever
    /// else sessions say before their next send is heard: acknowledgements go ahead of sends.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.sends_pending >= limits::STORE_SENDS_CONGESTED
            || self.send_bytes_pending >= limits::STORE_SEND_BYTES_CONGESTED
    }

    /// Whether nothing is open and nothing waits for the store: a drained shard may stop.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.counters.sessions == 0 && self.pending.is_empty()
    }

    /// What has been done and is held.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            sends_pending: count(self.sends_pending),
            send_bytes_pending: count(self.send_bytes_pending),
            requests_pending: count(self.pending.len()),
            send_rates_forgotten: self.send_rates.as_ref().map_or(0, RateTable::forgotten)
                + self
                    .recipient_rates
                    .as_ref()
                    .map_or(0, RateTable::forgotten),
            users: count(self.directory.users()),
            session_bytes: count(self.sessions.bytes()),
            directory_bytes: count(self.directory.bytes()),
            ..self.counters
        }
    }

    fn handle_frame(&mut self, now: Now, id: SessionId, frame: v1::ClientFrame) {
        use client_frame::Body;
        self.counters.frames_in += 1;
        let Some(session) = self.session_mut(id) else {
            return;
        };
        match (&session.state, frame.body) {
            (State::Closing, _) => {}
            (_, None) => self.refuse(now, id, ErrorCode::FrameMalformed, "the frame has no body"),
            (State::ExpectHello, Some(Body::Hello(hello))) => self.handle_hello(now, id, hello),
            (State::Active, Some(Body::Send(send))) => self.handle_send(now, id, send),
            (State::Active, Some(Body::Ack(ack))) => self.handle_ack(now, id, &ack),
            (State::Active, Some(Body::Read(read))) => self.handle_read_mark(now, id, &read),
            (State::Active, Some(Body::Typing(typing))) => self.handle_typing(now, id, typing),
            (State::Active, Some(Body::Ping(ping))) => {
                let pong = v1::Pong { nonce: ping.nonce };
                self.send(id, server_frame::Body::Pong(pong));
            }
            (_, Some(_)) => {
                self.refuse(
                    now,
                    id,
                    ErrorCode::FrameUnexpected,
                    "not now: see the session's states",
                );
            }
        }
        self.arm(now, id);
    }

    /// The driver reads a session on, or does not for now.
    fn handle_heard(&mut self, now: Now, id: SessionId, is_heard: bool) {
        let Some(session) = self.active_mut(id) else {
            return;
        };
        if is_heard {
            session.resume(now.at);
        } else {
            session.pause(now.at);
        }
        session.settle(now.at);
        self.arm(now, id);
    }

    fn handle_completion(&mut self, now: Now, completion: Completion) {
        let key = usize::try_from(completion.id.0).expect("request ids are slab keys");
        let pending = self.pending.remove(key);
        if completion
            .outcome
            .as_ref()
            .is_err_and(|error| error.is_retryable())
        {
            self.counters.store_requests_failed += 1;
        }
        match (pending, completion.outcome) {
            (Pending::OpenDevice(id), Ok(Outcome::DeviceOpened(opened))) => {
                self.handle_device_opened(now, id, opened);
            }
            (Pending::OpenDevice(id), Err(error)) => {
                self.refuse(now, id, error.code(), "the device can not be opened");
            }
            (
                Pending::Send {
                    session,
                    numbers,
                    bytes,
                },
                outcome,
            ) => {
                let (answers, grown) = match outcome {
                    Ok(Outcome::Sent { answers, grown }) => (answers, grown),
                    Ok(other) => panic!("{other:?} does not answer a send"),
                    Err(error) => (vec![Err(error); numbers.len()], Vec::new()),
                };
                self.send_bytes_pending -= bytes;
                self.handle_sent(now, session, &numbers, answers);
                self.tell_homes(grown);
            }
            (Pending::ReadInbox(id), Ok(Outcome::Inbox(page))) => {
                self.handle_inbox_page(now, id, page);
            }
            (Pending::ReadInbox(id), Err(error)) => self.handle_read_failed(now, id, error),
            (Pending::Reread(id), Ok(Outcome::Inbox(page))) => {
                self.handle_reread(now, id, Ok(page));
            }
            (Pending::Reread(id), Err(error)) => self.handle_reread(now, id, Err(error)),
            (
                Pending::Flush {
                    session,
                    device,
                    upto,
                },
                Ok(Outcome::Flushed { grown, more, .. }),
            ) => {
                if more {
                    self.flush_on(session, device, upto);
                } else {
                    self.handle_flushed(now, session, upto);
                }
                self.tell_homes(grown);
            }
            (Pending::Flush { session, .. }, Err(error)) => {
                self.handle_flush_failed(now, session, error);
            }
            (Pending::MarkRead(id), Ok(Outcome::MarkedRead { grown })) => {
                self.handle_marked_read(now, id, Ok(()));
                self.tell_homes(grown);
            }
            (Pending::MarkRead(id), Err(error)) => self.handle_marked_read(now, id, Err(error)),
            (Pending::CheckInbox, Ok(Outcome::InboxChecked { grown, .. })) => {
                self.tell_homes(grown);
            }
            // A count that failed is only late: the next one makes up for it.
            (Pending::CheckInbox, Err(_)) => {}
            (pending, Ok(outcome)) => panic!("{outcome:?} does not answer {pending:?}"),
        }
    }

    fn drain_to_self(&mut self, now: Now) {
        while let Some(message) = self.to_self.pop_front() {
            self.handle_shard_message(now, message);
        }
    }

    fn handle_session_due(&mut self, now: Now, id: SessionId) {
        let after = self.config.slow_consumer_after;
        let Some(session) = self.session_mut(id) else {
            return;
        };
        if session.close_at <= now.at {
            return self.handle_close_due(now, id);
        }
        let slow = session
            .stalled_since()
            .is_some_and(|since| since + after <= now.at);
        if slow {
            return self.refuse(
                now,
                id,
                ErrorCode::SlowConsumer,
                "deliveries wait for an Ack",
            );
        }
        self.handle_retry_due(now, id);
        self.handle_mark_due(now, id);
        self.flush_if_due(now, id);
        if let Some(session) = self.session_mut(id) {
            session.settle(now.at);
        }
    }

    /// Puts the session into the timer queue if something is due before its entry there. An entry that
    /// comes too early costs a look; moving it at every frame would cost more.
    fn arm(&mut self, now: Now, id: SessionId) {
        let after = self.config.slow_consumer_after;
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let due = session.due(after).max(now.at + Duration::from_micros(1));
        if session.timer <= due {
            return;
        }
        let old = std::mem::replace(&mut session.timer, due);
        if old != Time::NEVER {
            self.timers.remove(&(old, id));
        }
        self.timers.insert((due, id));
    }

    fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        let session = self.sessions.get_mut(id.index)?;
        (session.generation == id.generation).then_some(session)
    }

    fn active_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.session_mut(id).filter(|session| session.is_active())
    }

    fn send(&mut self, id: SessionId, body: server_frame::Body) {
        self.counters.frames_out += 1;
        self.outputs
            .push_back(Output::Frame(id, v1::ServerFrame { body: Some(body) }));
    }

    fn ask(&mut self, command: Command, pending: Pending) {
        let key = self.pending.insert(pending);
        let id = RequestId(key as u64);
        self.outputs
            .push_back(Output::Store(Request { id, command }));
    }

    fn tell(&mut self, shard: ShardId, message: ShardMessage) {
        if shard == self.config.id {
            self.to_self.push_back(message);
        } else {
            self.outputs.push_back(Output::Shard(shard, message));
        }
    }

    fn holder(&self, session: SessionId) -> Holder {
        Holder {
            shard: self.config.id,
            session,
        }
    }

    /// Answers an offence with an Error frame and the end of the session: nobody else notices.
    fn refuse(&mut self, now: Now, id: SessionId, code: ErrorCode, message: &'static str) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        if matches!(session.state, State::Closing) {
            return;
        }
        let mut frame = code.frame(message);
        if frame.retryable {
            frame.retry_after_ms = limits::RETRY_AFTER_MS;
        }
        self.send(id, server_frame::Body::Error(frame));
        self.close(now, id, CloseReason { code, message });
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
