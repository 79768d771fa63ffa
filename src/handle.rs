//! The reactor's handles: what other threads, and callbacks, may ask of it.
//!
//! Whatever can fail fails at once, on the caller's thread: options are checked, names reserved and
//! sockets bound before anything is sent to the reactor. What is sent is one kind of thing, a boxed
//! closure that the reactor runs between two turns' work.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use mio::net::TcpListener;

use crate::acceptor;
use crate::drain::Drain;
use crate::error::{Error, MessageError};
use crate::handler::{Accepted, Handler};
use crate::listener::{Listener, Profile};
use crate::mailbox::{ConnectionId, Doorbell, Mail, Mailbox};
use crate::options::ListenerOptions;
use crate::reactor::Reactor;
use crate::stats::{Counters, Stats};
use crate::sync::Arc;
use crate::token::MAX_LISTENERS;

/// What a handle asks the reactor to do.
pub(crate) type Command = Box<dyn FnOnce(&mut Reactor) + Send>;

/// What all handles of one reactor share with it.
pub(crate) struct Shared {
    pub(crate) doorbell: Arc<Doorbell>,
    commands: Mutex<Vec<Command>>,
    directory: Mutex<Directory>,
    thread: ThreadId,
    gone: AtomicBool,
}

/// Who listens, by name.
#[derive(Debug, Default)]
struct Directory {
    entries: HashMap<Arc<str>, Entry>,
    last_serial: u32,
    /// Counters of listeners that have ended.
    retired: Stats,
}

#[derive(Debug)]
struct Entry {
    serial: u32,
    addr: Option<SocketAddr>,
    counters: Arc<Counters>,
    /// The name is taken until the listening socket is closed.
    stopping: bool,
}

impl Shared {
    pub(crate) fn new(doorbell: Doorbell) -> Self {
        Self {
            doorbell: Arc::new(doorbell),
            commands: Mutex::default(),
            directory: Mutex::default(),
            thread: thread::current().id(),
            gone: AtomicBool::new(false),
        }
    }

    pub(crate) fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut *lock(&self.commands))
    }

    /// The name is free again.
    pub(crate) fn release(&self, name: &str) {
        let mut directory = lock(&self.directory);
        if let Some(entry) = directory.entries.remove(name) {
            directory.retired.merge(&entry.counters.snapshot());
        }
    }

    /// From now on every handle says so.
    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Ordering::SeqCst);
        // Dropped outside the lock: tickets among them tell who waits.
        drop(self.take_commands());
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    fn reserve(&self, name: &str) -> Result<(u32, Arc<Counters>), Error> {
        let mut directory = lock(&self.directory);
        if directory.entries.contains_key(name) {
            return Err(Error::DuplicateName(name.to_owned()));
        }
        if directory.entries.len() >= MAX_LISTENERS {
            return Err(Error::TooManyListeners { name: name.to_owned(), max: MAX_LISTENERS });
        }
        directory.last_serial += 1;
        let serial = directory.last_serial;
        let counters = Arc::new(Counters::default());
        let entry =
            Entry { serial, addr: None, counters: Arc::clone(&counters), stopping: false };
        directory.entries.insert(name.into(), entry);
        Ok((serial, counters))
    }

    fn set_addr(&self, name: &str, addr: SocketAddr) {
        if let Some(entry) = lock(&self.directory).entries.get_mut(name) {
            entry.addr = Some(addr);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("gone", &self.is_gone()).finish_non_exhaustive()
    }
}

/// No code of the user runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A listener that listens already, but that no reactor has adopted yet.
pub(crate) struct Prepared<H: Handler, F> {
    profile: Profile<H::Message>,
    socket: TcpListener,
    factory: F,
    handle: ListenerHandle<H::Message>,
}

