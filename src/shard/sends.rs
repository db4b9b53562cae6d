//! Sending: from a Send frame to its SendResult.

use std::time::Duration;

use bytes::Bytes;
use roadstead_proto::v1::{self, server_frame};
use roadstead_proto::{ChatId, ErrorCode, UserId, limits as wire};

use super::{Pending, Shard};
use crate::io::SessionId;
use crate::limits;
use crate::request_hash::request_hash;
use crate::store::{Command, SendItem, Sends, Sent, StoreError};
use crate::time::Now;

impl Shard {
    pub(super) fn handle_send(&mut self, now: Now, id: SessionId, send: v1::Send) {
        if send.number == 0 {
            return self.refuse(now, id, ErrorCode::NumberInvalid, "numbers start at 1");
        }
        let number = send.number;
        let session = self.session_mut(id).expect("it sent the frame");
        if let Some(active) = session.in_flight.as_mut() {
            active.refusals.forget_known_at(number);
        }
        match self.admit(now, id, send) {
            Ok(item) => {
                let bytes = item.envelope.payload.len();
                let session = self.session_mut(id).expect("it sent the frame");
                let active = session.in_flight(now.at);
                active.outbox.push(item);
                active.outbox_bytes += bytes;
                self.sends_pending += 1;
                self.send_bytes_pending += bytes;
                self.submit(id);
            }
            Err(refusal) => self.refuse_send(now, id, number, refusal),
        }
    }

    /// Checks a Send and makes the item that the store commits.
    fn admit(&mut self, now: Now, id: SessionId, send: v1::Send) -> Result<SendItem, Refusal> {
        let after = send.after;
        let store_full = self.sends_pending >= limits::STORE_SENDS_REFUSED_ABOVE
            || self.send_bytes_pending >= limits::STORE_SEND_BYTES_REFUSED_ABOVE;
        let session = self.session_mut(id).expect("it sent the frame");
        let (user, device) = session.identity();
        let chat = ChatId::from_slice(&send.chat).map_err(|_| ErrorCode::ChatInvalid)?;
        let recipient = chat.peer_of(user).ok_or(ErrorCode::ChatInvalid)?;
        if send.payload.len() > wire::PAYLOAD_BYTES_MAX {
            return Err(ErrorCode::PayloadTooLarge.into());
        }
        if !session.attempt_send(send.number) {
            return Err(ErrorCode::EarlierRefused.into());
        }
        if session.sends_in_flight() >= wire::SENDS_IN_FLIGHT_MAX
            || session.send_bytes_in_flight() >= wire::SENDS_IN_FLIGHT_BYTES_MAX
        {
            return Err(ErrorCode::InFlightLimit.into());
        }
        if store_full {
            return Err(ErrorCode::Overloaded.into());
        }
        self.count_send(now, user)?;
        let refused = self.refused_by_chat(now, id, (chat, recipient), (send.number, after));
        let message_id = self
            .message_ids
            .next(now.unix_ms)
            .ok_or(ErrorCode::StoreUnavailable)?;
        Ok(SendItem {
            number: send.number,
            request_hash: request_hash(chat, &send.payload, []),
            after,
            refused,
            chat,
            recipient,
            deadline: now.at + deadline(send.deadline_ms),
            envelope: v1::Envelope {
                message_id: message_id.get(),
                chat: send.chat,
                sender: user.get(),
                sender_device: device.get(),
                server_time_ms: now.unix_ms,
                payload: send.payload,
                number: send.number,
            },
        })
    }

    /// Counts a send against the user's rate, last of all checks: only one that goes to the store costs a
    /// token. One sent again costs another, because it is as much work. A refusal is one for now, like any
    /// other: the number is not used (R12), and what is behind it waits (R16).
    fn count_send(&mut self, now: Now, user: UserId) -> Result<(), Refusal> {
        let Some(rates) = &mut self.send_rates else {
            return Ok(());
        };
        rates.take(now.at, user).map_err(|wait| {
            self.counters.sends_rate_limited += 1;
            Refusal::after(ErrorCode::RateLimited, wait)
        })
    }

    /// Why the chat takes nothing more of this device for a while, if it does not: what was sent before an
    /// earlier refusal of it was known, or more than one recipient has to bear of one sender (R16, R21). The
    /// send goes to the store all the same, which keeps the refusal as its answer.
    fn refused_by_chat(
        &mut self,
        now: Now,
        id: SessionId,
        (chat, recipient): (ChatId, UserId),
        (number, after): (u64, u64),
    ) -> Option<StoreError> {
        let session = self.session_mut(id).expect("it sent the frame");
        let (user, _) = session.identity();
        if let Some(active) = session.in_flight.as_mut()
            && let Some(error) = active.refusals.of(chat, number, after)
        {
            return Some(error);
        }
        let rates = self
            .recipient_rates
            .as_mut()
            .filter(|_| recipient != user)?;
        let wait = rates.take(now.at, (user, recipient)).err()?;
        self.counters.sends_chat_busy += 1;
        let error = StoreError::ChatBusy {
            retry_after_ms: millis_up(wait),
        };
        self.note_chat_refusal(now, id, (chat, number), error);
        Some(error)
    }

