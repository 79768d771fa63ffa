//! The reactor's handles: what other threads, and callbacks, may ask of it.
//!
//! Whatever can fail fails at once, on the caller's thread: options are checked, names reserved and
//! sockets bound before anything is sent to the reactor. What is sent is one kind of thing, a boxed
//! closure that the reactor runs between two turns' work.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use mio::net::{TcpListener, TcpStream};

use crate::acceptor;
use crate::admission::Admission;
use crate::dispatch::guarded;
use crate::drain::{Drain, Farewell, Threads};
use crate::error::{Error, MessageError};
use crate::handler::{Accepted, Handler};
use crate::listener::Profile;
use crate::mailbox::{ConnectionId, Doorbell, Mail, Mailbox};
use crate::options::{ListenerOptions, Origin};
use crate::pulse::{Pulse, PulseStats};
use crate::reactor::Reactor;
use crate::stats::{Counters, Stats};
use crate::sync::Arc;
use crate::token::MAX_LISTENERS;

/// What a handle asks the reactor to do.
pub(crate) type Command = Box<dyn FnOnce(&mut Reactor) + Send>;

/// What all handles share with their reactors: one, or one per shard.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ends: Vec<End>,
    threads: Threads,
    directory: Mutex<Directory>,
    ready: AtomicBool,
}

/// How one reactor is reached.
pub(crate) struct End {
    pub(crate) doorbell: Arc<Doorbell>,
    commands: Mutex<Vec<Command>>,
    gone: AtomicBool,
    pub(crate) farewell: Farewell,
    pub(crate) pulse: Arc<Pulse>,
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
    /// Of the part on the first shard; the others follow.
    serial: u32,
    /// The shard that accepts.
    acceptor: usize,
    /// None while it is being started: for everybody else it is not there yet.
    addr: Option<SocketAddr>,
    counters: Vec<Arc<Counters>>,
    /// The name is taken until every part has ended.
    stopping: bool,
    parts: usize,
}

impl End {
    pub(crate) fn new(doorbell: Doorbell) -> Self {
        Self {
            doorbell: Arc::new(doorbell),
            commands: Mutex::default(),
            gone: AtomicBool::new(false),
            farewell: Farewell::default(),
            pulse: Arc::default(),
        }
    }

    pub(crate) fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut *lock(&self.commands))
    }

    /// From now on every handle says so.
    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Ordering::SeqCst);
        // Dropped outside the lock: tickets among them tell who waits, leases give names back, and
        // the drop of a factory is the user's code.
        for command in self.take_commands() {
            guarded(|| drop(command));
        }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    pub(crate) fn command(&self, command: Command) -> Result<(), Error> {
        if self.is_gone() {
            return Err(Error::Gone);
        }
        lock(&self.commands).push(command);
        // The reactor may have gone meanwhile; then nobody else drops the command.
        if self.is_gone() {
            drop(self.take_commands());
            return Err(Error::Gone);
        }
        self.doorbell.ring();
        Ok(())
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End").field("gone", &self.is_gone()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(ends: Vec<End>) -> Self {
        let threads = ends.iter().map(|_| OnceLock::new()).collect();
        Self { ends, threads, directory: Mutex::default(), ready: AtomicBool::new(true) }
    }

    /// The reactor of `shard` is on the calling thread, from now on.
    pub(crate) fn settle_here(&self, shard: usize) {
        self.threads[shard].get_or_init(|| thread::current().id());
    }

    /// A part of the listener has ended. After the last one its name is free again.
    fn release(&self, name: &str) {
        let mut directory = lock(&self.directory);
        let Some(entry) = directory.entries.get_mut(name) else { return };
        entry.parts -= 1;
        if entry.parts == 0
            && let Some(entry) = directory.entries.remove(name)
        {
            for counters in entry.counters {
                directory.retired.merge(&counters.snapshot());
            }
        }
    }

    /// Every reactor ends everything at once.
    pub(crate) fn abort(&self) {
        for end in &self.ends {
            // One that is gone has nothing left to end.
            let _ = end.command(Box::new(Reactor::abort));
        }
    }

    /// Whoever asks for something from now on is told that nobody is there to do it.
    pub(crate) fn set_gone(&self) {
        self.ends.iter().for_each(End::set_gone);
    }

    fn reserve(&self, name: &str) -> Result<(u32, usize, Vec<Arc<Counters>>), Error> {
        let parts = self.ends.len();
        let mut directory = lock(&self.directory);
        if directory.entries.contains_key(name) {
            return Err(Error::DuplicateName(name.to_owned()));
        }
        if directory.entries.len() >= MAX_LISTENERS {
            return Err(Error::TooManyListeners { name: name.to_owned(), max: MAX_LISTENERS });
        }
        let acceptor = directory.entries.len() % parts;
        let serial = directory.last_serial + 1;
        directory.last_serial += u32::try_from(parts).unwrap_or(u32::MAX);
        let counters: Vec<Arc<Counters>> = (0..parts).map(|_| Arc::default()).collect();
        let entry = Entry {
            serial,
            acceptor,
            addr: None,
            counters: counters.clone(),
            stopping: false,
            parts,
        };
        directory.entries.insert(name.into(), entry);
        Ok((serial, acceptor, counters))
    }

    /// Nothing came of a reserved name.
    fn cancel(&self, name: &str) {
        lock(&self.directory).entries.remove(name);
    }

    /// Every part is on its way to its reactor: whatever is asked of the listener from now on
    /// comes after it.
    pub(crate) fn publish(&self, name: &str, addr: SocketAddr) {
        if let Some(entry) = lock(&self.directory).entries.get_mut(name) {
            entry.addr = Some(addr);
        }
    }

    /// The shard on which a part with this serial lives: the serials of a listener's parts follow
    /// each other.
    fn shard_of(&self, serial: u32) -> Option<usize> {
        lock(&self.directory).entries.values().find_map(|entry| {
            let shard = serial.checked_sub(entry.serial)? as usize;
            (shard < self.ends.len()).then_some(shard)
        })
    }
}

