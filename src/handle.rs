//! The reactor's handles, for other threads and for callbacks.
//!
//! What can fail, fails at once on the caller's thread. The rest goes to the reactor as a command.
//! The start of a listener is in [`start`](crate::start).

mod intake;
mod timers;

use std::fmt;

use crate::directory::{Command, Kind, Shared};
use crate::drain::Drain;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::group::{self, Group};
use crate::groups::GroupId;
use crate::identity::ConnectionId;
use crate::loop_metrics::LoopStats;
use crate::mailbox::{Mailbox, Recipients};
use crate::reason::MessageError;
use crate::stats::Stats;
use crate::status::{ListenerState, Status};
use crate::sync::Arc;

/// Controls a reactor or its shards, from any thread and from callbacks. It is cheap to clone.
///
/// [`Reactor::handle`](crate::Reactor::handle), [`Shards::handle`](crate::Shards::handle) and
/// [`Context::handle`](crate::Context::handle) return it.
///
/// - Listeners: [`start_listener`](Self::start_listener), [`stop_listener`](Self::stop_listener),
///   [`listeners`](Self::listeners).
/// - Connectors: [`start_connector`](Self::start_connector),
///   [`stop_connector`](Self::stop_connector).
/// - How many clients a listener takes: [`set_max_connections`](Self::set_max_connections),
///   [`pause_accepting`](Self::pause_accepting), [`resume_accepting`](Self::resume_accepting).
/// - One connection: [`close`](Self::close), [`adopt`](Self::adopt).
/// - A timer of the reactor's own: [`every`](Self::every).
/// - The end of the server: [`shutdown`](Self::shutdown), [`is_ready`](Self::is_ready).
/// - Counters: [`stats`](Self::stats), [`loop_stats`](Self::loop_stats).
///
/// It tells the truth at any time: before [`Reactor::run`](crate::Reactor::run), between two turns,
/// and after the reactor has ended. A reactor ends when a [`shutdown`](Self::shutdown) is done, when
/// `run` returns an error, or when it is dropped. From then on calls that need it fail with
/// [`Error::Gone`], on every thread, whether or not the value of the reactor still exists. Counters
/// and reports stay available.
///
/// # Examples
///
/// ```
/// use std::thread;
///
/// use condor::Reactor;
///
/// let mut reactor = Reactor::new()?;
/// let handle = reactor.handle();
/// let operator = thread::spawn(move || handle.shutdown()?.wait());
/// reactor.run()?;
/// let report = operator.join().expect("no panic")?;
/// assert_eq!(report.forced, 0);
/// # Ok::<(), condor::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    /// Stops a listener and drains it. Every client that has connected is served, and everything
    /// that has arrived is answered. Then every connection gets
    /// [`Info::Shutdown`](crate::Info::Shutdown), and has until the
    /// [`drain_timeout`](crate::ListenerOptions::drain_timeout) to finish.
    ///
    /// A client is not served if it is still in the backlog because `max_connections` is reached,
    /// or because no descriptors are left. A connection whose handler has paused reading gets the
    /// `Info::Shutdown` once the handler resumes.
    ///
    /// Returns at once. The name is free once the listener is drained.
    ///
    /// If a handshake finishes while the listening socket closes, the kernel resets the connection.
    /// To avoid this, keep the socket open elsewhere and pass it in with
    /// [`ListenerOptions::from_std`](crate::ListenerOptions::from_std).
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`], also if the listener was stopped already; [`Error::Gone`].
    pub fn stop_listener(&self, name: &str) -> Result<Drain, Error> {
        self.stop(Kind::Listener, name, None)
    }

    /// Stops a connector and drains it: it dials no more, and its connections get
    /// [`Info::Shutdown`](crate::Info::Shutdown) and have until the
    /// [`drain_timeout`](crate::ConnectorOptions::drain_timeout) to finish. Dials that are under way
    /// are dropped.
    ///
    /// Returns at once. The name is free once the connector is drained.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`], also if the connector was stopped already; [`Error::Gone`].
    pub fn stop_connector(&self, name: &str) -> Result<Drain, Error> {
        self.stop(Kind::Connector, name, None)
    }

    /// Stops the listener or the connector of this name. If `only` is given, a later one of the same
    /// name is left alone.
    pub(crate) fn stop(
        &self,
        kind: Kind,
        name: &str,
        only: Option<&Arc<Status>>,
    ) -> Result<Drain, Error> {
        if self.shared.is_gone() {
            return Err(Error::Gone);
        }
        let Some(status) = self.shared.begin_stop(kind, name, only) else {
            return Err(Error::UnknownName(name.to_owned()));
        };
        let acceptor = status.acceptor();
        let (drain, parts) = Drain::new(Arc::clone(&self.shared.threads));
        let mut reached = Ok(());
        for ((shard, part), serial) in parts.into_iter().enumerate().zip(status.serial()..) {
            // A part that has drained already, by itself or in a shutdown, has left its report. If
            // the reactor is gone, the drop of the part reports it.
            let part = part.or(status.report(shard));
            let sent = self.shared.inboxes[shard].command(Command::ExpectDrain { serial, part });
            if shard == acceptor {
                reached = sent;
            }
        }
        // By now each part knows where its report goes. When the part of a listener that accepts
        // drains, the others drain, too. Each part of a connector drains by itself.
        for (shard, serial) in (0..self.shared.inboxes.len()).zip(status.serial()..) {
            if shard == acceptor {
                let sent = self.shared.inboxes[shard].command(Command::Drain { serial });
                reached = reached.and(sent);
            } else if kind == Kind::Connector {
                // If that reactor is gone, its part has drained.
                let _ = self.shared.inboxes[shard].command(Command::Drain { serial });
            }
        }
        if status.report(acceptor).get().is_none() {
            reached?;
        }
        Ok(drain)
    }

    /// Drains every listener, then makes [`Reactor::run`](crate::Reactor::run) return.
    ///
    /// From now on [`is_ready`](Self::is_ready) returns `false`. The listening sockets close after
    /// [`ReactorOptions::shutdown_delay`](crate::ReactorOptions::shutdown_delay).
    ///
    /// A second call ends every connection at once, without waiting. Once a shutdown is done, each
    /// further call returns a drain that is over, with the final report.
    ///
    /// It takes locks, so a signal handler must not call it. A thread that waits for signals may: the
    /// `ping_server` example does this with the crate `signal-hook`.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if the reactor has ended without a shutdown.
    pub fn shutdown(&self) -> Result<Drain, Error> {
        self.shared.set_unready();
        let (drain, parts) = Drain::new(Arc::clone(&self.shared.threads));
        let mut reached = Err(Error::Gone);
        for (inbox, part) in self.shared.inboxes.iter().zip(parts) {
            let part = part.or(&inbox.final_report);
            reached = reached.or(inbox.command(Command::AnnounceShutdown(part)));
        }
        if self.shared.inboxes.iter().any(|inbox| inbox.final_report.get().is_none()) {
            reached?;
        }
        // A shard may begin only when all shards know of the shutdown. The drain of its listeners
        // drains parts on other shards, and those have to count their reports.
        for inbox in &self.shared.inboxes {
            // A reactor without listeners has ended already.
            let _ = inbox.command(Command::BeginShutdown);
        }
        Ok(drain)
    }

    /// Whether the server takes new clients: true until [`shutdown`](Self::shutdown) is called or
    /// the reactor ends. It is meant for the health check of a load balancer. It says nothing about
    /// a single listener: [`ListenerHandle::state`] does.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// Ends one connection with [`CloseReason::Shutdown`](crate::CloseReason::Shutdown), after its
    /// queued output has been sent. Does nothing if the connection has ended already, or if it is
    /// another reactor's.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    pub fn close(&self, id: ConnectionId) -> Result<(), Error> {
        if let Some(shard) = self.shared.shard_of(id.serial) {
            // If this shard has ended and others have not, the connection has ended, too.
            let _ = self.shared.inboxes[shard].command(Command::Close(id));
        }
        if self.shared.is_gone() { Err(Error::Gone) } else { Ok(()) }
    }

    /// Whether both belong to the same reactor.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The sum of the counters of all listeners and connectors, including those that have ended.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Every listener with its endpoint and its counters, sorted by name.
    pub fn listeners(&self) -> Vec<(String, Endpoint, Stats)> {
        self.shared.listeners()
    }

    /// Every connector with its counters, sorted by name. The state of one is in its
    /// [`ConnectorHandle`](crate::ConnectorHandle::state).
    pub fn connectors(&self) -> Vec<(String, Stats)> {
        self.shared.connectors()
    }

    /// Measurements of the reactors' turns, one snapshot for each shard. The call resets nothing.
    pub fn loop_stats(&self) -> Vec<LoopStats> {
        self.shared.inboxes.iter().map(|inbox| inbox.metrics.snapshot()).collect()
    }
}

