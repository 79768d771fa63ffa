//! The reactor: one thread, one `Poll`, one turn at a time.
//!
//! Read [`Reactor::turn`] first; it is the whole program. Each of its lines is a phase, and no
//! phase reaches into another. Events only mark; the work is done afterwards, within budgets; a
//! connection ends in `sweep` and nowhere else.
//!
//! mio is edge-triggered: bytes that are left in the kernel are announced once. Whoever stops
//! early therefore stays queued, and while anybody is queued `wait` does not wait.

pub(crate) mod build;
mod commands;
mod shutdown;
mod stage;

use std::fmt;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use slab::Slab;

use self::stage::Shutdown;
use crate::acceptor::Acceptor;
use crate::clock::Nanos;
use crate::directory::End;
use crate::drain::Ticket;
use crate::error::Error;
use crate::guard::guarded;
use crate::handle::{Handle, ListenerHandle};
use crate::handler::{Accepted, Handler};
use crate::logging::{Cause, LogGate};
use crate::options::ListenerOptions;
use crate::phases::AnyListener;
use crate::poller::Poller;
use crate::start::Prepared;
use crate::token::{self, Target};
use crate::turn::{Timer, Turn};

/// A listener in its slot, and who waits for it to be drained.
struct Tenant {
    listener: Box<dyn AnyListener>,
    tickets: Vec<Ticket>,
    /// How long it took in this turn, if there are others to compare it with.
    took: Duration,
}

impl Tenant {
    fn new(listener: Box<dyn AnyListener>) -> Self {
        Self { listener, tickets: Vec::new(), took: Duration::ZERO }
    }
}

/// One event loop. See the crate's documentation for an example.
///
/// It is neither `Send` nor `Sync`: it lives on the thread that made it. [`Reactor::handle`] is
/// for the others.
pub struct Reactor {
    shard: usize,
    poller: Poller,
    /// The last batch of events was full: more may be ready than we know.
    more_events: bool,
    /// When there was an event last.
    last_event: Nanos,
    /// The one buffer that every socket is read into.
    read: Vec<u8>,
    listeners: Slab<Tenant>,
    turn: Turn,
    handle: Handle,
    shutdown: Option<Shutdown>,
    gate: LogGate,
    stopped: bool,
}

