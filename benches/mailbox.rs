//! Messages to a connection, from 1, 2 and 4 threads at once, through a live reactor.
//!
//! ```text
//! cargo bench --bench mailbox
//! ```

use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use condor::{Action, Address, Context, Handler, Info, ListenerOptions, MessageError, Shards};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Counts messages, and says when it has them all.
struct Counting {
    seen: u64,
    started: Sender<Address<u64>>,
    done: Sender<()>,
}

impl Handler for Counting {
    /// How many there will be.
    type Message = u64;

    fn init(&mut self, ctx: &mut Context<'_, u64>) -> Action<'_> {
        self.started.send(ctx.address()).expect("the bench waits");
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, u64>) -> Action<'a> {
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, u64>, _: &mut Context<'_, u64>) -> Action<'a> {
        let Info::Message(total) = info else { return info.default_action() };
        self.seen += 1;
        if self.seen == total {
            self.seen = 0;
            self.done.send(()).expect("the bench waits");
        }
        Action::Continue
    }
}

const PER_ROUND: u64 = 20_000;

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn round(address: &Address<u64>, senders: u64, done: &Receiver<()>) -> Duration {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..senders {
            scope.spawn(|| {
                for _ in 0..PER_ROUND / senders {
                    while let Err(MessageError::Full(_)) = address.send(PER_ROUND) {
                        thread::yield_now();
                    }
                }
            });
        }
    });
    done.recv().expect("the reactor serves");
    start.elapsed()
}

fn messages(c: &mut Criterion) {
    let (started, starts) = mpsc::channel();
    let (done, dones) = mpsc::channel();
    let shards = Shards::new(1).expect("a reactor");
    let listener = shards
        .start_listener("bench", ListenerOptions::port(0), move |_| Counting {
            seen: 0,
            started: started.clone(),
            done: done.clone(),
        })
        .expect("a port");
    let handle = shards.handle();
    let server = thread::spawn(|| shards.run());
    let _client = TcpStream::connect(listener.local_addr()).expect("the reactor serves");
    let address = starts.recv().expect("a connection");
    let mut group = c.benchmark_group("20,000 messages");
    group.throughput(Throughput::Elements(PER_ROUND)).sample_size(20);
    for senders in [1, 2, 4] {
        group.bench_function(format!("senders/{senders}"), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| round(&address, senders, &dones)).sum());
        });
    }
    group.finish();
    handle.shutdown().expect("it runs").wait().expect("it drains");
    server.join().expect("no panic").expect("no error");
}

criterion_group!(benches, messages);
criterion_main!(benches);