/// A listener that was started: its address, its state, its limit, its counters, and broadcasts to
/// all of its connections.
///
/// [`Reactor::start_listener`](crate::Reactor::start_listener) returns it. It can be cloned and
/// sent to other threads. A drop of it does not stop the listener. It stays the handle of this one
/// listener, also after the listener has ended and another one has been started under its name.
///
/// # Examples
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
/// // `Echo` is a `Handler`, and its `Message` is `()`.
/// let mut reactor = Reactor::new()?;
/// let listener = reactor.start_listener("echo", ListenerOptions::port(0), |_peer| Echo)?;
/// assert_ne!(listener.local_addr().as_inet().map(|addr| addr.port()), Some(0));
/// listener.broadcast(()).expect("the mailbox has space");
/// assert_eq!(listener.stats().open, 0);
/// # Ok::<(), condor::Error>(())
/// ```
pub struct ListenerHandle<M> {
    pub(crate) name: Arc<str>,
    pub(crate) addr: Endpoint,
    pub(crate) mailboxes: Arc<[Arc<Mailbox<M>>]>,
    pub(crate) status: Arc<Status>,
    pub(crate) reactor: Handle,
}

impl<M> ListenerHandle<M> {
    /// The listener's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The endpoint on which it listens. If port 0 was asked for, it has the port that the system
    /// chose.
    pub fn local_addr(&self) -> Endpoint {
        self.addr.clone()
    }