impl Reactor {
    /// Starts a listener: Condor's `start_listener`. `factory` makes one handler per connection;
    /// it and the handlers need not be `Send`, for they never leave this thread.
    ///
    /// # Errors
    ///
    /// [`Error::Options`] with everything that is wrong with them, [`Error::BadName`],
    /// [`Error::DuplicateName`], [`Error::AddressInUse`], [`Error::Permission`],
    /// [`Error::NotLocal`], [`Error::Listen`].
    /// Nothing is left behind: the name and the address are free again.
    pub fn start_listener<H, F>(
        &mut self,
        name: &str,
        options: ListenerOptions,
        factory: F,
    ) -> Result<ListenerHandle<H::Message>, Error>
    where
        H: Handler,
        F: FnMut(&Accepted<'_>) -> H + 'static,
    {
        debug_assert_eq!(self.handle.shared.ends.len(), 1, "shards start theirs by their handle");
        let prepared = self.handle.prepare_tcp::<H::Message>(name, options)?;
        Ok(self.serve(prepared, factory))
    }

    /// Takes in a listener that listens already. Its factory stays on this thread.
    pub(crate) fn serve<H: Handler, A: Acceptor + 'static>(
        &mut self,
        prepared: Prepared<H::Message, A>,
        factory: impl FnMut(&Accepted<'_>) -> H + 'static,
    ) -> ListenerHandle<H::Message> {
        let Prepared { mut parts, handle } = prepared;
        if let Some(part) = parts.pop() {
            self.adopt(|slot| part.into_listener::<H>(slot, Box::new(factory)));
        }
        self.handle.shared.publish(handle.name(), handle.local_addr());
        handle
    }

    /// What other threads may ask of this reactor.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until [`Handle::shutdown`] has drained every listener.
    ///
    /// # Errors
    ///
    /// [`Error::Poll`] if the event queue fails, [`Error::Accept`] if a listening socket does. All
    /// connections are then ended.
    pub fn run(&mut self) -> Result<(), Error> {
        while !self.stopped {
            if let Err(error) = self.turn(None) {
                self.terminate_all();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Runs one pass of the loop, for users with a loop of their own. `timeout` bounds how long it
    /// waits for something to do; `None` waits as long as it takes.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), except that the connections live on.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        self.wait(timeout)?;
        self.mark();
        self.accept()?;
        self.work();
        self.deliver();
        self.expire();
        self.flush();
        self.sweep();
        self.rest();
        Ok(())
    }

    /// Whether [`Handle::shutdown`] has been asked for and is done.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// How long a loop of the user may wait for the [descriptor](AsRawFd) before it calls
    /// [`turn`](Self::turn) even so: zero when work is queued, `None` when nothing is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.is_busy() {
            return Some(Duration::ZERO);
        }
        // Asked first: without a timer the clock is not read.
        let next = self.turn.wheel.next_expiry()?;
        Some(self.turn.present().until(next))
    }

    // ---- the phases ----

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        let own = if self.spins() { Some(Duration::ZERO) } else { self.next_deadline() };
        let timeout = match (own, timeout) {
            (Some(own), Some(theirs)) => Some(own.min(theirs)),
            (own, theirs) => own.or(theirs),
        };
        let before = self.turn.latest();
        let polled = self.poller.poll(timeout);
        self.end().doorbell.awake();
        match polled {
            Ok(()) => self.turn.begin(Some(before)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.poller.forget();
                self.turn.begin(None);
            }
            Err(source) => {
                self.end().doorbell.may_sleep();
                return Err(Error::Poll { what: "wait for events", source });
            }
        }
        Ok(())
    }

    /// Whether to go on polling without blocking: a core traded for latency.
    fn spins(&self) -> bool {
        let busy_poll = self.turn.options.busy_poll;
        !busy_poll.is_zero() && self.last_event.elapsed_at(self.turn.nanos()) < busy_poll
    }

    fn mark(&mut self) {
        let listeners = &mut self.listeners;
        let (count, full) = self.poller.each(|token, readiness| match token::target(token) {
            Target::Waker => {}
            Target::Acceptor { listener } => {
                if let Some(tenant) = listeners.get_mut(listener.into()) {
                    tenant.listener.mark_acceptor();
                }
            }
            Target::Peer { listener, key, generation } => {
                if let Some(tenant) = listeners.get_mut(listener.into()) {
                    tenant.listener.mark_peer(key, generation, readiness);
                }
            }
        });
        self.turn.pulse.events.record(count as u64);
        if count > 0 {
            self.last_event = self.turn.nanos();
        }
        self.more_events = full;
    }

    fn accept(&mut self) -> Result<(), Error> {
        self.turn.has_laps = self.listeners.len() > 1;
        for (_, tenant) in &mut self.listeners {
            if let Err(error) = tenant.listener.accept(&mut self.turn) {
                self.handle.shared.ends[self.shard].doorbell.may_sleep();
                return Err(error);
            }
            tenant.took = self.turn.lap();
        }
        self.invariants();
        Ok(())
    }

    fn work(&mut self) {
        for (_, tenant) in &mut self.listeners {
            tenant.listener.work(&mut self.turn, &mut self.read);
            tenant.took += self.turn.lap();
        }
        self.invariants();
    }

    fn deliver(&mut self) {
        let rung = self.end().doorbell.answer();
        if rung {
            for command in self.end().take_commands() {
                self.obey(command);
            }
        }
        for (_, tenant) in &mut self.listeners {
            tenant.listener.deliver(&mut self.turn, rung);
            tenant.took += self.turn.lap();
        }
        self.invariants();
    }

