//! A node of several shards on one thread, its store, and the connections of its clients.
//!
//! Everything that is under way between them lies in queues that a test can hold back, reorder or fail.
//! What must always be true is asserted at every step: see [`World::poll`] and [`Conn::check`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher;
use std::time::Duration;

use roadstead_proto::v1::{self, client_frame::Body as Up, server_frame::Body as Down};
use roadstead_proto::{ChatId, ErrorCode, Position};
use siphasher::sip::SipHasher13;

use super::fake_store::{Device, FakeStore};
use super::frames::{ack, authenticate, cursor_of, hello, send, send_after, shard_id, text_of};
use crate::io::{Identity, Input, Output, SessionId};
use crate::peer::ShardMessage;
use crate::placement::{Placement, ShardId};
use crate::session::Session;
use crate::store::{Command, Completion, Outcome, Request, StoreError};
use crate::time::{Now, Time};
use crate::{CloseReason, Shard, ShardConfig};

/// Unix time at the origin of the clock.
pub(super) const UNIX_MS: u64 = 1_800_000_000_000;

/// When every signed token of these tests was issued.
pub(super) const ISSUED_S: u64 = UNIX_MS / 1_000;

/// Kinds of requests, to hold some of them back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Open,
    Send,
    Read,
    Flush,
    Mark,
    Check,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::Open,
        Self::Send,
        Self::Read,
        Self::Flush,
        Self::Mark,
        Self::Check,
    ];

    pub(super) fn of(command: &Command) -> Self {
        match command {
            Command::OpenDevice(_) => Self::Open,
            Command::Send(_) => Self::Send,
            Command::ReadInbox(_) => Self::Read,
            Command::Flush(_) => Self::Flush,
            Command::MarkRead(_) => Self::Mark,
            Command::CheckInbox(_) => Self::Check,
        }
    }
}

/// A request that waits for the store.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) shard: ShardId,
    pub(super) request: Request,
}

/// An answer on its way back.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) shard: ShardId,
    pub(super) completion: Completion,
}

/// A message between shards that is under way.
#[derive(Debug)]
pub(super) struct Passing {
    pub(super) from: ShardId,
    pub(super) to: ShardId,
    pub(super) message: ShardMessage,
}

/// The client's end of a connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) shard: ShardId,
    pub(super) session: SessionId,
    /// Frames that have come and have not been looked at.
    pub(super) frames: VecDeque<Down>,
    /// The server closed it.
    pub(super) closed: Option<CloseReason>,
    /// Neither side has ended it for good.
    pub(super) open: bool,
    welcome: Option<v1::Welcome>,
    last_cursor: Option<Position>,
}

impl Conn {
    /// What holds of every frame of every session.
    fn check(&mut self, frame: &Down) {
        assert_eq!(self.closed, None, "nothing follows a close: {frame:?}");
        match frame {
            Down::Welcome(welcome) => {
                assert!(self.welcome.is_none(), "one Welcome for each session");
                self.welcome = Some(welcome.clone());
            }
            Down::Error(_) => {}
            _ => assert!(self.welcome.is_some(), "first the Welcome: {frame:?}"),
        }
        if let Some(cursor) = cursor_of(frame) {
            let last = self.last_cursor.replace(cursor);
            assert!(last < Some(cursor), "R4: {cursor:?} after {last:?}");
        }
    }
}

/// Names a connection of a [`World`].
pub(super) type ConnId = usize;

#[derive(Debug)]
pub(super) struct World {
    pub(super) shards: Vec<Shard>,
    pub(super) store: FakeStore,
    pub(super) now: Now,
    pub(super) conns: Vec<Conn>,
    pub(super) placement: Placement,
    /// Kinds of requests that [`World::pump`] leaves alone.
    pub(super) held: BTreeSet<Kind>,
    /// Whether [`World::pump`] leaves messages between shards alone.
    pub(super) hold_messages: bool,
    pub(super) asked: VecDeque<Asked>,
    pub(super) passing: VecDeque<Passing>,
    /// Requests ever made, by kind.
    pub(super) made: BTreeMap<Kind, u64>,
    authenticated: VecDeque<(ShardId, SessionId, Result<Identity, ErrorCode>)>,
    by_session: BTreeMap<(ShardId, SessionId), ConnId>,
    /// How often each transport slot was used, and whether it is in use.
    slots: BTreeMap<(ShardId, u32), (u32, bool)>,
    connect_counters: BTreeMap<Device, u64>,
    trace: SipHasher13,
}

