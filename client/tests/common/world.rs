//! The test server's state: users, devices, inboxes, answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use roadstead_proto::{ChatId, ErrorCode, Position, UserId, v1};
use tokio::sync::{Notify, mpsc};
use v1::client_frame::Body as Sent;
use v1::server_frame::Body;

/// What a session's writer does.
pub(crate) enum Out {
    Frame(Box<Body>),
    Garbage(Bytes),
    Close(ErrorCode),
}

type Door = mpsc::UnboundedSender<Out>;
type Key = (u64, u32);

#[derive(Default)]
pub(crate) struct Device {
    pub(crate) inbox: BTreeMap<Position, Body>,
    pub(crate) acked: Position,
    answers: BTreeMap<u64, (Bytes, Result<v1::SendResult, ErrorCode>)>,
    /// Chats that refused something for a while in this session, and the highest number of it (R16).
    refused: BTreeMap<Bytes, u64>,
    /// After a refusal of this number for now, nothing above it is taken (P39).
    gate: Option<u64>,
    delivered: Position,
    live: Option<Door>,
}

pub(crate) struct World {
    pub(crate) devices: BTreeMap<Key, Device>,
    pub(crate) generation: u32,
    clock: u64,
    pub(crate) hellos: Vec<v1::Hello>,
    pub(crate) first_ids: Vec<Bytes>,
    /// Numbers of all Sends that arrived, in order.
    pub(crate) sends: Vec<u64>,
    pub(crate) acks: usize,
    /// Refusals for the next sends that are not refused anyhow.
    pub(crate) refusals: VecDeque<ErrorCode>,
    /// Users who have no room.
    pub(crate) full: BTreeSet<u64>,
    /// Sends that are committed but not answered.
    pub(crate) swallow_answers: bool,
    pub(crate) refuse_resume: bool,
    pub(crate) changed: Arc<Notify>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            devices: BTreeMap::new(),
            generation: 1,
            clock: 0,
            hellos: Vec::new(),
            first_ids: Vec::new(),
            sends: Vec::new(),
            acks: 0,
            refusals: VecDeque::new(),
            full: BTreeSet::new(),
            swallow_answers: false,
            refuse_resume: false,
            changed: Arc::new(Notify::new()),
        }
    }
}

impl World {
    pub(crate) fn handle(&mut self, session: &mut Option<Key>, body: Sent, door: &Door) {
        match (*session, body) {
            (None, Sent::Hello(hello)) => *session = self.on_hello(hello, door),
            (None, _) => close(door, ErrorCode::FrameUnexpected),
            (Some(key), Sent::Send(send)) => self.on_send(key, send, door),
            (Some(key), Sent::Ack(ack)) => self.on_ack(key, &ack, door),
            (Some(key), Sent::Read(read)) => self.on_read(key, &read),
            (Some(key), Sent::Typing(typing)) => self.on_typing(key, typing),
            (Some(_), _) => close(door, ErrorCode::FrameUnexpected),
        }
        self.changed.notify_waiters();
    }

    /// Closes the session of a user's only device.
    pub(crate) fn kick(&mut self, user: u64, code: ErrorCode) {
        let device = self.device_of(user);
        close(device.live.as_ref().expect("connected"), code);
        device.live = None;
    }

    pub(crate) fn tell(&mut self, user: u64, out: Out) {
        let device = self.device_of(user);
        let door = device.live.as_ref().expect("connected");
        assert!(door.send(out).is_ok(), "connected");
    }

    pub(crate) fn device_of(&mut self, user: u64) -> &mut Device {
        let mut of_user = self.devices.range_mut((user, 0)..=(user, u32::MAX));
        of_user.next().expect("the user has a device").1
    }

    /// As after an import: every entry has another position, of another generation.
    pub(crate) fn new_generation(&mut self) {
        self.generation += 1;
        for key in self.devices.keys().copied().collect::<Vec<_>>() {
            let entries = std::mem::take(&mut self.device(key).inbox);
            for entry in entries.into_values() {
                self.append(key, |_| entry);
            }
        }
    }

    fn device(&mut self, key: Key) -> &mut Device {
        self.devices.get_mut(&key).expect("registered by its Hello")
    }

    fn next_position(&mut self) -> Position {
        self.clock += 1;
        let mut stamp = [0; 10];
        stamp[..8].copy_from_slice(&self.clock.to_be_bytes());
        Position::new(self.generation, stamp, 0)
    }