    /// Sends a clone of `message` to every connection that exists when the message is delivered.
    ///
    /// It is a [`Group::send`] to a group of all connections: one entry in the mailbox of each shard,
    /// one clone for each further shard on the caller's thread, and the clones for the connections on
    /// the thread of their shard.
    ///
    /// Each connection receives broadcasts in the order in which they were made. Broadcasts that
    /// wait together are delivered to one connection after the other. So one connection may receive
    /// all of them before the next receives the first.
    ///
    /// # Errors
    ///
    /// As [`Group::send`].
    pub fn broadcast(&self, message: M) -> Result<(), MessageError<M>>
    where
        M: Clone,
    {
        group::send(&self.mailboxes, GroupId::ALL, message)
    }

    /// A new group, without members, for connections of this listener on any shard.
    pub fn group(&self) -> Group<M> {
        Group::new(&self.mailboxes)
    }

    /// Stops this listener. See [`Handle::stop_listener`].
    ///
    /// # Errors
    ///
    /// As [`Handle::stop_listener`]. If this listener has ended, that is [`Error::UnknownName`],
    /// even if another listener has its name by now.
    pub fn stop(&self) -> Result<Drain, Error> {
        self.reactor.stop(Kind::Listener, &self.name, Some(&self.status))
    }

    /// How far this listener has come.
    pub fn state(&self) -> ListenerState {
        self.status.state()
    }

    /// Why the listening socket failed: an [`Error::Accept`]. `None` if it did not.
    ///
    /// A socket fails if the kernel refuses to watch it, or to accept from it for good. The main
    /// cause is an inherited socket on which its other holder calls `shutdown`. The listener is then
    /// drained and closed as by [`stop`](Self::stop), and its reactor goes on with the others. A
    /// program that cannot work without this listener has to look here, at the
    /// [state](Self::state), or at [`Stats::listener_failures`].
    pub fn failure(&self) -> Option<&Error> {
        self.status.failure()
    }

    /// This listener's counters. They stay available after it has ended.
    pub fn stats(&self) -> Stats {
        self.status.stats()
    }

    /// This listener's counters, one snapshot for each shard. Each shard counts what it does: one
    /// of them accepts for all, so only that one counts [`accepted`](Stats::accepted).
    pub fn shard_stats(&self) -> Vec<Stats> {
        self.status.counters().iter().map(|counters| counters.snapshot()).collect()
    }
}

impl<M: Send + 'static> From<&ListenerHandle<M>> for Recipients {
    fn from(listener: &ListenerHandle<M>) -> Self {
        Self::of(&listener.mailboxes)
    }
}

impl<M> Clone for ListenerHandle<M> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            addr: self.addr.clone(),
            mailboxes: Arc::clone(&self.mailboxes),
            status: Arc::clone(&self.status),
            reactor: self.reactor.clone(),
        }
    }
}

