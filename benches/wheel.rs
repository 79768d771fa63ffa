//! The timer wheel against `BinaryHeap` and `BTreeMap`, with 1 to 1,000,000 timers armed.
//!
//! ```text
//! cargo bench --bench wheel
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hint::black_box;

use condor::internals::{Tick, Wheel};
use criterion::{Criterion, criterion_group, criterion_main};

const SIZES: [u64; 4] = [1, 1_000, 100_000, 1_000_000];
/// Ten seconds of ticks: the default packet timeout.
const SPAN: u64 = 10_000;

/// Deadlines spread over the span. They are the same in every run.
fn deadlines(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15) % SPAN + 1)
}

/// A packet timer: it is armed at the first byte of a packet, and cancelled at the last one.
fn arm_and_cancel(c: &mut Criterion) {
    let mut group = c.benchmark_group("arm and cancel");
    for size in SIZES {
        group.bench_function(format!("Wheel/{size}"), |b| {
            let mut wheel = Wheel::new();
            for at in deadlines(size) {
                wheel.arm(Tick(at), 0_u64);
            }
            let mut at = 0;
            b.iter(|| {
                at = at % SPAN + 1;
                let key = wheel.arm(Tick(black_box(at)), at);
                wheel.cancel(key)
            });
        });
        group.bench_function(format!("BTreeMap/{size}"), |b| {
            let mut map: BTreeMap<(u64, u64), u64> =
                deadlines(size).zip(0..).map(|key| (key, 0)).collect();
            let mut at = 0;
            b.iter(|| {
                at = at % SPAN + 1;
                map.insert((black_box(at), u64::MAX), at);
                map.remove(&(at, u64::MAX))
            });
        });
        // A heap cannot cancel an entry. Usually the entry stays, and is skipped when it is due. So
        // only arming is measured.
        group.bench_function(format!("BinaryHeap, push only/{size}"), |b| {
            let heap: BinaryHeap<Reverse<(u64, u64)>> =
                deadlines(size).zip(0..).map(Reverse).collect();
            b.iter_batched_ref(
                || {
                    let mut heap = heap.clone();
                    heap.reserve(1_000);
                    heap
                },
                |heap| (1..=1_000).for_each(|at| heap.push(Reverse((black_box(at * 10), at)))),
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// Arms the timers, then expires every tick of the span until all have fired.
fn expire_all(c: &mut Criterion) {
    let mut group = c.benchmark_group("arm and expire 100,000");
    group.sample_size(10);
    let count = 100_000;
    group.bench_function("Wheel", |b| {
        b.iter(|| {
            let mut wheel = Wheel::new();
            for at in deadlines(count) {
                wheel.arm(Tick(at), at);
            }
            let mut fired = 0_u64;
            for now in 0..=SPAN {
                let mut budget = usize::MAX;
                while wheel.expire(Tick(now), &mut budget).is_some() {
                    fired += 1;
                }
            }
            assert_eq!(fired, count);
        });
    });
    group.bench_function("BTreeMap", |b| {
        b.iter(|| {
            let mut map: BTreeMap<(u64, u64), u64> =
                deadlines(count).zip(0..).map(|key| (key, key.0)).collect();
            let mut fired = 0_u64;
            for now in 0..=SPAN {
                while map.first_entry().is_some_and(|entry| entry.key().0 <= now) {
                    map.pop_first();
                    fired += 1;
                }
            }
            assert_eq!(fired, count);
        });
    });
    group.bench_function("BinaryHeap", |b| {
        b.iter(|| {
            let mut heap: BinaryHeap<Reverse<(u64, u64)>> =
                deadlines(count).zip(0..).map(Reverse).collect();
            let mut fired = 0_u64;
            for now in 0..=SPAN {
                while heap.peek().is_some_and(|entry| entry.0.0 <= now) {
                    heap.pop();
                    fired += 1;
                }
            }
            assert_eq!(fired, count);
        });
    });
    group.finish();
}

criterion_group!(benches, arm_and_cancel, expire_all);
criterion_main!(benches);
