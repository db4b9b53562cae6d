//! Half frames: sessions that send the beginning of one and then a byte now and then, before and after their login.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::{Buf, Bytes, BytesMut};
use roadstead_hostile::{Access, Peer};
use roadstead_proto::v1::{self, client_frame, hello};
use roadstead_proto::{ChatId, UserId, encode_frame, limits};

use super::counters::Counters;
use super::table::Row;
use super::{Done, Logins, PAUSE, address};

const BEFORE: &str = "half frames before login";
const AFTER: &str = "half frames after login";
const ADDRESS: u8 = 2;

/// Behind the users of the other kinds.
const FIRST: u64 = 2_000;

/// Now and then.
const BYTE_EVERY: Duration = Duration::from_secs(1);

/// Of the largest frame, so much is sent at once: what the server holds for it.
const HALF_BYTES: usize = limits::PAYLOAD_BYTES_MAX / 2;

const HELD: &str = "roadstead_held_bytes";

/// All of one round.
pub(super) struct Halves {
    access: Access,
    admin: SocketAddr,
    /// A whole Hello, of which no session sends more than a part.
    hello: Bytes,
    /// The sessions before their login, and how many there have been.
    strangers: Vec<Half>,
    begun: u64,
    users: Vec<Half>,
    /// Bytes held by the server before, and the most since.
    held: (u64, u64),
}

impl Halves {
    pub(super) fn new(logins: &Logins<'_>, count: u32) -> Result<Self> {
        let (user, admin) = (logins.user(FIRST)?, logins.campaign.admin);
        let hello = v1::Hello {
            version: roadstead_proto::VERSION,
            credential: Some(hello::Credential::Token(logins.token(user)?)),
            device: Logins::device().get(),
            connect_counter: logins.plan.counter_base,
            ..v1::Hello::default()
        };
        let held = Counters::read(admin)?.sum(HELD);
        let mut halves = Self {
            access: logins.campaign.access.clone(),
            admin,
            hello: whole(client_frame::Body::Hello(hello)),
            strangers: Vec::new(),
            begun: 0,
            users: Vec::new(),
            held: (held, held),
        };
        for place in 0..count {
            let stranger = halves.stranger()?;
            halves.strangers.push(stranger);
            let user = logins.user(FIRST + 1 + u64::from(place))?;
            let (peer, number) = logins.log_in(ADDRESS, user)?;
            halves
                .users
                .push(Half::new(peer, &large(user, number), HALF_BYTES));
        }
        Ok(halves)
    }

    pub(super) fn run(mut self, stop: &AtomicBool) -> Result<Done> {
        let mut look_at = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let mut came = false;
            for half in self.strangers.iter_mut().chain(&mut self.users) {
                came |= half.turn();
            }
            if let Some(place) = self.strangers.iter().position(|half| half.peer.has_ended()) {
                self.strangers[place] = self.stranger()?;
            }
            if Instant::now() >= look_at {
                look_at += BYTE_EVERY;
                let held = Counters::read(self.admin)?.sum(HELD);
                self.held.1 = self.held.1.max(held);
            }
            if !came {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(self.end())
    }

    fn stranger(&mut self) -> Result<Half> {
        let peer = Peer::connect(&self.access, address(ADDRESS))?;
        self.begun += 1;
        Ok(Half::new(peer, &self.hello, self.hello.len() / 2))
    }

    fn end(self) -> Done {
        let refused = self.users.iter().filter(|half| half.peer.has_ended());
        let remark = format!("held, not refused; {} were closed", refused.count());
        let users = self.users.len() as u64;
        let rows = vec![
            Row::new(
                BEFORE,
                self.begun,
                "roadstead_refused_total{code=\"ERROR_CODE_HELLO_TIMEOUT\"}",
            ),
            Row::new(AFTER, users, HELD)
                .increased(self.held.1 - self.held.0)
                .remark(remark),
        ];
        let all = self.strangers.into_iter().chain(self.users);
        all.for_each(|half| half.peer.close());
        Done { rows }
    }
}

/// A session with its frame.
struct Half {
    peer: Peer,
    /// What it sends at once.
    unsent: BytesMut,
    /// What it sends a byte of now and then.
    rest: Bytes,
    due: Instant,
}

impl Half {
    fn new(peer: Peer, frame: &Bytes, at_once: usize) -> Self {
        Self {
            peer,
            unsent: frame[..at_once].into(),
            rest: frame.slice(at_once..),
            due: Instant::now() + BYTE_EVERY,
        }
    }

    /// Answers whether anything came.
    fn turn(&mut self) -> bool {
        let came = self.peer.turn();
        while self.peer.take_frame().is_some() {}
        // The last byte is never sent.
        if self.unsent.is_empty() && self.rest.len() > 1 && Instant::now() >= self.due {
            self.due += BYTE_EVERY;
            self.unsent.extend_from_slice(&self.rest.split_to(1));
        }
        if !self.unsent.is_empty() {
            let taken = self.peer.write(&self.unsent).unwrap_or(0);
            self.unsent.advance(taken);
        }
        came
    }
}

/// The largest message, to itself.
fn large(user: UserId, number: u64) -> Bytes {
    let send = v1::Send {
        number,
        chat: Bytes::copy_from_slice(ChatId::pair(user, user).as_bytes()),
        payload: vec![b'.'; limits::PAYLOAD_BYTES_MAX].into(),
        ..v1::Send::default()
    };
    whole(client_frame::Body::Send(send))
}

fn whole(body: client_frame::Body) -> Bytes {
    let mut frame = BytesMut::new();
    encode_frame(&v1::ClientFrame { body: Some(body) }, &mut frame);
    frame.freeze()
}