/// No code of the user runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A listener's part holds its name. However the part ends, and be it that no reactor ever adopts
/// it, the name is given back; and without the part that accepts, nobody comes to the others.
#[derive(Debug)]
pub(crate) struct Lease {
    shared: Arc<Shared>,
    name: Arc<str>,
    /// Of the part that accepts.
    admission: Option<Arc<Admission<TcpStream>>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(admission) = &self.admission {
            admission.close();
        }
        self.shared.release(&self.name);
    }
}

/// A listener that listens already, but that no reactor has adopted yet: a part for each shard.
pub(crate) struct Prepared<M> {
    pub(crate) parts: Vec<Profile<M>>,
    pub(crate) admission: Arc<Admission<TcpStream>>,
    pub(crate) socket: TcpListener,
    pub(crate) handle: ListenerHandle<M>,
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
        F: FnMut(&Accepted<'_>) -> H + Clone + Send + 'static,
    {
        let Prepared { parts, admission, socket, handle } =
            self.prepare::<H::Message>(name, options)?;
        // The part that accepts goes last: it has somebody to hand connections to from the first
        // one on, and should it not get through, the others learn from its lease that they end.
        let (accepting, others): (Vec<_>, Vec<_>) =
            parts.into_iter().partition(|part| admission.accepts(part.shard));
        let mut socket = Some(socket);
        for part in others.into_iter().chain(accepting) {
            let end = &self.shared.ends[part.shard];
            let (admission, factory) = (Arc::clone(&admission), factory.clone());
            let socket = socket.take_if(|_| admission.accepts(part.shard));
            end.command(Box::new(move |reactor| reactor.adopt(part, admission, socket, factory)))?;
        }
        self.shared.publish(&handle.name, handle.addr);
        Ok(handle)
    }

    /// Everything that can fail about starting a listener.
    pub(crate) fn prepare<M: Send + 'static>(
        &self,
        name: &str,
        mut options: ListenerOptions,
    ) -> Result<Prepared<M>, Error> {
        let shared = &self.shared;
        if shared.ends.iter().any(End::is_gone) {
            return Err(Error::Gone);
        }
        let findings = options.check();
        if !findings.errors.is_empty() {
            return Err(Error::Options { name: name.to_owned(), errors: findings.errors });
        }
        for warning in findings.warnings {
            log::warn!("listener \"{name}\": {warning}");
        }
        let (serial, acceptor, counters) = shared.reserve(name)?;
        let (socket, addr) =
            acceptor::listen(name, &options).inspect_err(|_| shared.cancel(name))?;
        // An inherited socket is ours now; kept here, it would go on listening through the drain.
        options.origin = Origin::Bind(addr);
        log::info!("listener \"{name}\": listening on {addr}");
        let doorbells = shared.ends.iter().map(|end| Arc::clone(&end.doorbell));
        let admission = Arc::new(Admission::new(doorbells, acceptor, options.max_connections));
        let name: Arc<str> = name.into();
        let mut parts = Vec::with_capacity(shared.ends.len());
        for ((shard, counters), serial) in counters.iter().enumerate().zip(serial..) {
            let refused = Arc::clone(counters);
            let mailbox = Mailbox::new(
                serial,
                options.mailbox_capacity,
                Arc::clone(&shared.ends[shard].doorbell),
                move || {
                    refused.refused_messages.fetch_add(1, Ordering::Relaxed);
                },
            );
            let framing = options.framing_in_force();
            parts.push(Profile {
                name: Arc::clone(&name),
                shard,
                slot: 0,
                serial,
                shape: framing.shape(),
                framing,
                limits: Profile::<M>::limits(&options),
                options: options.clone(),
                mailbox: Arc::new(mailbox),
                counters: Arc::clone(counters),
                lease: Some(Lease {
                    shared: Arc::clone(shared),
                    name: Arc::clone(&name),
                    admission: (shard == acceptor).then(|| Arc::clone(&admission)),
                }),
            });
        }
        let mailboxes = parts.iter().map(|part| Arc::clone(&part.mailbox)).collect();
        let handle = ListenerHandle { name, addr, mailboxes, counters, reactor: self.clone() };
        Ok(Prepared { parts, admission, socket, handle })
    }

