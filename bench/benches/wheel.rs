//! The timer wheel of the loop, with as many timers as a shard has sessions.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use roadstead_net::wheel::Wheel;

const TIMERS: [u32; 2] = [10_000, 1_000_000];

/// A prime, so that a stride of it visits all timers, far apart in memory.
const STRIDE: u32 = 611_953;

/// Idle timeouts: spread over 90 s, so that entries lie in the second and third level.
fn idle(index: u32) -> Duration {
    Duration::from_secs(90) + Duration::from_micros(u64::from(index) * 90)
}

fn full(epoch: Instant, timers: u32) -> Wheel {
    let mut wheel = Wheel::new(epoch);
    (0..timers).for_each(|index| wheel.set(index, epoch + idle(index)));
    wheel
}

/// Moves a timer of a random session: what every packet does to its connection.
fn rearm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel re-arm");
    for timers in TIMERS {
        let epoch = Instant::now();
        let mut wheel = full(epoch, timers);
        let (mut index, mut later) = (0, Duration::ZERO);
        group.bench_function(BenchmarkId::from_parameter(timers), |bencher| {
            bencher.iter(|| {
                index = (index + STRIDE) % timers;
                later += Duration::from_micros(1);
                wheel.set(index, epoch + idle(index) + later);
            });
        });
    }
    group.finish();
}

/// Arms and cancels a timer that comes and goes while its session waits for an acknowledgement.
fn arm_and_cancel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel arm and cancel");
    for timers in TIMERS {
        let epoch = Instant::now();
        let mut wheel = full(epoch, timers);
        let mut index = 0;
        group.bench_function(BenchmarkId::from_parameter(timers), |bencher| {
            bencher.iter(|| {
                index = (index + STRIDE) % timers;
                wheel.set(index, epoch + Duration::from_millis(50));
                wheel.cancel(index);
            });
        });
    }
    group.finish();
}

/// A turn of the loop: asks for the next deadline, moves time by 1 ms, arms again what was due.
fn turn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel turn of 1 ms");
    for timers in TIMERS {
        let mut now = Instant::now();
        let mut wheel = full(now, timers);
        let mut due = Vec::new();
        group.bench_function(BenchmarkId::from_parameter(timers), |bencher| {
            bencher.iter(|| {
                now += Duration::from_millis(1);
                wheel.expire(now, &mut due);
                for index in due.drain(..) {
                    wheel.set(index, now + idle(index));
                }
                wheel.next()
            });
        });
    }
    group.finish();
}

fn machine(_criterion: &mut Criterion) {
    roadstead_bench::print_machine();
}

criterion_group!(benches, machine, rearm, arm_and_cancel, turn);
criterion_main!(benches);