    fn on_hello(&mut self, hello: v1::Hello, door: &Door) -> Option<Key> {
        self.hellos.push(hello.clone());
        let user = match self.authenticate(&hello) {
            Ok(user) => user,
            Err(code) => {
                close(door, code);
                return None;
            }
        };
        let key = (user, hello.device);
        let generation = self.generation;
        let device = self.devices.entry(key).or_default();
        if let Some(earlier) = device.live.replace(door.clone()) {
            close(&earlier, ErrorCode::SessionReplaced);
        }
        let cursor = Position::from_field(&hello.cursor).expect("the SDK's");
        let resync = cursor != Position::ZERO && cursor.generation() != generation;
        device.gate = None;
        device.refused.clear();
        device.delivered = cursor;
        let highest = device.answers.keys().next_back().copied().unwrap_or(0);
        let _ = door.send(frame(Body::Welcome(v1::Welcome {
            user,
            generation,
            resync,
            highest_number: (hello.capabilities & 1 == 1).then_some(highest),
            heartbeat_interval_ms: 60_000,
            home_prefix: Some(v1::HomePrefix {
                bits: 0xa000,
                length: 3,
            }),
            resume_token: Bytes::from(user.to_string()),
            capabilities: u64::from(v1::ServerCapability::FinalChatRefusals as u32),
            ..v1::Welcome::default()
        })));
        if resync {
            self.device(key).delivered = Position::ZERO;
        } else {
            self.acknowledge(key, cursor);
        }
        self.push(key);
        Some(key)
    }

    fn authenticate(&self, hello: &v1::Hello) -> Result<u64, ErrorCode> {
        use v1::hello::Credential;
        match hello.credential.as_ref() {
            Some(Credential::Token(token)) => match token.strip_prefix("user:") {
                Some(user) => user.parse().map_err(|_| ErrorCode::TokenInvalid),
                None if token == "expired" => Err(ErrorCode::TokenExpired),
                None => Err(ErrorCode::TokenInvalid),
            },
            Some(Credential::ResumeToken(_)) if self.refuse_resume => Err(ErrorCode::TokenExpired),
            Some(Credential::ResumeToken(token)) => std::str::from_utf8(token)
                .ok()
                .and_then(|user| user.parse().ok())
                .ok_or(ErrorCode::TokenInvalid),
            None => Err(ErrorCode::TokenInvalid),
        }
    }

    fn on_send(&mut self, key: Key, send: v1::Send, door: &Door) {
        self.sends.push(send.number);
        let answer = match self.refusal(key, &send) {
            Some(code) => Err(code),
            None => self.execute(key, &send),
        };
        match answer {
            Err(code) => {
                let error = v1::Error {
                    number: send.number,
                    retry_after_ms: 50,
                    ..code.frame("as told")
                };
                let _ = door.send(frame(Body::Error(error)));
            }
            Ok(_) if self.swallow_answers => {}
            Ok(result) => drop(door.send(frame(Body::SendResult(result)))),
        }
    }

    /// What is refused before the store sees it.
    fn refusal(&mut self, key: Key, send: &v1::Send) -> Option<ErrorCode> {
        let device = self.devices.get_mut(&key).expect("registered");
        if device.answers.contains_key(&send.number) {
            return None;
        }
        if device.gate.is_some_and(|gate| send.number > gate) {
            return Some(ErrorCode::EarlierRefused);
        }
        device.gate = None;
        let code = self.refusals.pop_front()?;
        if code.is_retryable() {
            self.device(key).gate = Some(send.number);
        }
        Some(code)
    }

    /// The number's answer, which it keeps.
    fn execute(&mut self, key: Key, send: &v1::Send) -> Result<v1::SendResult, ErrorCode> {
        if let Some((payload, answer)) = self.device(key).answers.get(&send.number) {
            if *payload != send.payload {
                return Err(ErrorCode::NumberReused);
            }
            if answer.is_err() {
                self.note_refusal(key, send);
            }
            let device = self.device(key);
            return device.answers[&send.number].1.clone();
        }
        let known = self.device(key).refused.get(&send.chat).copied();
        let is_behind = known.is_some_and(|number| send.after < number && send.number > number);
        let peer = peer_of(&send.chat, key);
        let answer = if is_behind || self.full.contains(&peer) {
            self.note_refusal(key, send);
            Err(ErrorCode::RecipientFull)
        } else {
            Ok(self.commit(key, send))
        };
        let kept = (send.payload.clone(), answer.clone());
        self.device(key).answers.insert(send.number, kept);
        answer
    }

    fn note_refusal(&mut self, key: Key, send: &v1::Send) {
        let refused = &mut self.device(key).refused;
        let highest = refused.entry(send.chat.clone()).or_default();
        *highest = send.number.max(*highest);
    }

    fn commit(&mut self, key: Key, send: &v1::Send) -> v1::SendResult {
        let position = self.next_position();
        let result = v1::SendResult {
            number: send.number,
            message_id: self.clock,
            position: bytes(position),
            server_time_ms: self.clock,
        };
        let envelope = v1::Envelope {
            message_id: self.clock,
            chat: send.chat.clone(),
            sender: key.0,
            sender_device: key.1,
            server_time_ms: self.clock,
            payload: send.payload.clone(),
            number: send.number,
        };
        for recipient in self.recipients(&send.chat, key) {
            let cursor = bytes(position);
            let envelope = Some(envelope.clone());
            let deliver = v1::Deliver {
                cursor,
                chat_position: Bytes::new(),
                envelope,
            };
            let inbox = &mut self.device(recipient).inbox;
            inbox.insert(position, Body::Deliver(deliver));
            self.push(recipient);
        }
        result
    }

