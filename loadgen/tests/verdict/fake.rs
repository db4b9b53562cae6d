//! A server small enough to be seen to be right: one thread, inboxes in memory, one fault at a time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rcgen::{KeyPair, PKCS_ED25519};
use roadstead_net::tls::ServerTls;
use roadstead_net::{App, ConnId, Engine, Event, Io, SecretKeys, Server, ServerConfig};
use roadstead_proto::v1::{self, client_frame, hello, server_frame};
use roadstead_proto::{ChatId, Deframer, ErrorCode, Position, UserId, decode_frame, encode_frame};
use tempfile::TempDir;

/// What the server does wrong, every so often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Answers a send and delivers it to nobody.
    Lose,
    /// Delivers a message again under a new cursor.
    Duplicate,
    /// Gives a message an older chat position than its cursor's.
    Reorder,
    KeepReceipts,
    KeepAnswers,
    /// Not wrong: refuses a send, and those behind it, for a moment.
    Postpone,
    /// Not wrong: closes the sender's connection in place of the answer.
    Cut,
    /// Writes to a session that nobody wrote to, a moment after the last one came.
    Chatty,
    /// Closes a session, a moment after the last one came.
    Drop,
}

/// How often a fault happens: once in so many sends.
const EVERY: u64 = 40;

/// From the last Hello to a fault in the silence after it.
const MOMENT: Duration = Duration::from_secs(1);

/// A running fake. It lives as long as the test process.
pub(crate) struct Fake {
    address: SocketAddr,
    directory: TempDir,
}