    /// Stops a listener and drains it: everybody who had connected is served, everything that had
    /// arrived is answered, then every connection is told [`Info::Shutdown`](crate::Info::Shutdown)
    /// and gets until the [`drain_timeout`](ListenerOptions::drain_timeout).
    ///
    /// Whoever is still in the backlog because `max_connections` is reached, or for want of
    /// descriptors, is not served. A connection whose handler has paused reading is told once it
    /// resumes.
    ///
    /// Returns at once. A handshake that finishes while the listening socket closes is reset by
    /// the kernel; who cannot have that keeps the socket open elsewhere and hands it over with
    /// [`ListenerOptions::from_std`]. The name is free once the listener is drained.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`], also for a listener that is being stopped already; [`Error::Gone`].
    pub fn stop_listener(&self, name: &str) -> Result<Drain, Error> {
        let (serial, acceptor) = {
            let mut directory = lock(&self.shared.directory);
            match directory.entries.get_mut(name) {
                Some(entry) if !entry.stopping && entry.addr.is_some() => {
                    entry.stopping = true;
                    (entry.serial, entry.acceptor)
                }
                _ => return Err(Error::UnknownName(name.to_owned())),
            }
        };
        let (drain, tickets) = Drain::new(Arc::clone(&self.shared.threads));
        let mut accepting = None;
        for ((shard, ticket), serial) in tickets.into_iter().enumerate().zip(serial..) {
            if shard == acceptor {
                accepting = Some((serial, ticket));
            } else {
                // If it is gone, the ticket tells.
                let _ = self.shared.ends[shard]
                    .command(Box::new(move |reactor| reactor.expect_drain(serial, ticket)));
            }
        }
        // The part that accepts comes last: the others drain when nobody comes any more, and
        // nobody's report is to be missed.
        if let Some((serial, ticket)) = accepting {
            self.shared.ends[acceptor].command(Box::new(move |reactor| {
                reactor.expect_drain(serial, ticket);
                reactor.drain_listener(serial);
            }))?;
        }
        Ok(drain)
    }

