//! Placement: from a user to the slot, the shard and the hint that a Welcome carries. There is no table.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use roadstead::Placement;
use roadstead_proto::UserId;

fn placement(criterion: &mut Criterion) {
    roadstead_bench::print_machine();
    let mut group = criterion.benchmark_group("placement");
    let placement = Placement::new([7; 16], 12);
    let mut next = 0;
    let mut user = move || {
        next += 1;
        UserId::new(black_box(next)).expect("not 0")
    };
    group.bench_function("slot", |bencher| {
        bencher.iter(|| placement.slot(user()));
    });
    group.bench_function("home", |bencher| {
        bencher.iter(|| placement.home(user()));
    });
    group.bench_function("home_prefix", |bencher| {
        bencher.iter(|| placement.home_prefix(user()));
    });
    group.bench_function("shard_of_bits", |bencher| {
        let mut bits = 0_u16;
        bencher.iter(|| {
            bits = bits.wrapping_add(7_919);
            placement.shard_of_bits(black_box(bits))
        });
    });
    group.finish();
}

criterion_group!(benches, placement);
criterion_main!(benches);
