//! Shards, the records below them, and everything that waits between.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use roadstead::store::{Command, Completion, Grown, Outcome, Request, Sends, StoreError};
use roadstead::{
    Credential, Ended, Identity, Input, Now, Output, Placement, Proof, SessionId, Shard,
    ShardConfig, ShardId, ShardMessage, Time,
};
use roadstead_proto::v1::{self, ClientFrame, client_frame::Body as Up};
use roadstead_proto::{DeviceId, ErrorCode, FrameError, Position, UserId, decode_frame};
use roadstead_store::keys::Keys;
use roadstead_store::memory::MemoryEngine;
use roadstead_store::records::{Knowledge, RecordError, Scope, command, resolve};
use roadstead_store::txn::{STAMP_INCOMPLETE, Txn, ready};

use super::check::{Check, Conn};

const SHARDS: u16 = 2;
const KEY: [u8; 16] = [7; 16];

/// Connections that are open at once.
const CONNS_MAX: usize = 8;

const ERRORS: [StoreError; 6] = [
    StoreError::Unavailable,
    StoreError::Overloaded,
    StoreError::DeadlinePassed,
    StoreError::Corrupt,
    StoreError::CursorInvalid,
    StoreError::DeviceRemoved,
];

/// Something that will happen.
#[derive(Debug)]
enum Due {
    Request(usize, Request),
    Answer(usize, Completion),
    Message(usize, usize, ShardMessage),
    Authenticated(usize, SessionId, Result<Identity, ErrorCode>),
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct World {
    shards: Vec<Shard>,
    engine: MemoryEngine,
    keys: Keys,
    sole: bool,
    appended: BTreeMap<(UserId, DeviceId), Position>,
    due: Vec<Due>,
    conns: Vec<Conn>,
    /// How often each slot of each shard was used, and whether it is.
    slots: Vec<Vec<(u32, bool)>>,
    now: Now,
    check: Check,
}

impl World {
    pub(super) fn new(sole: bool, inbox_entries_max: u64) -> Self {
        let placement = Placement::new(KEY, SHARDS);
        let shard = |id: u16| {
            let mut config = ShardConfig::new(ShardId(id), placement, [3; 16]);
            config.inbox_limits.entries_max = inbox_entries_max;
            Shard::new(config)
        };
        let mut world = Self {
            shards: (0..SHARDS).map(shard).collect(),
            engine: MemoryEngine::new(),
            keys: Keys::new(KEY),
            sole,
            appended: BTreeMap::new(),
            due: Vec::new(),
            conns: Vec::new(),
            slots: vec![Vec::new(); usize::from(SHARDS)],
            now: Now {
                at: Time::from_micros(1),
                unix_ms: 1_800_000_000_000,
            },
            check: Check::default(),
        };
        for shard in 0..world.shards.len() {
            let ids = Input::MessageIdsReserved {
                from_ms: 0,
                until_ms: 1 << 40,
            };
            world.input(shard, ids);
        }
        world
    }

    // What clients do.

    pub(super) fn open(&mut self, shard: u8) {
        if self.conns.len() >= CONNS_MAX {
            return;
        }
        let shard = usize::from(shard) % self.shards.len();
        let slots = &mut self.slots[shard];
        let index = slots.iter().position(|slot| !slot.1).unwrap_or_else(|| {
            slots.push((0, false));
            slots.len() - 1
        });
        slots[index] = (slots[index].0 + 1, true);
        let session = SessionId {
            index: u32::try_from(index).expect("few"),
            generation: slots[index].0,
        };
        self.conns.push(Conn::new(shard, session));
        self.input(shard, Input::Opened(session));
    }

    fn conn(&self, conn: u8) -> Option<&Conn> {
        self.conns.get(usize::from(conn) % self.conns.len().max(1))
    }

    fn at(&self, conn: u8) -> Option<(usize, SessionId)> {
        self.conn(conn).map(|conn| (conn.shard, conn.session))
    }

