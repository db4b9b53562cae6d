//! One worker: a shard of the core on a thread's event loop.
//!
//! The worker translates and owns nothing else: connections' events become inputs, outputs become
//! frames, requests to the store and messages to other shards. Requests and messages are collected
//! during a turn of the loop and leave at its end, a batch for each destination.

mod addresses;
mod budget;
mod connection;
mod outbox;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use roadstead::store::{Command, Completion, Request};
use roadstead::{Credential, Ended, Input, Output, SessionId, Shard, ShardId, ShardMessage};
use roadstead_net::{App, ConnId, Engine, Event, Io, Mailbox};
use roadstead_proto::ErrorCode;
use roadstead_proto::v1::{ClientFrame, client_frame, server_frame};
use tokio::sync::oneshot;

use crate::credentials::Credentials;
use crate::memory::Ceiling;
use crate::memory::account::ShardMemory;
use crate::metrics::ShardMetrics;
use crate::{clock, worker::connection::Connections, worker::outbox::Outbox};

/// What other threads send to a worker.
#[derive(Debug)]
pub(crate) enum Message {
    /// Another shard's messages of one turn.
    Shard(ShardId, Vec<ShardMessage>),
    /// Answers of the store.
    Store(Vec<Completion>),
    /// Message ids `[from_ms, until_ms)` are this node's.
    Reserved { from_ms: u64, until_ms: u64 },
    /// The store was reopened after a failure.
    StoreReopened,
    /// The store ended logins or a device of a user whose home this is.
    Ended(Ended),
    /// From here on these check credentials.
    Credentials(Credentials),
    /// Answer with what the shard holds.
    Memory(oneshot::Sender<ShardMemory>),
    /// Send every session away; [`Report::Drained`] follows.
    Drain,
    /// End the loop. Only once all shards have drained: the sockets of the node are one group, and one
    /// that closes would misdirect the packets of the others (T17).
    Stop,
}

/// What a worker tells the thread that started it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The loop runs.
    Started,
    /// Every session is gone and the store has answered everything, or the patience for it is over.
    Drained,
    /// The loop has ended.
    Ended,
}

/// Takes a shard's requests to the store; returns the answers that are known at once.
pub(crate) type Submit = Box<dyn FnMut(Vec<Request>) -> Vec<Completion> + Send>;

/// Hands a message to a shard. What comes from outside of the shards is bounded (the store's answers by what shards
/// ask), and a shard never waits for anybody, so its mailbox has room soon.
pub(crate) fn deliver(mailbox: &Mailbox<Message>, mut message: Message) {
    while let Err(kept) = mailbox.send(message) {
        message = kept;
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// How often a busy worker publishes its counters.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);

/// How long a drain waits for connections that do not end: for so long, and a second more for every
/// [`DRAIN_RATE`] sessions of the shard.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// Sessions that a shard sends away in a second even on a busy machine.
const DRAIN_RATE: u64 = 10_000;

/// How long a shard with so many sessions may take to drain.
pub(crate) fn drain_patience(sessions: u64) -> Duration {
    DRAIN_PATIENCE + Duration::from_secs(sessions / DRAIN_RATE)
}

pub(crate) struct Worker {
    shard: Shard,
    connections: Connections,
    outbox: Outbox,
    submit: Submit,
    credentials: Credentials,
    metrics: Arc<ShardMetrics>,
    ceiling: Arc<Ceiling>,
    addresses: Addresses,
    requests: Vec<Request>,
    /// When each request under way was made, by its id.
    asked_at: Vec<(Instant, Kind)>,
    /// Connections with frames that were left because the store was behind (R26).
    waiting: VecDeque<ConnId>,
    scratch: BytesMut,
    published_at: Option<Instant>,
    unpublished: bool,
    /// When a drain counts as done whatever is still open.
    drained_at: Option<Instant>,
    started: bool,
    report: Box<dyn Fn(Report) + Send>,
}

/// Which latency a request counts for.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Send,
    Read,
    Other,
}

/// What a worker is made of.
pub(crate) struct Parts {
    pub(crate) shard: Shard,
    pub(crate) outbox: Outbox,
    pub(crate) submit: Submit,
    pub(crate) credentials: Credentials,
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) ceiling: Arc<Ceiling>,
    pub(crate) addresses: Addresses,
    pub(crate) report: Box<dyn Fn(Report) + Send>,
}

