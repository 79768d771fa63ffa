//! Looks up names away from the reactor's thread, because the system's resolver blocks.
//!
//! A look-up runs on a thread of its own, and all dials of one connector that need the names at the
//! same time share it. It cannot be stopped: one that outlives its dial is *stuck*, and its answer is
//! not used. A few stuck ones are left behind. If there are more, no other look-up begins until one of
//! them ends. The thread holds only a weak reference to the connector, so it keeps no reactor and no
//! process from ending.

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

/// The most look-ups that are left behind.
const MOST_STUCK: usize = 4;

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

/// See the module's documentation.
pub(crate) struct Resolver {
    resolve: Option<Resolve>,
    names: Vec<Arc<str>>,
    arrived: Arc<Arrived>,
    /// The last look-up.
    ticket: u64,
    /// Dials wait for the last look-up.
    running: bool,
    /// Look-ups whose dials have given up.
    stuck: usize,
}

impl Resolver {
    /// Looks up these names, all together.
    pub(crate) fn new(
        names: Vec<Arc<str>>,
        resolve: Option<Resolve>,
        notifier: Arc<Notifier>,
    ) -> Self {
        let arrived = Arc::new(Arrived { answers: Mutex::new(VecDeque::new()), notifier });
        Self { resolve, names, arrived, ticket: 0, running: false, stuck: 0 }
    }

    pub(crate) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// Begins a look-up, or joins the one that runs. Returns its ticket.
    pub(crate) fn look_up(&mut self) -> io::Result<u64> {
        if self.running {
            return Ok(self.ticket);
        }
        if self.stuck >= MOST_STUCK {
            let text = format!("{MOST_STUCK} earlier look-ups are stuck");
            return Err(io::Error::new(ErrorKind::TimedOut, text));
        }
        let (ticket, names) = (self.ticket + 1, self.names.clone());
        let (resolve, arrived) = (self.resolve.clone(), Arc::downgrade(&self.arrived));
        thread::Builder::new()
            .name("condor-resolver".to_owned())
            .spawn(move || find(ticket, names, resolve, &arrived))?;
        (self.ticket, self.running) = (ticket, true);
        Ok(ticket)
    }

    /// A dial does not wait any more. The look-up counts as stuck, and the next dial begins another.
    pub(crate) fn give_up(&mut self, ticket: u64) {
        if self.running && self.ticket == ticket {
            self.running = false;
            self.stuck += 1;
        }
    }

    /// It is asked in each turn, so it takes the lock only if an answer may come.
    pub(crate) fn has_answers(&self) -> bool {
        (self.running || self.stuck > 0) && !self.arrived.lock().is_empty()
    }

    /// Takes the closure, whose drop is code of the user.
    pub(crate) fn take_closure(&mut self) -> Option<Resolve> {
        self.resolve.take()
    }

    /// The next answer. `None` if there is none that a dial waits for.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        loop {
            let answer = self.arrived.lock().pop_front()?;
            if self.running && answer.ticket == self.ticket {
                self.running = false;
                return Some(answer);
            }
            // It was stuck, and no dial waits for it.
            self.stuck = self.stuck.saturating_sub(1);
        }
    }
}

/// The work of a look-up's thread.
fn find(ticket: u64, names: Vec<Arc<str>>, resolve: Option<Resolve>, arrived: &Weak<Arrived>) {
    let look_up = |name: &str| match &resolve {
        Some(resolve) => resolve(name),
        None => name.to_socket_addrs().map(Iterator::collect),
    };
    let found = |name: Arc<str>| {
        let addrs = match caught(|| look_up(&name)) {
            Ok(Ok(addrs)) if addrs.is_empty() => Err("it has no addresses".to_owned()),
            Ok(Ok(addrs)) => Ok(addrs),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(format!("the resolver panicked: {panic}")),
        };
        (name, addrs)
    };
    let found = names.into_iter().map(found).collect();
    // The closure is the user's. It is dropped before the answer is seen.
    drop(resolve);
    if let Some(arrived) = arrived.upgrade() {
        arrived.lock().push_back(Answer { ticket, found });
        arrived.notifier.notify();
    }
}
