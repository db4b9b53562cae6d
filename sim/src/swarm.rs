//! What a seed draws before a run: how large the world is, and which faults are on and how strong.
//!
//! Swarm testing (Groce et al., 2012): a run with every fault at once explores less than many runs, each
//! with a few faults, because faults hide each other. So every fault is off in half of the runs.

use std::time::Duration;

use roadstead::Rate;

use crate::canary::Canary;
use crate::rng::Rng;

/// Actions of clients in one run, about: many short runs find more than a long one.
const ACTIONS_MAX: u32 = 600;

/// The same where there are thousands of clients.
const ACTIONS_MAX_LARGE: u32 = 3_000;

/// With more users a run is a large one.
const USERS_LARGE: u64 = 200;

/// How the store commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// As the embedded engine does: one committer, serial, which proves its intervals (R4, R8).
    Sole,
    /// As FoundationDB does: transactions run side by side, and conflict.
    Many,
}

/// Everything that is drawn before a run begins.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed of it all.
    pub seed: u64,
    /// A planted bug.
    pub canary: Option<Canary>,
    /// How the store commits.
    pub engine: Engine,
    /// Shards of the node.
    pub shards: u16,
    /// Users; each begins with one to three devices.
    pub users: u64,
    /// How long faults and sends go on, in simulated time.
    pub lasts: Duration,
    /// The mean time between two actions of a client.
    pub act_every: Duration,
    /// Sends that a client keeps in flight.
    pub window: usize,
    /// Chats are drawn from this many neighbours: few make hot chats.
    pub neighbours: u64,
    /// Entries of an inbox before a device is suspended (R21).
    pub inbox_entries_max: u64,
    /// Largest payload.
    pub payload_bytes_max: u64,
    /// Commands in one commit.
    pub batch_max: usize,
    /// What goes wrong.
    pub faults: Faults,
    /// Sends that a user may make.
    pub send_rate: Option<Rate>,
    /// Of those, what it may send to one other.
    pub recipient_rate: Option<Rate>,
}

/// What goes wrong, and how strongly; zero is never. Rates are per second of simulated time.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The longest delay of a frame.
    pub frame_delay: Duration,
    /// The longest delay of a message between shards.
    pub shard_delay: Duration,
    /// The longest time that a commit or a read takes.
    pub store_delay: Duration,
    /// Connections cut, per thousand seconds of a connection.
    pub cuts: u64,
    /// The server may learn of a cut only after this time.
    pub half_open: Duration,
    /// Frames sent twice, in a million.
    pub repeats: u64,
    /// Client crashes, per thousand seconds of a client.
    pub client_crashes: u64,
    /// Second sessions of a device while the first is open, per thousand seconds of a client.
    pub takeovers: u64,
    /// Crashes at which a client forgets which numbers it has used, in a million crashes.
    pub forgets_numbers: u64,
    /// Devices added, in a thousand seconds of a user.
    pub new_devices: u64,
    /// Devices removed, in a thousand seconds of a user.
    pub removals: u64,
    /// Clients that store slowly, in a thousand.
    pub slow_clients: u64,
    /// How slowly.
    pub slow_by: Duration,
    /// Frames that no client should send, in a million actions.
    pub rude: u64,
    /// Crashes of the node, per thousand seconds.
    pub node_crashes: u64,
    /// Of those, orderly drains, in a thousand.
    pub drains: u64,
    /// Starts of a node behind which the store was moved to another engine (R3), in a million.
    pub imports: u64,
    /// Starts of a node behind which the store is what it was at an earlier start (R3), in a million.
    pub restores: u64,
    /// Commits that fail and were made or not, in a million.
    pub unknown_commits: u64,
    /// Requests refused because the store's queue is full, in a million.
    pub overflows: u64,
    /// Transactions whose read version is refused as too old, in a million.
    pub too_old: u64,
    /// Outages of the store, per thousand seconds.
    pub outages: u64,
    /// How long an outage lasts at most.
    pub outage_lasts: Duration,
    /// Jumps of the wall clock, per thousand seconds.
    pub clock_jumps: u64,
    /// How far at most.
    pub clock_jump: Duration,
    /// Days pass in a moment, so often per thousand seconds; without, no minute is stamped and nothing
    /// expires (R25).
    pub days: u64,
}