impl Fake {
    pub(crate) fn start(fault: Fault) -> Self {
        let directory = TempDir::new().expect("a directory");
        let names = vec!["localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let signing = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let write = |name, text: String| std::fs::write(directory.path().join(name), text);
        write("cert.pem", made.cert.pem()).expect("written");
        write("token-key.pem", signing.serialize_pem()).expect("written");
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let alpn: &[&[u8]] = &[roadstead_proto::ALPN];
        let tls = ServerTls::from_pem(chain.as_bytes(), key.as_bytes(), alpn, None).expect("TLS");
        let any = "127.0.0.1:0".parse().expect("an address");
        let config = ServerConfig::new(vec![any], 1, tls.into(), SecretKeys::random());
        let mut server = Server::<()>::bind(config).expect("bound");
        let address = server.addresses()[0];
        let seed = server.take_seeds().remove(0);
        thread::spawn(move || seed.run(Shard::new(fault)).map(drop));
        Self { address, directory }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

type Device = (u64, u32);

struct Shard {
    fault: Fault,
    stamp: u64,
    sends: u64,
    /// When to break the silence.
    break_at: Option<Instant>,
    sessions: HashMap<ConnId, Session>,
    devices: HashMap<Device, Inbox>,
    /// Delivered and read, by user and chat: receipts only grow (R20).
    receipts: HashMap<(u64, ChatId), (Bytes, Bytes)>,
}

struct Session {
    device: Option<Device>,
    deframer: Deframer,
    out: BytesMut,
    /// Refuse numbers above this until it comes again (P39).
    failed: Option<u64>,
}

#[derive(Default)]
struct Inbox {
    conn: Option<ConnId>,
    entries: Vec<(Position, server_frame::Body)>,
    /// Delivered in the present session up to here.
    delivered: Position,
    answers: HashMap<u64, v1::SendResult>,
    highest: u64,
}

impl Shard {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            stamp: 0,
            sends: 0,
            break_at: None,
            sessions: HashMap::new(),
            devices: HashMap::new(),
            receipts: HashMap::new(),
        }
    }

    fn next_position(&mut self) -> Position {
        self.stamp += 2;
        position(self.stamp)
    }

    fn frame(&mut self, conn: ConnId, body: client_frame::Body) {
        let device = self.sessions[&conn].device;
        match (body, device) {
            (client_frame::Body::Hello(hello), None) => self.hello(conn, hello),
            (client_frame::Body::Send(send), Some(device)) => self.send(conn, device, send),
            (client_frame::Body::Ack(ack), Some(device)) => {
                self.ack(device, Position::from_slice(&ack.cursor).expect("a cursor"));
            }
            (client_frame::Body::Read(read), Some(device)) => {
                let chat = ChatId::from_slice(&read.chat).expect("a chat");
                self.receipt(
                    device.0,
                    chat,
                    v1::ReceiptUpdate {
                        read: read.position,
                        ..Default::default()
                    },
                );
            }
            (other, device) => panic!("{other:?} of {device:?}"),
        }
    }

    fn hello(&mut self, conn: ConnId, hello: v1::Hello) {
        let Some(hello::Credential::Token(token)) = hello.credential else {
            panic!("resumption is off");
        };
        let device = (subject(&token), hello.device);
        self.sessions.get_mut(&conn).expect("open").device = Some(device);
        if matches!(self.fault, Fault::Chatty | Fault::Drop) && !self.devices.contains_key(&device)
        {
            self.break_at = Some(Instant::now() + MOMENT);
        }
        let inbox = self.devices.entry(device).or_default();
        inbox.conn = Some(conn);
        inbox.delivered = Position::ZERO;
        let welcome = v1::Welcome {
            user: device.0,
            generation: 1,
            heartbeat_interval_ms: 30_000,
            highest_number: (hello.capabilities == 1).then_some(inbox.highest),
            ..v1::Welcome::default()
        };
        self.answer(conn, server_frame::Body::Welcome(welcome));
        self.ack(
            device,
            Position::from_field(&hello.cursor).expect("a cursor"),
        );
        self.deliver(device);
    }

    fn send(&mut self, conn: ConnId, device: Device, send: v1::Send) {
        self.sends += 1;
        let due = self.sends.is_multiple_of(EVERY);
        let session = self.sessions.get_mut(&conn).expect("open");
        if session.failed.is_some_and(|failed| send.number > failed)
            || (due && self.fault == Fault::Postpone)
        {
            let failed = session.failed.get_or_insert(send.number);
            *failed = send.number.min(*failed);
            let refusal = ErrorCode::StoreUnavailable.frame("for now");
            let error = v1::Error {
                number: send.number,
                retry_after_ms: 30,
                ..refusal
            };
            return self.answer(conn, server_frame::Body::Error(error));
        }
        session.failed = None;
        let inbox = self.devices.get_mut(&device).expect("it said Hello");
        let result = match inbox.answers.get(&send.number) {
            Some(first) => first.clone(),
            None => self.commit(device, &send, due),
        };
        match self.fault {
            Fault::KeepAnswers if due => {}
            Fault::Cut if due => self.sessions.get_mut(&conn).expect("open").device = None,
            _ => self.answer(conn, server_frame::Body::SendResult(result)),
        }
    }

    fn commit(&mut self, device: Device, send: &v1::Send, due: bool) -> v1::SendResult {
        let position = self.next_position();
        let result = v1::SendResult {
            number: send.number,
            message_id: self.stamp,
            position: bytes(position),
            server_time_ms: 1,
        };
        let inbox = self.devices.get_mut(&device).expect("it said Hello");
        inbox.answers.insert(send.number, result.clone());
        inbox.highest = inbox.highest.max(send.number);
        let envelope = v1::Envelope {
            message_id: result.message_id,
            chat: send.chat.clone(),
            sender: device.0,
            sender_device: device.1,
            server_time_ms: 1,
            payload: send.payload.clone(),
            number: send.number,
        };
        let chat = ChatId::from_slice(&send.chat).expect("a chat");
        let (a, b) = chat.users().expect("a pair");
        if !(due && self.fault == Fault::Lose) {
            self.append(&[a, b], Some(device), position, &envelope, due);
        }
        result
    }

    fn append(
        &mut self,
        users: &[UserId],
        not: Option<Device>,
        at: Position,
        envelope: &v1::Envelope,
        due: bool,
    ) {
        let reordered = due && self.fault == Fault::Reorder;
        let entry = |cursor| {
            let chat_position = if reordered {
                bytes(position(1))
            } else {
                Bytes::new()
            };
            let envelope = Some(envelope.clone());
            server_frame::Body::Deliver(v1::Deliver {
                cursor: bytes(cursor),
                chat_position,
                envelope,
            })
        };
        let again = (due && self.fault == Fault::Duplicate).then(|| self.next_position());
        for device in self
            .devices_of(users)
            .into_iter()
            .filter(|device| Some(*device) != not)
        {
            let inbox = self.devices.get_mut(&device).expect("listed");
            inbox.entries.push((at, entry(at)));
            inbox
                .entries
                .extend(again.map(|again| (again, entry(again))));
            self.deliver(device);
        }
    }

    /// Entries leave, and their senders get receipts.
    fn ack(&mut self, device: Device, upto: Position) {
        let inbox = self.devices.get_mut(&device).expect("it said Hello");
        let left = inbox.entries.partition_point(|(cursor, _)| *cursor <= upto);
        for (cursor, body) in inbox.entries.drain(..left).collect::<Vec<_>>() {
            let server_frame::Body::Deliver(deliver) = body else {
                continue;
            };
            let envelope = deliver.envelope.expect("made above");
            if envelope.sender != device.0 {
                let chat = ChatId::from_slice(&envelope.chat).expect("made above");
                let update = v1::ReceiptUpdate {
                    delivered: bytes(cursor),
                    ..Default::default()
                };
                self.receipt(device.0, chat, update);
            }
        }
    }

    fn receipt(&mut self, user: u64, chat: ChatId, update: v1::ReceiptUpdate) {
        self.sends += u64::from(self.fault == Fault::KeepReceipts);
        if self.fault == Fault::KeepReceipts && self.sends.is_multiple_of(EVERY) {
            return;
        }
        let known = self.receipts.entry((user, chat)).or_default();
        if update.delivered <= known.0 && update.read <= known.1 {
            return;
        }
        known.0 = known.0.clone().max(update.delivered.clone());
        known.1 = known.1.clone().max(update.read.clone());
        let peer = chat
            .peer_of(UserId::new(user).expect("a user"))
            .expect("a pair");
        let cursor = self.next_position();
        let update = v1::ReceiptUpdate {
            cursor: bytes(cursor),
            chat: Bytes::copy_from_slice(chat.as_bytes()),
            user,
            ..update
        };
        for device in self.devices_of(&[peer]) {
            let inbox = self.devices.get_mut(&device).expect("listed");
            inbox
                .entries
                .push((cursor, server_frame::Body::ReceiptUpdate(update.clone())));
            self.deliver(device);
        }
    }

    fn devices_of(&self, users: &[UserId]) -> Vec<Device> {
        self.devices
            .keys()
            .filter(|(user, _)| users.iter().any(|u| u.get() == *user))
            .copied()
            .collect()
    }

    fn deliver(&mut self, device: Device) {
        let inbox = self.devices.get_mut(&device).expect("known");
        let Some(conn) = inbox.conn else { return };
        let new = inbox
            .entries
            .partition_point(|(cursor, _)| *cursor <= inbox.delivered);
        let bodies: Vec<_> = inbox.entries[new..].to_vec();
        for (cursor, body) in bodies {
            self.devices.get_mut(&device).expect("known").delivered = cursor;
            self.answer(conn, body);
        }
    }

    fn answer(&mut self, conn: ConnId, body: server_frame::Body) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            encode_frame(&v1::ServerFrame { body: Some(body) }, &mut session.out);
        }
    }

    fn read<E: Engine>(&mut self, io: &mut Io<'_, E>, conn: ConnId) {
        while let Some(mut chunk) = io.read(conn) {
            while let Some(session) = self.sessions.get_mut(&conn) {
                let Some(frame) = session.deframer.next_frame(&mut chunk).expect("frames") else {
                    break;
                };
                let frame: v1::ClientFrame = decode_frame(frame).expect("a frame");
                self.frame(conn, frame.body.expect("a body"));
                if self.sessions[&conn].device.is_none() {
                    io.close(conn, 0, b"cut");
                    return self.forget(conn);
                }
            }
        }
    }

    fn forget(&mut self, conn: ConnId) {
        self.sessions.remove(&conn);
        for inbox in self
            .devices
            .values_mut()
            .filter(|inbox| inbox.conn == Some(conn))
        {
            inbox.conn = None;
        }
    }
}

