//! Prices of symbols. Worker threads compute them, and a connection gets its answers in order.
//!
//! Each packet comes after its length in four bytes. The first packet of a client is its token, and
//! has to arrive within two seconds. Each further packet is a symbol. An answer is a zero and the
//! price in eight bytes, or a one and a message. The answer to the token is a zero alone.

mod operator;

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use condor::{
    Accepted, Action, CloseReason, Context, Handle, Handler, Info, LengthField, ListenerOptions,
    Reactor, Replies, Reply, Stats, Ticket,
};

const NAME: &str = "quotes";
const LOGIN: Duration = Duration::from_secs(2);
const LATE: &str = "no token within 2 s";
const WRONG: &str = "a wrong token";
const MOST_CONNECTIONS: usize = 1_000;
const MOST_OPEN: usize = 16;
const MOST_JOBS: usize = MOST_CONNECTIONS * MOST_OPEN;
const WORKERS: usize = 4;
const WORK: Duration = Duration::from_millis(5);

/// A request that no worker has taken yet.
struct Job {
    symbol: String,
    ticket: Ticket,
}

/// One connection.
struct Quotes {
    token: Arc<str>,
    jobs: SyncSender<Job>,
    logged_in: bool,
    replies: Replies,
}

impl Handler for Quotes {
    type Message = Reply;

    fn handle_packet(&mut self, packet: &[u8], ctx: &mut Context<'_, Reply>) -> Action<'_> {
        if !self.logged_in {
            if packet != self.token.as_bytes() {
                return refuse(WRONG);
            }
            self.logged_in = true;
            return Action::send([0].to_vec());
        }
        let Ok(symbol) = str::from_utf8(packet) else {
            return self.replies.answer(message("not UTF-8"), ctx).into();
        };
        let queue = |ticket| {
            // It must not block. If the queue is full, which takes clients that ask and leave, or
            // if no worker is left, the ticket is dropped, and the handler hears of it.
            let _ = self.jobs.try_send(Job { symbol: symbol.to_owned(), ticket });
        };
        self.replies.open(ctx).map(queue).into()
    }

    fn handle_info(&mut self, info: Info<'_, Reply>, ctx: &mut Context<'_, Reply>) -> Action<'_> {
        match info {
            Info::Timeout(_) if !self.logged_in => refuse(LATE),
            Info::Message(reply) => {
                self.replies.fill(reply.or_answer(message("the work failed")), ctx).into()
            }
            other => self.replies.default_action(&other, ctx),
        }
    }
}

fn refuse(why: &'static str) -> Action<'static> {
    Action::send_and_stop(message(why), CloseReason::Custom(why))
}

fn message(text: &str) -> Vec<u8> {
    [&[1], text.as_bytes()].concat()
}

fn answer(price: Option<u64>) -> Vec<u8> {
    match price {
        Some(price) => [&[0][..], &price.to_be_bytes()].concat(),
        None => message("an unknown symbol"),
    }
}

fn options(addr: SocketAddr) -> ListenerOptions {
    ListenerOptions::new(addr)
        .framing(LengthField::U32)
        .max_packet(256)
        .first_packet_timeout(LOGIN)
        .max_connections(MOST_CONNECTIONS)
        .idle_timeout(Duration::from_secs(60))
}

fn factory(
    token: &str,
    jobs: SyncSender<Job>,
) -> impl FnMut(&Accepted<'_, Reply>) -> Quotes + Send + use<> {
    let token: Arc<str> = token.into();
    move |_| Quotes {
        token: Arc::clone(&token),
        jobs: jobs.clone(),
        logged_in: false,
        replies: Replies::new(MOST_OPEN),
    }
}

/// Workers that compute prices with `price`. They end when the last sender is dropped.
fn workers(price: impl Fn(&str) -> Option<u64> + Send + Sync + 'static) -> SyncSender<Job> {
    let (jobs, queue) = mpsc::sync_channel(MOST_JOBS);
    let queue = Arc::new(Mutex::new(queue));
    let price = Arc::new(price);
    for _ in 0..WORKERS {
        let (queue, price) = (Arc::clone(&queue), Arc::clone(&price));
        thread::spawn(move || {
            while let Some(Job { symbol, ticket }) = next(&queue) {
                // After a panic the ticket is dropped, which is an answer, too.
                if let Ok(price) = catch_unwind(AssertUnwindSafe(|| price(&symbol))) {
                    ticket.answer(answer(price));
                }
            }
        });
    }
    jobs
}

fn next(queue: &Mutex<Receiver<Job>>) -> Option<Job> {
    queue.lock().ok()?.recv().ok()
}

/// A price that depends on the letters alone.
fn made_up(symbol: &str) -> Option<u64> {
    thread::sleep(WORK);
    let known = !symbol.is_empty() && symbol.bytes().all(|byte| byte.is_ascii_uppercase());
    known.then(|| symbol.bytes().fold(0, |sum: u64, byte| (sum * 31 + u64::from(byte)) % 100_000))
}

/// What has happened since the last line.
fn statistics(handle: Handle, mut write: impl FnMut(String)) -> impl FnMut() {
    let mut before = Stats::default();
    move || {
        let now = handle.stats();
        let answered = now.packets_out - before.packets_out;
        let accepted = now.accepted - before.accepted;
        write(format!("{} open, {accepted} new, {answered} answers", now.open));
        before = now;
    }
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut args = env::args().skip(1);
    let (Some(addr), Some(token), None) = (args.next(), args.next(), args.next()) else {
        return Err("usage: quotes ADDRESS TOKEN".into());
    };
    let mut reactor = Reactor::new()?;
    let factory = factory(&token, workers(made_up));
    let listener = reactor.start_listener(NAME, options(addr.parse()?), factory)?;
    println!("listening on {}", listener.local_addr());

    let handle = reactor.handle();
    let print = |line| drop(writeln!(io::stdout(), "{line}"));
    let _statistics = reactor.every(Duration::from_secs(1), statistics(handle.clone(), print))?;
    let operator =
        thread::spawn(move || operator::operate(io::stdin().lock(), io::stdout(), &handle, NAME));
    reactor.run()?;
    // Only the operator stops the server, and prints the report of the drain last.
    operator.join().expect("the operator does not panic")
}

#[cfg(test)]
#[path = "quotes_tests.rs"]
mod tests;
