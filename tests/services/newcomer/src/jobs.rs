//! A queue of jobs for each name. Requests and answers are lines.
//!
//! | request | answer |
//! |---|---|
//! | `PUT queue text` | `OK id` |
//! | `GET queue` | `JOB id text`, as soon as there is one; `CLOSING` if the server stops first |
//! | `DEL queue id` | `OK`, or `NONE` if the job does not wait in this queue |
//!
//! Answers come in the order of the requests. A wrong request is answered with `ERR number text` at
//! once, and the connection ends with this number as its reason.
//!
//! A job leaves its queue only when its line is about to be sent: a client that has gone while it
//! waited takes no job with it.

mod operator;

use std::collections::{HashMap, HashSet, VecDeque};
use std::env;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use condor::{
    Accepted, Action, Address, CloseReason, Context, Handler, Info, Lines, ListenerOptions,
    Reactor, Refusal,
};

const NAME: &str = "jobs";
const MOST_OWED: usize = 16;
const HALF_CLOSED: Duration = Duration::from_secs(20);

/// What can be wrong with a request. The number is the reason with which the connection ends.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u32)]
enum Wrong {
    Verb = 1,
    Queue = 2,
    Text = 3,
    Id = 4,
    Utf8 = 5,
    TooMany = 6,
}

impl Wrong {
    const fn text(self) -> &'static str {
        match self {
            Self::Verb => "an unknown verb",
            Self::Queue => "a queue has 1 to 64 letters or digits",
            Self::Text => "a job has a text",
            Self::Id => "a job's id is a number",
            Self::Utf8 => "not UTF-8",
            Self::TooMany => "too many requests wait",
        }
    }

    fn line(self) -> String {
        format!("ERR {} {}", self as u32, self.text())
    }
}

impl From<Wrong> for CloseReason {
    fn from(wrong: Wrong) -> Self {
        Self::Code(wrong as u32)
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(u64, String)>,
    /// The connections that wait for a job, each once. The first ones get the first jobs.
    waiting: VecDeque<Address<()>>,
}

impl Queue {
    /// Wakes the connection for which the last job is.
    fn wake_last(&self) {
        let last = self.jobs.len().checked_sub(1);
        if let Some(address) = last.and_then(|last| self.waiting.get(last)) {
            // A connection has few messages at a time, and one that has ended passes its turn on.
            let _ = address.send(());
        }
    }
}

/// All queues. All connections share them.
#[derive(Default)]
struct Queues {
    last_id: u64,
    queues: HashMap<String, Queue>,
}

impl Queues {
    fn put(&mut self, queue: &str, text: &str) -> u64 {
        self.last_id += 1;
        let queue = self.queues.entry(queue.to_owned()).or_default();
        queue.jobs.push_back((self.last_id, text.to_owned()));
        queue.wake_last();
        self.last_id
    }

    /// The next job. If there is none, or if others wait for it, `address` is woken later.
    fn take(&mut self, queue: &str, address: &Address<()>) -> Option<(u64, String)> {
        let queue = self.queues.entry(queue.to_owned()).or_default();
        let place = queue.waiting.iter().position(|waiting| waiting == address);
        let ahead = place.unwrap_or(queue.waiting.len());
        if ahead < queue.jobs.len() {
            if let Some(place) = place {
                queue.waiting.remove(place);
            }
            return queue.jobs.pop_front();
        }
        if place.is_none() {
            queue.waiting.push_back(address.clone());
        }
        None
    }

    fn delete(&mut self, queue: &str, id: u64) -> bool {
        let jobs = self.queues.get_mut(queue).map(|queue| &mut queue.jobs);
        let found = jobs.and_then(|jobs| {
            let place = jobs.iter().position(|job| job.0 == id)?;
            jobs.remove(place)
        });
        found.is_some()
    }