impl<H, F> Prepared<H, F>
where
    H: Handler,
    F: FnMut(&Accepted<'_>) -> H + 'static,
{
    pub(crate) fn handle(&self) -> ListenerHandle<H::Message> {
        self.handle.clone()
    }

    /// Gives it the slot it will live in.
    pub(crate) fn adopt(mut self, slot: u16) -> Listener<H, F, TcpListener> {
        self.profile.slot = slot;
        Listener::new(self.profile, self.socket, self.factory)
    }
}

/// Asks things of a reactor, from any thread and from callbacks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    /// Starts a listener: it accepts as soon as this returns, and is served from the reactor's next
    /// turn on. See [`Reactor::start_listener`].
    ///
    /// # Errors
    ///
    /// As [`Reactor::start_listener`], and [`Error::Gone`] if the reactor is. Nothing is left
    /// behind: the name and the address are free again.
    pub fn start_listener<H, F>(
        &self,
        name: &str,
        options: ListenerOptions,
        factory: F,
    ) -> Result<ListenerHandle<H::Message>, Error>
    where
        H: Handler,
        F: FnMut(&Accepted<'_>) -> H + Send + 'static,
    {
        let prepared = self.prepare(name, options, factory)?;
        let handle = prepared.handle();
        self.command(Box::new(|reactor| reactor.adopt(prepared)))?;
        Ok(handle)
    }

    /// Everything that can fail about starting a listener.
    pub(crate) fn prepare<H, F>(
        &self,
        name: &str,
        options: ListenerOptions,
        factory: F,
    ) -> Result<Prepared<H, F>, Error>
    where
        H: Handler,
        F: FnMut(&Accepted<'_>) -> H + 'static,
    {
        if self.shared.is_gone() {
            return Err(Error::Gone);
        }
        let findings = options.check();
        if !findings.errors.is_empty() {
            return Err(Error::Options { name: name.to_owned(), errors: findings.errors });
        }
        for warning in findings.warnings {
            log::warn!("listener \"{name}\": {warning}");
        }
        let (serial, counters) = self.shared.reserve(name)?;
        let listening = acceptor::listen(name, &options).and_then(|socket| {
            let addr = socket.local_addr().map_err(|source| Error::Poll {
                what: "ask for the listening address",
                source,
            })?;
            Ok((socket, addr))
        });
        let (socket, addr) = listening.inspect_err(|_| self.shared.release(name))?;
        self.shared.set_addr(name, addr);
        log::info!("listener \"{name}\": listening on {addr}");
        let refused = Arc::clone(&counters);
        let mailbox = Arc::new(Mailbox::new(
            serial,
            options.mailbox_capacity,
            Arc::clone(&self.shared.doorbell),
            move || {
                refused.refused_messages.fetch_add(1, Ordering::Relaxed);
            },
        ));
        let name: Arc<str> = name.into();
        let handle = ListenerHandle {
            name: Arc::clone(&name),
            addr,
            mailbox: Arc::clone(&mailbox),
            counters: Arc::clone(&counters),
            reactor: self.clone(),
        };
        let profile = Profile {
            name,
            slot: 0,
            serial,
            framing: options.framing_in_force(),
            limits: Profile::<H::Message>::limits(&options),
            options,
            mailbox,
            counters,
        };
        Ok(Prepared { profile, socket, factory, handle })
    }

    /// Stops a listener and drains it: everybody who had connected is served, everything that had
    /// arrived is answered, then every connection is told [`Info::Shutdown`](crate::Info::Shutdown)
    /// and gets until the [`drain_timeout`](ListenerOptions::drain_timeout).
    ///
    /// Returns at once. A handshake that finishes while the listening socket closes is reset by
    /// the kernel; who cannot have that keeps the socket open elsewhere and hands it over with
    /// [`ListenerOptions::from_std`]. The name is free once the listener is drained.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`], also for a listener that is being stopped already; [`Error::Gone`].
    pub fn stop_listener(&self, name: &str) -> Result<Drain, Error> {
        let serial = {
            let mut directory = lock(&self.shared.directory);
            match directory.entries.get_mut(name) {
                Some(entry) if !entry.stopping => {
                    entry.stopping = true;
                    entry.serial
                }
                _ => return Err(Error::UnknownName(name.to_owned())),
            }
        };
        let (drain, ticket) = Drain::new(self.shared.thread);
        self.command(Box::new(move |reactor| reactor.drain_listener(serial, ticket)))?;
        Ok(drain)
    }

    /// Drains every listener, then has [`Reactor::run`] return.
    ///
    /// Asked a second time, it does not wait any longer: every connection is ended at once.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    pub fn shutdown(&self) -> Result<Drain, Error> {
        let (drain, ticket) = Drain::new(self.shared.thread);
        self.command(Box::new(move |reactor| reactor.shut_down(ticket)))?;
        Ok(drain)
    }

    /// Ends one connection with [`CloseReason::Shutdown`](crate::CloseReason::Shutdown), after what
    /// is queued was sent. Nothing happens if it has ended already.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    pub fn close(&self, id: ConnectionId) -> Result<(), Error> {
        self.command(Box::new(move |reactor| reactor.close(id)))
    }

    /// The counters of all listeners in sum, those included that have ended.
    pub fn stats(&self) -> Stats {
        let directory = lock(&self.shared.directory);
        let mut sum = directory.retired.clone();
        for entry in directory.entries.values() {
            sum.merge(&entry.counters.snapshot());
        }
        sum
    }

    /// Every listener with its address and its counters, in the order of their names.
    pub fn listeners(&self) -> Vec<(String, SocketAddr, Stats)> {
        let directory = lock(&self.shared.directory);
        let mut listeners: Vec<_> = directory
            .entries
            .iter()
            .filter_map(|(name, entry)| {
                Some((name.to_string(), entry.addr?, entry.counters.snapshot()))
            })
            .collect();
        listeners.sort_by(|a, b| a.0.cmp(&b.0));
        listeners
    }

    fn command(&self, command: Command) -> Result<(), Error> {
        if self.shared.is_gone() {
            return Err(Error::Gone);
        }
        lock(&self.shared.commands).push(command);
        // The reactor may have gone meanwhile; then nobody else drops the command.
        if self.shared.is_gone() {
            drop(self.shared.take_commands());
            return Err(Error::Gone);
        }
        self.shared.doorbell.ring();
        Ok(())
    }
}

