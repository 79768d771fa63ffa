//! Copied against shared values: the CPU time of a server that answers with large values.
//!
//! ```text
//! cargo bench --bench sharing            # all sizes
//! cargo bench --bench sharing -- 20000   # one of them
//! ```
//!
//! Each answer is a header, the value, and a trailer of 2 bytes. The header has another length from
//! answer to answer, because the offset between source and destination, modulo 4,096, decides how fast
//! some processors copy: up to threefold on the one that this was measured on. Copied and shared values
//! take turns on the same connection. A figure is the CPU time of the server's thread for shared
//! values, divided by that for copied ones in the same round: the median of the rounds, and an interval
//! of order statistics that covers the true median with 96 %. Shorter values than the threshold of
//! `Packet::Shared` are copied either way. Their ratio tells how exact the figures are.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};

use bytes::Bytes;
use condor::testing::serve;
use condor::{Action, Context, Framing, Handler, LengthField, ListenerOptions, SendError};

const SIZES: [usize; 9] = [1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 64_000, 250_000, 1_000_000];
const DEPTHS: [usize; 2] = [1, 16];
/// The lengths of headers, from 0 on.
const HEADERS: usize = 64;
const ROUNDS: usize = 15;
/// So many of the smallest and of the largest ratios are outside the interval.
const OUTSIDE: usize = 3;
/// Bytes of values in each half of a round.
const HALF: usize = 64 << 20;
/// The most requests in each half of a round.
const MOST: usize = 8_000;

/// Answers a request `[size, copied or shared, header]` with a header of `header` bytes, a value of
/// `SIZES[size]` bytes, and a trailer.
struct Values(Vec<Bytes>);

impl Values {
    fn answer(&self, packet: &[u8], ctx: &mut Context<'_, ()>) -> Result<(), SendError> {
        let value = &self.0[usize::from(packet[0])];
        ctx.send(&[b'h'; HEADERS][..usize::from(packet[2])])?;
        if packet[1] == 1 {
            ctx.send(value.clone())?
        } else {
            ctx.send(&value[..])?
        }
        ctx.send(b"\r\n")
    }
}

impl Handler for Values {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        self.answer(packet, ctx).into()
    }
}

fn main() {
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let (thread, threads) = channel();
    let options = ListenerOptions::port(0)
        .framing(Framing::from(LengthField::U32))
        .max_packet(*SIZES.last().expect("there are sizes"))
        .max_queued(64 << 20);
    let server = serve(options, move |_| factory(&thread));
    let address = server.listener().local_addr().as_inet().expect("it is no Unix socket");
    let mut client = TcpStream::connect(address).expect("the server listens");
    client.set_nodelay(true).expect("a socket");
    let thread = threads.recv().expect("the factory was called");
    let mut buffer = vec![0; 1 << 20];
    println!("{:>9}  {:>5}  {:>8}  shared / copied", "bytes", "depth", "copied");
    let only = std::env::args().find_map(|arg| arg.parse::<usize>().ok());
    for (index, size) in SIZES.into_iter().enumerate() {
        if only.is_some_and(|only| only != size) {
            continue;
        }
        for depth in DEPTHS {
            let rounds = (HALF / size).clamp(depth, MOST) / depth;
            let mut half = |is_shared: bool| {
                let before = cpu(&thread);
                for round in 0..rounds {
                    let (mut requests, mut left) = (Vec::with_capacity(7 * depth), 0);
                    for nth in 0..depth {
                        let header = (round * depth + nth) * 5 % HEADERS;
                        let request = [index, usize::from(is_shared), header].map(byte);
                        requests.extend_from_slice(&[0, 0, 0, 3]);
                        requests.extend_from_slice(&request);
                        left += 3 * 4 + header + size + 2;
                    }
                    client.write_all(&requests).expect("the server lives");
                    while left > 0 {
                        let most = buffer.len().min(left);
                        left -= client.read(&mut buffer[..most]).expect("the server lives");
                    }
                }
                (cpu(&thread) - before) as f64 / (rounds * depth) as f64
            };
            let mut pairs = Vec::new();
            for round in 0..=ROUNDS {
                let first = half(round % 2 == 1);
                let second = half(round % 2 == 0);
                let (copied, shared) =
                    if round % 2 == 0 { (first, second) } else { (second, first) };
                pairs.push((shared / copied, copied));
            }
            // The first round warms up.
            pairs.remove(0);
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (ratio, copied) = pairs[ROUNDS / 2];
            let (low, high) = (pairs[OUTSIDE].0, pairs[ROUNDS - 1 - OUTSIDE].0);
            println!(
                "{size:>9}  {depth:>5}  {:>5.1} us  {ratio:.2} ({low:.2} to {high:.2})",
                copied / 1_000.0
            );
        }
    }
}

fn byte(number: usize) -> u8 {
    u8::try_from(number).expect("a small number")
}

/// A handler. Tells which thread it lives on.
fn factory(thread: &Sender<String>) -> Values {
    let path = fs::read_link("/proc/thread-self").expect("Linux");
    // Only the first connection is waited for.
    let _ = thread.send(format!("/proc/{}/schedstat", path.display()));
    Values(SIZES.iter().map(|size| Bytes::from(vec![7; *size])).collect())
}

/// The CPU time of a thread in nanoseconds, from Linux's `/proc`.
fn cpu(path: &str) -> u64 {
    let text = fs::read_to_string(path).expect("the server lives");
    text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).expect("a number")
}
