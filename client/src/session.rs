//! One device's session as a state machine without I/O.
//!
//! It outlives connections: it says when to connect, what to send, what to tell the application, what
//! to write down. The drive contract is: after every `handle_*` or command, make all of
//! [`poll_record`](Session::poll_record) durable, *then* hand on [`poll_event`](Session::poll_event) and
//! [`poll_transmit`](Session::poll_transmit) (as far as the transport has room), then obey
//! [`poll_action`](Session::poll_action), and call [`handle_timeout`](Session::handle_timeout) at
//! [`poll_timeout`](Session::poll_timeout).

mod inbox;
mod reads;
mod receive;
mod sends;
#[cfg(test)]
mod tests;
mod transmit;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use roadstead_proto::limits::PAYLOAD_BYTES_MAX;
use roadstead_proto::{ChatId, DeviceId, ErrorCode, Position, UserId, VERSION, v1};

use self::inbox::Inbox;
use self::reads::Reads;
use self::sends::Sends;
use crate::error::{Cause, ClientError, SendError};
use crate::event::{Disconnected, Event, SendFailure};
use crate::journal::{Record, Saved, Unconfirmed};
use crate::pace::{Backoff, Heartbeat, Jitter};

/// How long a server may take from the connection to its Welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may be silent while it owes an answer to a send, before the network is taken
/// for dead. The idle timeout alone could be 15 minutes; much less, and a busy server would lose
/// sessions just when it can not bear the reconnects.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Acknowledgements are gathered this long: many entries cost one frame, and a tick is hardly later.
const ACK_DELAY: Duration = Duration::from_millis(15);
/// A session that lasted this long was a good one: the next failure is the first again.
const GOOD_SESSION: Duration = Duration::from_secs(10);
/// The moment of an input. Time is an argument, so that tests decide it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    pub(crate) unix_ms: u64,
}

/// What a session is set up with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) reconnect_min: Duration,
    pub(crate) reconnect_max: Duration,
    pub(crate) send_deadline_ms: u32,
    pub(crate) keep_unconfirmed: Duration,
    pub(crate) jitter_seed: u64,
}

/// What the shell has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make a connection, then call `handle_connected` or `handle_disconnected`.
    Connect {
        /// A signed token is needed: there is no resume token.
        needs_token: bool,
    },
    /// Close the connection with this code. It counts as gone already.
    Close(ErrorCode),
}

/// Named by what is expected next.
#[derive(Debug)]
enum State {
    /// Nothing until then.
    Wait { until: Instant },
    /// The shell makes a connection.
    ExpectConnection,
    /// The Hello is out.
    ExpectWelcome { until: Instant, resumed: bool },
    /// Open; with an end in sight once the server has said that it goes away.
    Active {
        since: Instant,
        leave_at: Option<Instant>,
    },
    /// For good.
    Stopped,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    settings: Settings,
    state: State,
    device: DeviceId,
    connect_counter: u64,
    numbers_known: bool,
    user: Option<UserId>,
    payload_bytes_max: usize,
    sends: Sends,
    inbox: Inbox,
    ack_at: Option<Instant>,
    /// The wait is over: the next frame is the acknowledgement.
    ack_ready: bool,
    /// Something must be heard until then.
    answer_due: Option<Instant>,
    reads: Reads,
    typing: Option<ChatId>,
    resume_token: Bytes,
    home: Option<Home>,
    node_hints: Vec<String>,
    heartbeat: Heartbeat,
    backoff: Backoff,
    jitter: Jitter,
    last_error: Option<ErrorCode>,
    hello: Option<v1::Hello>,
    records: Vec<Record>,
    events: VecDeque<Event>,
    actions: VecDeque<Action>,
}

/// The first bits of the next first destination connection id (T9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) bits: u16,
    pub(crate) length: u32,
}

impl Session {
    /// A session that wants to connect at once. `saved` must name the device.
    pub(crate) fn new(now: Now, settings: Settings, saved: Saved) -> Self {
        let device = saved.device.expect("the shell names the device first");
        let (deadline_ms, keep) = (settings.send_deadline_ms, settings.keep_unconfirmed);
        let mut session = Self {
            state: State::Wait { until: now.at },
            device,
            connect_counter: saved.connect_counter,
            numbers_known: saved.numbers_known,
            user: None,
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            inbox: Inbox::new(saved.cursor),
            sends: Sends::new(now, saved, deadline_ms, keep),
            ack_at: None,
            ack_ready: false,
            answer_due: None,
            reads: Reads::default(),
            typing: None,
            resume_token: Bytes::new(),
            home: None,
            node_hints: Vec::new(),
            heartbeat: Heartbeat::new(),
            backoff: Backoff::new(settings.reconnect_min, settings.reconnect_max),
            jitter: Jitter::new(settings.jitter_seed),
            last_error: None,
            hello: None,
            records: Vec::new(),
            events: VecDeque::new(),
            actions: VecDeque::new(),
            settings,
        };
        session.handle_timeout(now);
        session
    }