pub(crate) use addresses::Addresses;
pub(crate) use outbox::Outbox as ShardOutbox;

impl Worker {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            shard: parts.shard,
            connections: Connections::default(),
            outbox: parts.outbox,
            submit: parts.submit,
            credentials: parts.credentials,
            metrics: parts.metrics,
            ceiling: parts.ceiling,
            addresses: parts.addresses,
            requests: Vec::new(),
            asked_at: Vec::new(),
            waiting: VecDeque::new(),
            scratch: BytesMut::new(),
            published_at: None,
            unpublished: true,
            drained_at: None,
            started: false,
            report: parts.report,
        }
    }

    fn input<E: Engine>(&mut self, io: &mut Io<'_, E>, input: Input) {
        self.shard.handle(clock::now_at(io.now()), input);
        self.poll(io);
    }

    fn poll<E: Engine>(&mut self, io: &mut Io<'_, E>) {
        while let Some(output) = self.shard.poll() {
            match output {
                Output::Frame(session, frame) => {
                    if matches!(frame.body, Some(server_frame::Body::Welcome(_))) {
                        self.connections.log_in(conn(session));
                    }
                    roadstead_proto::encode_frame(&frame, &mut self.scratch);
                    let fits = self.connections.write(io, conn(session), &self.scratch);
                    self.scratch.clear();
                    if !fits {
                        self.metrics.closed_unread.add(1);
                        let code = ErrorCode::SlowConsumer.as_close_code();
                        io.close(conn(session), code, b"the peer does not read");
                    }
                }
                Output::Close(session, reason) => {
                    let code = reason.code.as_close_code();
                    io.close(conn(session), code, reason.message.as_bytes());
                }
                Output::Authenticate {
                    session,
                    credential,
                    device,
                    connect_counter,
                } => {
                    let unix_s = clock::unix_ms() / 1_000;
                    let started = Instant::now();
                    let device = (device, connect_counter);
                    let result = self.credentials.check(&credential, device, unix_s);
                    let is_signed = matches!(credential, Credential::Token(_));
                    self.metrics.login(is_signed, started.elapsed());
                    // An input of its own, handled once what is being polled has been.
                    self.connections.authenticated.push_back((session, result));
                }
                Output::Shard(shard, message) => self.outbox.push(shard, message),
                Output::Store(request) => self.ask(io.now(), request),
            }
        }
    }

    fn ask(&mut self, now: Instant, request: Request) {
        let kind = match request.command {
            Command::Send(_) => Kind::Send,
            Command::ReadInbox(_) => Kind::Read,
            _ => Kind::Other,
        };
        let index = usize::try_from(request.id.0).expect("request ids are small");
        if self.asked_at.len() <= index {
            self.asked_at.resize(index + 1, (now, Kind::Other));
        }
        self.asked_at[index] = (now, kind);
        self.requests.push(request);
    }

    fn answered(&mut self, completion: &Completion) {
        let index = usize::try_from(completion.id.0).expect("request ids are small");
        let (asked_at, kind) = self.asked_at[index];
        match kind {
            Kind::Send => self.metrics.send_latency.record(asked_at.elapsed()),
            Kind::Read => self.metrics.read_latency.record(asked_at.elapsed()),
            Kind::Other => {}
        }
    }

    fn handle_authenticated<E: Engine>(&mut self, io: &mut Io<'_, E>) {
        while let Some((session, result)) = self.connections.authenticated.pop_front() {
            self.input(io, Input::Authenticated(session, result));
        }
    }

    /// Reads frames as long as the peer reads what it is sent, and the store keeps up or they are no sends (R26): the
    /// first one that it has no room for waits, and what is behind it.
    fn read<E: Engine>(&mut self, io: &mut Io<'_, E>, id: ConnId) {
        loop {
            if self.shard.holds(session(id)) {
                return self.read_later(io, id);
            }
            match self.connections.next_frame(io, id) {
                Ok(Some(frame)) if is_send(&frame) && self.shard.is_congested() => {
                    self.connections.park(id, frame);
                    return self.read_later(io, id);
                }
                Ok(Some(frame)) => {
                    self.input(io, Input::Frame(session(id), frame));
                    self.handle_authenticated(io);
                }
                Ok(None) => return,
                Err(error) => return self.input(io, Input::Malformed(session(id), error)),
            }
        }
    }

    fn read_later<E: Engine>(&mut self, io: &mut Io<'_, E>, id: ConnId) {
        if self.connections.set_waiting(id, true) {
            self.metrics.reads_paused.add(1);
            self.waiting.push_back(id);
            self.input(io, Input::Paused(session(id)));
        }
    }

    /// Closes connections while they hold too much of the shard's memory (T8).
    fn shed<E: Engine>(&mut self, io: &mut Io<'_, E>) {
        while let Some(id) = self.connections.shed() {
            self.metrics.shed.add(1);
            io.close(
                id,
                ErrorCode::Overloaded.as_close_code(),
                b"out of memory for peers",
            );
        }
    }

    fn read_waiting<E: Engine>(&mut self, io: &mut Io<'_, E>) {
        for _ in 0..self.waiting.len() {
            if self.shard.is_congested() {
                return;
            }
            match self.waiting.pop_front() {
                Some(id) if self.shard.holds(session(id)) => self.waiting.push_back(id),
                Some(id) => {
                    self.connections.set_waiting(id, false);
                    self.input(io, Input::Resumed(session(id)));
                    self.read(io, id);
                }
                None => return,
            }
        }
    }

    /// Hands the turn's requests to the store. What it refuses at once is handled at once, and what that
    /// leads to goes out with the next turn.
    fn submit<E: Engine>(&mut self, io: &mut Io<'_, E>) {
        if self.requests.is_empty() {
            return;
        }
        let refused = (self.submit)(std::mem::take(&mut self.requests));
        self.complete(io, refused);
    }

    fn complete<E: Engine>(&mut self, io: &mut Io<'_, E>, completions: Vec<Completion>) {
        for completion in completions {
            self.answered(&completion);
            self.input(io, Input::Store(completion));
        }
    }

    fn publish_now(&self) {
        let (waiting, held) = (self.outbox.waiting(), self.connections.held());
        self.metrics.publish(&self.shard.counters(), waiting, held);
        let forgotten = self.addresses.forgotten();
        self.metrics.addresses_forgotten.set(forgotten);
    }

    fn publish(&mut self, now: Instant) {
        let due = self.published_at.is_none_or(|at| at + PUBLISH_EVERY <= now);
        if due {
            self.published_at = Some(now);
            self.unpublished = false;
            self.publish_now();
        }
    }

    fn memory<E: Engine>(&self, io: &Io<'_, E>) -> ShardMemory {
        let core = self.shard.counters();
        ShardMemory {
            sessions: core.sessions,
            transport: io.memory(),
            session_bytes: core.session_bytes,
            directory_bytes: core.directory_bytes,
            connection_bytes: self.connections.bytes() as u64,
            held_bytes: self.connections.held() as u64,
        }
    }

    fn report_if_drained<E: Engine>(&mut self, io: &mut Io<'_, E>) {
        let Some(drained_at) = self.drained_at else {
            return;
        };
        let late = io.now() >= drained_at;
        if (self.shard.is_idle() && self.requests.is_empty()) || late {
            if late {
                tracing::warn!(
                    shard = io.thread(),
                    "drained with connections that did not end"
                );
            }
            self.drained_at = None;
            (self.report)(Report::Drained);
        }
    }
}

