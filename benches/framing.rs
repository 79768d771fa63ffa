//! Decoding and encoding: `LengthField` and tokio-util's codec, in the same run.
//!
//! ```text
//! cargo bench --bench framing
//! ```
//!
//! Each iteration decodes 64 KiB of whole packets. Divide its time by the number of elements to get
//! the time of one packet.

use std::hint::black_box;

use bytes::BytesMut;
use condor::internals::{Deframe, Enframe, Prefix};
use condor::{Decode, LengthField};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};

/// Bytes of packets in one iteration.
const WIRE_LEN: usize = 64 * 1024;

fn wire(size: usize) -> (Vec<u8>, u64) {
    let packets = WIRE_LEN / (size + 2);
    let mut out = Vec::new();
    for _ in 0..packets {
        LengthField::U16.encode(&vec![7; size], &mut out).expect("it fits the field");
    }
    (out, packets as u64)
}

/// Packets of `size` or `size + 1` bytes, in a random order. The sequence is so long that a branch
/// predictor cannot learn it.
fn mixed(size: usize) -> (Vec<u8>, u64) {
    let (mut out, mut packets, mut state) = (Vec::new(), 0, 1_u64);
    while out.len() < 32 * WIRE_LEN {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let len = size + (state >> 63) as usize;
        LengthField::U16.encode(&vec![7; len], &mut out).expect("it fits the field");
        packets += 1;
    }
    (out, packets)
}

fn tokio() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_length(2).new_codec()
}

fn walk(mut decode: impl FnMut(&[u8]) -> Option<(usize, usize)>, mut wire: &[u8]) -> usize {
    let mut seen = 0;
    while let Some((len, consumed)) = decode(wire) {
        seen += black_box(len);
        wire = &wire[consumed..];
    }
    seen
}

fn frame(decoded: Decode) -> Option<(usize, usize)> {
    match decoded {
        Decode::Frame { payload, consumed } => Some((payload.len(), consumed)),
        Decode::Need(_) => None,
    }
}

/// Decodes all packets of `wire` as the reactor does: with a copy of the prefix for each batch.
fn batch(wire: &[u8]) -> usize {
    let mut prefix = Prefix::<2>::new(65_535);
    walk(|wire| frame(prefix.next(wire, 0).expect("good frames")), wire)
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let (unequal, packets) = mixed(8);
    group.throughput(Throughput::Elements(packets));
    group.bench_function("LengthField::U16/8 or 9", |b| b.iter(|| batch(&unequal)));
    for size in [8, 64, 1024] {
        let (wire, packets) = wire(size);
        group.throughput(Throughput::Elements(packets));
        group.bench_function(format!("LengthField::U16/{size}"), |b| {
            b.iter(|| batch(&wire));
        });
        group.bench_function(format!("LengthField::U16, any field/{size}"), |b| {
            let field = LengthField::U16;
            b.iter(|| walk(|wire| frame(field.decode(wire).expect("good frames")), &wire));
        });
        group.bench_function(format!("tokio-util LengthDelimitedCodec/{size}"), |b| {
            let mut codec = tokio();
            b.iter_batched_ref(
                || BytesMut::from(&wire[..]),
                |bytes| {
                    let mut seen = 0;
                    while let Some(packet) = codec.decode(bytes).expect("good frames") {
                        seen += black_box(packet.len());
                    }
                    seen
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for size in [8, 64, 1024] {
        let payload = vec![7; size];
        let packets = (WIRE_LEN / (size + 2)) as u64;
        group.throughput(Throughput::Elements(packets));
        group.bench_function(format!("LengthField::U16/{size}"), |b| {
            let prefix = Prefix::<2>::new(65_535);
            let mut out = Vec::with_capacity(WIRE_LEN);
            b.iter(|| {
                out.clear();
                for _ in 0..packets {
                    prefix.frame(black_box(&payload), &mut out).expect("it fits");
                }
                out.len()
            });
        });
        group.bench_function(format!("tokio-util LengthDelimitedCodec/{size}"), |b| {
            let mut codec = tokio();
            let payload = bytes::Bytes::from(payload.clone());
            let mut out = BytesMut::with_capacity(WIRE_LEN);
            b.iter(|| {
                out.clear();
                for _ in 0..packets {
                    codec.encode(black_box(payload.clone()), &mut out).expect("it fits");
                }
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