    /// Drains every listener, then has [`Reactor::run`] return.
    ///
    /// [`is_ready`](Self::is_ready) says no from now on; the listening sockets close after
    /// [`ReactorOptions::drain_lead`](crate::ReactorOptions::drain_lead).
    ///
    /// Asked a second time, it does not wait any longer: every connection is ended at once.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    pub fn shutdown(&self) -> Result<Drain, Error> {
        self.shared.ready.store(false, Ordering::SeqCst);
        let (drain, tickets) = Drain::new(Arc::clone(&self.shared.threads));
        let mut reached = Err(Error::Gone);
        for (end, ticket) in self.shared.ends.iter().zip(tickets) {
            let ticket = ticket.or(&end.farewell);
            let told = end.command(Box::new(move |reactor| reactor.announce_shutdown(ticket)));
            reached = reached.or(told);
        }
        reached?;
        // Only when all of them know may one begin: what the others are told by it comes later.
        for end in &self.shared.ends {
            // One that had no listener has ended already.
            let _ = end.command(Box::new(Reactor::begin_shutdown));
        }
        Ok(drain)
    }

    /// Whether new clients are welcome: until [`shutdown`](Self::shutdown) is asked for. For the
    /// health check of a load balancer.
    pub fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::SeqCst)
    }

    /// Ends one connection with [`CloseReason::Shutdown`](crate::CloseReason::Shutdown), after what
    /// is queued was sent. Nothing happens if it has ended already.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    pub fn close(&self, id: ConnectionId) -> Result<(), Error> {
        if self.shared.ends.iter().all(End::is_gone) {
            return Err(Error::Gone);
        }
        match self.shared.shard_of(id.serial) {
            Some(shard) => {
                self.shared.ends[shard].command(Box::new(move |reactor| reactor.close(id)))
            }
            None => Ok(()),
        }
    }

    /// The counters of all listeners in sum, those included that have ended.
    pub fn stats(&self) -> Stats {
        let directory = lock(&self.shared.directory);
        let mut sum = directory.retired.clone();
        for counters in directory.entries.values().flat_map(|entry| &entry.counters) {
            sum.merge(&counters.snapshot());
        }
        sum
    }

    /// Every listener with its address and its counters, in the order of their names.
    pub fn listeners(&self) -> Vec<(String, SocketAddr, Stats)> {
        let directory = lock(&self.shared.directory);
        let mut listeners: Vec<_> = directory
            .entries
            .iter()
            .filter_map(|(name, entry)| Some((name.to_string(), entry.addr?, sum(&entry.counters))))
            .collect();
        listeners.sort_by(|a, b| a.0.cmp(&b.0));
        listeners
    }

    /// What the reactors' turns were like, a snapshot for each shard. Nothing is reset by it.
    pub fn pulse(&self) -> Vec<PulseStats> {
        self.shared.ends.iter().map(|end| end.pulse.snapshot()).collect()
    }
}

fn sum(counters: &[Arc<Counters>]) -> Stats {
    let mut sum = Stats::default();
    for counters in counters {
        sum.merge(&counters.snapshot());
    }
    sum
}

/// A listener that runs: its address, its counters, and a voice to all of its connections.
pub struct ListenerHandle<M> {
    name: Arc<str>,
    addr: SocketAddr,
    mailboxes: Arc<[Arc<Mailbox<M>>]>,
    counters: Vec<Arc<Counters>>,
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
    /// It is one entry of the mailbox of each shard, whatever the number of connections; the clones
    /// for them are made on the reactor's thread, within the message budget of each turn, and those
    /// for the other shards on the caller's. Each connection hears broadcasts in the order in which
    /// they were made; those that wait together reach one connection after the other, so that one may
    /// have heard all of them before the next hears the first.
    ///
    /// # Errors
    ///
    /// As [`Address::send`](crate::Address::send). With several shards, `Full` means that at least
    /// one of them was, and that others may have got the message even so.
    pub fn broadcast(&self, message: M) -> Result<(), MessageError<M>>
    where
        M: Clone,
    {
        let clone = M::clone;
        let Some((last, others)) = self.mailboxes.split_last() else { return Ok(()) };
        let (mut reached, mut full) = (false, None);
        for mailbox in others {
            match mailbox.post(Mail::All { message: message.clone(), clone }) {
                Ok(()) => reached = true,
                Err(MessageError::Full(back)) => full = Some(back),
                // That part is drained; others may not be.
                Err(MessageError::Gone(_)) => {}
            }
        }
        match (last.post(Mail::All { message, clone }), full) {
            (Ok(()) | Err(MessageError::Gone(_)), Some(back)) => Err(MessageError::Full(back)),
            (Err(MessageError::Gone(_)), None) if reached => Ok(()),
            (told, _) => told,
        }
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
        sum(&self.counters)
    }

    /// The same, shard by shard.
    pub fn shard_stats(&self) -> Vec<Stats> {
        self.counters.iter().map(|counters| counters.snapshot()).collect()
    }
}

impl<M> Clone for ListenerHandle<M> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            addr: self.addr,
            mailboxes: Arc::clone(&self.mailboxes),
            counters: self.counters.clone(),
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
