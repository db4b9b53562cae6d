//! The server's rules for sends, as far as the order of a chat depends on them (R12, R16): a number keeps its
//! answer, what is refused for now holds the device, what is refused for a while holds its chat.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use roadstead_proto::limits::SEND_ANSWERS_KEPT;

use super::*;

/// A number drawn from a seed.
#[derive(Debug, Clone)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end
    }

    /// True so many times in a hundred.
    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What a number was answered for good.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Committed(u64),
    Refused(ErrorCode),
}

/// What the store keeps.
#[derive(Debug, Default)]
pub(super) struct Server {
    slots: BTreeMap<u64, (u64, Bytes, Answer)>,
    /// Payloads in the order of their commits.
    pub(super) chats: BTreeMap<ChatId, Vec<Bytes>>,
    positions: u64,
    /// Chats whose recipient has no room.
    pub(super) full: BTreeSet<ChatId>,
    /// Chats of which it takes some and refuses some, by chance.
    pub(super) busy: BTreeSet<ChatId>,
    /// The store refuses one in four for now, and does not always know whether it was committed.
    pub(super) failing: bool,
}

/// One session at the server, and what is on its way there and back.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) up: VecDeque<v1::Send>,
    pub(super) down: VecDeque<Body>,
    failed: BTreeSet<u64>,
    refusals: BTreeMap<ChatId, (u64, ErrorCode)>,
    /// Numbers that the server owes an answer.
    unanswered: BTreeSet<u64>,
}

impl Link {
    /// The client sends, within the limits that it has to keep (P37).
    pub(super) fn send(&mut self, send: v1::Send) {
        self.unanswered.insert(send.number);
        let lowest = self.unanswered.first().expect("just sent");
        assert!(send.number < lowest + SEND_ANSWERS_KEPT, "P37: {send:?}");
        assert!(self.unanswered.len() <= 128, "P37: {send:?}");
        self.up.push_back(send);
    }

    fn refused_behind(&mut self, chat: ChatId, send: &v1::Send) -> Option<ErrorCode> {
        let (number, code) = *self.refusals.get(&chat)?;
        if send.after >= number {
            self.refusals.remove(&chat);
            return None;
        }
        (send.number > number).then_some(code)
    }
}

impl Server {
    /// Reads the next frame of a session and answers it.
    pub(super) fn read(&mut self, link: &mut Link, draw: &mut Draw) {
        let Some(send) = link.up.pop_front() else {
            return;
        };
        let answer = self.answer(link, &send, draw);
        link.unanswered.remove(&send.number);
        link.down.push_back(match answer {
            Ok(position) => Body::SendResult(v1::SendResult {
                number: send.number,
                message_id: position,
                position: bytes(at(1, u16::try_from(position).expect("few"))),
                server_time_ms: 1,
            }),
            Err(code) => Body::Error(v1::Error {
                number: send.number,
                retry_after_ms: 250,
                ..code.frame("")
            }),
        });
    }

    fn answer(
        &mut self,
        link: &mut Link,
        send: &v1::Send,
        draw: &mut Draw,
    ) -> Result<u64, ErrorCode> {
        if link
            .failed
            .first()
            .is_some_and(|lowest| send.number > *lowest)
        {
            link.failed.insert(send.number);
            return Err(ErrorCode::EarlierRefused);
        }
        link.failed.clear();
        let chat = ChatId::from_slice(&send.chat).expect("the client's");
        let mut refused = link.refused_behind(chat, send);
        let is_failing = self.failing && draw.percent(25);
        if refused.is_none() && self.busy.contains(&chat) && draw.percent(50) {
            refused = Some(ErrorCode::ChatBusy);
        }
        if is_failing && draw.percent(50) {
            link.failed.insert(send.number);
            return Err(ErrorCode::StoreUnavailable);
        }
        let answer = self.execute(chat, send, refused)?;
        if is_failing {
            // It is committed, and nobody knows.
            link.failed.insert(send.number);
            return Err(ErrorCode::StoreUnavailable);
        }
        match answer {
            Answer::Committed(position) => Ok(position),
            Answer::Refused(code) => {
                let noted = link.refusals.entry(chat).or_insert((0, code));
                noted.0 = noted.0.max(send.number);
                Err(code)
            }
        }
    }

    fn execute(
        &mut self,
        chat: ChatId,
        send: &v1::Send,
        refused: Option<ErrorCode>,
    ) -> Result<Answer, ErrorCode> {
        let slot = send.number % SEND_ANSWERS_KEPT;
        if let Some((number, payload, answer)) = self.slots.get(&slot) {
            if *number > send.number {
                return Err(ErrorCode::NumberSpent);
            }
            if *number == send.number {
                assert_eq!(*payload, send.payload, "R12: one number, two messages");
                return Ok(*answer);
            }
        }
        let full = self
            .full
            .contains(&chat)
            .then_some(ErrorCode::RecipientFull);
        let answer = match refused.or(full) {
            Some(code) => Answer::Refused(code),
            None => {
                self.positions += 1;
                self.chats
                    .entry(chat)
                    .or_default()
                    .push(send.payload.clone());
                Answer::Committed(self.positions)
            }
        };
        let kept = (send.number, send.payload.clone(), answer);
        self.slots.insert(slot, kept);
        Ok(answer)
    }
}
