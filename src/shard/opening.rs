//! From the first frame to the Welcome.

use roadstead_proto::v1::{self, Capability, ServerCapability, hello, server_frame};
use roadstead_proto::{DeviceId, ErrorCode, Position, limits as wire};

use super::{Pending, Shard};
use crate::io::{Credential, Identity, Output, Proof, SessionId};
use crate::limits;
use crate::peer::{Claim, ShardMessage};
use crate::session::{Opening, Session, State};
use crate::store::{Command, DeviceOpened, Entry, EntryBody, Flush, OpenDevice};
use crate::time::{Now, Time};

/// What a valid Hello says.
struct Greeting {
    device: DeviceId,
    credential: Credential,
    opening: Opening,
}

impl Shard {
    pub(super) fn handle_opened(&mut self, now: Now, id: SessionId) {
        let session = Session::new(id.generation, now.at + limits::HELLO_TIMEOUT);
        let old = self.sessions.insert(id.index, session);
        assert!(old.is_none(), "{id:?} was opened while its slot was in use");
        self.counters.sessions += 1;
        self.arm(now, id);
    }

    pub(super) fn handle_hello(&mut self, now: Now, id: SessionId, hello: v1::Hello) {
        if self.draining {
            return self.refuse(now, id, ErrorCode::Draining, "this server is going away");
        }
        match read_hello(hello) {
            Err((code, message)) => self.refuse(now, id, code, message),
            Ok(Greeting {
                device,
                credential,
                opening,
            }) => {
                let connect_counter = opening.connect_counter;
                let session = self.session_mut(id).expect("it sent the Hello");
                session.device = Some(device);
                session.state = State::ExpectIdentity(Box::new(opening));
                self.outputs.push_back(Output::Authenticate {
                    session: id,
                    credential,
                    device,
                    connect_counter,
                });
            }
        }
    }

    pub(super) fn handle_authenticated(
        &mut self,
        now: Now,
        id: SessionId,
        result: Result<Identity, ErrorCode>,
    ) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let State::ExpectIdentity(opening) = &mut session.state else {
            return;
        };
        let identity = match result {
            Ok(identity) => identity,
            Err(code) => return self.refuse(now, id, code, "the credential proves nobody"),
        };
        if is_copied(identity.proof, opening.connect_counter) {
            let message = "a Hello counts on from the session that gave it its resume token";
            return self.refuse(now, id, ErrorCode::TokenInvalid, message);
        }
        (opening.resume_token, opening.proof) = (identity.resume_token, identity.proof);
        let command = Command::OpenDevice(OpenDevice {
            user: identity.user,
            device: session.device.expect("set by the Hello"),
            cursor: opening.cursor,
            want_highest_number: opening.want_highest_number,
            unix_ms: now.unix_ms,
            issued_s: identity.issued_s,
        });
        session.issued_s = u32::try_from(identity.issued_s).unwrap_or(u32::MAX);
        session.user = Some(identity.user);
        session.state.advance();
        self.ask(command, Pending::OpenDevice(id));
    }

    /// R5: register with the home, and read only once it has answered.
    pub(super) fn handle_device_opened(&mut self, now: Now, id: SessionId, opened: DeviceOpened) {
        let holder = self.holder(id);
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let State::ExpectDevice(opening) = &mut session.state else {
            return;
        };
        opening.device = Some(opened);
        let claim = Claim {
            connect_counter: opening.connect_counter,
            version: opened.version,
            proof: opening.proof,
            issued_s: session.issued_s.into(),
        };
        let cursor = if opened.resync {
            Position::ZERO
        } else {
            opening.cursor
        };
        session.state.advance();
        session.store_generation = opened.generation;
        let start = cursor.max(opened.stored_ack);
        session.read_through = start;
        session.delivered = start;
        session.acked = start;
        session.flushed = start;
        let (user, device) = session.identity();
        if cursor > opened.stored_ack {
            // R19: the Hello's cursor is an acknowledgement and goes through the same door.
            session.in_flight(now.at).flushing = true;
            let flush = Flush {
                user,
                device,
                upto: cursor,
                known: None,
            };
            self.ask_flush(id, flush);
        }
        let home = self.config.placement.home(user);
        self.tell(
            home,
            ShardMessage::Register {
                user,
                device,
                claim,
                holder,
            },
        );
    }

    pub(super) fn handle_registered(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        if !matches!(session.state, State::ExpectRegistered(_)) {
            return;
        }
        if self.draining {
            return self.refuse(now, id, ErrorCode::Draining, "this server is going away");
        }
        let session = self.session_mut(id).expect("checked above");
        let State::ExpectRegistered(opening) = std::mem::replace(&mut session.state, State::Active)
        else {
            unreachable!("checked above");
        };
        session.close_at = Time::NEVER;
        self.welcome(now, id, *opening);
        self.read_inbox(now, id);
        self.arm(now, id);
    }

    fn welcome(&mut self, now: Now, id: SessionId, opening: Opening) {
        let session = self.session_mut(id).expect("checked by the caller");
        let (user, _) = session.identity();
        let opened = opening
            .device
            .expect("the device was opened before it was registered");
        let heartbeat = self.config.heartbeat_interval.as_millis();
        let welcome = v1::Welcome {
            user: user.get(),
            generation: opened.generation,
            resync: opened.resync,
            limits: Some(announced_limits()),
            heartbeat_interval_ms: u32::try_from(heartbeat).unwrap_or(u32::MAX),
            server_time_ms: now.unix_ms,
            highest_number: opened.highest_number,
            home_prefix: Some(self.config.placement.home_prefix(user)),
            resume_token: opening.resume_token,
            node_hints: self.config.node_hints.clone(),
            capabilities: capabilities(),
        };
        self.counters.welcomes += 1;
        self.counters.sessions_active += 1;
        self.send(id, server_frame::Body::Welcome(welcome));
        let session = self.session_mut(id).expect("checked by the caller");
        if opened.expired_through > session.delivered {
            // Delivered like any entry, so that the device can acknowledge it: after a resync too, or it would never
            // be told.
            let gap = Entry {
                cursor: opened.expired_through,
                body: EntryBody::Gap(v1::GapReason::Expired),
            };
            self.deliver(now, id, gap);
        }
    }
}