/// A listener that runs: its address, its counters, and a voice to all of its connections.
pub struct ListenerHandle<M> {
    name: Arc<str>,
    addr: SocketAddr,
    mailbox: Arc<Mailbox<M>>,
    counters: Arc<Counters>,
    reactor: Handle,
}

impl<M> ListenerHandle<M> {
    /// The listener's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address it listens on, with the real port if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sends a clone of `message` to every connection there is when the message is delivered.
    ///
    /// It is one entry of the mailbox, whatever the number of connections; the clones are made on
    /// the reactor's thread, within the message budget of each turn.
    ///
    /// # Errors
    ///
    /// As [`Address::send`](crate::Address::send).
    pub fn broadcast(&self, message: M) -> Result<(), MessageError<M>>
    where
        M: Clone,
    {
        self.mailbox.post(Mail::All { message, clone: M::clone })
    }

    /// Stops this listener. See [`Handle::stop_listener`].
    ///
    /// # Errors
    ///
    /// As [`Handle::stop_listener`].
    pub fn stop(&self) -> Result<Drain, Error> {
        self.reactor.stop_listener(&self.name)
    }

    /// This listener's counters, also after it has ended.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }
}

impl<M> Clone for ListenerHandle<M> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            addr: self.addr,
            mailbox: Arc::clone(&self.mailbox),
            counters: Arc::clone(&self.counters),
            reactor: self.reactor.clone(),
        }
    }
}

impl<M> fmt::Debug for ListenerHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerHandle")
            .field("name", &self.name)
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}
