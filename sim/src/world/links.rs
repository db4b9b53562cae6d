//! What happens on connections, at either end.

use std::time::Duration;

use roadstead::{Input, ShardId};
use roadstead_proto::v1::client_frame::Body as Up;
use roadstead_proto::v1::{ClientFrame, ServerFrame};
use roadstead_proto::{ErrorCode, FrameError, Position};

use super::World;
use super::events::{Event, Wake};
use crate::client::Do;
use crate::net::{Conn, ConnId};

impl World {
    fn frame_delay(&mut self) -> Duration {
        let max = if self.hostile {
            self.plan.faults.frame_delay
        } else {
            Duration::from_millis(5)
        };
        // Most frames are quick: what is slow is slow for one of a few.
        let max = if self.rng.one_in(4) {
            max
        } else {
            max.min(Duration::from_millis(5))
        };
        self.rng.delay(max)
    }

    /// A client makes a connection and says Hello on it.
    pub(super) fn connect(&mut self, index: usize) {
        let client = &self.clients[index];
        let home = self.placement.home(client.device.0);
        let shard = if self.rng.one_in(2) {
            home
        } else {
            let shards = u64::from(self.plan.shards);
            ShardId(u16::try_from(self.rng.below(shards)).expect("below a u16"))
        };
        self.conns_made += 1;
        let id = ConnId(self.conns_made);
        let mut conn = Conn::new(index, self.node.life, shard, self.now);
        let (delay, hello_delay) = (self.frame_delay(), self.frame_delay());
        let at = conn.up_at(self.now, delay);
        let hello_at = conn.up_at(self.now, delay + hello_delay);
        self.conns.insert(id, conn);
        let client = &mut self.clients[index];
        let hello = client.hello(id);
        let (device, disk) = (client.device, &client.disk);
        self.checker
            .connected(id, device, disk.connect_counter, disk.cursor);
        self.at(at, Event::Open(id));
        let frame = ClientFrame {
            body: Some(Up::Hello(hello)),
        };
        self.at(hello_at, Event::Up(id, frame));
    }

    pub(super) fn open(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if conn.life != self.node.life || self.node.lease.is_none() || !conn.server_open {
            conn.server_open = false;
            let wait = self.rng.delay(Duration::from_millis(500));
            return self.after(wait, Event::CutAtClient(id));
        }
        let shard = conn.shard;
        let session = self.node.host(shard).open(id);
        conn.session = Some(session);
        self.shard_input(shard, Input::Opened(session));
    }

