//! The session against a script: frames in, frames and events out, time by hand.

mod ending;
mod opening;
mod order;
mod reading;
mod receiving;
mod sending;
mod server;

use std::time::{Duration, Instant};

use bytes::Bytes;
use roadstead_proto::{ChatId, DeviceId, ErrorCode, MessageId, Position, UserId, v1};

use super::{Action, Home, Now, Session, Settings};
use crate::error::{Cause, ClientError, SendError};
use crate::event::Event;
use crate::journal::{Record, Saved};
use v1::client_frame::Body as Sent;
use v1::server_frame::Body;

const ME: u64 = 1;
const PEER: u64 = 2;

/// A session with its clock, its journal and everything that came out of it.
struct Rig {
    session: Session,
    now: Now,
    saved: Saved,
    events: Vec<Event>,
}

impl Rig {
    fn new() -> Self {
        Self::with(new_device())
    }

    fn with(mut saved: Saved) -> Self {
        saved.device = Some(DeviceId::new(77).expect("not 0"));
        let now = Now {
            at: Instant::now(),
            unix_ms: 1_700_000_000_000,
        };
        let settings = Settings {
            reconnect_min: Duration::from_secs(1),
            reconnect_max: Duration::from_secs(60),
            send_deadline_ms: 0,
            keep_unconfirmed: Duration::from_secs(7 * 24 * 3600),
            jitter_seed: 9,
        };
        Self {
            session: Session::new(now, settings, saved.clone()),
            now,
            saved,
            events: Vec::new(),
        }
    }

    /// A rig whose session is open.
    fn active() -> Self {
        let mut rig = Self::new();
        rig.open(welcome());
        rig
    }

    fn open(&mut self, welcome: v1::Welcome) -> v1::Hello {
        let hello = self.connect("token");
        self.receive(Body::Welcome(welcome));
        hello
    }

    /// Follows the session to its Hello.
    fn connect(&mut self, token: &str) -> v1::Hello {
        let Some(Action::Connect { needs_token }) = self.session.poll_action() else {
            panic!("the session does not want to connect");
        };
        let token = needs_token.then(|| token.to_owned());
        self.session.handle_connected(self.now, token);
        match self.sent().as_slice() {
            [Sent::Hello(hello)] => hello.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn receive(&mut self, body: Body) {
        let frame = v1::ServerFrame { body: Some(body) };
        self.session.handle_frame(self.now, frame);
        self.drain();
    }

    /// Records, then events: the order of the drive contract.
    fn drain(&mut self) {
        for record in self.session.poll_record() {
            self.saved.apply(&record);
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
    }

    fn sent(&mut self) -> Vec<Sent> {
        self.drain();
        std::iter::from_fn(|| self.session.poll_transmit(self.now))
            .map(|frame| frame.body.expect("a body"))
            .collect()
    }

    fn send(&mut self, payload: &'static str) -> u64 {
        let number = self.session.send(self.now, chat(), Bytes::from(payload));
        self.drain();
        number.expect("fits")
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.now.unix_ms += u64::try_from(time.as_millis()).expect("short");
        self.session.handle_timeout(self.now);
        self.drain();
    }

    fn pass_to_timeout(&mut self) -> Duration {
        let at = self.session.poll_timeout().expect("something is due");
        let wait = at.saturating_duration_since(self.now.at);
        self.pass(wait);
        wait
    }

    fn lose(&mut self, cause: Cause) {
        self.session.handle_disconnected(self.now, cause);
        self.drain();
    }

    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Tells the session that the application has stored what the event brought.
    fn store(&mut self, event: &mut Event) {
        let entry = event.entry_mut().expect("an entry").id;
        self.session.mark_stored(self.now, entry);
        self.drain();
    }
}

fn new_device() -> Saved {
    Saved {
        numbers_known: true,
        ..Saved::default()
    }
}

fn chat() -> ChatId {
    ChatId::pair(
        UserId::new(ME).expect("not 0"),
        UserId::new(PEER).expect("not 0"),
    )
}

fn chat_bytes() -> Bytes {
    Bytes::copy_from_slice(chat().as_bytes())
}

fn at(generation: u32, n: u16) -> Position {
    Position::new(generation, [0; 10], n)
}

fn bytes(position: Position) -> Bytes {
    Bytes::copy_from_slice(position.as_bytes())
}

fn welcome() -> v1::Welcome {
    v1::Welcome {
        user: ME,
        generation: 1,
        limits: Some(v1::Limits {
            frame_bytes_max: 65_536,
            sends_in_flight_max: 128,
            payload_bytes_max: 1_000,
        }),
        capabilities: 1,
        heartbeat_interval_ms: 120_000,
        resume_token: Bytes::from_static(b"resume"),
        home_prefix: Some(v1::HomePrefix {
            bits: 0x4000,
            length: 2,
        }),
        ..v1::Welcome::default()
    }
}

fn deliver(generation: u32, n: u16) -> Body {
    deliver_as(generation, n, n.into(), n.into())
}

/// The message that its sender numbered so, under an id.
fn deliver_as(generation: u32, n: u16, message_id: u64, number: u64) -> Body {
    Body::Deliver(v1::Deliver {
        cursor: bytes(at(generation, n)),
        chat_position: Bytes::new(),
        envelope: Some(v1::Envelope {
            message_id,
            chat: chat_bytes(),
            sender: PEER,
            sender_device: 5,
            server_time_ms: 1,
            payload: Bytes::from_static(b"hi"),
            number,
        }),
    })
}

fn result(number: u64) -> Body {
    Body::SendResult(v1::SendResult {
        number,
        message_id: 1_000 + number,
        position: bytes(at(1, u16::try_from(number).expect("small"))),
        server_time_ms: 5,
    })
}

fn error(code: ErrorCode, number: u64) -> Body {
    Body::Error(v1::Error {
        number,
        ..code.frame("no")
    })
}

fn numbers(sent: &[Sent]) -> Vec<u64> {
    sent.iter()
        .filter_map(|frame| match frame {
            Sent::Send(send) => Some(send.number),
            _ => None,
        })
        .collect()
}