    /// Skipped after a full batch: what a timeout would be blamed for may not have been read.
    fn expire(&mut self) {
        if self.more_events {
            return;
        }
        let mut budget = self.turn.options.timer_budget;
        while let Some(timer) = self.turn.wheel.expire(self.turn.judged(), &mut budget) {
            match timer {
                Timer::Peer { listener, .. }
                | Timer::User { listener, .. }
                | Timer::Accept { listener }
                | Timer::Drain { listener } => {
                    if let Some(tenant) = self.listeners.get_mut(listener.into()) {
                        tenant.listener.expire(&mut self.turn, timer);
                        tenant.took += self.turn.lap();
                    }
                }
                Timer::Lead => self.lead_is_over(),
                Timer::Trim => self.turn.trim(),
            }
        }
        self.invariants();
    }

    fn flush(&mut self) {
        for (_, tenant) in &mut self.listeners {
            tenant.listener.flush(&mut self.turn);
        }
        self.invariants();
    }

    fn sweep(&mut self) {
        let mut finished = Vec::new();
        for (slot, tenant) in &mut self.listeners {
            tenant.listener.sweep(&mut self.turn);
            if let Some(report) = tenant.listener.finished() {
                finished.push((slot, report));
            }
        }
        for (slot, report) in finished {
            self.evict(slot, report);
        }
        if self.listeners.is_empty() {
            self.finish_shutdown();
        }
        self.invariants();
    }

    /// Whoever rings from now on has to wake us, in our own `wait` or in a loop of the user.
    fn rest(&mut self) {
        self.turn.plan_trim();
        self.end().doorbell.may_sleep();
        let slow = self.turn.options.slow_turn;
        let nanos = self.turn.since_began();
        self.turn.pulse.turn.record(nanos);
        self.turn.took = nanos;
        let took = Duration::from_nanos(nanos);
        if took > slow && self.gate.opens(Cause::SlowTurn, self.turn.latest()) {
            let slowest = self.listeners.iter().max_by_key(|(_, tenant)| tenant.took);
            let name = slowest.map_or("(none)", |(_, tenant)| tenant.listener.name());
            log::warn!("a turn took {took:?}, more than {slow:?}, most of it for \"{name}\"");
        }
    }

    /// What must hold between two phases: looked at after each of them in debug builds.
    fn invariants(&self) {
        if cfg!(debug_assertions) {
            debug_assert!(self.turn.out.is_empty(), "output belongs to one peer at a time");
            let forced = self.shutdown.as_ref().is_some_and(|shutdown| shutdown.forced);
            debug_assert!(!forced || !self.handle.is_ready());
            self.listeners.iter().for_each(|(_, tenant)| tenant.listener.invariants());
        }
    }

    fn slot_of(&self, serial: u32) -> Option<usize> {
        self.listeners.iter().find(|(_, tenant)| tenant.listener.serial() == serial).map(|(s, _)| s)
    }

    /// The listener of this name, for the test kit.
    pub(crate) fn listener(&self, name: &str) -> Option<&dyn AnyListener> {
        let tenant = self.listeners.iter().find(|(_, tenant)| tenant.listener.name() == name);
        tenant.map(|(_, tenant)| &*tenant.listener)
    }

    /// From now on the present is the newest time known, for the test kit.
    pub(crate) fn look_at_clock(&self) {
        self.turn.present();
    }

    /// Deadlines of listeners and connections, for the test kit.
    pub(crate) fn deadlines(&self) -> usize {
        self.turn.deadlines()
    }

    fn end(&self) -> &End {
        &self.handle.shared.ends[self.shard]
    }

    fn is_busy(&self) -> bool {
        self.end().doorbell.is_rung()
            || self.more_events
            || self.listeners.iter().any(|(_, tenant)| tenant.listener.is_busy())
    }
}

impl AsRawFd for Reactor {
    /// The descriptor of the event queue, to be watched for readability by a loop of the user.
    fn as_raw_fd(&self) -> RawFd {
        self.poller.as_raw_fd()
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // After a panic of our own there may be another one in it, and that would be an abort.
        if guarded(|| self.terminate_all()).is_none() {
            log::error!("a reactor that was dropped could not end all of its connections");
        }
        self.end().set_gone();
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("listeners", &self.listeners.len())
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
