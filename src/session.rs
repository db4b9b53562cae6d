//! One session: what the shard remembers of a connection.
//!
//! A silent session keeps only the few positions of [`Session`]. Everything that exists while frames are
//! under way hangs off [`InFlight`], which is dropped when the last of it has drained.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use roadstead_proto::{ChatId, DeviceId, Position, UserId, limits as wire};

use crate::io::Proof;
use crate::limits;
use crate::refusals::ChatRefusals;
use crate::store::{DeviceOpened, KnownEntry, SendItem};
use crate::time::Time;

/// What a session expects next.
#[derive(Debug)]
pub(crate) enum State {
    /// The first frame.
    ExpectHello,
    /// The answer to the credential it showed.
    ExpectIdentity(Box<Opening>),
    /// The device's record.
    ExpectDevice(Box<Opening>),
    /// The home's word that notifies will come (R5).
    ExpectRegistered(Box<Opening>),
    /// Anything a client may send.
    Active,
    /// Only the end of the connection.
    Closing,
}

impl State {
    /// The next step of the opening, once what this one expected has come.
    pub(crate) fn advance(&mut self) {
        *self = match std::mem::replace(self, Self::Closing) {
            Self::ExpectIdentity(opening) => Self::ExpectDevice(opening),
            Self::ExpectDevice(opening) => Self::ExpectRegistered(opening),
            other => panic!("{other:?} is no step of an opening"),
        };
    }
}

/// What is kept from the Hello until the Welcome.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) connect_counter: u64,
    pub(crate) cursor: Position,
    pub(crate) want_highest_number: bool,
    pub(crate) resume_token: Bytes,
    pub(crate) proof: Proof,
    pub(crate) device: Option<DeviceOpened>,
}

/// A session of this shard.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) generation: u32,
    pub(crate) state: State,
    /// Set with the identity.
    pub(crate) user: Option<UserId>,
    /// Set with the Hello.
    pub(crate) device: Option<DeviceId>,
    /// [`Identity::issued_s`](crate::Identity::issued_s), in the four bytes that a session has room for: until 2106.
    /// Set with the user.
    pub(crate) issued_s: u32,
    /// The generation of the store that the session reads (R3). Set with the device.
    pub(crate) store_generation: u32,
    /// The inbox is known completely up to here (R4).
    pub(crate) read_through: Position,
    /// The last cursor given to the client: an Ack beyond it is refused (R19).
    pub(crate) delivered: Position,
    /// The client's last acknowledgement.
    pub(crate) acked: Position,
    /// Flushed, or on its way to the store in [`InFlight::flushing`].
    pub(crate) flushed: Position,
    /// The highest number that the store answered for good, with its commit or a refusal: the client has
    /// no reason to send it again, so no late copy of it, or of one before it, holds anything up (R16).
    pub(crate) answered_number: u64,
    /// A read of the inbox is under way.
    pub(crate) reading: bool,
    /// It has been given all that its inbox held, and nothing has waited for its Acks since: what comes now is
    /// delivered as fast as the server can.
    pub(crate) caught_up: bool,
    /// The inbox has more than `read_through`: the one bit to which all notifies come down (R7).
    pub(crate) dirty: bool,
    /// The entry of this session in the shard's timer queue, or [`Time::NEVER`]. May be earlier than
    /// what is due.
    pub(crate) timer: Time,
    /// When the shard closes the session, whatever happens: a missing Hello, or a drain.
    pub(crate) close_at: Time,
    pub(crate) in_flight: Option<Box<InFlight>>,
}

/// A delivered entry that is not flushed.
#[derive(Debug)]
pub(crate) struct WindowEntry {
    pub(crate) known: KnownEntry,
    pub(crate) bytes: usize,
}