/// Whether a resume token is shown with a connect counter that is not above that of the session which issued it. A
/// device counts on with every connection (P12); whoever copied its token or its state need not know how far.
fn is_copied(proof: Proof, connect_counter: u64) -> bool {
    let issued_at = match proof {
        Proof::Signed => None,
        Proof::Resumed { counter } => counter,
    };
    issued_at.is_some_and(|issued_at| connect_counter <= issued_at)
}

/// What this server understands beyond the first version of the protocol.
fn capabilities() -> u64 {
    u64::from(ServerCapability::FinalChatRefusals as u32)
}

fn announced_limits() -> v1::Limits {
    let announce = |limit: usize| u32::try_from(limit).expect("limits of the wire are small");
    v1::Limits {
        frame_bytes_max: announce(wire::FRAME_BYTES_MAX),
        sends_in_flight_max: announce(wire::SENDS_IN_FLIGHT_MAX),
        payload_bytes_max: announce(wire::PAYLOAD_BYTES_MAX),
    }
}

fn read_hello(hello: v1::Hello) -> Result<Greeting, (ErrorCode, &'static str)> {
    if hello.version != roadstead_proto::VERSION {
        return Err((
            ErrorCode::VersionUnsupported,
            "this server speaks version 1",
        ));
    }
    let device = DeviceId::new(hello.device)
        .map_err(|_| (ErrorCode::DeviceInvalid, "a device id is never 0"))?;
    let cursor = Position::from_field(&hello.cursor)
        .ok_or((ErrorCode::CursorInvalid, "a cursor has 16 bytes, or none"))?;
    let credential = match hello.credential {
        Some(hello::Credential::Token(token)) => Credential::Token(token),
        Some(hello::Credential::ResumeToken(token)) => Credential::Resume(token),
        None => return Err((ErrorCode::TokenInvalid, "a Hello needs a credential")),
    };
    let bytes = match &credential {
        Credential::Token(token) => token.len(),
        Credential::Resume(token) => token.len(),
    };
    if bytes > wire::CREDENTIAL_BYTES_MAX {
        return Err((ErrorCode::TokenInvalid, "the credential is too long"));
    }
    let ask = u64::from(Capability::AskHighestNumber as u32);
    let opening = Opening {
        connect_counter: hello.connect_counter,
        cursor,
        want_highest_number: hello.capabilities & ask != 0,
        resume_token: bytes::Bytes::new(),
        proof: Proof::Signed,
        device: None,
    };
    Ok(Greeting {
        device,
        credential,
        opening,
    })
}
