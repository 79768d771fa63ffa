//! The reactor: one thread, one `Poll`, one turn at a time.
//!
//! Read [`Reactor::turn`] first: it shows the whole loop. Each of its lines is a phase, and no
//! phase reaches into another. Events only set marks. The work is done afterwards, within budgets.
//! A connection ends in `sweep` and nowhere else.
//!
//! mio is edge-triggered: it announces bytes once, even if some of them stay in the kernel. So a
//! connection or a listener that stops before it has taken everything stays queued. While anything
//! is queued, `wait` does not block.

pub(crate) mod build;
mod commands;
mod connect;
mod every;
mod forward;
mod listener_slot;
mod probe;
mod shutdown;
mod slow_turn;
mod stage;
mod timers;
mod trim;

use std::fmt;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use slab::Slab;

use self::listener_slot::ListenerSlot;
use self::stage::Shutdown;
use self::timers::Timers;
use crate::acceptor::Acceptor;
use crate::clock::Nanos;
use crate::directory::Inbox;
use crate::error::Error;
use crate::guard::guarded;
use crate::handle::{Handle, ListenerHandle};
use crate::handler::{Accepted, Handler, IntoHandler};
use crate::logging::{LogGate, say};
use crate::loop_state::{LoopState, Timer};
use crate::options::ListenerOptions;
use crate::phases::AnyListener;
use crate::poller::Poller;
use crate::start::Prepared;
use crate::time_budget::Phase;
use crate::token::{self, Target};

/// One event loop on one thread. It accepts connections, reads, calls the handlers, and writes
/// their answers.
///
/// ```
/// use condor::{ListenerOptions, Reactor};
/// # struct Echo;
/// # impl condor::Handler for Echo {
/// #     type Message = ();
/// #     fn handle_packet<'a>(
/// #         &'a mut self,
/// #         packet: &'a [u8],
/// #         _: &mut condor::Context<'_, ()>,
/// #     ) -> condor::Action<'a> {
/// #         condor::Action::send(packet)
/// #     }
/// # }
///
/// // `Echo` is a `Handler`. With port 0 the system chooses a port.
/// let mut reactor = Reactor::new()?;
/// let listener = reactor.start_listener("echo", ListenerOptions::port(0), |_peer| Echo)?;
/// println!("listening on {}", listener.local_addr());
/// # let _ = reactor.handle().shutdown()?;
/// reactor.run()?;
/// # Ok::<(), condor::Error>(())
/// ```
///
/// - Make: [`new`](Self::new), [`with_options`](Self::with_options).
/// - Serve: [`start_listener`](Self::start_listener), any number of times.
/// - Run until a shutdown: [`run`](Self::run).
/// - Run inside a loop of your own: [`turn`](Self::turn), [`next_deadline`](Self::next_deadline),
///   [`is_stopped`](Self::is_stopped), and the [descriptor](#method.as_raw_fd).
/// - Call a closure again and again: [`every`](Self::every).
/// - Control from other threads and from callbacks: [`handle`](Self::handle).
///
/// A reactor is neither `Send` nor `Sync`: it stays on the thread that made it. To use several
/// cores, see [`Shards`](crate::Shards). A drop of the reactor ends all of its connections.
pub struct Reactor {
    shard: usize,
    poller: Poller,
    /// Commands wait that the last turn had no time for.
    more_commands: bool,
    /// The time of the last event.
    last_event: Nanos,
    /// The one buffer for reads from all sockets.
    read: Vec<u8>,
    listeners: Slab<ListenerSlot>,
    state: LoopState,
    handle: Handle,
    shutdown: Option<Shutdown>,
    /// What [`every`](Self::every) calls.
    timers: Timers,
    gate: LogGate,
    stopped: bool,
}