/// What a session has under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// Delivered and not flushed, in order: the entries in `(flushed, delivered]`, unless
    /// `window_complete` is false.
    pub(crate) window: VecDeque<WindowEntry>,
    /// Whether `window` starts at `flushed`. False after a flush failed: then the store reads itself.
    pub(crate) window_complete: bool,
    /// Of the window, those the client has not acknowledged.
    pub(crate) unacked: usize,
    pub(crate) unacked_bytes: usize,
    /// When the client last acknowledged something, or its window became full after that.
    pub(crate) progress_at: Time,
    /// Since when the driver has left its frames where they are: its Ack may be among them.
    pub(crate) unheard_since: Option<Time>,
    /// A flush is under way.
    pub(crate) flushing: bool,
    /// When acknowledgements collected so far go to the store.
    pub(crate) flush_at: Option<Time>,
    /// No flush before this, so that flushes are at least [`limits::FLUSH_DELAY`] apart.
    pub(crate) flush_not_before: Time,
    /// Sends that wait for the one batch of this device to be answered (R16).
    pub(crate) outbox: Vec<SendItem>,
    /// Sends in that batch.
    pub(crate) committing: usize,
    /// Bytes of the outbox, and of that batch.
    pub(crate) outbox_bytes: usize,
    pub(crate) committing_bytes: usize,
    /// Numbers refused for now, in order. Everything above the lowest is refused, too, until that one is sent
    /// again, or an attempt that was under way gives it its answer (R16). As many as a client may have in
    /// flight: one that has more harms its own order.
    failed: Vec<u64>,
    /// Chats that refused a number for good and more of the same for a while (R16).
    pub(crate) refusals: ChatRefusals,
    /// Read marks that wait for the one under way: one for each chat.
    pub(crate) read_marks: Vec<(ChatId, Position)>,
    /// The read mark under way.
    pub(crate) marking: Option<(ChatId, Position)>,
    /// When to try the read marks again after one failed.
    pub(crate) mark_at: Option<Time>,
    /// When to ask a store that failed again.
    pub(crate) retry_at: Option<Time>,
    pub(crate) retries: u32,
    /// Typing frames left in the interval that ends at `typing_until`.
    pub(crate) typing_left: u8,
    pub(crate) typing_until: Time,
}

impl Session {
    pub(crate) fn new(generation: u32, close_at: Time) -> Self {
        Self {
            generation,
            state: State::ExpectHello,
            user: None,
            device: None,
            issued_s: 0,
            store_generation: 0,
            read_through: Position::ZERO,
            delivered: Position::ZERO,
            acked: Position::ZERO,
            flushed: Position::ZERO,
            answered_number: 0,
            reading: false,
            caught_up: false,
            dirty: false,
            timer: Time::NEVER,
            close_at,
            in_flight: None,
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        matches!(self.state, State::Active)
    }

    /// User and device of a session that has been authenticated.
    pub(crate) fn identity(&self) -> (UserId, DeviceId) {
        let user = self.user.expect("an authenticated session has a user");
        (
            user,
            self.device
                .expect("a session has its device before its user"),
        )
    }

    /// What is under way; created when there is something.
    pub(crate) fn in_flight(&mut self, now: Time) -> &mut InFlight {
        self.in_flight
            .get_or_insert_with(|| Box::new(InFlight::new(now)))
    }

    /// Whether the window has room for an entry.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight.as_ref().is_none_or(|active| {
            active.unacked < limits::DELIVER_WINDOW_ENTRIES_MAX
                && active.unacked_bytes < limits::DELIVER_WINDOW_BYTES_MAX
        })
    }

    /// Sends that have not been answered.
    pub(crate) fn sends_in_flight(&self) -> usize {
        self.in_flight
            .as_ref()
            .map_or(0, |active| active.outbox.len() + active.committing)
    }

    /// Bytes of the sends that have not been answered.
    pub(crate) fn send_bytes_in_flight(&self) -> usize {
        self.in_flight
            .as_ref()
            .map_or(0, |active| active.outbox_bytes + active.committing_bytes)
    }

    /// A send failed, and its client will make another attempt (R16). One that was answered already
    /// holds nothing up: the client has no reason to send it again.
    pub(crate) fn fail_send(&mut self, now: Time, number: u64) {
        if number > self.answered_number {
            let failed = &mut self.in_flight(now).failed;
            if let Err(place) = failed.binary_search(&number) {
                failed.insert(place, number);
                failed.truncate(wire::SENDS_IN_FLIGHT_MAX);
            }
        }
    }

    /// Whether a send may go on, or has to wait because one before it failed and has not been sent again. One
    /// that says again what failed, from the lowest number on, frees the way.
    pub(crate) fn attempt_send(&mut self, number: u64) -> bool {
        let Some(active) = self.in_flight.as_mut() else {
            return true;
        };
        if active.failed.first().is_some_and(|lowest| number > *lowest) {
            return false;
        }
        if number > self.answered_number {
            active.failed.clear();
        }
        true
    }

    /// Whether an attempt at a number waits for the batch under way to be answered.
    pub(crate) fn has_in_outbox(&self, number: u64) -> bool {
        let active = self.in_flight.as_ref();
        active.is_some_and(|active| active.outbox.iter().any(|item| item.number == number))
    }

    /// The store gave a number its final answer. It does so in order: whatever comes before has its own.
    pub(crate) fn answer_by_store(&mut self, number: u64) {
        self.answered_number = self.answered_number.max(number);
        self.answer_send(number);
    }

    /// An attempt that was under way gave a number its final answer: the client will not send it again, only
    /// those that were refused behind it, from the lowest on.
    pub(crate) fn answer_send(&mut self, number: u64) {
        if let Some(active) = self.in_flight.as_mut() {
            active.failed.retain(|failed| *failed != number);
        }
    }

    /// When something is due, if nothing else happens, or [`Time::NEVER`].
    pub(crate) fn due(&self, slow_consumer_after: Duration) -> Time {
        let Some(active) = self.in_flight.as_ref() else {
            return self.close_at;
        };
        [
            Some(self.close_at),
            self.stalled_since()
                .map(|since| since + slow_consumer_after),
            active.flush_at.filter(|_| !active.flushing),
            active.retry_at,
            active.mark_at,
            active.settles_at(),
        ]
        .into_iter()
        .flatten()
        .fold(Time::NEVER, Time::min)
    }

    /// Since when entries wait for nothing but an Ack, if they do.
    pub(crate) fn stalled_since(&self) -> Option<Time> {
        let active = self.in_flight.as_ref()?;
        let is_heard = active.unheard_since.is_none();
        (self.dirty && is_heard && !self.has_room()).then_some(active.progress_at)
    }

    /// Its frames are left where they are from now on.
    pub(crate) fn pause(&mut self, now: Time) {
        self.in_flight(now).unheard_since.get_or_insert(now);
    }

    /// They are read on. What it was not heard in counts for nothing: the time for an Ack goes on where it stood.
    pub(crate) fn resume(&mut self, now: Time) {
        let Some(active) = self.in_flight.as_mut() else {
            return;
        };
        if let Some(since) = active.unheard_since.take() {
            let unheard = now.since(since.max(active.progress_at));
            active.progress_at = active.progress_at + unheard;
        }
    }

    /// Drops what only a session in service needs; what is on its way to the store stays.
    pub(crate) fn retire(&mut self) {
        self.dirty = false;
        if let Some(active) = self.in_flight.as_mut() {
            active.window = VecDeque::new();
            (active.unacked, active.unacked_bytes) = (0, 0);
            active.unheard_since = None;
            active.failed = Vec::new();
            active.refusals = ChatRefusals::default();
            active.read_marks = Vec::new();
            (active.mark_at, active.retry_at, active.retries) = (None, None, 0);
            if active.is_quiet() {
                self.in_flight = None;
            }
        }
    }

    /// Drops what is under way if nothing is: an idle session owns no memory beside itself.
    pub(crate) fn settle(&mut self, now: Time) {
        if self
            .in_flight
            .as_ref()
            .is_some_and(|active| active.is_idle(now))
        {
            self.in_flight = None;
        }
    }
}