impl World {
    pub(super) fn new(shards: u16) -> Self {
        Self::with(shards, |_| {})
    }

    pub(super) fn with(shards: u16, adjust: impl Fn(&mut ShardConfig)) -> Self {
        let placement = Placement::new([5; 16], shards);
        let shards = (0..shards).map(|id| {
            let mut config = ShardConfig::new(ShardId(id), placement, [9; 16]);
            adjust(&mut config);
            Shard::new(config)
        });
        let mut world = Self {
            shards: shards.collect(),
            store: FakeStore::new(1),
            now: Now {
                at: Time::from_micros(1_000_000),
                unix_ms: UNIX_MS,
            },
            conns: Vec::new(),
            placement,
            held: BTreeSet::new(),
            hold_messages: false,
            asked: VecDeque::new(),
            passing: VecDeque::new(),
            made: BTreeMap::new(),
            authenticated: VecDeque::new(),
            by_session: BTreeMap::new(),
            slots: BTreeMap::new(),
            connect_counters: BTreeMap::new(),
            trace: SipHasher13::new_with_key(&[0; 16]),
        };
        for shard in 0..world.shards.len() {
            let input = Input::MessageIdsReserved {
                from_ms: 0,
                until_ms: 1 << 40,
            };
            world.input(shard_id(shard), input);
        }
        world
    }

    /// A hash of every output so far.
    pub(super) fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    // What a driver does.

    pub(super) fn input(&mut self, shard: ShardId, input: Input) {
        let index = usize::from(shard.0);
        self.shards[index].handle(self.now, input);
        self.poll(shard);
    }

    fn poll(&mut self, shard: ShardId) {
        while let Some(output) = self.shards[usize::from(shard.0)].poll() {
            self.trace
                .write(format!("{:?} {shard:?} {output:?}", self.now.at).as_bytes());
            self.carry_out(shard, output);
        }
        let due = self.shards[usize::from(shard.0)].poll_timeout();
        assert!(due.is_none_or(|at| at > self.now.at), "a timer in the past");
        // The drive contract: a shard is drained before its next input.
        while let Some((shard, session, result)) = self.authenticated.pop_front() {
            self.input(shard, Input::Authenticated(session, result));
        }
    }

    fn carry_out(&mut self, shard: ShardId, output: Output) {
        match output {
            Output::Frame(session, frame) => {
                let conn = &mut self.conns[self.by_session[&(shard, session)]];
                let body = frame.body.expect("a frame has a body");
                if conn.open {
                    conn.check(&body);
                    conn.frames.push_back(body);
                }
            }
            Output::Close(session, reason) => {
                let conn = &mut self.conns[self.by_session[&(shard, session)]];
                let before = conn.closed.replace(reason);
                assert_eq!(before, None, "a session is closed once");
            }
            Output::Authenticate {
                session,
                credential,
                connect_counter,
                ..
            } => {
                let result = authenticate(&credential, connect_counter);
                self.authenticated.push_back((shard, session, result));
            }
            Output::Shard(to, message) => {
                assert_ne!(to, shard, "never to itself");
                self.passing.push_back(Passing {
                    from: shard,
                    to,
                    message,
                });
            }
            Output::Store(request) => {
                *self.made.entry(Kind::of(&request.command)).or_default() += 1;
                self.asked.push_back(Asked { shard, request });
            }
        }
    }

    /// Carries everything through that is not held back.
    pub(super) fn pump(&mut self) {
        loop {
            if !self.hold_messages && !self.passing.is_empty() {
                self.pass(0);
            } else if let Some(asked) = self.take_where(|_, kind, held| !held.contains(&kind)) {
                let answered = self.execute(asked);
                self.answer(answered);
            } else {
                return;
            }
        }
    }

    /// Delivers a message between shards.
    pub(super) fn pass(&mut self, index: usize) {
        let passing = self.passing.remove(index).expect("it is under way");
        self.input(passing.to, Input::Shard(passing.from, passing.message));
    }

    fn take_where(
        &mut self,
        wanted: impl Fn(&Asked, Kind, &BTreeSet<Kind>) -> bool,
    ) -> Option<Asked> {
        let held = &self.held;
        let index = self
            .asked
            .iter()
            .position(|asked| wanted(asked, Kind::of(&asked.request.command), held))?;
        self.asked.remove(index)
    }