impl<E: Engine> App<E> for Shard {
    type Message = ();

    fn event(&mut self, io: &mut Io<'_, E>, event: Event) {
        match event {
            Event::Opened { conn, .. } => {
                let session = Session {
                    device: None,
                    deframer: Deframer::new(65_536),
                    out: BytesMut::new(),
                    failed: None,
                };
                self.sessions.insert(conn, session);
            }
            Event::Readable { conn } => self.read(io, conn),
            Event::Closed { conn, .. } => self.forget(conn),
            _ => {}
        }
    }

    fn message(&mut self, _: &mut Io<'_, E>, (): ()) {}

    fn turn(&mut self, io: &mut Io<'_, E>) -> Option<Instant> {
        if self.break_at.is_some_and(|at| at <= Instant::now()) {
            self.break_at = None;
            self.break_silence(io);
        }
        for (conn, session) in &mut self.sessions {
            let taken = io.write(*conn, &session.out);
            bytes::Buf::advance(&mut session.out, taken);
        }
        self.break_at
    }
}

impl Shard {
    fn break_silence<E: Engine>(&mut self, io: &mut Io<'_, E>) {
        let conn = *self.sessions.keys().min().expect("some session is open");
        match self.fault {
            Fault::Drop => io.close(conn, 0, b"dropped"),
            _ => self.answer(conn, server_frame::Body::Typing(v1::Typing::default())),
        }
    }
}

fn position(stamp: u64) -> Position {
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&stamp.to_be_bytes());
    Position::new(1, bytes, 0)
}

fn bytes(position: Position) -> Bytes {
    Bytes::copy_from_slice(position.as_bytes())
}

/// The user of a token; whether it is signed well is the edge's to check.
fn subject(token: &str) -> u64 {
    let claims = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(token)
        .expect("a JWT")
        .claims;
    claims["sub"]
        .as_str()
        .expect("a subject")
        .parse()
        .expect("a user")
}
