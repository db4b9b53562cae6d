//! Chats that took nothing for a while (P112): each holds its own messages back, and no other chat's.

use std::collections::VecDeque;

use super::chatter::Unconfirmed;
use crate::clock::Micros;
use crate::rng::Rng;

/// The longest wait of a chat before it is tried again, whatever the number of refusals.
const PAUSE_MAX: Micros = 300_000_000;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Paused {
    chats: Vec<PausedChat>,
    /// The earliest time at which the session has asked to be called.
    armed: Option<Micros>,
}

#[derive(Debug)]
struct PausedChat {
    chat: u32,
    /// The highest number refused in this session; 0 if none was.
    refused: u64,
    /// Its message, while what was sent behind it may be without an answer: not once one sent later is committed.
    message: Option<u64>,
    state: State,
    /// The wait that the server asked for, and how often in a row.
    wait: Micros,
    refusals: u32,
    /// Without a number, in the application's order.
    waiting: VecDeque<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It takes messages.
    Open,
    /// Numbers of it are without an answer.
    ExpectAnswers,
    /// One message may be tried then.
    Until(Micros),
    /// One message is under way to find out.
    Trying(u64),
}

impl Paused {
    /// Keeps a message if its chat is paused.
    pub(super) fn keep(&mut self, chat: u32, message: u64) -> bool {
        let found = self.find(chat).filter(|known| known.state != State::Open);
        found
            .map(|known| known.waiting.push_back(message))
            .is_some()
    }

    /// What a new number of this chat says that it knows of.
    pub(super) fn after(&mut self, chat: u32) -> u64 {
        self.find(chat).map_or(0, |known| known.refused)
    }

    /// A number of the chat was refused for good. Its message waits, with those that were never sent.
    pub(super) fn refused(&mut self, entry: Unconfirmed, unsent: Vec<u64>, wait: Micros) {
        let known = match self.chats.iter().position(|known| known.chat == entry.chat) {
            Some(at) => &mut self.chats[at],
            None => {
                self.chats.push(PausedChat::new(entry.chat));
                self.chats.last_mut().expect("just pushed")
            }
        };
        if entry.number > known.refused {
            (known.refused, known.message) = (entry.number, Some(entry.message));
        }
        known.wait = match known.state {
            State::ExpectAnswers => known.wait.max(wait),
            _ => wait,
        };
        known.state = State::ExpectAnswers;
        known.waiting.extend(unsent);
        if !entry.again && !known.waiting.contains(&entry.message) {
            known.waiting.push_back(entry.message);
        }
        // Messages are numbered in the application's order.
        known.waiting.make_contiguous().sort_unstable();
    }

    /// A number of the chat is committed. If it was the one that tried the chat, all that wait may go.
    pub(super) fn answered(&mut self, chat: u32, number: u64) -> Vec<u64> {
        let Some(known) = self.find(chat) else {
            return Vec::new();
        };
        if known.state != State::Trying(number) {
            return Vec::new();
        }
        known.state = State::Open;
        known.message = None;
        known.refusals = 0;
        known.waiting.drain(..).collect()
    }

    /// Chats of which every number has its answer begin to wait.
    pub(super) fn settle(&mut self, now: Micros, rng: &mut Rng, has_open: impl Fn(u32) -> bool) {
        let expecting =
            |known: &&mut PausedChat| known.state == State::ExpectAnswers && !has_open(known.chat);
        for known in self.chats.iter_mut().filter(expecting) {
            let factor = 1 << known.refusals.min(16);
            known.refusals += 1;
            let wait = known.wait.saturating_mul(factor).min(PAUSE_MAX);
            known.state = State::Until(now + rng.jitter(wait));
        }
    }

    /// The first message of a chat whose wait is over goes, alone, under this number.
    pub(super) fn try_one(&mut self, now: Micros, number: u64) -> Option<Unconfirmed> {
        let is_due = |known: &&mut PausedChat| {
            matches!(known.state, State::Until(at) if at <= now) && !known.waiting.is_empty()
        };
        let known = self.chats.iter_mut().find(is_due)?;
        known.state = State::Trying(number);
        Some(Unconfirmed {
            number,
            message: known.waiting.pop_front()?,
            chat: known.chat,
            after: known.refused,
            sent: false,
            again: false,
        })
    }

    /// When the session has to be called again, if that is news.
    pub(super) fn arm(&mut self, now: Micros) -> Option<Micros> {
        let due = |known: &PausedChat| match known.state {
            State::Until(at) if !known.waiting.is_empty() => Some(at),
            _ => None,
        };
        let next = self.chats.iter().filter_map(due).min()?;
        let is_news = self.armed.is_none_or(|armed| armed <= now || next < armed);
        is_news.then(|| {
            self.armed = Some(next);
            next
        })
    }

    /// Gives up the messages of these chats that have no number (P113).
    pub(super) fn give_up(&mut self, mut of: impl FnMut(u32) -> bool) -> Vec<u64> {
        let chats = self.chats.iter_mut().filter(|known| of(known.chat));
        let take = |known: &mut PausedChat| {
            known.message = None;
            std::mem::take(&mut known.waiting)
        };
        chats.flat_map(take).collect()
    }

    /// The session is over, and what was refused in it is known to nobody in the next. Answers the highest refused
    /// number of each chat.
    pub(super) fn closed(&mut self) -> Vec<Unconfirmed> {
        self.armed = None;
        let mut refused = Vec::new();
        for known in &mut self.chats {
            let number = std::mem::take(&mut known.refused);
            if let Some(message) = known.message.take() {
                refused.push(Unconfirmed {
                    number,
                    message,
                    chat: known.chat,
                    after: 0,
                    sent: true,
                    again: true,
                });
            }
        }
        refused
    }

    fn find(&mut self, chat: u32) -> Option<&mut PausedChat> {
        self.chats.iter_mut().find(|known| known.chat == chat)
    }
}

impl PausedChat {
    fn new(chat: u32) -> Self {
        Self {
            chat,
            refused: 0,
            message: None,
            state: State::Open,
            wait: 0,
            refusals: 0,
            waiting: VecDeque::new(),
        }
    }
}
