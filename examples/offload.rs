//! Long work on other threads. Answers come in order, and other connections do not wait.
//!
//! ```text
//! cargo run --release --example offload
//! cargo run --release --example call -- 127.0.0.1:5557 10 100 5000000 many 1000
//! ```
//!
//! A request is a number in decimal. Its answer is the number of primes below it: `4`, `25`,
//! `348513` after a moment, `not a number up to 10000000`, `168`. Start several clients: the server
//! works for them in parallel, with as many threads as the machine has cores. As long as one thread
//! is free, the answer to `call ... 10` comes at once.
//!
//! What it shows: a handler opens a place in its `Replies` for each request, and gives the ticket to a
//! worker together with the request. The worker answers the ticket. This has four effects:
//!
//! - The answers leave in the order of the requests, whichever worker is first.
//! - A connection has at most `--window` requests in work. While it has as many, it is not read, and no
//!   timeout runs, because the client has nothing left to do.
//! - A client that has shut down its sending side gets all its answers, and so do all clients in a
//!   drain.
//! - A job that is lost is answered, because its ticket notices.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use condor::{
    Action, Context, Error, Handler, Info, ListenerOptions, Reactor, Replies, Reply, ReplyError,
    Ticket,
};

#[path = "common/mod.rs"]
mod common;

const MAX_CONNECTIONS: usize = 1_000;
const MAX_NUMBER: u32 = 10_000_000;

/// Work for another thread.
struct Job {
    number: u32,
    ticket: Ticket,
}

impl Job {
    fn work(self) {
        self.ticket.answer(primes_below(self.number).to_string());
    }
}

/// Counts the primes below `number` with the sieve of Eratosthenes.
fn primes_below(number: u32) -> usize {
    let number = number as usize;
    let mut is_prime = vec![true; number];
    is_prime.iter_mut().take(2).for_each(|trivial| *trivial = false);
    for factor in (2..).take_while(|factor| factor * factor < number) {
        if is_prime[factor] {
            for multiple in (factor * factor..number).step_by(factor) {
                is_prime[multiple] = false;
            }
        }
    }
    is_prime.into_iter().filter(|prime| *prime).count()
}

/// Starts threads that take jobs out of one queue. They end when all senders of the queue are
/// dropped.
fn start_workers(count: usize, max_jobs: usize) -> SyncSender<Job> {
    let (jobs, queue) = mpsc::sync_channel(max_jobs);
    let queue: Arc<Mutex<Receiver<Job>>> = Arc::new(Mutex::new(queue));
    for _ in 0..count {
        let queue = Arc::clone(&queue);
        thread::spawn(move || {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(job) = next else { return };
                // If a job panics, its ticket is dropped, and this worker takes the next job.
                let _ = catch_unwind(AssertUnwindSafe(|| job.work()));
            }
        });
    }
    jobs
}

/// One connection.
struct Primes {
    jobs: SyncSender<Job>,
    replies: Replies,
}

impl Primes {
    fn request(
        &mut self,
        packet: &[u8],
        ctx: &mut Context<'_, Reply>,
    ) -> Result<Action<'static>, ReplyError> {
        let number = std::str::from_utf8(packet).ok().and_then(|text| text.parse().ok());
        let Some(number) = number.filter(|number| *number <= MAX_NUMBER) else {
            return self.replies.answer(format!("not a number up to {MAX_NUMBER}"), ctx);
        };
        let ticket = self.replies.open(ctx)?;
        // It must not block the reactor. The queue is full only if many connections have sent
        // requests and ended. Then the job is dropped, and `or_answer` answers it.
        let _ = self.jobs.try_send(Job { number, ticket });
        Ok(Action::Continue)
    }
}

impl Handler for Primes {
    type Message = Reply;

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, Reply>,
    ) -> Action<'a> {
        self.request(packet, ctx).into()
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Reply>,
        ctx: &mut Context<'_, Reply>,
    ) -> Action<'a> {
        match info {
            Info::Message(reply) => self.replies.fill(reply.or_answer("failed"), ctx).into(),
            other => self.replies.default_action(&other, ctx),
        }
    }
}

/// Counts primes on worker threads.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:5557")]
    listen: SocketAddr,
    /// Worker threads [default: the number of cores]
    #[arg(long, value_name = "N",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_024))]
    workers: Option<usize>,
    /// Requests of one connection that are in work at the same time
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_024))]
    window: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::start_log("info");
    common::exit_code("offload", serve(&arguments))
}

