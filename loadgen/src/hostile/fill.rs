//! A full recipient: one device that never acknowledges, and users who write to it until it takes no more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::{Buf, Bytes, BytesMut};
use roadstead_hostile::Peer;
use roadstead_proto::v1::{self, client_frame, server_frame};
use roadstead_proto::{ChatId, encode_frame, limits};

use super::table::Row;
use super::{Done, Logins, PAUSE};

const KIND: &str = "full recipient";
const ADDRESS: u8 = 0;

/// Bytes of a message that fills.
const PAYLOAD: &[u8] = &[b'.'; 100];

/// All of one round.
pub(super) struct Fill {
    victim: Peer,
    fillers: Vec<Filler>,
}

impl Fill {
    pub(super) fn new(logins: &Logins<'_>, count: u32) -> Result<Self> {
        let to = logins.user(0)?;
        let (victim, _) = logins.log_in(ADDRESS, to)?;
        let filler = |place: u32| {
            let user = logins.user(1 + u64::from(place))?;
            let (peer, next) = logins.log_in(ADDRESS, user)?;
            Ok(Filler::new(peer, ChatId::pair(user, to), next))
        };
        let fillers: Result<Vec<_>> = (0..count).map(filler).collect();
        Ok(Self {
            victim,
            fillers: fillers?,
        })
    }

    pub(super) fn run(mut self, stop: &AtomicBool) -> Result<Done> {
        while !stop.load(Ordering::Relaxed) {
            let mut came = self.victim.turn();
            // It reads, and acknowledges nothing.
            while self.victim.take_frame().is_some() {}
            for filler in &mut self.fillers {
                came |= filler.turn();
            }
            if !came {
                std::thread::sleep(PAUSE);
            }
        }
        let sent = self.fillers.iter().map(|filler| filler.sent).sum();
        let taken: u64 = self.fillers.iter().map(|filler| filler.committed).sum();
        self.victim.close();
        let peers = self.fillers.into_iter().map(|filler| filler.peer);
        peers.for_each(Peer::close);
        let row = |counter| Row::new(KIND, sent, counter);
        let rows = vec![
            row("roadstead_sends_refused_by_code_total{code=\"ERROR_CODE_RECIPIENT_FULL\"}")
                .remark(format!("{taken} were taken")),
            row("roadstead_sends_refused_by_code_total{code=\"ERROR_CODE_CHAT_BUSY\"}").beside(),
        ];
        Ok(Done { rows })
    }
}

/// A user who waits for no refusal of a chat, and obeys those of a whole user: else nothing would be read of it.
struct Filler {
    peer: Peer,
    chat: Bytes,
    next: u64,
    /// Sent and without an answer.
    open: usize,
    /// The lowest number refused for now, and when it may be tried again (P39).
    retry: Option<u64>,
    retry_at: Instant,
    /// The highest number refused for good (P112).
    after: u64,
    /// Bytes that the stream has not taken yet.
    unsent: BytesMut,
    sent: u64,
    committed: u64,
}

impl Filler {
    fn new(peer: Peer, chat: ChatId, next: u64) -> Self {
        Self {
            peer,
            chat: Bytes::copy_from_slice(chat.as_bytes()),
            next,
            open: 0,
            retry: None,
            retry_at: Instant::now(),
            after: 0,
            unsent: BytesMut::new(),
            sent: 0,
            committed: 0,
        }
    }

    /// Answers whether anything came.
    fn turn(&mut self) -> bool {
        let came = self.peer.turn();
        while let Some(frame) = self.peer.take_frame() {
            self.take(frame);
        }
        if self.open == 0 && Instant::now() >= self.retry_at {
            self.next = self.retry.take().unwrap_or(self.next);
        }
        if self.retry.is_none() && self.unsent.is_empty() {
            while self.open < limits::SENDS_IN_FLIGHT_MAX {
                self.send();
            }
        }
        if let Ok(taken) = self.peer.write(&self.unsent) {
            self.unsent.advance(taken);
        }
        came
    }

    fn take(&mut self, frame: server_frame::Body) {
        match frame {
            server_frame::Body::SendResult(_) => {
                self.open = self.open.saturating_sub(1);
                self.committed += 1;
            }
            server_frame::Body::Error(error) if error.number > 0 => {
                self.open = self.open.saturating_sub(1);
                if error.retryable {
                    let lowest = self.retry.map_or(error.number, |n| n.min(error.number));
                    self.retry = Some(lowest);
                    let wait = Duration::from_millis(error.retry_after_ms.into());
                    self.retry_at = self.retry_at.max(Instant::now() + wait);
                } else {
                    self.after = self.after.max(error.number);
                }
            }
            _ => {}
        }
    }

    fn send(&mut self) {
        let send = v1::Send {
            number: self.next,
            chat: self.chat.clone(),
            payload: Bytes::from_static(PAYLOAD),
            deadline_ms: 0,
            after: self.after,
        };
        let body = Some(client_frame::Body::Send(send));
        encode_frame(&v1::ClientFrame { body }, &mut self.unsent);
        self.next += 1;
        self.open += 1;
        self.sent += 1;
    }
}
