//! The output queue: bytes that the kernel refused, appended and taken off again.
//!
//! ```text
//! cargo bench --bench queue
//! ```

use bytes::Bytes;
use condor::internals::{Pool, Queue};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn append_and_consume(c: &mut Criterion) {
    let mut group = c.benchmark_group("append and consume 1 MiB");
    const TOTAL: usize = 1 << 20;
    group.throughput(Throughput::Bytes(TOTAL as u64));
    for piece in [64, 4 * 1024, 64 * 1024] {
        let bytes = vec![7; piece];
        group.bench_function(format!("copied/{piece}"), |b| {
            let mut pool = Pool::default();
            let mut queue = Queue::default();
            b.iter(|| {
                for _ in 0..TOTAL / piece {
                    queue.append(&bytes, &mut pool);
                }
                drain(&mut queue, &mut pool);
            });
        });
        group.bench_function(format!("shared/{piece}"), |b| {
            let mut pool = Pool::default();
            let mut queue = Queue::default();
            let bytes = Bytes::from(bytes.clone());
            b.iter(|| {
                for _ in 0..TOTAL / piece {
                    queue.append_shared(&[], bytes.clone(), &mut pool);
                }
                drain(&mut queue, &mut pool);
            });
        });
        group.bench_function(format!("Vec<u8>, drained from the front/{piece}"), |b| {
            let mut queue: Vec<u8> = Vec::new();
            b.iter(|| {
                for _ in 0..TOTAL / piece {
                    queue.extend_from_slice(&bytes);
                }
                while !queue.is_empty() {
                    queue.drain(..queue.len().min(TAKEN));
                }
            });
        });
    }
    group.finish();
}

/// What a slow peer's kernel takes at a time.
const TAKEN: usize = 32 * 1024;

fn drain(queue: &mut Queue, pool: &mut Pool) {
    while !queue.is_empty() {
        queue.consume(queue.len().min(TAKEN), pool);
    }
}

criterion_group!(benches, append_and_consume);
criterion_main!(benches);
