//! What clients do of their own accord. A new feature of the protocol adds its actions here.

use std::time::Duration;

use bytes::Bytes;
use roadstead_proto::v1::{self, client_frame::Body as Up};
use roadstead_proto::{ChatId, Position, UserId};

use super::World;
use super::events::{Event, Wake};
use crate::client::payload;
use crate::net::ConnId;

/// Sends that a client lets pile up while nobody answers.
const OUTBOX_MAX: usize = 400;

/// Nobody has this id.
const NOBODY: u64 = 1 << 40;

impl World {
    pub(super) fn wake(&mut self, index: usize, wake: Wake) {
        let client = &self.clients[index];
        let current = match wake {
            Wake::Act => true,
            Wake::Connect(epoch)
            | Wake::Persist(epoch)
            | Wake::Ack(epoch)
            | Wake::Retry(epoch)
            | Wake::RetryChat(epoch, _) => epoch == client.epoch,
        };
        if !current || client.retired {
            return;
        }
        match wake {
            Wake::Act => self.act(index),
            Wake::Connect(_) => {
                if self.clients[index].conn().is_none() {
                    self.connect(index);
                }
            }
            Wake::Persist(_) => self.persist(index),
            Wake::Ack(_) => {
                let ack = crate::client::Do::Send(self.clients[index].ack());
                self.carry_out(index, vec![ack]);
            }
            Wake::RetryChat(_, chat) => {
                let mut todo = Vec::new();
                self.clients[index].retry_chat(chat, &mut todo);
                self.carry_out(index, todo);
            }
            Wake::Retry(_) => {
                let mut todo = Vec::new();
                self.clients[index].retry(&mut todo);
                self.carry_out(index, todo);
            }
        }
    }

    fn persist(&mut self, index: usize) {
        let acks = !self.hostile || !self.rng.one_in(8);
        let mut todo = Vec::new();
        self.clients[index].persist(acks, &mut todo);
        self.carry_out(index, todo);
        if !acks {
            let wait = self.rng.delay(Duration::from_secs(3));
            let epoch = self.clients[index].epoch;
            self.after(wait, Event::Client(index, Wake::Ack(epoch)));
        }
    }

    fn act(&mut self, index: usize) {
        if !self.hostile {
            return;
        }
        let wait = self.rng.around(self.plan.act_every);
        self.after(wait, Event::Client(index, Wake::Act));
        self.client_chance(index);
        match self.rng.below(20) {
            0..=13 => self.act_send(index),
            14..=16 => self.act_read(index),
            17 => self.act_typing(index),
            18 => {
                let nonce = self.rng.bits();
                self.say(index, Up::Ping(v1::Ping { nonce }));
            }
            _ => {}
        }
        if self.rng.ppm(self.plan.faults.rude) {
            self.act_rude(index);
        }
    }

    fn say(&mut self, index: usize, body: Up) {
        if self.clients[index].is_active()
            && let Some(conn) = self.clients[index].conn()
        {
            self.send_up(conn, body);
        }
    }

    /// Someone near: few neighbours make hot chats.
    fn peer(&mut self, user: UserId) -> UserId {
        let peer = match self.rng.below(40) {
            0 => user.get(),
            1 => NOBODY,
            _ => {
                let step = self.rng.between(1, self.plan.neighbours);
                (user.get() - 1 + step) % self.plan.users + 1
            }
        };
        UserId::new(peer).expect("from 1")
    }

    fn act_send(&mut self, index: usize) {
        let client = &self.clients[index];
        if client.disk.outbox.len() >= OUTBOX_MAX || !client.disk.outbox.accepts() {
            return;
        }
        let device = client.device;
        for _ in 0..self.rng.magnitude(8) {
            let peer = self.peer(device.0);
            let message = self.message(device, peer);
            let mut todo = Vec::new();
            self.clients[index].submit(message, &mut todo);
            self.carry_out(index, todo);
        }
    }

    fn message(&mut self, device: crate::check::Device, peer: UserId) -> (u64, ChatId, Bytes) {
        self.tokens += 1;
        let token = self.tokens;
        let chat = ChatId::pair(device.0, peer);
        let bytes = self.rng.magnitude(self.plan.payload_bytes_max).max(8);
        let payload = payload(token, usize::try_from(bytes).expect("small"));
        self.checker
            .submitted(token, device, (chat, peer), payload.len());
        (token, chat, payload)
    }

    fn act_read(&mut self, index: usize) {
        let readable = self.clients[index].readable();
        if readable.is_empty() {
            return;
        }
        let (chat, position) = readable[self.rng.index(readable.len())];
        let read = v1::Read {
            chat: bytes_of(chat),
            position: bytes_at(position),
        };
        self.say(index, Up::Read(read));
    }

    fn act_typing(&mut self, index: usize) {
        let user = self.clients[index].device.0;
        let chat = bytes_of(ChatId::pair(user, self.peer(user)));
        for _ in 0..self.rng.between(1, 6) {
            self.say(
                index,
                Up::Typing(v1::Typing {
                    chat: chat.clone(),
                    user: 0,
                }),
            );
        }
    }

    /// What no honest client does: it must harm nobody else.
    fn act_rude(&mut self, index: usize) {
        let client = &self.clients[index];
        let (true, Some(conn)) = (client.is_active(), client.conn()) else {
            return;
        };
        self.count("rude");
        match self.rng.below(5) {
            0 => self.reuse_number(index),
            1 => {
                let far = Position::new(1, [0x7f; 10], 0);
                self.rude(
                    conn,
                    Up::Ack(v1::Ack {
                        cursor: bytes_at(far),
                    }),
                );
            }
            2 => {
                let user = self.clients[index].device.0;
                let (chat, far) = (ChatId::pair(user, user), Position::new(1, [0x7f; 10], 0));
                let read = v1::Read {
                    chat: bytes_of(chat),
                    position: bytes_at(far),
                };
                self.rude(conn, Up::Read(read));
            }
            3 => self.rude(conn, Up::Hello(v1::Hello::default())),
            _ => {
                self.checker.is_rude(conn);
                self.send_garbage(conn);
            }
        }
    }

    fn rude(&mut self, conn: ConnId, body: Up) {
        self.checker.is_rude(conn);
        self.send_up(conn, body);
    }

    /// Another message under a number that has its answer (R12).
    fn reuse_number(&mut self, index: usize) {
        let client = &self.clients[index];
        let (device, outbox) = (client.device, &client.disk.outbox);
        let Some(number) = outbox.confirmed().filter(|_| outbox.is_empty()) else {
            return;
        };
        let peer = self.peer(device.0);
        let (token, chat, payload) = self.message(device, peer);
        self.checker.forbid(token);
        let send = v1::Send {
            number,
            chat: bytes_of(chat),
            payload,
            deadline_ms: 0,
            after: 0,
        };
        self.say(index, Up::Send(send));
    }
}

fn bytes_of(chat: ChatId) -> Bytes {
    Bytes::copy_from_slice(chat.as_bytes())
}

fn bytes_at(position: Position) -> Bytes {
    Bytes::copy_from_slice(position.as_bytes())
}