    fn recipients(&self, chat: &Bytes, sender: Key) -> Vec<Key> {
        let peer = peer_of(chat, sender);
        let concerned = |key: &&Key| **key != sender && (key.0 == peer || key.0 == sender.0);
        self.devices.keys().filter(concerned).copied().collect()
    }

    fn append(&mut self, key: Key, entry: impl FnOnce(Bytes) -> Body) {
        let position = self.next_position();
        let mut body = entry(bytes(position));
        if let Body::Deliver(deliver) = &mut body {
            deliver.cursor = bytes(position);
        }
        self.device(key).inbox.insert(position, body);
        self.push(key);
    }

    /// Delivers what the session has not had.
    fn push(&mut self, key: Key) {
        let device = self.device(key);
        let Some(door) = &device.live else { return };
        let after = (
            std::ops::Bound::Excluded(device.delivered),
            std::ops::Bound::Unbounded,
        );
        for (position, body) in device.inbox.range(after) {
            let _ = door.send(frame(body.clone()));
            device.delivered = *position;
        }
    }

    fn on_ack(&mut self, key: Key, ack: &v1::Ack, door: &Door) {
        self.acks += 1;
        let cursor = Position::from_slice(&ack.cursor).expect("the SDK's");
        if cursor > self.device(key).delivered {
            return close(door, ErrorCode::CursorInvalid);
        }
        self.acknowledge(key, cursor);
    }

    /// Entries leave, and their senders get a receipt.
    fn acknowledge(&mut self, key: Key, cursor: Position) {
        let device = self.device(key);
        if cursor <= device.acked {
            return;
        }
        device.acked = cursor;
        let kept = device.inbox.split_off(&cursor);
        let mut gone = std::mem::replace(&mut device.inbox, kept);
        gone.extend(device.inbox.remove_entry(&cursor));
        for (position, body) in gone {
            let Body::Deliver(deliver) = body else {
                continue;
            };
            let envelope = deliver.envelope.expect("always");
            if envelope.sender != key.0 {
                self.receipt(
                    key.0,
                    envelope.sender,
                    &envelope.chat,
                    position,
                    Position::ZERO,
                );
            }
        }
    }

    fn on_read(&mut self, key: Key, read: &v1::Read) {
        let chat = ChatId::from_slice(&read.chat).expect("the SDK's");
        let position = Position::from_slice(&read.position).expect("the SDK's");
        let device = self.device(key);
        assert!(
            position <= device.delivered,
            "P31: the SDK waits until it was given the position"
        );
        let peer = chat
            .peer_of(UserId::new(key.0).expect("not 0"))
            .expect("a pair");
        self.receipt(key.0, peer.get(), &read.chat, position, position);
    }

    fn receipt(&mut self, by: u64, to: u64, chat: &Bytes, delivered: Position, read: Position) {
        let field = |position| match position {
            Position::ZERO => Bytes::new(),
            position => bytes(position),
        };
        let devices: Vec<Key> = self
            .devices
            .keys()
            .filter(|key| key.0 == to)
            .copied()
            .collect();
        for key in devices {
            self.append(key, |cursor| {
                Body::ReceiptUpdate(v1::ReceiptUpdate {
                    cursor,
                    chat: chat.clone(),
                    user: by,
                    delivered: field(delivered),
                    read: field(read),
                })
            });
        }
    }

    fn on_typing(&mut self, key: Key, typing: v1::Typing) {
        let recipients = self.recipients(&typing.chat, key);
        for device in recipients.iter().filter_map(|key| self.devices.get(key)) {
            let typing = v1::Typing {
                user: key.0,
                ..typing.clone()
            };
            if let Some(door) = &device.live {
                let _ = door.send(frame(Body::Typing(typing)));
            }
        }
    }
}

fn peer_of(chat: &Bytes, sender: Key) -> u64 {
    let chat = ChatId::from_slice(chat).expect("the SDK's");
    let peer = chat.peer_of(UserId::new(sender.0).expect("not 0"));
    peer.map_or(0, UserId::get)
}

fn frame(body: Body) -> Out {
    Out::Frame(Box::new(body))
}

fn close(door: &Door, code: ErrorCode) {
    let _ = door.send(frame(Body::Error(code.frame("closing"))));
    let _ = door.send(Out::Close(code));
}

fn bytes(position: Position) -> Bytes {
    Bytes::copy_from_slice(position.as_bytes())
}