    // Commands of the application.

    /// Gives a message its number. It leaves once its record is durable and a session is open.
    pub(crate) fn send(
        &mut self,
        now: Now,
        chat: ChatId,
        payload: Bytes,
    ) -> Result<u64, ClientError> {
        if self.is_stopped() {
            return Err(ClientError::Stopped);
        }
        let (length, max) = (payload.len(), self.payload_bytes_max);
        if length > max {
            return Err(ClientError::PayloadTooLarge { length, max });
        }
        if !self.numbers_known {
            return Err(ClientError::NumbersUnknown);
        }
        self.sends.room_for(chat)?;
        let message = Unconfirmed {
            number: 0,
            chat,
            payload,
            sent_unix_ms: now.unix_ms,
        };
        let number = self.sends.push(now, message);
        self.tell_delays();
        Ok(number)
    }

    /// Takes a message back, unless it may have been committed.
    pub(crate) fn take_back(&mut self, now: Now, number: u64) -> bool {
        let message = self.sends.take_back(now, number);
        if let Some(message) = &message {
            self.give_up(message, SendError::TakenBack);
        }
        message.is_some()
    }

    /// The application has stored the event of this entry.
    pub(crate) fn mark_stored(&mut self, now: Now, entry: u64) {
        self.inbox.mark_stored(entry);
        self.advance_cursor(now);
    }

    /// The application has stored everything up to the cursor.
    pub(crate) fn mark_stored_up_to(&mut self, now: Now, cursor: Position) {
        self.inbox.mark_stored_up_to(cursor);
        self.advance_cursor(now);
    }

    fn advance_cursor(&mut self, now: Now) {
        if let Some(cursor) = self.inbox.advance() {
            self.records.push(Record::Cursor(cursor));
        }
        if self.ack_at.is_none() && !self.ack_ready && self.inbox.ack_due().is_some() {
            self.ack_at = Some(now.at + ACK_DELAY);
        }
    }

    /// The user has seen the chat up to the position.
    pub(crate) fn read(&mut self, chat: ChatId, position: Position) {
        if !self.is_foreign(chat) {
            self.reads.mark(chat, position);
        }
    }

    /// The user is typing: said now or never.
    pub(crate) fn typing(&mut self, chat: ChatId) {
        let now = self.is_active() && !self.is_foreign(chat);
        self.typing = now.then_some(chat);
    }

    /// No chat of this user, as far as it is known who that is: the server would end the session over it.
    fn is_foreign(&self, chat: ChatId) -> bool {
        let user = self.user;
        user.is_some_and(|user| chat.peer_of(user).is_none())
    }

    /// The network under the device is another one: what was learned of the old one is void, and
    /// there is no reason to wait.
    pub(crate) fn network_changed(&mut self, now: Now) {
        self.heartbeat.network_changed();
        self.backoff.reset();
        if let State::Wait { until } = &mut self.state {
            *until = now.at;
        }
    }

    /// Stop for good. What is due to be acknowledged is due now.
    pub(crate) fn shut_down(&mut self) {
        self.ack_ready = true;
    }

    // Inputs of the transport.

    /// A connection stands. `token` if one was asked for.
    pub(crate) fn handle_connected(&mut self, now: Now, token: Option<String>) {
        assert!(matches!(self.state, State::ExpectConnection));
        self.connect_counter += 1;
        self.records.push(Record::Connect(self.connect_counter));
        let resumed = token.is_none();
        let credential = match token {
            Some(token) => v1::hello::Credential::Token(token),
            None => v1::hello::Credential::ResumeToken(self.resume_token.clone()),
        };
        let capabilities = if self.numbers_known {
            0
        } else {
            i64::from(i32::from(v1::Capability::AskHighestNumber)).unsigned_abs()
        };
        self.hello = Some(v1::Hello {
            version: VERSION,
            credential: Some(credential),
            device: self.device.get(),
            connect_counter: self.connect_counter,
            cursor: transmit::field(self.inbox.greet()),
            capabilities,
        });
        self.last_error = None;
        self.state = State::ExpectWelcome {
            until: now.at + WELCOME_TIMEOUT,
            resumed,
        };
    }

    /// The connection ended, or none came about.
    pub(crate) fn handle_disconnected(&mut self, now: Now, cause: Cause) {
        if matches!(self.state, State::Wait { .. } | State::Stopped) {
            return;
        }
        // An Error frame that arrived tells more than a close that was lost on the way.
        let cause = match (cause, self.last_error.take()) {
            (
                Cause::Closed(ErrorCode::Unspecified) | Cause::Reset | Cause::TimedOut,
                Some(code),
            ) => Cause::Closed(code),
            (cause, _) => cause,
        };
        let was = std::mem::replace(&mut self.state, State::Stopped);
        if let State::Active { .. } = was {
            self.heartbeat.ended(matches!(cause, Cause::TimedOut));
        }
        self.forget_connection();
        let retry_in = cause
            .is_retryable()
            .then(|| self.reconnect_delay(now, &was, &cause));
        if let Some(delay) = retry_in {
            let until = now.at + delay;
            self.state = State::Wait { until };
        }
        self.events
            .push_back(Event::Disconnected(Disconnected { cause, retry_in }));
    }

