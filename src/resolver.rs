//! Looks up names away from the reactor's thread, because the system's resolver blocks.
//!
//! A look-up runs on a thread of its own, and all dials of one connector that need the same names at the
//! same time share it. A few run beside each other, and the others wait for their turn. A look-up cannot
//! be stopped: one that outlives its dials is *stuck*, and its answer is not used. A few stuck ones are
//! left behind. If there are more, no other look-up begins until one of them ends. The thread holds only
//! a weak reference to the connector, so it keeps no reactor and no process from ending.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::PoisonError;
use std::sync::Weak;
use std::thread;

use crate::guard::caught;
use crate::mailbox::Notifier;
use crate::options::Resolve;
use crate::sync::{Arc, Mutex, MutexGuard};

/// The most look-ups that run beside each other.
const MOST_RUNNING: usize = 4;
/// The most look-ups that are left behind.
const MOST_STUCK: usize = 4;

/// Names that are looked up together.
pub(crate) type Names = Arc<[Arc<str>]>;

/// The addresses of one name, or why there are none.
pub(crate) type Found = (Arc<str>, Result<Vec<SocketAddr>, String>);

/// What a look-up has found.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The look-up that it belongs to.
    pub(crate) ticket: u64,
    pub(crate) found: Vec<Found>,
}

/// Answers on their way to the reactor.
#[derive(Debug)]
struct Arrived {
    answers: Mutex<VecDeque<Answer>>,
    notifier: Arc<Notifier>,
}

impl Arrived {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look-up that dials wait for.
#[derive(Debug)]
struct LookUp {
    ticket: u64,
    names: Names,
    /// How many dials wait for it.
    dials: usize,
}

/// See the module's documentation.
pub(crate) struct Resolver {
    resolve: Option<Resolve>,
    arrived: Arc<Arrived>,
    /// The last ticket that was given.
    ticket: u64,
    running: Vec<LookUp>,
    /// Look-ups that have not begun.
    waiting: VecDeque<LookUp>,
    /// Look-ups whose dials have given up.
    stuck: usize,
}

impl Resolver {
    pub(crate) fn new(resolve: Option<Resolve>, notifier: Arc<Notifier>) -> Self {
        let arrived = Arc::new(Arrived { answers: Mutex::new(VecDeque::new()), notifier });
        let (running, waiting) = (Vec::new(), VecDeque::new());
        Self { resolve, arrived, ticket: 0, running, waiting, stuck: 0 }
    }

    /// Begins a look-up of all these names, or joins one of the same names. Returns its ticket.
    pub(crate) fn look_up(&mut self, names: &Names) -> io::Result<u64> {
        let known = self.running.iter_mut().chain(&mut self.waiting).find(|of| of.names == *names);
        if let Some(known) = known {
            known.dials += 1;
            return Ok(known.ticket);
        }
        if self.stuck >= MOST_STUCK {
            let text = format!("{MOST_STUCK} earlier look-ups are stuck");
            return Err(io::Error::new(ErrorKind::TimedOut, text));
        }
        self.ticket += 1;
        let look_up = LookUp { ticket: self.ticket, names: Arc::clone(names), dials: 1 };
        if self.running.len() < MOST_RUNNING {
            self.begin(look_up)?;
        } else {
            self.waiting.push_back(look_up);
        }
        Ok(self.ticket)
    }

    fn begin(&mut self, look_up: LookUp) -> io::Result<()> {
        let (ticket, names) = (look_up.ticket, Arc::clone(&look_up.names));
        let (resolve, arrived) = (self.resolve.clone(), Arc::downgrade(&self.arrived));
        thread::Builder::new()
            .name("condor-resolver".to_owned())
            .spawn(move || find(ticket, &names, resolve, &arrived))?;
        self.running.push(look_up);
        Ok(())
    }

    /// A dial does not wait any more. If it was the last one, the look-up counts as stuck, and the next
    /// dial begins another.
    pub(crate) fn give_up(&mut self, ticket: u64) {
        let is_it = |look_up: &LookUp| look_up.ticket == ticket;
        if let Some(at) = self.running.iter().position(is_it) {
            self.running[at].dials -= 1;
            if self.running[at].dials == 0 {
                self.running.swap_remove(at);
                self.stuck += 1;
            }
        } else if let Some(at) = self.waiting.iter().position(is_it) {
            self.waiting[at].dials -= 1;
            if self.waiting[at].dials == 0 {
                self.waiting.remove(at);
            }
        }
    }

    /// It is asked in each turn, so it takes the lock only if an answer may come.
    pub(crate) fn has_answers(&self) -> bool {
        let may_come = !self.running.is_empty() || self.stuck > 0 || !self.waiting.is_empty();
        may_come && (!self.arrived.lock().is_empty() || self.may_begin())
    }

    /// Whether a look-up that waits can begin.
    fn may_begin(&self) -> bool {
        let is_free = self.running.len() < MOST_RUNNING && self.stuck < MOST_STUCK;
        is_free && !self.waiting.is_empty()
    }

    /// No dial waits any more.
    pub(crate) fn give_up_all(&mut self) {
        self.stuck += self.running.len();
        self.running.clear();
        self.waiting.clear();
    }

    /// Takes the closure, whose drop is code of the user.
    pub(crate) fn take_closure(&mut self) -> Option<Resolve> {
        self.resolve.take()
    }

    /// The next answer. `None` if there is none that a dial waits for.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        if self.may_begin()
            && let Some(look_up) = self.waiting.pop_front()
        {
            let (ticket, names) = (look_up.ticket, Arc::clone(&look_up.names));
            if let Err(error) = self.begin(look_up) {
                let failed = |name: &Arc<str>| (Arc::clone(name), Err(error.to_string()));
                return Some(Answer { ticket, found: names.iter().map(failed).collect() });
            }
        }
        loop {
            let answer = self.arrived.lock().pop_front()?;
            let at = self.running.iter().position(|look_up| look_up.ticket == answer.ticket);
            if let Some(at) = at {
                self.running.swap_remove(at);
                return Some(answer);
            }
            // It was stuck, and no dial waits for it.
            self.stuck = self.stuck.saturating_sub(1);
        }
    }
}

/// The work of a look-up's thread.
fn find(ticket: u64, names: &[Arc<str>], resolve: Option<Resolve>, arrived: &Weak<Arrived>) {
    let look_up = |name: &str| match &resolve {
        Some(resolve) => resolve(name),
        None => name.to_socket_addrs().map(Iterator::collect),
    };
    let found = |name: &Arc<str>| {
        let addrs = match caught(|| look_up(name)) {
            Ok(Ok(addrs)) if addrs.is_empty() => Err("it has no addresses".to_owned()),
            Ok(Ok(addrs)) => Ok(addrs),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(format!("the resolver panicked: {panic}")),
        };
        (Arc::clone(name), addrs)
    };
    let found = names.iter().map(found).collect();
    // The closure is the user's. It is dropped before the answer is seen.
    drop(resolve);
    if let Some(arrived) = arrived.upgrade() {
        arrived.lock().push_back(Answer { ticket, found });
        arrived.notifier.notify();
    }
}
