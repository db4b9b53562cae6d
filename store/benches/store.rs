//! Wall time of what a shard waits for: appends, the full cycle of a message, inbox reads.

#[path = "../tests/rig/mod.rs"]
mod rig;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rig::ask::Ask;
use rig::{Rig, device, item, user};
use roadstead::store::{Command, InboxLimits, OpenDevice, Outcome, Sends};
use roadstead_proto::Position;

const USERS: u64 = 2_048;

/// A store with users, and the number of the next message of everyone.
fn store(folder: &std::path::Path) -> (Rig, u64) {
    let mut rig = Rig::open(folder);
    for id in 1..=USERS {
        rig.submit(Command::OpenDevice(OpenDevice {
            user: user(id),
            device: device(1),
            cursor: Position::ZERO,
            want_highest_number: false,
            unix_ms: 1,
            issued_s: 0,
        }));
    }
    for _ in 0..USERS {
        rig.wait().outcome.expect("opens");
    }
    (rig, 1)
}

/// One message each from `batch` users, asked at once.
fn send(rig: &mut Rig, number: u64, batch: u64) {
    for id in 1..=batch {
        let from = (user(id), device(1));
        let items = vec![item(from, user(id % USERS + 1), number, &[b'x'; 100])];
        rig.submit(Command::Send(Sends {
            user: from.0,
            device: from.1,
            limits: InboxLimits::DEFAULT,
            items,
        }));
    }
    for _ in 0..batch {
        match rig.wait().outcome {
            Ok(Outcome::Sent { answers, .. }) => assert!(answers[0].is_ok()),
            other => panic!("{other:?}"),
        }
    }
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for batch in [1, 64, 512] {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut rig, mut number) = store(folder.path());
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter(|| {
                send(&mut rig, number, batch);
                number += 1;
            });
        });
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    for (name, young) in [("young", 64 << 20), ("database", 1)] {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = std::sync::Arc::default();
        let mut config = rig::config(folder.path(), &clock);
        config.limits.young_bytes_max = young;
        let mut rig = Rig::with(config, clock);
        let (alice, bob) = ((user(1), device(1)), (user(2), device(1)));
        rig.open(alice);
        rig.open(bob);
        for number in 1..=100 {
            rig.send(alice, bob.0, number);
        }
        for entries in [1, 100] {
            group.bench_function(BenchmarkId::new(name, entries), |bencher| {
                bencher.iter(|| black_box(rig.page(bob, Position::ZERO, (entries, 1 << 20))));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, append, read);
criterion_main!(benches);