    /// Takes the oldest request of a kind that waits.
    pub(super) fn take(&mut self, kind: Kind) -> Asked {
        let asked = self.take_where(|_, other, _| other == kind);
        asked.unwrap_or_else(|| panic!("no {kind:?} waits"))
    }

    pub(super) fn waiting(&self, kind: Kind) -> usize {
        let is_kind = |asked: &&Asked| Kind::of(&asked.request.command) == kind;
        self.asked.iter().filter(is_kind).count()
    }

    pub(super) fn execute(&mut self, asked: Asked) -> Answered {
        let outcome = self.store.execute(self.now.at, &asked.request.command);
        Answered {
            shard: asked.shard,
            completion: Completion {
                id: asked.request.id,
                outcome,
            },
        }
    }

    pub(super) fn answer(&mut self, answered: Answered) {
        self.input(answered.shard, Input::Store(answered.completion));
    }

    /// Executes and answers the oldest request of a kind, then everything that follows.
    pub(super) fn complete(&mut self, kind: Kind) {
        let asked = self.take(kind);
        let answered = self.execute(asked);
        self.answer(answered);
        self.pump();
    }

    /// Fails the oldest request of a kind without executing it.
    pub(super) fn fail(&mut self, kind: Kind, error: StoreError) {
        let asked = self.take(kind);
        self.refuse(asked, error);
        self.pump();
    }

    /// Executes the oldest request of a kind and says that it is unavailable (R15). What grew is lost too.
    pub(super) fn lose_answer(&mut self, kind: Kind) {
        let asked = self.take(kind);
        let mut answered = self.execute(asked);
        answered.completion.outcome = Err(StoreError::Unavailable);
        self.answer(answered);
        self.pump();
    }

    pub(super) fn refuse(&mut self, asked: Asked, error: StoreError) {
        self.answer(Answered {
            shard: asked.shard,
            completion: Completion {
                id: asked.request.id,
                outcome: Err::<Outcome, _>(error),
            },
        });
    }

    pub(super) fn release(&mut self) {
        self.held.clear();
        self.hold_messages = false;
        self.pump();
    }

    /// Lets time pass: every timer fires at its moment.
    pub(super) fn advance(&mut self, by: Duration) {
        self.pump();
        let end = self.now.at + by;
        let sessions = u64::try_from(self.by_session.len()).expect("few");
        let mut firings =
            100 + sessions * (10 + u64::try_from(by.as_millis() / 100).expect("short"));
        while let Some(at) = self.next_timeout().filter(|at| *at <= end) {
            firings = firings.checked_sub(1).expect("timers spin");
            self.set_time(at);
            self.fire();
            self.pump();
        }
        self.set_time(end);
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.shards.iter().filter_map(Shard::poll_timeout).min()
    }

    pub(super) fn set_time(&mut self, at: Time) {
        assert!(at >= self.now.at, "time goes forward");
        self.now = Now {
            at,
            unix_ms: UNIX_MS + at.as_micros() / 1_000,
        };
    }

    /// Fires what is due.
    pub(super) fn fire(&mut self) {
        for index in 0..self.shards.len() {
            if self.shards[index]
                .poll_timeout()
                .is_some_and(|at| at <= self.now.at)
            {
                self.shards[index].handle_timeout(self.now);
                self.poll(shard_id(index));
            }
        }
    }

    // What clients do.

    pub(super) fn open(&mut self, shard: ShardId) -> ConnId {
        let index = (0..).find(|index| {
            let slot = self.slots.get(&(shard, *index));
            slot.is_none_or(|(_, used)| !used)
        });
        let index = index.expect("slots do not end");
        let slot = self.slots.entry((shard, index)).or_insert((0, false));
        *slot = (slot.0 + 1, true);
        let session = SessionId {
            index,
            generation: slot.0,
        };
        self.conns.push(Conn {
            shard,
            session,
            frames: VecDeque::new(),
            closed: None,
            open: true,
            welcome: None,
            last_cursor: None,
        });
        let id = self.conns.len() - 1;
        self.by_session.insert((shard, session), id);
        self.input(shard, Input::Opened(session));
        id
    }

    pub(super) fn frame(&mut self, conn: ConnId, body: Up) {
        let (shard, session) = (self.conns[conn].shard, self.conns[conn].session);
        let frame = v1::ClientFrame { body: Some(body) };
        self.input(shard, Input::Frame(session, frame));
    }