    fn forget_connection(&mut self) {
        self.hello = None;
        self.typing = None;
        self.ack_at = None;
        self.ack_ready = false;
        self.answer_due = None;
        self.sends.end_session();
        self.reads.end_session();
    }

    fn reconnect_delay(&mut self, now: Now, was: &State, cause: &Cause) -> Duration {
        let is_refused = matches!(
            cause,
            Cause::Closed(ErrorCode::TokenInvalid | ErrorCode::TokenExpired)
        );
        if is_refused {
            // Also in the middle of a session: its user was signed out (P14).
            self.resume_token.clear();
        }
        match was {
            // Jittered by the server already.
            State::Active {
                leave_at: Some(at), ..
            } => return at.saturating_duration_since(now.at),
            State::Active { since, .. } if now.at >= *since + GOOD_SESSION => self.backoff.reset(),
            // The resume token was no good; a signed one may be, at once.
            State::ExpectWelcome { resumed: true, .. } => {
                self.resume_token.clear();
                if is_refused {
                    return Duration::ZERO;
                }
            }
            _ => {}
        }
        self.backoff.next(&mut self.jitter)
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        match self.state {
            State::Wait { until } if until <= now.at => self.connect(now),
            State::ExpectWelcome { until, .. } if until <= now.at => {
                self.abandon(now, Cause::TimedOut, ErrorCode::HelloTimeout);
            }
            State::Active {
                leave_at: Some(leave_at),
                ..
            } if leave_at <= now.at => {
                self.abandon(now, Cause::GoAway, ErrorCode::Unspecified);
            }
            State::Active { .. } if self.answer_due.is_some_and(|due| due <= now.at) => {
                self.abandon(now, Cause::TimedOut, ErrorCode::Unspecified);
            }
            State::Active { .. } => {
                for expired in self.sends.handle_timeout(now) {
                    self.give_up(&expired, SendError::Expired);
                }
                self.ack_ready |= self.ack_at.take_if(|at| *at <= now.at).is_some();
            }
            _ => {}
        }
    }

    fn connect(&mut self, now: Now) {
        let keep_ms = u64::try_from(self.settings.keep_unconfirmed.as_millis()).unwrap_or(u64::MAX);
        for expired in self.sends.expire(now, now.unix_ms.saturating_sub(keep_ms)) {
            self.give_up(&expired, SendError::Expired);
        }
        self.state = State::ExpectConnection;
        self.actions.push_back(Action::Connect {
            needs_token: self.resume_token.is_empty(),
        });
    }

    /// Ends a connection from this side.
    fn abandon(&mut self, now: Now, cause: Cause, code: ErrorCode) {
        self.actions.push_back(Action::Close(code));
        self.handle_disconnected(now, cause);
    }

    fn give_up(&mut self, message: &Unconfirmed, error: SendError) {
        self.events.push_back(Event::SendFailed(SendFailure {
            number: message.number,
            chat: message.chat,
            error,
        }));
    }

    fn tell_delays(&mut self) {
        while let Some(delay) = self.sends.poll_delay() {
            self.events.push_back(Event::SendDelayed(delay));
        }
    }

    // Outputs.

    /// What has to be durable before anything else is polled.
    pub(crate) fn poll_record(&mut self) -> Vec<Record> {
        let mut records = std::mem::take(&mut self.records);
        records.extend(self.sends.take_records());
        records
    }

    fn has_records(&self) -> bool {
        !self.records.is_empty() || self.sends.has_records()
    }

    /// What the application is told.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        assert!(!self.has_records(), "records first");
        self.events.pop_front()
    }

    /// What the shell has to do.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When `handle_timeout` has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Wait { until } | State::ExpectWelcome { until, .. } => Some(until),
            State::Active { leave_at, .. } => {
                let sends = self.sends.poll_timeout();
                let timers = [leave_at, sends, self.ack_at, self.answer_due];
                timers.into_iter().flatten().min()
            }
            State::ExpectConnection | State::Stopped => None,
        }
    }

    // Facts for the shell.

    pub(crate) fn is_active(&self) -> bool {
        matches!(self.state, State::Active { .. })
    }

    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    pub(crate) fn home(&self) -> Option<Home> {
        self.home
    }

    pub(crate) fn node_hints(&self) -> &[String] {
        &self.node_hints
    }

    pub(crate) fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }
}