/// An idle session of the core: three cache lines at most.
const _: () = assert!(size_of::<Option<Session>>() <= 152);

impl InFlight {
    fn new(now: Time) -> Self {
        Self {
            window: VecDeque::new(),
            window_complete: true,
            unacked: 0,
            unacked_bytes: 0,
            progress_at: now,
            unheard_since: None,
            flushing: false,
            flush_at: None,
            flush_not_before: now,
            outbox: Vec::new(),
            committing: 0,
            outbox_bytes: 0,
            committing_bytes: 0,
            failed: Vec::new(),
            refusals: ChatRefusals::default(),
            read_marks: Vec::new(),
            marking: None,
            mark_at: None,
            retry_at: None,
            retries: 0,
            typing_left: limits::TYPING_BURST,
            typing_until: now,
        }
    }

    /// Nothing is under way but intervals that have to pass.
    fn is_quiet(&self) -> bool {
        self.window.is_empty()
            && self.window_complete
            && self.unheard_since.is_none()
            && !self.flushing
            && self.flush_at.is_none()
            && self.outbox.is_empty()
            && self.committing == 0
            && self.failed.is_empty()
            && self.refusals.is_empty()
            && self.read_marks.is_empty()
            && self.marking.is_none()
            && self.retry_at.is_none()
            // A repeated request is under way: the next wait depends on how often it failed.
            && self.retries == 0
    }

    /// When the last interval has passed, if nothing else is under way.
    fn settles_at(&self) -> Option<Time> {
        let intervals_end = self.flush_not_before.max(self.typing_until);
        self.is_quiet().then_some(intervals_end)
    }

    fn is_idle(&self, now: Time) -> bool {
        self.settles_at().is_some_and(|at| at <= now)
    }
}
