//! The loop between the session's state machine, the journal, the connection and the application.

mod link;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf, Bytes, BytesMut};
use quinn::VarInt;
use roadstead_proto::limits::FRAME_BYTES_MAX;
use roadstead_proto::{ChatId, Deframer, ErrorCode, Position, decode_frame, encode_frame, v1};
use tokio::sync::{mpsc, oneshot, watch};

use self::link::{Dialled, Link, Up};
use crate::client::Status;
use crate::config::CredentialProvider;
use crate::error::{Cause, ClientError, JournalError, SendError};
use crate::event::{Confirmation, Disconnected, Event};
use crate::journal::{Journal, Record};
use crate::session::{Action, Now, Session};
use crate::transport::{Dial, Tls, socket_towards};

/// Bytes that wait for the stream's flow control before no more frames are made.
const OUT_BYTES_MAX: usize = 64 * 1024;
/// Events that wait for the application before the driver stops reading from the server.
const EVENTS_PENDING_MAX: usize = 64;
/// Messages that are written to the journal in one go.
const SUBMISSIONS_PER_TURN: usize = 64;
/// How long a farewell may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

type Waiter = oneshot::Sender<Result<Confirmation, SendError>>;

/// A message that the application hands in.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) chat: ChatId,
    pub(crate) payload: Bytes,
    pub(crate) reply: oneshot::Sender<Result<u64, ClientError>>,
    pub(crate) waiter: Option<Waiter>,
}

/// Everything else that the application orders.
#[derive(Debug)]
pub(crate) enum Command {
    StoredUpTo(Position),
    Read(ChatId, Position),
    Typing(ChatId),
    TakeBack(u64, oneshot::Sender<bool>),
    NetworkChanged,
    ShutDown(oneshot::Sender<()>),
}

/// What the application is told of its order once the journal holds what became of it.
enum Reply {
    Numbered(oneshot::Sender<Result<u64, ClientError>>, u64),
    TakenBack(oneshot::Sender<bool>),
}

type Channels = (
    mpsc::Receiver<Submission>,
    mpsc::Receiver<Command>,
    mpsc::Sender<Event>,
    watch::Sender<Status>,
);

/// See the module.
pub(crate) struct Driver {
    session: Session,
    /// `None` only while a write is under way on another thread.
    journal: Option<Box<dyn Journal>>,
    tls: Tls,
    servers: Vec<String>,
    attempts: usize,
    server_name: Option<String>,
    credentials: Arc<dyn CredentialProvider>,
    link: Link,
    submissions: mpsc::Receiver<Submission>,
    commands: mpsc::Receiver<Command>,
    stored_in: mpsc::UnboundedSender<u64>,
    stored: mpsc::UnboundedReceiver<u64>,
    events: mpsc::Sender<Event>,
    pending: VecDeque<Event>,
    replies: Vec<Reply>,
    waiters: HashMap<u64, Waiter>,
    status: watch::Sender<Status>,
}

/// What a turn of the loop waits for.
enum Input {
    Dialled(Dialled),
    Received(Bytes),
    Wrote(usize),
    Lost(Cause),
    Submission(Submission),
    Command(Command),
    Stored(u64),
    Shown,
    Unwanted,
    Timeout,
}

impl Driver {
    pub(crate) fn new(
        session: Session,
        journal: Box<dyn Journal>,
        tls: Tls,
        servers: Vec<String>,
        server_name: Option<String>,
        credentials: Arc<dyn CredentialProvider>,
        (submissions, commands, events, status): Channels,
    ) -> Self {
        let (stored_in, stored) = mpsc::unbounded_channel();
        Self {
            session,
            journal: Some(journal),
            tls,
            servers,
            attempts: 0,
            server_name,
            credentials,
            link: Link::Down,
            submissions,
            commands,
            stored_in,
            stored,
            events,
            pending: VecDeque::new(),
            replies: Vec::new(),
            waiters: HashMap::new(),
            status,
        }
    }