impl<E: Engine> App<E> for Worker {
    type Message = Message;

    fn admits(&self, now: Instant, peer: SocketAddr) -> bool {
        // A handshake costs 200 us and what it is answered with is no session: the newcomer asks again.
        if self.ceiling.is_reached() {
            self.metrics.refused_memory.add(1);
            return false;
        }
        self.addresses.has_room(now, peer)
    }

    fn proven(&mut self, now: Instant, peer: SocketAddr) -> bool {
        self.addresses.count(now, peer)
    }

    fn event(&mut self, io: &mut Io<'_, E>, event: Event) {
        self.unpublished = true;
        match event {
            Event::Opened { conn, .. } if self.ceiling.is_reached() => {
                self.metrics.refused_memory.add(1);
                let code = ErrorCode::Overloaded.as_close_code();
                io.close(conn, code, b"the server's memory is full");
            }
            Event::Opened {
                conn, peer, proven, ..
            } if !proven && !self.addresses.count(io.now(), peer) => {
                self.metrics.refused_address.add(1);
                let code = ErrorCode::RateLimited.as_close_code();
                io.close(conn, code, b"too many sessions from this address");
            }
            Event::Opened { conn, .. } => {
                self.connections.open(conn);
                self.input(io, Input::Opened(session(conn)));
            }
            Event::Readable { conn } => self.read(io, conn),
            Event::Writable { conn } => {
                if self.connections.write_on(io, conn) {
                    self.read(io, conn);
                }
            }
            // Whichever half of the stream a client ends, the session is over (P2).
            Event::Finished { conn } => io.close(conn, 0, b""),
            Event::Aborted { conn } => {
                self.metrics.streams_aborted.add(1);
                io.close(conn, 0, b"");
            }
            // None is announced, so the transport has closed whoever sends one.
            Event::Datagram { .. } => {}
            Event::Closed { conn, reason } => {
                self.metrics.closed(&reason);
                if self.connections.close(conn) {
                    self.input(io, Input::Closed(session(conn)));
                }
            }
        }
    }

