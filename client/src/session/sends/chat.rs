//! A chat that takes nothing at the moment, and what waits for it (P112).
//!
//! Its refusal was final for the number that it answered, so that number is of no more use; but as long as
//! another number of the chat is open, that one may be sent again, in another session or after a crash, and
//! then it must be *behind* the refused one, whose kept answer makes the server refuse it too. So a refused
//! message keeps its number until no number of its chat is open. Then all of them wait without one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use roadstead_proto::limits::SENDS_IN_FLIGHT_MAX;
use roadstead_proto::{ChatId, ErrorCode, v1};

use crate::journal::Unconfirmed;
use crate::pace::{Backoff, Jitter};

/// The shortest wait before a chat is tried again, before jitter. The server asks for more where it knows.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest for a recipient without room: somebody has to switch a device on, and is not to wait much
/// longer for his messages than it took him.
const RETRY_FULL_MAX: Duration = Duration::from_secs(600);
/// The longest for a rate, which lets the next message through after moments.
const RETRY_BUSY_MAX: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Chat {
    /// Refused for a while, while other numbers of the chat are open. By the number refused.
    refused: BTreeMap<u64, Unconfirmed>,
    /// Without a number, in the order of the application.
    waiting: BTreeMap<u64, Waiting>,
    pause: Option<Pause>,
    backoff: Backoff,
    /// Numbers that may be under way at once: one after a pause, twice as many after each success. To send all
    /// that waits, only to have it refused and numbered anew, would be as much work as if it were taken.
    window: usize,
}

/// A message that waits without a number.
#[derive(Debug)]
struct Waiting {
    message: Unconfirmed,
    /// When it is given up; `None` for never.
    expires_at: Option<Instant>,
    /// The application knows that it waits.
    is_told: bool,
}

/// Why the chat takes nothing, and until when it is left alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    pub(super) code: ErrorCode,
    pub(super) until: Instant,
}

impl Chat {
    pub(super) fn new() -> Self {
        Self {
            refused: BTreeMap::new(),
            waiting: BTreeMap::new(),
            pause: None,
            backoff: Backoff::new(RETRY_MIN, RETRY_FULL_MAX),
            window: 1,
        }
    }

    pub(super) fn pause(&self) -> Option<Pause> {
        self.pause
    }

    /// Messages that wait, with a number or without.
    pub(super) fn len(&self) -> usize {
        self.refused.len() + self.waiting.len()
    }

    /// Whether a new message has to wait, because others wait before it or the chat takes none.
    pub(super) fn is_holding(&self, under_way: usize) -> bool {
        self.pause.is_some() || self.len() > 0 || under_way >= self.window
    }

    /// Whether nothing sets it apart from any other chat, with so many numbers under way.
    pub(super) fn is_over(&self, under_way: usize) -> bool {
        self.pause.is_none()
            && self.len() == 0
            && (under_way == 0 || self.window >= SENDS_IN_FLIGHT_MAX)
    }

    /// A number was refused for a while: the chat pauses, at least as long as the server asks for. All
    /// refusals of what was under way together make one pause.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        message: Unconfirmed,
        error: &v1::Error,
        jitter: &mut Jitter,
    ) {
        let code = error.code();
        let asked = Duration::from_millis(u64::from(error.retry_after_ms));
        // What the server asks for may be the same for many clients: jitter goes on top.
        let asked = asked + jitter.upper_half(asked / 2);
        let until = match self.pause {
            Some(pause) => pause.until.max(now + asked),
            None => {
                let max = match code {
                    ErrorCode::ChatBusy => RETRY_BUSY_MAX,
                    _ => RETRY_FULL_MAX,
                };
                now + asked.max(self.backoff.next_up_to(max, jitter))
            }
        };
        self.pause = Some(Pause { code, until });
        self.window = 1;
        self.refused.insert(error.number, message);
    }

    /// Takes out what was refused: to be sent again under its number, or to wait without one.
    pub(super) fn take_refused(&mut self) -> BTreeMap<u64, Unconfirmed> {
        std::mem::take(&mut self.refused)
    }

    /// A message waits without a number; `is_told` if the application knows.
    pub(super) fn wait(
        &mut self,
        message: Unconfirmed,
        expires_at: Option<Instant>,
        is_told: bool,
    ) {
        let waiting = Waiting {
            expires_at,
            is_told,
            message,
        };
        self.waiting.insert(waiting.message.number, waiting);
    }

    /// Ends the pause if its time has come and no refused message keeps its number, because another is open.
    pub(super) fn end_pause(&mut self, now: Instant) {
        if self.refused.is_empty() {
            self.pause.take_if(|pause| pause.until <= now);
        }
    }

    /// A message was committed. One from before the pause says nothing about it.
    pub(super) fn succeed(&mut self) {
        if self.pause.is_none() {
            self.backoff.reset();
            self.window = (2 * self.window).min(SENDS_IN_FLIGHT_MAX);
        }
    }

    /// The next message to get a number, with so many under way.
    pub(super) fn next(&mut self, under_way: usize) -> Option<Unconfirmed> {
        if self.pause.is_some() || under_way >= self.window {
            return None;
        }
        let (_, waiting) = self.waiting.pop_first()?;
        Some(waiting.message)
    }

    /// What waits and was not told yet, in the order of the application.
    pub(super) fn tell(&mut self) -> impl Iterator<Item = (u64, ChatId)> {
        let untold = self.waiting.values_mut().filter(|waiting| !waiting.is_told);
        untold.map(|waiting| {
            waiting.is_told = true;
            (waiting.message.number, waiting.message.chat)
        })
    }

    /// Takes a message out that waits.
    pub(super) fn take(&mut self, number: u64) -> Option<Unconfirmed> {
        if let Some(waiting) = self.waiting.remove(&number) {
            return Some(waiting.message);
        }
        let mut refused = self.refused.iter();
        let (&refused_as, _) = refused.find(|(_, message)| message.number == number)?;
        self.refused.remove(&refused_as)
    }

    /// The numbers of the application of what waits without one and is old enough to be given up.
    pub(super) fn expired(&self, now: Instant) -> impl Iterator<Item = u64> {
        let waiting = self.waiting.iter();
        let old = waiting.filter(move |(_, one)| one.expires_at.is_some_and(|at| at <= now));
        old.map(|(number, _)| *number)
    }

    /// The same of what waits with or without a number and was sent before then.
    pub(super) fn sent_before(&self, unix_ms: u64) -> impl Iterator<Item = u64> {
        let waiting = self.waiting.values().map(|waiting| &waiting.message);
        waiting
            .chain(self.refused.values())
            .filter(move |message| message.sent_unix_ms < unix_ms)
            .map(|message| message.number)
    }

    /// When the pause ends or something is old enough to be given up.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let pause = self.pause.filter(|_| self.refused.is_empty());
        let expiries = self
            .waiting
            .values()
            .filter_map(|waiting| waiting.expires_at);
        expiries.chain(pause.map(|pause| pause.until)).min()
    }
}