    fn note_chat_refusal(
        &mut self,
        now: Now,
        id: SessionId,
        (chat, number): (ChatId, u64),
        error: StoreError,
    ) {
        let session = self.session_mut(id).expect("checked by the caller");
        let active = session.in_flight(now.at);
        active.refusals.note(chat, number, error);
        for item in &mut active.outbox {
            if item.chat == chat && item.refused.is_none() {
                item.refused = active.refusals.of(chat, item.number, item.after);
            }
        }
    }

    /// The number was committed after all: it is a copy of what the store has taken before.
    fn withdraw_chat_refusal(&mut self, id: SessionId, (chat, number): (ChatId, u64)) {
        let session = self.session_mut(id).expect("checked by the caller");
        if let Some(active) = session.in_flight.as_mut() {
            active.refusals.withdraw(chat, number);
        }
    }

    /// Hands the waiting sends to the store, if none of this device are there already (R16).
    fn submit(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let (user, device) = session.identity();
        let Some(active) = session.in_flight.as_mut() else {
            return;
        };
        if active.committing > 0 || active.outbox.is_empty() {
            return;
        }
        let items = std::mem::take(&mut active.outbox);
        active.committing = items.len();
        let bytes = std::mem::take(&mut active.outbox_bytes);
        active.committing_bytes = bytes;
        let numbers = items.iter().map(|item| (item.number, item.chat)).collect();
        let command = Command::Send(Sends {
            user,
            device,
            limits: self.config.inbox_limits,
            items,
        });
        self.ask(
            command,
            Pending::Send {
                session: id,
                numbers,
                bytes,
            },
        );
    }

    pub(super) fn handle_sent(
        &mut self,
        now: Now,
        id: SessionId,
        numbers: &[(u64, ChatId)],
        answers: Vec<Result<Sent, StoreError>>,
    ) {
        assert_eq!(numbers.len(), answers.len(), "one answer for each send");
        self.sends_pending -= numbers.len();
        for answer in &answers {
            match answer {
                Ok(sent) if sent.repeated => self.counters.sends_repeated += 1,
                Ok(_) => self.counters.sends_committed += 1,
                Err(_) => {}
            }
        }
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let Some(active) = session.in_flight.as_mut() else {
            return;
        };
        (active.committing, active.committing_bytes) = (0, 0);
        if !session.is_active() {
            return self.settle(now, id);
        }
        let mut refused = Vec::new();
        let mut ended = None;
        for ((number, chat), answer) in numbers.iter().zip(answers) {
            match answer {
                Err(error) if error.ends_session() => {
                    ended = Some(error);
                    // Another login may send it; a device that was removed may not.
                    if error == StoreError::DeviceRemoved {
                        self.answer_refused(id, *number, error.into());
                    }
                }
                Ok(sent) => {
                    self.withdraw_chat_refusal(id, (*chat, *number));
                    self.confirm(id, *number, sent);
                }
                Err(error) if error.is_retryable() => {
                    refused.push((*number, error.code()));
                }
                Err(error) => {
                    let session = self.session_mut(id).expect("checked above");
                    session.answer_by_store(*number);
                    self.note_chat_refusal(now, id, (*chat, *number), error);
                    self.refuse_send(now, id, *number, error.into());
                }
            }
        }
        self.refuse_for_now(now, id, refused);
        if let Some(error) = ended {
            return self.end_session(now, id, error);
        }
        self.submit(id);
        self.settle(now, id);
    }

    fn confirm(&mut self, id: SessionId, number: u64, sent: Sent) {
        let session = self.session_mut(id).expect("checked by the caller");
        session.answer_by_store(number);
        let result = v1::SendResult {
            number,
            message_id: sent.message_id.get(),
            position: Bytes::copy_from_slice(sent.position.as_bytes()),
            server_time_ms: sent.server_time_ms,
        };
        self.send(id, server_frame::Body::SendResult(result));
    }

    /// Refuses one send. If the client may try it again, everything behind it waits for that (R16):
    /// otherwise a later message of the chat could be committed first.
    fn refuse_send(&mut self, now: Now, id: SessionId, number: u64, refusal: Refusal) {
        let session = self.session_mut(id).expect("checked by the caller");
        if refusal.code.is_retryable() {
            session.fail_send(now.at, number);
        } else {
            session.answer_send(number);
        }
        self.answer_refused(id, number, refusal);
    }

    fn answer_refused(&mut self, id: SessionId, number: u64, refusal: Refusal) {
        self.counters.sends_refused += 1;
        self.counters.sends_refused_by_code.add(refusal.code);
        let mut error = refusal.code.frame(explanation(refusal.code));
        error.number = number;
        if error.retryable || refusal.code.refuses_chat_for_now() {
            error.retry_after_ms = refusal.retry_after_ms;
        }
        self.send(id, server_frame::Body::Error(error));
    }