    /// Who a connection has said hello for.
    pub(super) fn user(&self, conn: u8) -> Option<UserId> {
        Some(self.conn(conn)?.device?.0)
    }

    /// A cursor that the server gave a connection.
    pub(super) fn cursor(&self, conn: u8, back: usize) -> Option<Position> {
        self.conn(conn)?.given.iter().rev().nth(back).copied()
    }

    pub(super) fn frame(&mut self, conn: u8, body: Up) {
        let frame = ClientFrame { body: Some(body) };
        self.say(conn, frame);
    }

    fn say(&mut self, conn: u8, frame: ClientFrame) {
        if let Some((shard, session)) = self.at(conn) {
            self.find(shard, session).said(&frame);
            self.input(shard, Input::Frame(session, frame));
        }
    }

    /// As the worker does it: what does not decode is reported, and the stream is of no more use.
    pub(super) fn raw(&mut self, conn: u8, frame: Bytes) {
        let Some((shard, session)) = self.at(conn) else {
            return;
        };
        match decode_frame::<ClientFrame>(frame) {
            Ok(frame) => self.say(conn, frame),
            Err(error) => {
                assert!(matches!(error, FrameError::Malformed(_)));
                self.input(shard, Input::Malformed(session, error));
            }
        }
    }

    pub(super) fn close(&mut self, conn: u8) {
        if self.conns.is_empty() {
            return;
        }
        let conn = self.conns.remove(usize::from(conn) % self.conns.len());
        let slot = usize::try_from(conn.session.index).expect("few");
        self.slots[conn.shard][slot].1 = false;
        self.input(conn.shard, Input::Closed(conn.session));
    }

    // What the world does.

    pub(super) fn happen(&mut self, nth: usize) {
        if self.due.is_empty() {
            return;
        }
        let due = self.take(nth % self.due.len());
        match due {
            Due::Request(shard, request) => {
                let outcome = self.carry_out(&request.command);
                let id = request.id;
                self.due
                    .push(Due::Answer(shard, Completion { id, outcome }));
            }
            Due::Answer(shard, completion) => self.input(shard, Input::Store(completion)),
            Due::Message(from, to, message) => {
                let from = ShardId(u16::try_from(from).expect("few"));
                self.input(to, Input::Shard(from, message));
            }
            Due::Authenticated(shard, session, result) => {
                // The worker drops the answer for a connection that is gone; a stale one finds nothing.
                self.input(shard, Input::Authenticated(session, result));
            }
        }
    }

    /// Queues between two shards keep their order: the oldest message of the pair goes.
    fn take(&mut self, nth: usize) -> Due {
        let pair = |due: &Due| match due {
            Due::Message(from, to, _) => Some((*from, *to)),
            _ => None,
        };
        let wanted = pair(&self.due[nth]);
        let oldest = self.due.iter().position(|due| pair(due) == wanted);
        let nth = if wanted.is_some() {
            oldest.unwrap_or(nth)
        } else {
            nth
        };
        self.due.remove(nth)
    }

    pub(super) fn refuse(&mut self, nth: usize, error: u8) {
        let requests = self.due.iter().enumerate();
        let mut requests = requests.filter(|(_, due)| matches!(due, Due::Request(..)));
        let Some((at, _)) = requests.nth(nth % 4) else {
            return;
        };
        if let Due::Request(shard, request) = self.due.remove(at) {
            let completion = Completion {
                id: request.id,
                outcome: Err(ERRORS[usize::from(error) % ERRORS.len()]),
            };
            self.due.push(Due::Answer(shard, completion));
        }
    }

    pub(super) fn lose(&mut self, nth: usize) {
        let answers = self.due.iter_mut().filter_map(|due| match due {
            Due::Answer(_, completion) => Some(completion),
            _ => None,
        });
        if let Some(completion) = answers.into_iter().nth(nth % 4) {
            completion.outcome = Err(StoreError::Unavailable);
        }
    }

