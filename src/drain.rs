//! Waiting for a drain, and what it came to.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use crate::error::Error;

/// What a drain came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Connections that came to an end of their own: between packets, or by their own doing.
    pub drained: u64,
    /// Connections that were ended at the drain deadline.
    pub forced: u64,
    /// Bytes of unfinished packets that forced connections had received, and that no handler got.
    pub undelivered_bytes: u64,
    /// Bytes of answers that forced connections had queued, and that were not sent.
    pub unsent_bytes: u64,
}

impl Report {
    /// Adds another listener's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.drained += other.drained;
        self.forced += other.forced;
        self.undelivered_bytes += other.undelivered_bytes;
        self.unsent_bytes += other.unsent_bytes;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "drained={} forced={} undelivered_bytes={} unsent_bytes={}",
            self.drained, self.forced, self.undelivered_bytes, self.unsent_bytes
        )
    }
}

#[derive(Debug, Default)]
enum Outcome {
    #[default]
    Pending,
    Done(Report),
    /// The reactor went away before it had begun.
    Gone,
}

#[derive(Debug, Default)]
struct State {
    outcome: Mutex<Outcome>,
    changed: Condvar,
}

impl State {
    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A drain under way. Dropping it changes nothing: the drain goes on.
#[derive(Debug, Clone)]
#[must_use = "wait for it, or ask it for its report; the drain itself goes on anyway"]
pub struct Drain {
    state: Arc<State>,
    reactor: ThreadId,
}

impl Drain {
    /// A drain, and the end that completes it.
    pub(crate) fn new(reactor: ThreadId) -> (Self, Ticket) {
        let state = Arc::new(State::default());
        (Self { state: Arc::clone(&state), reactor }, Ticket(state))
    }

    /// Blocks until the last connection has ended.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`] on the reactor's own thread, in a callback for example;
    /// [`Error::Gone`] if the reactor was dropped before the drain began.
    pub fn wait(&self) -> Result<Report, Error> {
        if thread::current().id() == self.reactor {
            return Err(Error::WouldDeadlock);
        }
        let mut outcome = self.state.outcome();
        loop {
            match &*outcome {
                Outcome::Done(report) => return Ok(report.clone()),
                Outcome::Gone => return Err(Error::Gone),
                Outcome::Pending => {
                    outcome =
                        self.state.changed.wait(outcome).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// The report, if the drain is over.
    pub fn report(&self) -> Option<Report> {
        match &*self.state.outcome() {
            Outcome::Done(report) => Some(report.clone()),
            Outcome::Pending | Outcome::Gone => None,
        }
    }
}

/// The reactor's end of a [`Drain`]. Dropped without a report it says that the reactor is gone.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<State>);

impl Ticket {
    pub(crate) fn complete(self, report: Report) {
        *self.0.outcome() = Outcome::Done(report);
        // Waking is left to `drop`, which finds the outcome decided.
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut outcome = self.0.outcome();
        if matches!(*outcome, Outcome::Pending) {
            *outcome = Outcome::Gone;
        }
        self.0.changed.notify_all();
    }
}