impl<M> fmt::Debug for ListenerHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerHandle")
            .field("name", &self.name)
            .field("addr", &self.addr)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::directory::Inbox;
    use crate::mailbox::{Envelope, Notifier};
    use crate::options::ListenerOptions;

    /// The state of a shard's mailbox before the broadcast.
    #[derive(Debug, Copy, Clone, PartialEq, Eq)]
    enum Found {
        Room,
        Full,
        Gone,
    }

    /// Goal: a broadcast reaches each mailbox that is open, once. If one is full, it reaches none and
    /// returns `Full`; if all are closed, it returns `Gone`. With an error, the message comes back.
    /// Method: all 27 states of three shards.
    #[test]
    fn a_broadcast_reaches_all_shards_or_none() {
        let states = [Found::Room, Found::Full, Found::Gone];
        for found in
            states.iter().flat_map(|a| states.iter().flat_map(|b| states.map(|c| [*a, *b, c])))
        {
            let ends = (0..3).map(|_| Inbox::new(Notifier::new(|| {}))).collect();
            let handle = Handle { shared: Arc::new(Shared::new(ends)) };
            let options = ListenerOptions::port(0).mailbox_capacity(2);
            let prepared = handle.prepare_tcp::<u32>("test", options).unwrap();
            let mailboxes = Arc::clone(&prepared.handle.mailboxes);
            for (mailbox, found) in mailboxes.iter().zip(found) {
                match found {
                    Found::Room => {}
                    Found::Full => {
                        let envelope = |message| Envelope::To { key: 0, generation: 0, message };
                        assert!([1, 2].map(envelope).into_iter().all(|l| mailbox.post(l).is_ok()));
                    }
                    Found::Gone => drop(mailbox.close()),
                }
            }
            let result = prepared.handle.broadcast(7);
            if found.contains(&Found::Full) {
                assert!(matches!(result, Err(MessageError::Full(7))), "{result:?} of {found:?}");
            } else if found.contains(&Found::Room) {
                assert!(result.is_ok(), "{result:?} of {found:?}");
            } else {
                assert!(matches!(result, Err(MessageError::Gone(7))), "{result:?} of {found:?}");
            }
            for (mailbox, found) in mailboxes.iter().zip(found) {
                let mut envelopes = VecDeque::new();
                mailbox.take(&mut envelopes);
                let expected = match found {
                    Found::Room => usize::from(result.is_ok()),
                    Found::Full => 2,
                    Found::Gone => 0,
                };
                assert_eq!(envelopes.len(), expected, "{found:?}");
            }
        }
    }

    /// Goal: what is sent to a group takes one lock, one entry and one wake-up for each shard, however
    /// many members there are, and room on all shards or on none. Method: two shards with room for two
    /// entries each; the locks and the wake-ups are counted.
    #[test]
    fn a_packet_to_a_group_costs_one_lock_and_one_wake_up_for_each_shard() {
        let wakes = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let inboxes = (0..2).map(|_| {
            let wakes = Arc::clone(&wakes);
            Inbox::new(Notifier::new(move || {
                wakes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }))
        });
        let handle = Handle { shared: Arc::new(Shared::new(inboxes.collect())) };
        let options = ListenerOptions::port(0).mailbox_capacity(2);
        let prepared = handle.prepare_tcp::<u32>("test", options).unwrap();
        let (group, mailboxes) = (prepared.handle.group(), &prepared.handle.mailboxes);
        let before = crate::mailbox::locks();
        assert!(group.send_packet("one").is_ok());
        assert_eq!(crate::mailbox::locks() - before, 2);
        assert_eq!(wakes.load(std::sync::atomic::Ordering::SeqCst), 2);
        assert!(group.send(7).is_ok());
        assert_eq!(wakes.load(std::sync::atomic::Ordering::SeqCst), 2, "both are awake");
        let mut envelopes = VecDeque::new();
        mailboxes[0].take(&mut envelopes);
        (0..2).for_each(|_| mailboxes[0].delivered());
        let result = group.send_packet("three");
        assert!(matches!(&result, Err(MessageError::Full(bytes)) if bytes == "three"));
        for (mailbox, left) in mailboxes.iter().zip([0, 2]) {
            envelopes.clear();
            mailbox.take(&mut envelopes);
            assert_eq!(envelopes.len(), left);
        }
    }
}
