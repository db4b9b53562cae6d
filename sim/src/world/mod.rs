//! The world of a run: one node, its store, its clients and the net between them, on one thread.
//!
//! A step takes the next event, gives it to whom it concerns, and carries out everything that follows at
//! once; what follows later becomes events. All chance comes from one generator, so a seed is a run.

mod actions;
mod events;
mod faults;
mod links;
mod shards;
mod time;

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::time::Duration;

use prost::Message;
use roadstead::limits::SLOW_CONSUMER_AFTER;
use roadstead::store::Outcome;
use roadstead::time::{Now, Time};
use roadstead::{Placement, ShardId};
use roadstead_proto::{DeviceId, Position, UserId};
use siphasher::sip::SipHasher13;

use crate::canary::Canary;
use crate::check::restore::Export;
use crate::check::{Checker, Device};
use crate::client::Client;
use crate::net::{Conn, ConnId};
use crate::node::Node;
use crate::rng::Rng;
use crate::store::image::Image;
use crate::store::{Effect, Origin, Step, Store, StoreEvent, Tap};
use crate::swarm::Plan;
use events::{Event, Events, Wake};
use time::Days;

/// Unix time at the beginning, in ms.
const UNIX_MS: u64 = 1_800_000_000_000;

/// Once faults are off, everything is delivered, acknowledged and told within this time. A client that
/// was made to wait for anything waits less than a minute, and nothing waits for two things.
const SETTLES_WITHIN: Duration = Duration::from_secs(180);

/// Steps of the longest run there should be, several times over.
const STEPS_MAX: u64 = 5_000_000;

/// How long silence lasts before it is looked at: longer than every interval of a shard. A timer that is
/// needed no more stays until it is due, and the longest is that of a client that does not acknowledge.
const SILENCE: Duration = SLOW_CONSUMER_AFTER.saturating_add(Duration::from_secs(2));

/// How often the node looks whether the engine was reopened.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events.
    pub steps: u64,
    /// Faults by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Messages committed.
    pub committed: u64,
    /// Entries sent to clients.
    pub delivered: u64,
    /// Receipts committed.
    pub receipts: u64,
    /// A hash of everything that happened.
    pub trace: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub struct World {
    plan: Plan,
    rng: Rng,
    now: Time,
    skew_ms: i64,
    events: Events,
    hostile: bool,
    over: bool,
    /// The engine was reopened and the shards were not told yet.
    watching: bool,
    settles_until: Time,
    quiet_since: Option<Time>,
    placement: Placement,
    node: Node,
    store: Store,
    clients: Vec<Client>,
    by_device: BTreeMap<Device, usize>,
    conns: BTreeMap<ConnId, Conn>,
    conns_made: u64,
    tokens: u64,
    device_ids: u32,
    /// Queues between shards lose nothing and keep their order.
    queues: BTreeMap<(ShardId, ShardId), Time>,
    /// So does the sink of the committer.
    answers: BTreeMap<ShardId, Time>,
    /// R4's planted bug: what the hand-overs that were dropped had proved.
    dropped: BTreeMap<Device, Option<Position>>,
    checker: Checker,
    /// How time passes for the store.
    days: Days,
    /// The store at an earlier start of the node, and what the checker knew of it.
    export: Option<(Image, Export)>,
    trace: SipHasher13,
    tally: Tally,
}

impl World {
    /// The world that a plan describes, at its beginning.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let placement = Placement::new([5; 16], plan.shards);
        let mut world = Self {
            rng: Rng::new(plan.seed ^ 0x5eed),
            now: Time::from_micros(1),
            skew_ms: 0,
            events: Events::default(),
            hostile: true,
            over: false,
            watching: false,
            settles_until: Time::ZERO,
            quiet_since: None,
            node: Node::new(1, &plan, placement),
            store: Store::new(&plan, [5; 16]),
            placement,
            clients: Vec::new(),
            by_device: BTreeMap::new(),
            conns: BTreeMap::new(),
            conns_made: 0,
            tokens: 0,
            device_ids: 0,
            queues: BTreeMap::new(),
            answers: BTreeMap::new(),
            dropped: BTreeMap::new(),
            checker: Checker::new(plan.inbox_entries_max, plan.engine),
            days: Days::new(plan.seed),
            export: None,
            trace: SipHasher13::new(),
            tally: Tally::default(),
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.after(Duration::ZERO, Event::Start);
        self.after(faults::TICK, Event::Fault);
        for user in 1..=self.plan.users {
            let user = UserId::new(user).expect("from 1");
            for _ in 0..self.rng.between(1, 3) {
                self.add_client(user);
            }
        }
        let lasts = self.plan.lasts;
        self.after(lasts, Event::Look);
    }

