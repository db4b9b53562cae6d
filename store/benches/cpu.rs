//! CPU time of the store's threads per message: what a message costs, background work included.
//!
//! `cargo bench -p roadstead-store --bench cpu -- [users] [rounds]`. Wall time is no measure here: the
//! committer waits for the disk, and flushes and compactions run beside it.

#![allow(clippy::print_stdout, reason = "it reports")]

#[path = "../tests/rig/mod.rs"]
mod rig;

use std::time::Instant;

use rig::{Rig, device, item, user};
use roadstead::store::{
    Command, Completion, Flush, Grown, InboxLimits, KnownEntries, KnownEntry, Outcome, Sends,
};
use roadstead_proto::{DeviceId, Position, UserId};

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Who = (UserId, DeviceId);

struct Load {
    rig: Rig,
    users: u64,
    numbers: Vec<u64>,
    acked: Vec<Position>,
    payload: Vec<u8>,
}

/// Nanoseconds of CPU that the threads of the store have used. The thread that asks is not counted.
fn cpu_ns() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    let main = std::process::id().to_string();
    let spent = tasks.filter_map(|task| {
        if task.as_ref().is_ok_and(|task| *task.file_name() == *main) {
            return None;
        }
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    spent.sum()
}

fn who(index: u64) -> Who {
    (user(index + 1), device(1))
}

impl Load {
    fn new(path: &std::path::Path, users: u64) -> Self {
        let mut rig = Rig::open(path);
        for index in 0..users {
            rig.submit(Command::OpenDevice(roadstead::store::OpenDevice {
                user: who(index).0,
                device: who(index).1,
                cursor: Position::ZERO,
                want_highest_number: false,
                unix_ms: 1,
                issued_s: 0,
            }));
        }
        for _ in 0..users {
            rig.wait().outcome.expect("opens");
        }
        let size = usize::try_from(users).expect("small");
        Self {
            rig,
            users,
            numbers: vec![0; size],
            acked: vec![Position::ZERO; size],
            payload: vec![b'x'; 100],
        }
    }

    /// Sends from `count` devices at once; tells which inboxes grew.
    fn send(&mut self, from: u64, count: u64) -> Vec<Grown> {
        for offset in 0..count {
            let sender = (from + offset) % self.users;
            let index = usize::try_from(sender).expect("small");
            self.numbers[index] += 1;
            let recipient = who(sender ^ 1).0;
            let items = vec![item(
                who(sender),
                recipient,
                self.numbers[index],
                &self.payload,
            )];
            self.rig.submit(Command::Send(Sends {
                user: who(sender).0,
                device: who(sender).1,
                limits: InboxLimits::DEFAULT,
                items,
            }));
        }
        self.collect(count)
    }

    /// Acknowledges what grew, as sessions do that know their lists.
    fn flush(&mut self, grown: &[Grown]) -> Vec<Grown> {
        for grown in grown {
            let index = usize::try_from(grown.user.get() - 1).expect("small");
            let body = grown.entry.as_ref().expect("carried along");
            self.rig.submit(Command::Flush(Flush {
                user: grown.user,
                device: grown.device,
                upto: grown.cursor,
                known: Some(KnownEntries {
                    from: self.acked[index],
                    entries: vec![KnownEntry::of(grown.user, grown.cursor, body)],
                }),
            }));
            self.acked[index] = grown.cursor;
        }
        self.collect(grown.len() as u64)
    }

    fn collect(&mut self, count: u64) -> Vec<Grown> {
        let mut all = Vec::new();
        for _ in 0..count {
            let Completion { outcome, .. } = self.rig.wait();
            match outcome.expect("serves") {
                Outcome::Sent { answers, grown } => {
                    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
                    all.extend(grown);
                }
                Outcome::Flushed { grown, .. } => all.extend(grown),
                other => panic!("{other:?}"),
            }
        }
        all
    }
}

fn run(name: &str, users: u64, batch: u64, messages: u64, cycle: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut load = Load::new(folder.path(), users);
    let (cpu, began) = (cpu_ns(), Instant::now());
    let mut at = 0;
    while at < messages {
        let grown = load.send(at, batch);
        if cycle {
            let receipts = load.flush(&grown);
            load.flush(&receipts);
        }
        at += batch;
    }
    let (cpu, wall) = (cpu_ns() - cpu, began.elapsed());
    let handle = load.rig.store.handle();
    let counters = &handle.counters().commit;
    let per = |value: u64| value as f64 / messages as f64;
    println!(
        "{name:>8} batch {batch:>4}: {:6.2} us CPU, {:6.2} us wall, {:5.2} writes, {:4.0} bytes per message; {:.0} us per commit, {} commits",
        per(cpu) / 1e3,
        per(u64::try_from(wall.as_nanos()).expect("short")) / 1e3,
        per(counters.writes.get()),
        per(counters.written_bytes.get()),
        counters.commit_us.get() as f64 / counters.commits.get() as f64,
        counters.commits.get(),
    );
}

fn main() {
    let mut arguments = std::env::args().filter_map(|argument| argument.parse().ok());
    let users = arguments.next().unwrap_or(20_000);
    let messages = arguments.next().unwrap_or(400_000);
    for batch in [64, 512, 2_048] {
        run(
            "append",
            users,
            batch,
            messages * batch.min(512) / 512,
            false,
        );
    }
    for batch in [64, 512, 2_048] {
        run("cycle", users, batch, messages * batch.min(512) / 512, true);
    }
}