    pub(super) fn advance(&mut self, ms: u64) {
        let end = self.now.at + Duration::from_millis(ms);
        loop {
            let timeouts = self.shards.iter().map(Shard::poll_timeout);
            let next = timeouts
                .enumerate()
                .filter_map(|(n, at)| Some((at?, n)))
                .min();
            let Some((at, shard)) = next.filter(|(at, _)| *at <= end) else {
                break;
            };
            self.set_time(at);
            self.shards[shard].handle_timeout(self.now);
            self.poll(shard);
            let later = self.shards[shard].poll_timeout();
            assert!(later.is_none_or(|later| later > at), "a timer is done with");
        }
        self.set_time(end);
    }

    fn set_time(&mut self, at: Time) {
        let at = at.max(self.now.at);
        let passed = at.since(self.now.at).as_millis();
        self.now = Now {
            at,
            unix_ms: self.now.unix_ms + u64::try_from(passed).expect("short"),
        };
    }

    /// Words of the store and of the driver, by the two highest bits.
    pub(super) fn reopened(&mut self, what: u8) {
        let shard = usize::from(what) % self.shards.len();
        let named = self
            .conns
            .get(usize::from(what & 7))
            .map(|conn| (conn.shard, conn.session, conn.device));
        match (what >> 6, named) {
            (1, Some((shard, session, _))) => self.input(shard, Input::Paused(session)),
            (2, Some((shard, session, _))) => self.input(shard, Input::Resumed(session)),
            (3, Some((_, _, Some((user, device))))) => {
                let ended = match what & 8 {
                    0 => Ended::Device(user, device),
                    _ => Ended::Logins {
                        user,
                        valid_after_s: u64::from(what & 16),
                    },
                };
                self.input(shard, Input::Ended(ended));
            }
            _ => self.input(shard, Input::StoreReopened),
        }
    }

    pub(super) fn drain(&mut self, shard: u8) {
        let shard = usize::from(shard) % self.shards.len();
        self.input(shard, Input::Drain);
    }

    fn input(&mut self, shard: usize, input: Input) {
        self.shards[shard].handle(self.now, input);
        self.poll(shard);
    }

    fn poll(&mut self, shard: usize) {
        while let Some(output) = self.shards[shard].poll() {
            match output {
                Output::Frame(session, frame) => self.heard(shard, session, frame),
                Output::Authenticate {
                    session,
                    credential,
                    device,
                    ..
                } => {
                    let result = authenticate(&credential);
                    if let Ok(identity) = &result {
                        self.find(shard, session).device = Some((identity.user, device));
                    }
                    self.due.push(Due::Authenticated(shard, session, result));
                }
                Output::Close(session, _) => self.find(shard, session).end(),
                Output::Shard(to, message) => {
                    let to = usize::from(to.0);
                    assert_ne!(to, shard, "a shard tells itself without a queue");
                    self.due.push(Due::Message(shard, to, message));
                }
                Output::Store(request) => {
                    self.check.asked(&request.command);
                    self.due.push(Due::Request(shard, request));
                }
            }
        }
    }

    fn heard(&mut self, shard: usize, session: SessionId, frame: v1::ServerFrame) {
        let conn = self
            .conns
            .iter_mut()
            .find(|conn| (conn.shard, conn.session) == (shard, session))
            .expect("frames go to connections that are open");
        self.check.heard(conn, frame);
    }

    fn find(&mut self, shard: usize, session: SessionId) -> &mut Conn {
        let is_it = |conn: &&mut Conn| (conn.shard, conn.session) == (shard, session);
        let conn = self.conns.iter_mut().find(is_it);
        conn.expect("outputs name connections that are open")
    }

    fn carry_out(&mut self, command: &Command) -> Result<Outcome, StoreError> {
        let Command::Send(sends) = command else {
            return self.transact(command);
        };
        // One transaction each, which the port permits.
        let (mut answers, mut grown) = (Vec::new(), Vec::new());
        let mut failed = false;
        for item in &sends.items {
            let one = Command::Send(Sends {
                items: vec![item.clone()],
                ..*sends
            });
            let mut answer = Err(StoreError::EarlierSendFailed);
            if !failed && let Outcome::Sent { answers, grown: of } = self.transact(&one)? {
                answer = answers[0];
                grown.extend(of);
            }
            failed |= answer.is_err_and(StoreError::is_retryable);
            answers.push(answer);
        }
        Ok(Outcome::Sent { answers, grown })
    }