    fn add_client(&mut self, user: UserId) {
        self.device_ids += 1;
        let device = DeviceId::new(self.device_ids).expect("from 1");
        let slow = self.rng.below(1_000) < self.plan.faults.slow_clients;
        let index = self.clients.len();
        let mut client = Client::new(user, device, self.plan.window, slow);
        client.by_id_alone = self.plan.canary == Some(Canary::R3Repeat);
        self.clients.push(client);
        self.by_device.insert((user, device), index);
        let wait = self.rng.around(Duration::from_secs(1));
        self.after(wait, Event::Client(index, Wake::Connect(0)));
        let wait = self.rng.around(Duration::from_secs(2));
        self.after(wait, Event::Client(index, Wake::Act));
    }

    /// Runs to the end, or to the first rule that is broken.
    #[must_use]
    pub fn run(mut self) -> (Tally, Vec<crate::check::Violation>) {
        while !self.over && self.checker.violations().is_empty() {
            let (at, event) = self.events.pop().expect("a run ends by itself");
            self.now = at;
            self.checker.set_now(at);
            self.tally.steps += 1;
            if self.tally.steps >= STEPS_MAX {
                let what = "something goes on for ever: there are too many steps";
                self.checker.broken("liveness", what.into());
            }
            self.step(event);
        }
        self.tally.trace = self.trace.finish();
        self.tally.committed = self.checker.committed;
        self.tally.delivered = self.checker.delivered;
        self.tally.receipts = self.checker.receipts;
        (self.tally, self.checker.into_violations())
    }

    fn step(&mut self, event: Event) {
        self.trace.write_u64(self.now.as_micros());
        match event {
            Event::Shard(life, shard, input) => {
                if life == self.node.life {
                    self.shard_input(shard, input);
                }
            }
            Event::Timer(life, shard) => {
                if life == self.node.life {
                    self.shard_timer(shard);
                }
            }
            Event::Open(conn) => self.open(conn),
            Event::Up(conn, frame) => {
                self.note("up", conn.0, &frame);
                self.up(conn, frame);
            }
            Event::Garbage(conn) => self.garbage(conn),
            Event::Down(conn, frame) => {
                self.note("down", conn.0, &frame);
                self.down(conn, frame);
            }
            Event::CutAtServer(conn) => self.cut_at_server(conn),
            Event::CutAtClient(conn) => self.cut_at_client(conn),
            Event::Client(index, wake) => self.wake(index, wake),
            Event::Store(event) => self.store_event(event),
            Event::Fault => self.chance(),
            Event::Start => self.start_node(),
            Event::Reserve(life) => self.reserve_ids(life),
            Event::Stamp(life) => self.stamp_minute(life),
            Event::Expire(life) => self.expire(life),
            Event::Remove(user, device) => self.remove_device(user, device),
            Event::Look => self.look(),
            Event::Watch => self.watch_store(),
        }
    }

    fn note(&mut self, kind: &str, number: u64, frame: &impl Message) {
        self.trace.write(kind.as_bytes());
        self.trace.write_u64(number);
        self.trace.write(&frame.encode_to_vec());
    }

    fn count(&mut self, fault: &'static str) {
        *self.tally.faults.entry(fault).or_default() += 1;
        self.trace.write(fault.as_bytes());
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.events.push(self.now + wait, event);
    }

    fn at(&mut self, at: Time, event: Event) {
        self.events.push(at, event);
    }

    fn clock(&self) -> Now {
        let unix_ms = UNIX_MS + self.now.as_micros() / 1_000;
        Now {
            at: self.now,
            unix_ms: unix_ms.saturating_add_signed(self.skew_ms),
        }
    }

    fn origin(&self, shard: ShardId) -> Origin {
        Origin {
            life: self.node.life,
            shard,
        }
    }

    fn store_event(&mut self, event: StoreEvent) {
        self.with_store(|store, step| store.handle(step, event));
    }