    /// Refuses what a commit refused for now, and what waits behind it (R16).
    ///
    /// The client may have sent all of it again before it knew: then what comes from there on is in order, and
    /// a number of which another attempt waits there has not failed.
    fn refuse_for_now(&mut self, now: Now, id: SessionId, mut refused: Vec<(u64, ErrorCode)>) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let answered = session.answered_number;
        let open = refused.iter().map(|(number, _)| *number);
        let lowest = open.filter(|number| *number > answered).min();
        if let Some(active) = session.in_flight.as_mut()
            && let Some(failed) = lowest
        {
            let outbox = std::mem::take(&mut active.outbox);
            let from = outbox.iter().position(|item| item.number == failed);
            let (mut behind, mut bytes) = (0, 0);
            for (index, item) in outbox.into_iter().enumerate() {
                if item.number > failed && from.is_none_or(|from| index < from) {
                    refused.push((item.number, ErrorCode::EarlierRefused));
                    behind += 1;
                    bytes += item.envelope.payload.len();
                } else {
                    active.outbox.push(item);
                }
            }
            active.outbox_bytes -= bytes;
            self.sends_pending -= behind;
            self.send_bytes_pending -= bytes;
        }
        for (number, code) in refused {
            let session = self.session_mut(id).expect("looked at above");
            match session.has_in_outbox(number) {
                true => self.answer_refused(id, number, code.into()),
                false => self.refuse_send(now, id, number, code.into()),
            }
        }
    }

    pub(super) fn settle(&mut self, now: Now, id: SessionId) {
        if let Some(session) = self.session_mut(id) {
            session.settle(now.at);
        }
        self.arm(now, id);
    }

    /// Forgets the sends of a session that ends before they went to the store: its device tries again.
    pub(super) fn forget_outbox(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        if let Some(active) = session.in_flight.as_mut() {
            let waiting = std::mem::take(&mut active.outbox).len();
            let bytes = std::mem::take(&mut active.outbox_bytes);
            self.sends_pending -= waiting;
            self.send_bytes_pending -= bytes;
        }
    }
}

/// Why a send is refused, and when to try again if that may help.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    code: ErrorCode,
    retry_after_ms: u32,
}

impl Refusal {
    /// Not before this time has passed, rounded up.
    fn after(code: ErrorCode, wait: Duration) -> Self {
        Self {
            code,
            retry_after_ms: millis_up(wait).max(limits::RETRY_AFTER_MS),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let retry_after_ms = match error {
            StoreError::ChatBusy { retry_after_ms } => retry_after_ms.max(limits::RETRY_AFTER_MS),
            StoreError::RecipientFull => limits::RECIPIENT_FULL_RETRY_MS,
            _ => limits::RETRY_AFTER_MS,
        };
        Self {
            code: error.code(),
            retry_after_ms,
        }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            retry_after_ms: limits::RETRY_AFTER_MS,
        }
    }
}

/// Milliseconds, rounded up.
fn millis_up(time: Duration) -> u32 {
    u32::try_from(time.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX)
}

fn deadline(asked_ms: u32) -> Duration {
    match asked_ms {
        0 => limits::SEND_DEADLINE,
        ms => Duration::from_millis(ms.into()).min(limits::SEND_DEADLINE_MAX),
    }
}

fn explanation(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::ChatInvalid => "no chat of this user",
        ErrorCode::PayloadTooLarge => "see Welcome.limits.payload_bytes_max",
        ErrorCode::InFlightLimit => "see Welcome.limits.sends_in_flight_max",
        ErrorCode::DeviceRemoved => "this device was removed",
        ErrorCode::UserUnknown => "nobody has that id",
        ErrorCode::RecipientFull => "the recipient has no room for more of this sender",
        ErrorCode::ChatBusy => "this chat takes no more for a while",
        ErrorCode::RecordDamaged => "a record of this chat or recipient can not be read",
        ErrorCode::EarlierRefused => "an earlier number waits for its retry",
        ErrorCode::NumberReused => "this number was used for another message",
        ErrorCode::NumberSpent => "this number is too old to be answered again",
        ErrorCode::DeadlinePassed => "the store did not get to it in time",
        ErrorCode::StoreUnavailable => "not committed, or not known to be",
        ErrorCode::Overloaded => "the store has too much to do",
        ErrorCode::RateLimited => "this user has sent too much",
        _ => "refused",
    }
}

/// The recipient of a pair's chat, for frames that only name the chat.
pub(super) fn peer_in(chat: &[u8], user: UserId) -> Option<(ChatId, UserId)> {
    let chat = ChatId::from_slice(chat).ok()?;
    Some((chat, chat.peer_of(user)?))
}