    fn transact(&mut self, command: &Command) -> Result<Outcome, StoreError> {
        let mut txn = self.engine.begin();
        let mut scope = Scope {
            keys: &self.keys,
            generation: 1,
            stamp: STAMP_INCOMPLETE,
            committed: Position::end_of(1, self.engine.last_stamp()),
            next_index: 0,
            knowledge: &mut Knowledge::of_one_among_many(8),
        };
        let done = ready(command::run(&mut scope, &mut txn, command));
        let mut outcome = match done {
            Ok(done) => done.outcome,
            Err(RecordError::Refused(error)) => return Err(error),
            Err(RecordError::Txn(error)) => panic!("{error} for {command:?}"),
        };
        let stamp = ready(txn.commit()).expect("nobody else commits");
        resolve(&mut outcome, stamp);
        for grown in growth(&mut outcome) {
            let device = (grown.user, grown.device);
            let previous = self.appended.insert(device, grown.cursor);
            grown.previous = previous.filter(|_| self.sole);
        }
        self.check.committed(command, &outcome);
        Ok(outcome)
    }

    // What must hold.

    pub(super) fn check(&self) {
        for shard in &self.shards {
            let counters = shard.counters();
            // Each session has at most one request of each kind under way, and may have left a flush and
            // a read mark of each predecessor; all of them are here.
            let asked = self
                .due
                .iter()
                .filter(|due| matches!(due, Due::Request(..) | Due::Answer(..)));
            assert!(counters.requests_pending <= asked.count() as u64);
            assert!(counters.sessions <= CONNS_MAX as u64);
        }
    }

    /// The store is well, everybody leaves, and nothing is left.
    pub(super) fn settle(&mut self) {
        for _ in 0..64 {
            self.pump();
            self.advance(500);
        }
        while !self.conns.is_empty() {
            self.close(0);
        }
        for _ in 0..8 {
            self.pump();
            self.advance(10_000);
        }
        assert!(self.due.is_empty(), "{:?}", self.due);
        for shard in &self.shards {
            let counters = shard.counters();
            assert!(shard.is_idle(), "{counters:?}");
            assert_eq!((counters.sends_pending, counters.users), (0, 0));
            assert_eq!(counters.sessions_active, 0);
            assert_eq!(shard.poll_timeout(), None, "a quiet shard has no timers");
        }
    }

    fn pump(&mut self) {
        for _ in 0..10_000 {
            if self.due.is_empty() {
                return;
            }
            self.happen(0);
        }
        panic!("the shards keep each other busy: {:?}", self.due);
    }
}

fn growth(outcome: &mut Outcome) -> &mut [Grown] {
    match outcome {
        Outcome::Sent { grown, .. }
        | Outcome::Flushed { grown, .. }
        | Outcome::MarkedRead { grown }
        | Outcome::InboxChecked { grown, .. } => grown,
        Outcome::DeviceOpened(_) | Outcome::Inbox(_) => &mut [],
    }
}

fn authenticate(credential: &Credential) -> Result<Identity, ErrorCode> {
    let (user, proof) = match credential {
        Credential::Token(token) => (token.parse().ok(), Proof::Signed),
        Credential::Resume(token) => {
            let user = token.first().map(|user| u64::from(*user));
            let counter = token.get(1).map(|counter| u64::from(*counter));
            (user, Proof::Resumed { counter })
        }
    };
    let user = user.and_then(|user| UserId::new(user).ok());
    Ok(Identity {
        user: user.ok_or(ErrorCode::TokenInvalid)?,
        resume_token: Bytes::from_static(b"again"),
        issued_s: 0,
        proof,
    })
}