    fn message(&mut self, io: &mut Io<'_, E>, message: Message) {
        self.unpublished = true;
        match message {
            Message::Shard(from, messages) => {
                for message in messages {
                    self.input(io, Input::Shard(from, message));
                }
            }
            Message::Store(completions) => self.complete(io, completions),
            Message::Reserved { from_ms, until_ms } => {
                self.input(io, Input::MessageIdsReserved { from_ms, until_ms });
            }
            Message::StoreReopened => self.input(io, Input::StoreReopened),
            Message::Ended(ended) => self.input(io, Input::Ended(ended)),
            Message::Credentials(credentials) => self.credentials = credentials,
            // Whoever asked may have gone.
            Message::Memory(answer) => drop(answer.send(self.memory(io))),
            Message::Drain => {
                let patience = drain_patience(self.shard.counters().sessions);
                self.drained_at = Some(io.now() + patience);
                self.input(io, Input::Drain);
            }
            Message::Stop => {
                self.publish_now();
                io.stop();
            }
        }
    }

    fn turn(&mut self, io: &mut Io<'_, E>) -> Option<Instant> {
        if !std::mem::replace(&mut self.started, true) {
            (self.report)(Report::Started);
        }
        let now = clock::now_at(io.now());
        if self.shard.poll_timeout().is_some_and(|at| at <= now.at) {
            self.shard.handle_timeout(now);
            self.poll(io);
        }
        self.read_waiting(io);
        self.shed(io);
        self.submit(io);
        let blocked = !self.outbox.flush();
        self.publish(io.now());
        self.report_if_drained(io);
        [
            self.shard.poll_timeout().map(clock::instant_of),
            blocked.then(|| io.now() + Duration::from_millis(1)),
            (!self.requests.is_empty()).then(|| io.now()),
            self.unpublished.then(|| io.now() + PUBLISH_EVERY),
            self.drained_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

fn is_send(frame: &ClientFrame) -> bool {
    matches!(frame.body, Some(client_frame::Body::Send(_)))
}

fn conn(id: SessionId) -> ConnId {
    ConnId {
        index: id.index,
        generation: id.generation,
    }
}

fn session(id: ConnId) -> SessionId {
    SessionId {
        index: id.index,
        generation: id.generation,
    }
}