    /// Gives the store its turn and carries out what it wants.
    fn with_store<R>(&mut self, turn: impl FnOnce(&mut Store, &mut Step<'_>) -> R) -> R {
        let mut effects = Vec::new();
        let mut step = Step {
            now: self.now,
            rng: &mut self.rng,
            effects: &mut effects,
            hostile: self.hostile,
        };
        let result = turn(&mut self.store, &mut step);
        for effect in effects {
            self.effect(effect);
        }
        result
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::After(wait, event) => self.after(wait, Event::Store(event)),
            Effect::Reopened => {
                if !std::mem::replace(&mut self.watching, true) {
                    let wait = self.rng.delay(WATCH_EVERY);
                    self.after(wait, Event::Watch);
                }
            }
            Effect::Tap(tap) => {
                self.checker.commit(&tap);
                match tap {
                    Tap::Removed(user, device) => {
                        self.clients[self.by_device[&(user, device)]].retired = true;
                    }
                    Tap::Expired(keys) => self.count_expired(keys.len()),
                    _ => {}
                }
            }
            Effect::Answer {
                after,
                origin,
                mut completion,
                ordered,
            } => {
                if self.plan.canary == Some(Canary::R3)
                    && let Ok(Outcome::DeviceOpened(opened)) = &mut completion.outcome
                {
                    // The planted bug: the shard takes the cursor for an acknowledgement.
                    opened.resync = false;
                }
                if self.plan.canary == Some(Canary::R25Gap)
                    && let Ok(Outcome::DeviceOpened(opened)) = &mut completion.outcome
                {
                    opened.expired_through = roadstead_proto::Position::ZERO;
                }
                let at = if ordered && origin.life == self.node.life {
                    let last = self.answers.entry(origin.shard).or_default();
                    crate::net::in_order(last, self.now, after)
                } else {
                    self.now + after
                };
                let input = roadstead::Input::Store(completion);
                self.at(at, Event::Shard(origin.life, origin.shard, input));
            }
        }
    }

    /// The node looks at intervals whether the engine was reopened, and tells its shards once.
    fn watch_store(&mut self) {
        self.watching = false;
        for shard in 0..self.plan.shards {
            self.shard_input(ShardId(shard), roadstead::Input::StoreReopened);
        }
    }

    /// The end of the faults, and then every second a look whether all is done.
    fn look(&mut self) {
        if self.hostile {
            return self.end_faults();
        }
        if self.quiet_since.is_none() {
            self.checker.audit_image(&self.store.base().image);
        }
        for index in 0..self.clients.len() {
            // Its device may have been removed since the faults ended.
            if let Some(conn) = self.clients[index]
                .conn()
                .filter(|_| self.clients[index].retired)
            {
                self.client_leaves(index, conn);
            }
        }
        let waiting = self.waiting();
        if waiting.is_none() {
            let since = *self.quiet_since.get_or_insert(self.now);
            if self.now.since(since) >= SILENCE {
                return self.finish();
            }
        } else {
            self.quiet_since = None;
        }
        if self.now >= self.settles_until {
            let what = waiting.unwrap_or_else(|| "it never stays silent".into());
            self.checker.broken("liveness", what);
        }
        self.after(Duration::from_secs(1), Event::Look);
    }

    fn end_faults(&mut self) {
        self.hostile = false;
        self.settles_until = self.now + SETTLES_WITHIN + SILENCE;
        self.checker.audit_image(&self.store.base().image);
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            client.slow = false;
            if client.retired {
                if let Some(conn) = client.conn() {
                    self.client_leaves(index, conn);
                }
                continue;
            }
            // What only a person can clear, an inbox that nobody reads, is waited for no longer (P113).
            let mut todo = Vec::new();
            client.lose_patience(&mut todo);
            if client.conn().is_none() {
                let epoch = client.epoch;
                let wait = self.rng.around(Duration::from_millis(500));
                self.after(wait, Event::Client(index, Wake::Connect(epoch)));
            } else {
                self.carry_out(index, todo);
            }
        }
        self.after(Duration::from_secs(1), Event::Look);
    }

    /// What is not done yet, in words.
    fn waiting(&self) -> Option<String> {
        let busy = self
            .clients
            .iter()
            .filter(|client| !client.retired)
            .find(|client| {
                !client.is_quiet()
                    || !self.checker.is_complete(client.device)
                    || !self.checker.is_flushed(client.device)
            })?;
        let (device, outbox) = (busy.device, &busy.disk.outbox);
        Some(format!(
            "{device:?} after {SETTLES_WITHIN:?}: {:?}, {} sends unanswered from {:?}, complete: {}, \
             acknowledged: {}",
            busy.state,
            outbox.len(),
            outbox.first().map(|one| one.number),
            self.checker.is_complete(device),
            self.checker.is_flushed(device),
        ))
    }

    fn finish(&mut self) {
        self.over = true;
        self.checker.audit_image(&self.store.base().image);
        for client in self.clients.iter().filter(|client| !client.retired) {
            self.checker.final_client(client.device);
        }
        self.checker.final_gaps();
        for host in &self.node.shards {
            self.checker
                .audit_idle_shard(&host.shard, host.connections());
        }
    }
}