    /// Ends a connection from the client's side, or takes note that the server did.
    pub(super) fn disconnect(&mut self, conn: ConnId) {
        let (shard, session) = (self.conns[conn].shard, self.conns[conn].session);
        assert!(
            std::mem::replace(&mut self.conns[conn].open, false),
            "it was open"
        );
        self.slots
            .get_mut(&(shard, session.index))
            .expect("in use")
            .1 = false;
        self.input(shard, Input::Closed(session));
    }

    pub(super) fn next_counter(&mut self, device: Device) -> u64 {
        let counter = self.connect_counters.entry(device).or_default();
        *counter += 1;
        *counter
    }

    /// Opens a connection on a shard and sends a Hello; does not pump.
    pub(super) fn greet(&mut self, shard: ShardId, device: Device, cursor: Position) -> ConnId {
        let counter = self.next_counter(device);
        let conn = self.open(shard);
        self.frame(conn, hello(device, counter, cursor));
        conn
    }

    /// Connects a device to its home, all the way to the Welcome.
    pub(super) fn connect(&mut self, device: Device) -> ConnId {
        self.connect_from(device, Position::ZERO)
    }

    pub(super) fn connect_from(&mut self, device: Device, cursor: Position) -> ConnId {
        self.connect_on(self.placement.home(device.0), device, cursor)
    }

    pub(super) fn connect_on(
        &mut self,
        shard: ShardId,
        device: Device,
        cursor: Position,
    ) -> ConnId {
        let conn = self.greet(shard, device, cursor);
        self.pump();
        let first = self.conns[conn].frames.pop_front();
        assert!(matches!(first, Some(Down::Welcome(_))), "{first:?}");
        conn
    }

    pub(super) fn welcome(&self, conn: ConnId) -> &v1::Welcome {
        self.conns[conn].welcome.as_ref().expect("welcome")
    }

    pub(super) fn send(&mut self, conn: ConnId, number: u64, chat: ChatId, text: &str) {
        self.frame(conn, send(number, chat, text));
    }

    pub(super) fn send_after(
        &mut self,
        conn: ConnId,
        number: u64,
        after: u64,
        chat: ChatId,
        text: &str,
    ) {
        self.frame(conn, send_after(number, after, chat, text));
    }

    pub(super) fn ack(&mut self, conn: ConnId, cursor: Position) {
        self.frame(conn, ack(cursor));
    }

    /// Connections that nobody has ended.
    pub(super) fn abandoned(&self) -> Vec<ConnId> {
        let open = |conn: &ConnId| self.conns[*conn].open;
        (0..self.conns.len()).filter(open).collect()
    }

    // What clients see.

    pub(super) fn take_frames(&mut self, conn: ConnId) -> Vec<Down> {
        self.conns[conn].frames.drain(..).collect()
    }

    /// The texts and cursors of the messages delivered since the last look; other frames are dropped.
    pub(super) fn delivered(&mut self, conn: ConnId) -> Vec<(String, Position)> {
        let frames = self.take_frames(conn);
        frames
            .iter()
            .filter_map(|frame| Some((text_of(frame)?, cursor_of(frame)?)))
            .collect()
    }

    pub(super) fn texts(&mut self, conn: ConnId) -> Vec<String> {
        self.delivered(conn)
            .into_iter()
            .map(|(text, _)| text)
            .collect()
    }

    pub(super) fn close_code(&self, conn: ConnId) -> Option<ErrorCode> {
        self.conns[conn].closed.map(|reason| reason.code)
    }

    /// The session's inside.
    pub(super) fn session(&self, conn: ConnId) -> &Session {
        let Conn { shard, session, .. } = &self.conns[conn];
        let shard = &self.shards[usize::from(shard.0)];
        shard.sessions.get(session.index).expect("open")
    }

    /// Whether the shard wants to hear no more of a connection for now.
    pub(super) fn holds(&self, conn: ConnId) -> bool {
        let Conn { shard, session, .. } = &self.conns[conn];
        self.shards[usize::from(shard.0)].holds(*session)
    }

    /// Nothing waits anywhere, no session owns more than itself, and no timer runs.
    pub(super) fn assert_quiet(&self) {
        assert!(self.asked.is_empty() && self.passing.is_empty());
        for shard in &self.shards {
            let counters = shard.counters();
            assert_eq!((counters.requests_pending, counters.sends_pending), (0, 0));
            assert_eq!(shard.poll_timeout(), None, "a quiet shard has no timers");
            for (_, session) in shard.sessions.iter() {
                assert!(
                    session.in_flight.is_none(),
                    "a silent session owns nothing: {session:?}"
                );
            }
        }
    }
}