impl Reactor {
    /// Starts a listener, as `start_listener` of Erlang's Condor does. `factory` makes one handler
    /// per connection, or refuses the connection: see [`IntoHandler`]. The factory and the handlers
    /// need not be `Send`, because they never leave this thread.
    ///
    /// # Errors
    ///
    /// [`Error::Options`] with everything that is wrong with the options, [`Error::BadName`],
    /// [`Error::DuplicateName`], [`Error::AddressInUse`], [`Error::Permission`],
    /// [`Error::NotLocal`], [`Error::Listen`]. After an error, the name and the address are free
    /// again.
    pub fn start_listener<M, R, F>(
        &mut self,
        name: &str,
        options: ListenerOptions,
        factory: F,
    ) -> Result<ListenerHandle<M>, Error>
    where
        M: Send + 'static,
        R: IntoHandler<Handler: Handler<Message = M>>,
        F: FnMut(&Accepted<'_, M>) -> R + 'static,
    {
        debug_assert_eq!(self.handle.shared.inboxes.len(), 1, "shards start by their handle");
        #[cfg(feature = "sim")]
        if let Some(host) = &self.handle.shared.host {
            return Ok(self.serve(self.handle.prepare_simulated(host, name, options)?, factory));
        }
        let prepared = self.handle.prepare_tcp::<M>(name, options)?;
        Ok(self.serve(prepared, factory))
    }

    /// Adopts a listener whose socket listens already. Its factory stays on this thread.
    pub(crate) fn serve<M, R, A>(
        &mut self,
        prepared: Prepared<M, A>,
        factory: impl FnMut(&Accepted<'_, M>) -> R + 'static,
    ) -> ListenerHandle<M>
    where
        M: Send + 'static,
        R: IntoHandler<Handler: Handler<Message = M>>,
        A: Acceptor + 'static,
    {
        let Prepared { mut parts, handle } = prepared;
        if let Some(part) = parts.pop() {
            self.adopt(|slot| part.into_listener(slot, factory));
        }
        self.handle.shared.publish(&handle.status, Some(handle.local_addr()));
        handle
    }

    /// A handle on this reactor, for other threads and for callbacks.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until [`Handle::shutdown`] has drained every listener. Then the reactor has ended: it
    /// takes no more listeners, and its handles return [`Error::Gone`].
    ///
    /// If a listening socket fails, that listener is drained, and all else goes on. See
    /// [`ListenerHandle::failure`].
    ///
    /// # Errors
    ///
    /// [`Error::Poll`] if the event queue fails. All connections are then ended, and so is the
    /// reactor.
    pub fn run(&mut self) -> Result<(), Error> {
        while !self.stopped {
            if let Err(error) = self.turn(None) {
                self.end();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Runs one pass of the loop, for programs with a loop of their own. `timeout` limits how long
    /// it waits for something to do. With `None` it waits until there is something to do.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), except that the connections stay open, and a later turn may succeed.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        self.wait(timeout)?;
        self.mark();
        self.accept();
        self.work();
        self.deliver();
        self.forward();
        self.expire();
        self.flush();
        self.sweep();
        self.rest();
        Ok(())
    }

    /// Whether the reactor has ended: a [`Handle::shutdown`] is done, or [`run`](Self::run) has
    /// returned an error.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// How long a loop of the user may wait for the [descriptor](AsRawFd) before it has to call
    /// [`turn`](Self::turn). Zero if work is queued, `None` if no deadline is set.
    ///
    /// Ask after everything that this thread sends to the reactor, and directly before the wait: a
    /// message or a command from the reactor's own thread does not make the descriptor readable,
    /// because it costs no system call. One from another thread does.
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.is_busy() {
            return Some(Duration::ZERO);
        }
        // The wheel comes first: without a timer the clock is not read.
        let next = self.state.wheel.next_expiry()?;
        Some(self.state.present().until(next))
    }

    // ---- the phases ----

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        let own = if self.spins() { Some(Duration::ZERO) } else { self.next_deadline() };
        let timeout = match (own, timeout) {
            (Some(own), Some(theirs)) => Some(own.min(theirs)),
            (own, theirs) => own.or(theirs),
        };
        let before = self.state.latest();
        let polled = self.poller.poll(timeout);
        self.inbox().notifier.woke_up();
        match polled {
            Ok(()) => {
                self.state.more_events = false;
                self.state.begin(Some(before));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.poller.forget();
                self.state.begin(None);
            }
            Err(source) => {
                self.inbox().notifier.prepare_to_sleep();
                return Err(Error::Poll { what: "wait for events", source });
            }
        }
        Ok(())
    }

    /// Whether to poll without blocking. This uses a whole core, and lowers the latency.
    fn spins(&self) -> bool {
        let busy_poll = self.state.options.busy_poll;
        !busy_poll.is_zero() && self.last_event.elapsed_at(self.state.nanos()) < busy_poll
    }

    fn mark(&mut self) {
        let listeners = &mut self.listeners;
        let (count, full) = self.poller.each(|token, readiness| match token::target(token) {
            Target::Waker => {}
            Target::Acceptor { listener } => {
                if let Some(entry) = listeners.get_mut(listener.into()) {
                    entry.listener.mark_acceptor();
                }
            }
            Target::Opening { listener, number } => {
                if let Some(entry) = listeners.get_mut(listener.into()) {
                    entry.listener.mark_opening(number);
                }
            }
            Target::Peer { listener, key, generation } => {
                if let Some(entry) = listeners.get_mut(listener.into()) {
                    entry.listener.mark_peer(key, generation, readiness);
                }
            }
        });
        self.state.metrics.events.record(count as u64);
        if count > 0 {
            self.last_event = self.state.nanos();
        }
        self.state.more_events |= full;
    }

    fn accept(&mut self) {
        self.state.per_listener_timing = self.listeners.len() > 1;
        self.share(|listener| listener.has_work(Phase::Accept));
        for (_, entry) in &mut self.listeners {
            let timed = entry.is_timed(&self.state, Phase::Accept);
            entry.listener.accept(&mut self.state);
            entry.took = self.state.attribute_if(timed);
        }
        self.invariants();
    }

    fn work(&mut self) {
        self.share(|listener| listener.has_work(Phase::Work));
        for (_, entry) in &mut self.listeners {
            let timed = entry.is_timed(&self.state, Phase::Work);
            entry.listener.work(&mut self.state, &mut self.read);
            entry.took += self.state.attribute_if(timed);
        }
        self.invariants();
    }

    fn deliver(&mut self) {
        let notified = self.inbox().notifier.take();
        if notified || self.more_commands {
            self.obey_commands();
        }
        self.share(|listener| notified || listener.has_work(Phase::Deliver));
        for (_, entry) in &mut self.listeners {
            let timed = entry.is_timed(&self.state, Phase::Deliver)
                || notified && self.state.per_listener_timing;
            entry.listener.deliver(&mut self.state, notified);
            entry.took += self.state.attribute_if(timed);
        }
        self.invariants();
    }

    /// After a full batch of events, packet and idle timeouts are put off: the bytes that prevent
    /// them may not have been read yet.
    fn expire(&mut self) {
        let mut budget = self.state.options.timer_budget;
        while let Some(timer) = self.state.wheel.expire(self.state.expiry_now(), &mut budget) {
            self.state.begin_phase(Phase::Expire);
            match timer {
                Timer::Peer { listener, .. }
                | Timer::User { listener, .. }
                | Timer::Accept { listener }
                | Timer::Opening { listener }
                | Timer::Dial { listener, .. }
                | Timer::Drain { listener } => {
                    if let Some(entry) = self.listeners.get_mut(listener.into()) {
                        entry.listener.expire(&mut self.state, timer);
                        entry.took += self.state.attribute_time();
                    }
                }
                Timer::Every { index } => self.call_timer(index),
                Timer::ShutdownDelay => self.delay_is_over(),
                Timer::Trim => self.trim(),
            }
            if self.state.is_share_over(1) {
                break;
            }
        }
        self.invariants();
    }

    fn flush(&mut self) {
        self.share(|listener| listener.has_work(Phase::Flush));
        for (_, entry) in &mut self.listeners {
            entry.listener.flush(&mut self.state);
        }
        self.invariants();
    }

    fn sweep(&mut self) {
        self.share(|listener| listener.has_work(Phase::Sweep));
        let mut finished = Vec::new();
        for (slot, entry) in &mut self.listeners {
            entry.listener.sweep(&mut self.state);
            if let Some(report) = entry.listener.finished() {
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

    /// From here on a notification has to wake this thread, which may block in `wait` or in a loop
    /// of the user.
    fn rest(&mut self) {
        self.state.plan_trim();
        self.inbox().notifier.prepare_to_sleep();
        let nanos = self.state.end();
        self.state.metrics.turn.record(nanos);
        self.state.took = nanos;
        let took = Duration::from_nanos(nanos);
        if took > self.state.options.slow_turn {
            self.say_slow(took);
        }
    }

    /// Checks what must hold between two phases. Debug builds call it after each phase.
    fn invariants(&self) {
        if cfg!(debug_assertions) {
            debug_assert!(self.state.out.is_empty(), "output belongs to one peer at a time");
            let forced = self.shutdown.as_ref().is_some_and(|shutdown| shutdown.forced);
            debug_assert!(!forced || !self.handle.is_ready());
            self.listeners.iter().for_each(|(_, entry)| entry.listener.invariants());
        }
    }

    /// Divides the time of the next phase among the listeners that have work in it. A single
    /// listener has the whole phase.
    #[inline]
    fn share(&mut self, has_work: impl Fn(&dyn AnyListener) -> bool) {
        if self.listeners.len() > 1 {
            let busy = self.listeners.iter().filter(|(_, entry)| has_work(&*entry.listener));
            self.state.expect_sharers(busy.count());
        }
    }

    fn inbox(&self) -> &Inbox {
        &self.handle.shared.inboxes[self.shard]
    }

    fn is_busy(&self) -> bool {
        self.inbox().notifier.is_notified()
            || self.state.more_events
            || self.more_commands
            || !self.state.pairs.is_quiet()
            || self.listeners.iter().any(|(_, entry)| entry.listener.is_busy())
    }
}

impl AsRawFd for Reactor {
    /// The descriptor of the event queue. A loop of the user watches it for readability.
    fn as_raw_fd(&self) -> RawFd {
        self.poller.as_raw_fd()
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // After a panic inside this crate, the same bug may panic here again. A second panic during
        // unwinding would abort the process.
        if guarded(|| self.end()).is_none() {
            say!(Error, "reactor: dropped, but not all connections are terminated: a bug panicked");
        }
        self.inbox().set_gone();
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
