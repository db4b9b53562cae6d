//! What goes wrong, when chance has its turn.

use std::time::Duration;

use roadstead::{Ended, Input};
use roadstead_proto::{DeviceId, MessageId, UserId};

use super::World;
use super::events::Event;
use crate::check::DEVICES_MAX;
use crate::client::Client;
use crate::node::Node;

/// How often chance has its turn.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// How far ahead message ids are reserved, and how often.
const RESERVE_AHEAD_MS: u64 = 120_000;
const RESERVE_EVERY: Duration = Duration::from_secs(5);

/// Clients of a user that live at once: more than there may be devices, so that some are refused, and not
/// so many that each brings more of them without end.
const INSTALLATIONS_MAX: usize = DEVICES_MAX + 2;

/// A drained node is gone after this time, whoever is still there.
const DRAIN_LASTS: Duration = Duration::from_secs(6);

impl World {
    /// The faults of the node, its store and its clock.
    pub(super) fn chance(&mut self) {
        if !self.hostile {
            return;
        }
        self.after(TICK, Event::Fault);
        let faults = self.plan.faults.clone();
        if self.happens(faults.node_crashes, TICK) && self.node.lease.is_some() {
            self.end_node();
        }
        if self.happens(faults.outages, TICK) {
            self.count("store outage");
            let lasts = self.rng.delay(faults.outage_lasts);
            self.with_store(|store, step| store.fail(step, lasts));
        }
        if self.happens(faults.clock_jumps, TICK) {
            self.count("clock jump");
            let jump = self.rng.delay(faults.clock_jump).as_millis();
            let jump = i64::try_from(jump).expect("a day at most");
            self.skew_ms += if self.rng.one_in(2) { jump } else { -jump };
        }
        self.pass_days();
        if self.rng.one_in(50) {
            self.checker.audit_image(&self.store.base().image);
        }
    }

    /// Whether something with a rate per thousand seconds happens in a while of this length.
    fn happens(&mut self, rate: u64, while_: Duration) -> bool {
        let micros = u64::try_from(while_.as_micros()).expect("short");
        self.rng.ppm(rate.saturating_mul(micros) / 1_000)
    }

    /// The faults of one client, which has its turn about every `act_every`.
    pub(super) fn client_chance(&mut self, index: usize) {
        let faults = self.plan.faults.clone();
        let every = self.plan.act_every;
        let client = &self.clients[index];
        let ((user, device), conn) = (client.device, client.conn());
        if let Some(conn) = conn {
            if self.happens(faults.cuts, every) {
                self.count("connection cut");
                self.client_leaves(index, conn);
                self.reconnect_later(index);
            } else if self.happens(faults.takeovers, every) {
                self.count("takeover");
                self.client_leaves(index, conn);
                self.connect(index);
            }
        }
        if self.happens(faults.client_crashes, every) {
            self.count("client crash");
            let forgets = self.rng.ppm(faults.forgets_numbers);
            if let Some(conn) = self.clients[index].conn() {
                self.abandon(conn);
            }
            if forgets {
                self.checker.forgets(self.clients[index].device);
            }
            self.clients[index].crash(forgets);
            self.reconnect_later(index);
        }
        if self.happens(faults.new_devices, every) && self.installations(user) < INSTALLATIONS_MAX {
            self.count("new device");
            self.add_client(user);
        }
        if self.happens(faults.removals, every) {
            self.count("device removed");
            self.after(Duration::ZERO, Event::Remove(user, device));
        }
    }

    /// Clients of a user that still do something.
    fn installations(&self, user: UserId) -> usize {
        let lives = |client: &&Client| client.device.0 == user && !client.retired;
        self.clients.iter().filter(lives).count()
    }

    pub(super) fn remove_device(&mut self, user: UserId, device: DeviceId) {
        if !self.with_store(|store, step| store.remove(step, user, device)) {
            self.after(Duration::from_millis(3), Event::Remove(user, device));
        } else if device.get().is_multiple_of(2) {
            // Of the others the home is not told, as if another node had removed them.
            let home = self.placement.home(user);
            let ended = Input::Ended(Ended::Device(user, device));
            let (wait, life) = (Duration::from_micros(300), self.node.life);
            self.after(wait, Event::Shard(life, home, ended));
        }
    }

    fn end_node(&mut self) {
        if self.rng.below(1_000) < self.plan.faults.drains {
            self.count("node drained");
            for shard in 0..self.plan.shards {
                self.shard_input(roadstead::ShardId(shard), Input::Drain);
            }
            self.after(DRAIN_LASTS, Event::Start);
        } else {
            self.count("node crash");
            let wait = self.rng.delay(Duration::from_secs(3));
            self.crash_node();
            self.after(wait, Event::Start);
        }
    }

    /// The process is gone: what its shards knew, and with it every connection.
    fn crash_node(&mut self) {
        self.with_store(|store, step| store.crash(step));
        self.node = Node::new(self.node.life + 1, &self.plan, self.placement);
        (self.queues, self.answers) = Default::default();
        self.days.end_process();
        self.checker.process_ended();
        self.dropped.clear();
        let ids: Vec<_> = self.conns.keys().copied().collect();
        for id in ids {
            let conn = self.conns.get_mut(&id).expect("listed above");
            conn.session = None;
            conn.server_open = false;
            self.checker.disconnected(id);
            let wait = self.rng.delay(self.plan.faults.half_open);
            self.after(wait, Event::CutAtClient(id));
        }
    }

    /// A node begins to serve; one that still does ends first.
    pub(super) fn start_node(&mut self) {
        if self.node.lease.is_some() {
            self.crash_node();
        }
        if self.hostile && self.node.life > 1 {
            self.move_store();
        }
        self.node.lease = self.store.take_lease();
        if self.node.lease.is_none() {
            return self.after(Duration::from_millis(20), Event::Start);
        }
        self.reserve_ids(self.node.life);
        self.begin_time();
    }

    /// While no process has it open, the store may be moved to another engine, exported, or replaced by
    /// what was exported before (R3).
    fn move_store(&mut self) {
        if self.rng.ppm(self.plan.faults.imports) {
            self.count("store imported");
            let generation = self.store.import();
            self.checker.imported(generation);
        }
        let restores = self.plan.faults.restores;
        if restores == 0 {
            return;
        }
        if let Some((image, model)) = &self.export
            && self.rng.ppm(restores)
        {
            let generation = self.store.restore(image);
            self.checker.restored(model, generation);
            for client in &mut self.clients {
                client.disk.outbox.forget_confirmed();
            }
            self.count("older store restored");
        } else if self.rng.one_in(2) {
            self.export = Some((self.store.base().image.clone(), self.checker.export()));
        }
    }

    /// R24: message ids come from blocks that are reserved before they are used.
    pub(super) fn reserve_ids(&mut self, life: u32) {
        let Some(incarnation) = self.node.lease.filter(|_| life == self.node.life) else {
            return;
        };
        let unix_ms = self.clock().unix_ms;
        let until = unix_ms.saturating_sub(MessageId::EPOCH_UNIX_MS) + RESERVE_AHEAD_MS;
        let Some((from_ms, until_ms)) = self.store.reserve_ids(incarnation, until) else {
            return self.after(Duration::from_millis(20), Event::Reserve(life));
        };
        for shard in 0..self.plan.shards {
            let input = Input::MessageIdsReserved { from_ms, until_ms };
            self.shard_input(roadstead::ShardId(shard), input);
        }
        self.after(RESERVE_EVERY, Event::Reserve(life));
    }
}
