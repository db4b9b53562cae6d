//! Where sessions are found: a map per shard, or one map that all shards share.
//!
//! Two threads look up random users and write to what they find. The contenders, all with the same hasher:
//!
//! - `own map`: every user is looked up by the thread whose map it is in, as steering arranges it;
//! - `own map, any thread`: users turn up at either thread; the half that belongs to the other one crosses
//!   a bounded queue first;
//! - `DashMap, own users`: one shared map, and every user is looked up by one thread only;
//! - `DashMap, any thread`: one shared map, users turn up at either thread.
//!
//! `cargo bench -p roadstead-bench --bench session_map [-- ROUNDS]`
#![allow(
    clippy::print_stdout,
    reason = "printing numbers is what this program is for"
)]

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use dashmap::DashMap;
use roadstead_bench::{
    nanoseconds_each, number_argument, pin_to_core, print_machine, spread, thread_cpu,
};

const ROUNDS: u32 = 9;
const THREADS: u32 = 2;

/// Look-ups of a thread in a round.
const LOOK_UPS: u32 = 1_000_000;

/// Users in all: those of a small shard, which stay in the cache, and many.
const USERS: [u32; 2] = [20_000, 1_000_000];

/// Look-ups between two glances at the queue: a turn of a loop.
const TURN: u32 = 64;

/// As what the directory knows of a user.
#[derive(Clone, Copy, Default)]
struct Entry {
    session: u64,
    touched: u64,
}

/// Random numbers that cost next to nothing (xorshift).
struct Random(u64);

impl Random {
    /// Another sequence for every thread and round.
    fn new(thread: u32, round: u32) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (u64::from(thread + 1) << 32) ^ u64::from(round + 1))
    }

    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let high = u32::try_from(self.0 >> 32).expect("32 bits are left");
        u32::try_from((u64::from(high) * u64::from(end)) >> 32).expect("below the end")
    }

    /// A user that lives on a thread.
    fn own(&mut self, thread: u32, users: u32) -> u32 {
        self.below(users / THREADS) * THREADS + thread
    }
}

type Map = HashMap<u32, Entry>;

fn touch(entry: &mut Entry, user: u32) {
    entry.touched += entry.session ^ u64::from(user);
}

fn touch_in(map: &mut Map, user: u32) {
    touch(map.get_mut(&user).expect("every user is there"), user);
}

fn touch_shared(map: &DashMap<u32, Entry>, user: u32) {
    touch(&mut map.get_mut(&user).expect("every user is there"), user);
}

/// What the threads share.
struct Shared {
    users: u32,
    map: DashMap<u32, Entry>,
    queues: Vec<ArrayQueue<u32>>,
    producing: AtomicU32,
    start: Barrier,
}

type Work = fn(&Shared, &mut Map, u32, Random);

const CONTENDERS: [(&str, Work); 4] = [
    ("own map", own),
    ("own map, any thread", own_any_thread),
    ("DashMap, own users", shared_own),
    ("DashMap, any thread", shared_any_thread),
];

fn own(shared: &Shared, map: &mut Map, thread: u32, mut random: Random) {
    for _ in 0..LOOK_UPS {
        touch_in(map, random.own(thread, shared.users));
    }
}

fn shared_own(shared: &Shared, _map: &mut Map, thread: u32, mut random: Random) {
    for _ in 0..LOOK_UPS {
        touch_shared(&shared.map, random.own(thread, shared.users));
    }
}

fn shared_any_thread(shared: &Shared, _map: &mut Map, _thread: u32, mut random: Random) {
    for _ in 0..LOOK_UPS {
        touch_shared(&shared.map, random.below(shared.users));
    }
}

fn own_any_thread(shared: &Shared, map: &mut Map, thread: u32, mut random: Random) {
    for n in 0..LOOK_UPS {
        if n % TURN == 0 {
            take_queued(shared, map, thread);
        }
        let user = random.below(shared.users);
        let home = user % THREADS;
        if home == thread {
            touch_in(map, user);
            continue;
        }
        while queue(shared, home).push(user).is_err() {
            take_queued(shared, map, thread);
            thread::sleep(Duration::from_micros(20));
        }
    }
    shared.producing.fetch_sub(1, Ordering::SeqCst);
    // Asleep while it waits, so that waiting costs no CPU time.
    while shared.producing.load(Ordering::SeqCst) > 0 || !queue(shared, thread).is_empty() {
        take_queued(shared, map, thread);
        thread::sleep(Duration::from_micros(20));
    }
}

fn queue(shared: &Shared, thread: u32) -> &ArrayQueue<u32> {
    &shared.queues[usize::try_from(thread).expect("small")]
}

fn take_queued(shared: &Shared, map: &mut Map, thread: u32) {
    while let Some(user) = queue(shared, thread).pop() {
        touch_in(map, user);
    }
}

/// Nanoseconds of CPU time, and of wall time, for each look-up.
fn run(shared: &Shared, maps: &mut [Map], work: Work, round: u32) -> (f64, f64) {
    shared.producing.store(THREADS, Ordering::SeqCst);
    let began = Instant::now();
    let cpu: Duration = thread::scope(|scope| {
        let running: Vec<_> = (0..THREADS)
            .zip(maps)
            .map(|(thread, map)| {
                scope.spawn(move || {
                    pin_to_core(usize::try_from(thread).expect("small"));
                    shared.start.wait();
                    let before = thread_cpu();
                    work(shared, map, thread, Random::new(thread, round));
                    thread_cpu() - before
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("no look-up fails"))
            .sum()
    });
    let wall = began.elapsed();
    let count = LOOK_UPS * THREADS;
    (nanoseconds_each(cpu, count), nanoseconds_each(wall, count))
}

fn compare(users: u32, rounds: u32) {
    let fresh = |user: u32| {
        let session = u64::from(user) << 8;
        (
            user,
            Entry {
                session,
                touched: 0,
            },
        )
    };
    let mut maps: Vec<Map> = (0..THREADS)
        .map(|thread| {
            (0..users)
                .filter(|user| user % THREADS == thread)
                .map(fresh)
                .collect()
        })
        .collect();
    let shared = Shared {
        users,
        map: (0..users).map(fresh).collect(),
        queues: (0..THREADS).map(|_| ArrayQueue::new(16 * 1024)).collect(),
        producing: AtomicU32::new(0),
        start: Barrier::new(usize::try_from(THREADS).expect("small")),
    };
    let mut cpu: [Vec<f64>; 4] = Default::default();
    let mut wall: [Vec<f64>; 4] = Default::default();
    let mut ratio: [Vec<f64>; 4] = Default::default();
    for round in 0..rounds {
        for (at, (_, work)) in CONTENDERS.iter().enumerate() {
            let (used, took) = run(&shared, &mut maps, *work, round);
            cpu[at].push(used);
            wall[at].push(took);
            let base = cpu[0].last().copied().expect("the first contender ran");
            ratio[at].push(used / base);
        }
    }
    println!(
        "{users} users, medians of {rounds} rounds; ratio of CPU time to the first (lowest to highest)"
    );
    for (at, (name, _)) in CONTENDERS.iter().enumerate() {
        let (ratio, low, high) = spread(&ratio[at]);
        println!(
            "{name:<22} {:>6.1} ns CPU {ratio:>6.2}  ({low:.2} to {high:.2})  {:>6.1} ns wall",
            spread(&cpu[at]).0,
            spread(&wall[at]).0
        );
    }
}

fn main() {
    print_machine();
    let rounds = number_argument(ROUNDS);
    for users in USERS {
        compare(users, rounds);
    }
}
