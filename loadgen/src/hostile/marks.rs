//! Read marks without end, of a chat that exists and of many that do not (R20).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use roadstead_hostile::Peer;
use roadstead_proto::v1::{self, client_frame, server_frame};
use roadstead_proto::{ChatId, UserId, encode_frame};

use super::table::Row;
use super::{Done, Logins, PAUSE};

const KIND: &str = "read marks";
const ADDRESS: u8 = 1;

/// Behind the users of the other kinds.
const FIRST: u64 = 1_000;

/// Users who do not exist have ids from here on.
const NOBODY: u64 = 1 << 60;

/// Frames that are made at once.
const BATCH: u64 = 64;

/// How long the one message may take that gives the chat a position.
const PATIENCE: Duration = Duration::from_secs(10);

/// All of one round.
pub(super) struct Marks(Vec<Marker>);

impl Marks {
    pub(super) fn new(logins: &Logins<'_>, count: u32) -> Result<Self> {
        let marker = |place: u32| Marker::new(logins, FIRST + 2 * u64::from(place));
        let markers: Result<Vec<_>> = (0..count).map(marker).collect();
        Ok(Self(markers?))
    }

    pub(super) fn run(mut self, stop: &AtomicBool) -> Result<Done> {
        while !stop.load(Ordering::Relaxed) {
            let mut busy = false;
            for marker in &mut self.0 {
                busy |= marker.turn();
            }
            if !busy {
                std::thread::sleep(PAUSE);
            }
        }
        let marks = self.0.iter().map(|marker| marker.marks).sum();
        for marker in self.0 {
            marker.peer.close();
            marker.friend.close();
        }
        let rows = vec![
            Row::new(KIND, marks, "roadstead_read_marks_rate_limited_total"),
            Row::new(KIND, marks, "roadstead_read_marks_total").beside(),
        ];
        Ok(Done { rows })
    }
}

struct Marker {
    peer: Peer,
    user: UserId,
    /// Wrote one message, so that there is a chat to mark.
    friend: Peer,
    chat: ChatId,
    position: Bytes,
    unsent: BytesMut,
    marks: u64,
}

impl Marker {
    fn new(logins: &Logins<'_>, place: u64) -> Result<Self> {
        let (user, other) = (logins.user(place)?, logins.user(place + 1)?);
        let (mut peer, _) = logins.log_in(ADDRESS, user)?;
        let (mut friend, number) = logins.log_in(ADDRESS, other)?;
        let chat = ChatId::pair(user, other);
        let send = v1::Send {
            number,
            chat: Bytes::copy_from_slice(chat.as_bytes()),
            payload: Bytes::from_static(b"read me"),
            ..v1::Send::default()
        };
        let mut frame = BytesMut::new();
        write(client_frame::Body::Send(send), &mut frame);
        friend.write(&frame).ok().context("a connection")?;
        let position = first_delivery(&mut peer, &mut friend)?;
        let mut unsent = BytesMut::new();
        let cursor = position.clone();
        write(client_frame::Body::Ack(v1::Ack { cursor }), &mut unsent);
        Ok(Self {
            peer,
            user,
            friend,
            chat,
            position,
            unsent,
            marks: 0,
        })
    }

    /// Answers whether there was something to do.
    fn turn(&mut self) -> bool {
        let came = self.peer.turn() | self.friend.turn();
        while self.peer.take_frame().is_some() || self.friend.take_frame().is_some() {}
        if self.unsent.is_empty() {
            for _ in 0..BATCH {
                self.mark();
            }
        }
        let taken = self.peer.write(&self.unsent).unwrap_or(0);
        self.unsent.advance(taken);
        came || taken > 0
    }

    /// In turn the chat that exists, and one that does not.
    fn mark(&mut self) {
        let chat = match self.marks % 2 {
            0 => self.chat,
            _ => {
                let nobody = UserId::new(NOBODY + self.marks).expect("not 0");
                ChatId::pair(self.user, nobody)
            }
        };
        let read = v1::Read {
            chat: Bytes::copy_from_slice(chat.as_bytes()),
            position: self.position.clone(),
        };
        write(client_frame::Body::Read(read), &mut self.unsent);
        self.marks += 1;
    }
}

fn first_delivery(peer: &mut Peer, friend: &mut Peer) -> Result<Bytes> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let came = peer.turn() | friend.turn();
        while let Some(frame) = peer.take_frame() {
            if let server_frame::Body::Deliver(deliver) = frame {
                return Ok(deliver.cursor);
            }
        }
        if !came {
            std::thread::sleep(PAUSE);
        }
    }
    bail!("the message that a read marker waits for did not come");
}

fn write(body: client_frame::Body, out: &mut BytesMut) {
    encode_frame(&v1::ClientFrame { body: Some(body) }, out);
}