fn serve(arguments: &Arguments) -> Result<(), Error> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let window = arguments.window;
    let jobs = start_workers(arguments.workers.unwrap_or(cores), MAX_CONNECTIONS * window);
    let options = ListenerOptions::new(arguments.listen).max_connections(MAX_CONNECTIONS);
    let mut reactor = Reactor::new()?;
    let listener = reactor.start_listener("primes", options, move |_peer| Primes {
        jobs: jobs.clone(),
        replies: Replies::new(window),
    })?;
    common::drain_on_signals(reactor.handle())?;
    common::say(format_args!("listening on {}", listener.local_addr()));
    reactor.run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use condor::CloseReason;
    use condor::testing::Harness;

    /// One connection, and the queue of jobs. The test is the worker.
    fn connection(window: usize) -> (Harness<Primes>, Receiver<Job>) {
        let (jobs, queue) = mpsc::sync_channel(window);
        (Harness::of(Primes { jobs, replies: Replies::new(window) }), queue)
    }

    fn work(connection: &Harness<Primes>, queue: &Receiver<Job>) {
        queue.try_recv().expect("a job").work();
        connection.run();
    }

    #[test]
    fn primes_are_counted() {
        let counts = [0, 1, 2, 3, 4, 10, 25, 26, 100, 1_000].map(primes_below);
        assert_eq!(counts, [0, 0, 0, 1, 2, 4, 9, 9, 25, 168]);
    }

    #[test]
    fn answers_come_in_order_one_job_at_a_time() {
        let (connection, queue) = connection(1);
        let [first, second, third] = ["10", "many", "100"].map(|text| connection.framed(text));
        connection.receive([first, second, third].concat());
        assert_eq!(connection.packets(), [b""; 0], "the worker has not worked yet");
        work(&connection, &queue);
        assert_eq!(connection.packets(), [&b"4"[..], b"not a number up to 10000000"]);
        work(&connection, &queue);
        assert_eq!(connection.packets(), [b"25"]);
        assert!(queue.try_recv().is_err(), "three requests, two of them jobs");
    }

    #[test]
    fn answers_of_a_window_come_in_order_whichever_job_is_done_first() {
        let (connection, queue) = connection(3);
        let requests = ["10", "many", "100", "1000"].map(|text| connection.framed(text));
        connection.receive(requests.concat());
        let [first, second] = [queue.try_recv(), queue.try_recv()].map(|job| job.expect("a job"));
        assert!(queue.try_recv().is_err(), "three places are taken");
        second.work();
        connection.run();
        assert_eq!(connection.packets(), [b""; 0]);
        first.work();
        connection.run();
        assert_eq!(connection.packets(), [&b"4"[..], b"not a number up to 10000000", b"25"]);
        work(&connection, &queue);
        assert_eq!(connection.packets(), [b"168"]);
    }

    #[test]
    fn after_a_half_close_all_answers_still_arrive() {
        for window in [1, 2, 8] {
            let (connection, queue) = connection(window);
            let requests = [2, 3, 5, 10].repeat(5);
            for number in &requests {
                connection.packet(number.to_string());
            }
            connection.peer_closes();
            for _ in &requests {
                assert_eq!(connection.closed(), None);
                work(&connection, &queue);
            }
            let counts = requests.iter().map(|number| primes_below(*number).to_string());
            assert_eq!(connection.packets(), counts.map(String::into_bytes).collect::<Vec<_>>());
            assert_eq!(connection.closed(), Some(CloseReason::PeerClosed));
        }
    }

    #[test]
    fn a_job_that_is_lost_is_answered() {
        let (connection, queue) = connection(1);
        connection.packet("10");
        drop(queue);
        connection.run();
        assert_eq!(connection.packets(), [b"failed"]);
        connection.packet("100");
        assert_eq!(
            connection.packets(),
            [b"failed"],
            "without workers the connection does not wait for ever"
        );
    }

    #[test]
    fn long_work_is_not_blamed_on_the_client() {
        let (connection, queue) = connection(1);
        let half = &connection.framed("100")[..3];
        connection.receive([&connection.framed("10"), half].concat());
        connection.advance(std::time::Duration::from_secs(3_600));
        assert_eq!(connection.closed(), None);
        work(&connection, &queue);
        assert_eq!(connection.packets(), [b"4"]);
        connection.advance(std::time::Duration::from_secs(10));
        assert_eq!(connection.closed(), Some(CloseReason::PacketTimeout), "now the clock runs");
    }

    #[test]
    fn a_drain_waits_for_work_under_way() {
        for window in [1, 2] {
            let (connection, queue) = connection(window);
            connection.packet("10");
            connection.drain();
            assert_eq!(connection.closed(), None);
            work(&connection, &queue);
            assert_eq!(connection.packets(), [b"4"]);
            assert_eq!(connection.closed(), Some(CloseReason::Shutdown));
        }
    }
}