    /// A connection waits no more. Whoever stood behind it may have a job now.
    fn leave(&mut self, queue: &str, address: &Address<()>) {
        let Some(queue) = self.queues.get_mut(queue) else { return };
        if let Some(place) = queue.waiting.iter().position(|waiting| waiting == address) {
            queue.waiting.remove(place);
            if place < queue.jobs.len() {
                queue.wake_last();
            }
        }
    }
}

/// An answer that waits for its turn.
enum Owed {
    Line(String),
    Job(String),
}

/// One connection.
struct Jobs {
    queues: Arc<Mutex<Queues>>,
    address: Address<()>,
    owed: VecDeque<Owed>,
    /// Why the connection ends after the last answer.
    ending: Option<CloseReason>,
}

impl Jobs {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&mut self, line: &[u8]) -> Result<(), Wrong> {
        if self.owed.len() == MOST_OWED {
            return Err(Wrong::TooMany);
        }
        let line = str::from_utf8(line).map_err(|_| Wrong::Utf8)?;
        let (verb, rest) = line.split_once(' ').ok_or(Wrong::Verb)?;
        let owed = match verb {
            "PUT" => {
                let (queue, text) = rest.split_once(' ').ok_or(Wrong::Text)?;
                Owed::Line(format!("OK {}", self.queues().put(named(queue)?, text)))
            }
            "GET" => Owed::Job(named(rest)?.to_owned()),
            "DEL" => {
                let (queue, id) = rest.split_once(' ').ok_or(Wrong::Id)?;
                let id = id.parse().map_err(|_| Wrong::Id)?;
                let deleted = self.queues().delete(named(queue)?, id);
                Owed::Line(if deleted { "OK" } else { "NONE" }.to_owned())
            }
            _ => return Err(Wrong::Verb),
        };
        self.owed.push_back(owed);
        Ok(())
    }

    /// Sends all answers that are in order, up to the first that has to wait for a job.
    fn send_owed(&mut self, ctx: &mut Context<'_, ()>) -> Result<Action<'static>, CloseReason> {
        while let Some(owed) = self.owed.front() {
            let line = match owed {
                Owed::Line(line) => line.clone(),
                Owed::Job(queue) => match self.queues().take(queue, &self.address) {
                    Some((id, text)) => format!("JOB {id} {text}"),
                    None if self.ending == Some(CloseReason::Shutdown) => "CLOSING".to_owned(),
                    None => break,
                },
            };
            ctx.send(line)?;
            self.owed.pop_front();
        }
        Ok(match self.ending {
            Some(reason) if self.owed.is_empty() => Action::Stop(reason),
            _ => Action::Continue,
        })
    }
}

impl Handler for Jobs {
    type Message = ();

    fn handle_packet(&mut self, line: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        match self.request(line) {
            Ok(()) => self.send_owed(ctx).into(),
            Err(wrong) => Action::send_and_stop(wrong.line(), wrong.into()),
        }
    }

    fn handle_info(&mut self, info: Info<'_, ()>, ctx: &mut Context<'_, ()>) -> Action<'_> {
        match info {
            Info::Message(()) => self.send_owed(ctx).into(),
            Info::EndOfInput { .. } => {
                self.ending = Some(CloseReason::PeerClosed);
                self.send_owed(ctx).into()
            }
            Info::Shutdown => {
                self.ending = Some(CloseReason::Shutdown);
                self.send_owed(ctx).into()
            }
            other => other.default_action(),
        }
    }

    fn terminate(self, _reason: CloseReason) {
        if let Some(Owed::Job(queue)) = self.owed.front() {
            self.queues().leave(queue, &self.address);
        }
    }
}

fn named(queue: &str) -> Result<&str, Wrong> {
    let fits = (1..=64).contains(&queue.len()) && queue.bytes().all(|b| b.is_ascii_alphanumeric());
    if fits { Ok(queue) } else { Err(Wrong::Queue) }
}

fn options(addr: SocketAddr) -> ListenerOptions {
    ListenerOptions::new(addr).framing(Lines::new(1_024)).half_close_timeout(HALF_CLOSED)
}

fn factory(
    denied: HashSet<IpAddr>,
) -> impl FnMut(&Accepted<'_, ()>) -> Result<Jobs, Refusal> + Send {
    let queues = Arc::<Mutex<Queues>>::default();
    move |peer| {
        if peer.peer_addr().ip().is_some_and(|ip| denied.contains(&ip)) {
            return Err(Refusal::send("DENIED").because("it is on the deny list"));
        }
        Ok(Jobs {
            queues: Arc::clone(&queues),
            address: peer.address(),
            owed: VecDeque::new(),
            ending: None,
        })
    }
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut args = env::args().skip(1);
    let addr = args.next().ok_or("usage: jobs ADDRESS [DENIED_IP...]")?;
    let denied = args.map(|ip| ip.parse()).collect::<Result<_, _>>()?;
    let mut reactor = Reactor::new()?;
    let listener = reactor.start_listener(NAME, options(addr.parse()?), factory(denied))?;
    println!("listening on {}", listener.local_addr());
    let handle = reactor.handle();
    let operator =
        thread::spawn(move || operator::operate(io::stdin().lock(), io::stdout(), &handle, NAME));
    reactor.run()?;
    operator.join().expect("the operator does not panic")
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;