impl Plan {
    /// What this seed draws.
    #[must_use]
    pub fn draw(seed: u64, canary: Option<Canary>) -> Self {
        let mut rng = Rng::new(seed);
        let users = match rng.below(20) {
            0 => rng.between(400, 1_500),
            1..=5 => rng.between(40, 150),
            _ => rng.between(2, 16),
        };
        let large = users > USERS_LARGE;
        let lasts = Duration::from_secs(if large { 12 } else { rng.between(10, 90) });
        let mut plan = Self {
            seed,
            canary,
            engine: if rng.one_in(2) {
                Engine::Sole
            } else {
                Engine::Many
            },
            shards: u16::try_from(rng.between(1, 4)).expect("small"),
            users,
            lasts,
            act_every: Duration::from_millis(if large {
                3_000
            } else {
                rng.magnitude(2_000) + 20
            }),
            window: usize::try_from(rng.magnitude(128)).expect("small"),
            neighbours: rng.magnitude(users),
            inbox_entries_max: match rng.below(4) {
                0 => rng.between(8, 200),
                _ => 10_000,
            },
            payload_bytes_max: if rng.one_in(8) { 60_000 } else { 200 },
            batch_max: usize::try_from(rng.magnitude(2_048)).expect("small"),
            faults: Faults::draw(&mut rng),
            send_rate: None,
            recipient_rate: None,
        };
        // What is added later is drawn last, so that a seed goes on to mean what it meant.
        if rng.one_in(6) {
            let small = |number| u32::try_from(number).expect("small");
            plan.send_rate = Rate::new(small(rng.between(5, 50)), small(rng.between(1, 50)));
        }
        if rng.one_in(6) {
            let small = |number| u32::try_from(number).expect("small");
            plan.recipient_rate = Rate::new(small(rng.between(1, 20)), small(rng.between(1, 20)));
        }
        plan.act_every = plan.act_every.max(plan.act_every_min());
        plan.suit_canary();
        plan
    }

    /// Whether the run has hundreds of users and takes as long as fifty others.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.users > USERS_LARGE
    }

    /// So that a run has a bounded number of actions.
    fn act_every_min(&self) -> Duration {
        let actors = u32::try_from(self.users * 2).expect("a few thousand");
        let actions = if self.is_large() {
            ACTIONS_MAX_LARGE
        } else {
            ACTIONS_MAX
        };
        self.lasts * actors / actions
    }

    /// A planted bug shows only where what it breaks is used at all.
    fn suit_canary(&mut self) {
        match self.canary {
            Some(Canary::R4 | Canary::R8 | Canary::R9) => self.engine = Engine::Sole,
            Some(Canary::R14) => {
                self.engine = Engine::Many;
                self.faults.new_devices = self.faults.new_devices.max(200);
            }
            _ => {}
        }
        match self.canary {
            Some(Canary::R4) => self.shards = self.shards.max(2),
            Some(Canary::R5) => {
                self.shards = self.shards.max(2);
                self.users = self.users.min(20);
                // The last entry of an inbox has to fall into the gap: later ones mend it.
                self.faults.cuts = 2_000;
            }
            Some(Canary::R8 | Canary::R9) => {
                self.faults.node_crashes = self.faults.node_crashes.max(100);
            }
            Some(Canary::R3) => {
                self.faults.node_crashes = self.faults.node_crashes.max(100);
                self.faults.imports = 1_000_000;
            }
            Some(Canary::R3Repeat) => {
                self.faults.node_crashes = self.faults.node_crashes.max(100);
                self.faults.restores = 1_000_000;
                // Sends that are committed and not answered for long.
                self.faults.frame_delay = Duration::from_secs(3);
            }
            Some(Canary::R12 | Canary::R18 | Canary::R20) => {
                self.faults.cuts = self.faults.cuts.max(100);
            }
            Some(Canary::R13) => self.faults.takeovers = self.faults.takeovers.max(200),
            Some(Canary::R16) => {
                // Refused in the middle of a batch: the recipient is suspended.
                self.inbox_entries_max = 8;
                self.window = self.window.max(16);
                self.faults.slow_clients = 700;
                self.faults.slow_by = Duration::from_secs(20);
            }
            Some(Canary::R25 | Canary::R25Early | Canary::R25Gap) => {
                self.faults.days = self.faults.days.max(500);
                self.faults.slow_clients = self.faults.slow_clients.max(500);
                self.faults.slow_by = Duration::from_secs(20);
            }
            Some(Canary::R21) => self.inbox_entries_max = self.inbox_entries_max.min(16),
            _ => {}
        }
    }
}

impl Faults {
    fn draw(rng: &mut Rng) -> Self {
        let mut on = |strength: u64| {
            if rng.one_in(2) {
                rng.magnitude(strength)
            } else {
                0
            }
        };
        let ms = Duration::from_millis;
        Self {
            cuts: on(500),
            repeats: on(200_000),
            client_crashes: on(100),
            takeovers: on(200),
            forgets_numbers: on(1_000_000),
            new_devices: on(100),
            removals: on(50),
            slow_clients: on(500),
            rude: on(50_000),
            node_crashes: on(200),
            drains: on(1_000),
            unknown_commits: on(100_000),
            too_old: on(50_000),
            outages: on(100),
            clock_jumps: on(300),
            frame_delay: ms(5 + on(3_000)),
            shard_delay: ms(1 + on(500)),
            store_delay: ms(2 + on(1_000)),
            half_open: ms(1 + on(40_000)),
            slow_by: ms(100 + on(90_000)),
            outage_lasts: ms(10 + on(20_000)),
            clock_jump: ms(1 + on(86_400_000)),
            // What is added later is drawn last, so that a seed goes on to mean what it meant.
            imports: on(1_000_000),
            overflows: on(100_000),
            restores: on(1_000_000),
            days: match on(1_000) {
                0 => 0,
                // Less often, nothing in a run grows old.
                rate => rate.max(100),
            },
        }
    }
}