    pub(super) fn send_up(&mut self, id: ConnId, body: Up) {
        let delay = self.frame_delay();
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.client_open) else {
            return;
        };
        let at = conn.up_at(self.now, delay);
        self.at(at, Event::Up(id, ClientFrame { body: Some(body) }));
    }

    pub(super) fn send_garbage(&mut self, id: ConnId) {
        let delay = self.frame_delay();
        if let Some(conn) = self.conns.get_mut(&id) {
            let at = conn.up_at(self.now, delay);
            self.at(at, Event::Garbage(id));
        }
    }

    pub(super) fn up(&mut self, id: ConnId, frame: ClientFrame) {
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let (shard, Some(session)) = (conn.shard, conn.session) else {
            return;
        };
        if let Some(Up::Ack(ack)) = &frame.body
            && let Some(cursor) = Position::from_slice(&ack.cursor)
        {
            self.checker.ack_arrived(id, cursor);
        }
        self.shard_input(shard, Input::Frame(session, frame));
    }

    pub(super) fn garbage(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let (shard, Some(session)) = (conn.shard, conn.session) else {
            return;
        };
        self.shard_input(shard, Input::Malformed(session, FrameError::Empty));
    }

    pub(super) fn send_down(&mut self, id: ConnId, frame: ServerFrame) {
        let delay = self.frame_delay();
        let conn = self.conns.get_mut(&id).expect("it has a session");
        if conn.client_open {
            let at = conn.down_at(self.now, delay);
            self.at(at, Event::Down(id, frame));
        }
    }

    pub(super) fn down(&mut self, id: ConnId, frame: ServerFrame) {
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.client_open) else {
            return;
        };
        let index = conn.client;
        let mut todo = Vec::new();
        self.clients[index].handle_frame(id, frame, &mut todo);
        self.carry_out(index, todo);
    }

    /// Carries out what a client wants.
    pub(super) fn carry_out(&mut self, index: usize, todo: Vec<Do>) {
        for one in todo {
            let client = &self.clients[index];
            let (device, epoch, conn) = (client.device, client.epoch, client.conn());
            match one {
                Do::Send(body) => {
                    if let Up::Ack(_) = &body {
                        self.checker.acked(device, client.disk.cursor);
                    }
                    let Some(conn) = conn else { continue };
                    let twice = matches!(body, Up::Send(_) | Up::Ack(_)) && self.repeats();
                    if twice {
                        self.count("frame repeated");
                        self.send_up(conn, body.clone());
                    }
                    self.send_up(conn, body);
                }
                Do::RetryAfter(ms) => {
                    let wait = Duration::from_millis(u64::from(ms) + self.rng.below(50));
                    self.after(wait, Event::Client(index, Wake::Retry(epoch)));
                }
                Do::RetryChatAfter(chat, ms) => {
                    let wait = Duration::from_millis(u64::from(ms) + self.rng.below(50));
                    self.after(wait, Event::Client(index, Wake::RetryChat(epoch, chat)));
                }
                Do::PersistSoon => {
                    let wait = self.persist_delay(client.slow);
                    self.after(wait, Event::Client(index, Wake::Persist(epoch)));
                }
                Do::Stored(arrived) => self.checker.stored(device, &arrived),
                Do::Refused {
                    number,
                    token,
                    code,
                } => {
                    self.checker.refused(device, number, token, code);
                }
                Do::Leave(ms) => {
                    if let Some(conn) = conn {
                        self.client_leaves(index, conn);
                    }
                    let wait = Duration::from_millis(u64::from(ms));
                    let epoch = self.clients[index].epoch;
                    self.after(wait, Event::Client(index, Wake::Connect(epoch)));
                }
            }
        }
    }

    fn repeats(&mut self) -> bool {
        self.hostile && self.rng.ppm(self.plan.faults.repeats)
    }

    fn persist_delay(&mut self, slow: bool) -> Duration {
        let max = if slow {
            self.plan.faults.slow_by
        } else {
            Duration::from_millis(30)
        };
        self.rng.delay(max)
    }

    /// A client gives a connection up; the server learns of it later.
    pub(super) fn client_leaves(&mut self, index: usize, id: ConnId) {
        self.clients[index].leave();
        self.abandon(id);
    }

    /// The client's end is gone.
    pub(super) fn abandon(&mut self, id: ConnId) {
        let wait = if self.rng.one_in(2) {
            self.frame_delay()
        } else {
            self.rng.delay(self.plan.faults.half_open)
        };
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.client_open = false;
        // What it sent before is still on its way.
        let at = conn.up_at(self.now, wait);
        self.at(at, Event::CutAtServer(id));
    }

    /// The server closes: the client reads what was sent before, then the end.
    pub(super) fn server_closes(&mut self, id: ConnId, _: ErrorCode) {
        let (delay, back) = (self.frame_delay(), self.frame_delay());
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let at = conn.down_at(self.now, delay);
        self.at(at, Event::CutAtClient(id));
        self.at(at + back, Event::CutAtServer(id));
    }

    pub(super) fn cut_at_server(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.server_open = false;
        let (shard, session) = (conn.shard, conn.session.take());
        self.checker.disconnected(id);
        if let Some(session) = session {
            self.node.host(shard).close(session);
            self.shard_input(shard, Input::Closed(session));
        }
        self.forget_if_over(id);
    }

    pub(super) fn cut_at_client(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let index = conn.client;
        if std::mem::replace(&mut conn.client_open, false) && self.clients[index].conn() == Some(id)
        {
            self.clients[index].leave();
            self.reconnect_later(index);
        }
        self.forget_if_over(id);
    }

    fn forget_if_over(&mut self, id: ConnId) {
        let over = |conn: &mut Conn| !conn.client_open && !conn.server_open;
        if self.conns.get_mut(&id).is_some_and(over) {
            self.conns.remove(&id);
        }
    }

    pub(super) fn reconnect_later(&mut self, index: usize) {
        let mean = if self.hostile { 2_000 } else { 200 };
        let wait = self.rng.around(Duration::from_millis(mean));
        let epoch = self.clients[index].epoch;
        self.after(wait, Event::Client(index, Wake::Connect(epoch)));
    }
}