    /// The clocks.
    pub(crate) fn now() -> Now {
        let since_epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            at: Instant::now(),
            unix_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(crate) async fn run(mut self) {
        let ended = match self.turns().await {
            Ok(done) => self.farewell().await.map(|()| done),
            Err(error) => Err(error),
        };
        if let Err(error) = &ended {
            // What has no record must not leave: no farewell, the connection just drops.
            let cause = Cause::Journal(error.to_string());
            let retry_in = None;
            let stopped = Event::Disconnected(Disconnected { cause, retry_in });
            self.pending.push_back(stopped);
        }
        for event in self.pending.drain(..) {
            let _ = self.events.try_send(event);
        }
        // Whoever waits for the end may open the journal again.
        drop(self.journal.take());
        self.status.send_replace(Status::Stopped);
        for (_, waiter) in self.waiters.drain() {
            let _ = waiter.send(Err(SendError::Stopped));
        }
        if let Ok(Some(done)) = ended {
            let _ = done.send(());
        }
    }

    /// Runs until told to stop; returns whom to tell that it has.
    async fn turns(&mut self) -> Result<Option<oneshot::Sender<()>>, JournalError> {
        loop {
            self.settle().await?;
            if self.session.is_stopped() && self.pending.is_empty() {
                return Ok(None);
            }
            match self.next_input().await {
                Input::Command(Command::ShutDown(done)) => return Ok(Some(done)),
                Input::Unwanted => return Ok(None),
                input => self.handle(input),
            }
        }
    }

    /// Brings the session's outputs where they belong, durable things first.
    async fn settle(&mut self) -> Result<(), JournalError> {
        let records = self.session.poll_record();
        if !records.is_empty() {
            self.write_down(records).await?;
        }
        for reply in self.replies.drain(..) {
            // Whoever no longer waits for the answer does not want it.
            match reply {
                Reply::Numbered(reply, number) => drop(reply.send(Ok(number))),
                Reply::TakenBack(reply) => drop(reply.send(true)),
            }
        }
        while let Some(event) = self.session.poll_event() {
            self.take_event(event);
        }
        self.transmit();
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Connect { needs_token } => self.dial(needs_token),
                Action::Close(code) => self.hang_up(code),
            }
        }
        self.publish_status();
        Ok(())
    }

    /// A sync takes milliseconds on a phone: not on the event loop's thread.
    async fn write_down(&mut self, records: Vec<Record>) -> Result<(), JournalError> {
        let mut journal = self.journal.take().expect("one write at a time");
        let written = tokio::task::spawn_blocking(move || {
            let result = journal.append(&records);
            (journal, result)
        });
        let lost = |_| JournalError::Damaged("the journal panicked".into());
        let (journal, result) = written.await.map_err(lost)?;
        self.journal = Some(journal);
        result
    }

    fn take_event(&mut self, mut event: Event) {
        if let Some(entry) = event.entry_mut() {
            entry.door = Some(self.stored_in.clone());
        }
        let answer = match &event {
            Event::SendConfirmed(confirmation) => Some((confirmation.number, Ok(*confirmation))),
            Event::SendFailed(failure) => Some((failure.number, Err(failure.error.clone()))),
            Event::Connected(_) => {
                // Where it worked, it is tried first the next time.
                self.attempts -= 1;
                None
            }
            _ => None,
        };
        if let Some((number, answer)) = answer
            && let Some(waiter) = self.waiters.remove(&number)
        {
            let _ = waiter.send(answer);
        }
        self.pending.push_back(event);
    }

    /// Makes frames as long as there is room.
    fn transmit(&mut self) {
        let Link::Up(up) = &mut self.link else {
            return;
        };
        while up.out.len() < OUT_BYTES_MAX {
            let Some(frame) = self.session.poll_transmit(Self::now()) else {
                break;
            };
            encode_frame(&frame, &mut up.out);
        }
    }

    fn dial(&mut self, needs_token: bool) {
        let hints = self.session.node_hints();
        let known = self.servers.len() + hints.len();
        let (round, index) = (self.attempts / known, self.attempts % known);
        self.attempts += 1;
        let address = self
            .servers
            .get(index)
            .unwrap_or_else(|| &hints[index - self.servers.len()]);
        let dial = Dial {
            tls: self.tls.clone(),
            address: address.clone(),
            round,
            server_name: self.server_name.clone(),
            home: self.session.home(),
            heartbeat: self.session.heartbeat().interval(),
            idle_timeout: self.session.heartbeat().idle_timeout(),
        };
        let token = needs_token.then(|| self.credentials.token());
        self.link = Link::Dialling(Box::pin(async move {
            let token = match token {
                Some(token) => Some(token.await.map_err(|error| Cause::Credential(error.0))?),
                None => None,
            };
            Ok((dial.run().await?, token))
        }));
    }

    fn hang_up(&mut self, code: ErrorCode) {
        if let Link::Up(up) = std::mem::replace(&mut self.link, Link::Down) {
            up.connection
                .quic
                .close(VarInt::from_u32(code.as_close_code()), b"");
        }
    }

    fn publish_status(&self) {
        let status = match &self.link {
            _ if self.session.is_stopped() => Status::Stopped,
            _ if self.session.is_active() => Status::Active,
            Link::Down => Status::Waiting,
            _ => Status::Connecting,
        };
        self.status.send_if_modified(|known| {
            let modified = *known != status;
            *known = status;
            modified
        });
    }

    async fn next_input(&mut self) -> Input {
        let may_read = self.pending.len() < EVENTS_PENDING_MAX;
        let timeout = self.session.poll_timeout();
        tokio::select! {
            input = self.link.next_input(may_read) => input,
            Some(entry) = self.stored.recv() => Input::Stored(entry),
            Some(command) = self.commands.recv() => Input::Command(command),
            Some(submission) = self.submissions.recv() => Input::Submission(submission),
            permit = self.events.reserve(), if !self.pending.is_empty() => match permit {
                Ok(permit) => {
                    permit.send(self.pending.pop_front().expect("not empty"));
                    Input::Shown
                }
                Err(_) => Input::Unwanted,
            },
            () = self.events.closed() => Input::Unwanted,
            () = sleep_until(timeout) => Input::Timeout,
        }
    }

    fn handle(&mut self, input: Input) {
        let now = Self::now();
        match input {
            Input::Dialled(Ok((connection, token))) => {
                self.link = Link::Up(Box::new(Up {
                    connection,
                    deframer: Deframer::new(FRAME_BYTES_MAX),
                    out: BytesMut::new(),
                }));
                self.session.handle_connected(now, token);
            }
            Input::Dialled(Err(cause)) | Input::Lost(cause) => {
                self.link = Link::Down;
                self.session.handle_disconnected(now, cause);
            }
            Input::Received(chunk) => self.receive(now, chunk),
            Input::Wrote(length) => {
                if let Link::Up(up) = &mut self.link {
                    up.out.advance(length);
                }
            }
            Input::Submission(submission) => self.submit(now, submission),
            Input::Stored(entry) => {
                self.session.mark_stored(now, entry);
                while let Ok(entry) = self.stored.try_recv() {
                    self.session.mark_stored(now, entry);
                }
            }
            Input::Command(command) => self.obey(now, command),
            Input::Timeout => self.session.handle_timeout(now),
            Input::Shown | Input::Unwanted => {}
        }
    }

    fn receive(&mut self, now: Now, mut chunk: Bytes) {
        let Link::Up(up) = &mut self.link else {
            return;
        };
        loop {
            let frame = match up.deframer.next_frame(&mut chunk) {
                Ok(Some(frame)) => decode_frame::<v1::ServerFrame>(frame),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            match frame {
                Ok(frame) => self.session.handle_frame(now, frame),
                Err(error) => return self.session.handle_garbage(now, error.into()),
            }
        }
    }

    /// Numbers a message and those that wait behind it, so that one sync serves them all.
    fn submit(&mut self, now: Now, first: Submission) {
        self.number(now, first);
        for _ in 1..SUBMISSIONS_PER_TURN {
            let Ok(next) = self.submissions.try_recv() else {
                return;
            };
            self.number(now, next);
        }
    }

    fn number(&mut self, now: Now, submission: Submission) {
        let Submission {
            chat,
            payload,
            reply,
            waiter,
        } = submission;
        match self.session.send(now, chat, payload) {
            Ok(number) => {
                self.replies.push(Reply::Numbered(reply, number));
                self.waiters.extend(waiter.map(|waiter| (number, waiter)));
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn obey(&mut self, now: Now, command: Command) {
        match command {
            Command::StoredUpTo(cursor) => self.session.mark_stored_up_to(now, cursor),
            Command::Read(chat, position) => self.session.read(chat, position),
            Command::Typing(chat) => self.session.typing(chat),
            Command::TakeBack(number, reply) => {
                if self.session.take_back(now, number) {
                    self.replies.push(Reply::TakenBack(reply));
                } else {
                    let _ = reply.send(false);
                }
            }
            Command::NetworkChanged => {
                self.session.network_changed(now);
                self.rebind();
            }
            Command::ShutDown(_) => unreachable!("the loop takes it"),
        }
    }

    /// Moves a live connection to a new socket; QUIC carries it over.
    fn rebind(&mut self) {
        if let Link::Up(up) = &self.link {
            let moved = socket_towards(up.connection.quic.remote_address())
                .and_then(|socket| up.connection.endpoint.rebind(socket));
            if moved.is_err() {
                self.hang_up(ErrorCode::Unspecified);
                let lost = Cause::Transport("no socket on the new network".into());
                self.session.handle_disconnected(Self::now(), lost);
            }
        }
    }

    /// Sends what is due, acknowledgements among it, waits until it arrived, and closes.
    async fn farewell(&mut self) -> Result<(), JournalError> {
        while let Ok(entry) = self.stored.try_recv() {
            self.session.mark_stored(Self::now(), entry);
        }
        self.session.shut_down();
        self.settle().await?;
        if let Link::Up(up) = std::mem::replace(&mut self.link, Link::Down) {
            let Up {
                mut connection,
                out,
                ..
            } = *up;
            let deliver = async {
                let _ = connection.send.write_all(&out).await;
                let _ = connection.send.finish();
                let _ = connection.send.stopped().await;
            };
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, deliver).await;
            connection.quic.close(VarInt::from_u32(0), b"");
            let idle = connection.endpoint.wait_idle();
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, idle).await;
        }
        Ok(())
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
