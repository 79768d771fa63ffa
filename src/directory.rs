//! What handles share with reactors: the listeners by name, and the commands to each reactor.
//!
//! A handle sends a reactor a [`Command`]. The reactor carries it out in its own turn, on its own
//! thread.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mio::net::TcpStream;

use crate::admission::Admission;
use crate::drain::{DrainPart, FinalReport, Threads};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::guard::guarded;
use crate::identity::ConnectionId;
use crate::loop_metrics::LoopMetrics;
use crate::mailbox::Notifier;
use crate::phases::AnyListener;
#[cfg(feature = "sim")]
use crate::simulated::Host;
use crate::stats::Stats;
use crate::status::{ListenerState, Status};
use crate::sync::Arc;
use crate::token::MAX_LISTENERS;

/// Makes a listener's part for the slot that its reactor gives it.
pub(crate) type MakeListener = Box<dyn FnOnce(u16) -> Box<dyn AnyListener> + Send>;

/// What a handle asks a reactor to do.
pub(crate) enum Command {
    /// Serve this part of a listener.
    Adopt(MakeListener),
    /// The listener part with this serial is about to drain. Complete `part` when it has drained.
    ExpectDrain { serial: u64, part: DrainPart },
    /// Drain the listener part with this serial, which accepts. The other parts then drain by
    /// themselves.
    Drain { serial: u64 },
    /// Count the report of every listener that ends from now on. The second time, wait for no
    /// connection.
    AnnounceShutdown(DrainPart),
    /// Begin the shutdown: all shards know of it.
    BeginShutdown,
    /// End everything at once: another shard died.
    Abort,
    /// End one connection.
    Close(ConnectionId),
    /// Call `call` once in each `period`, until `ended` is true.
    StartTimer { id: u64, period: Duration, call: Box<dyn FnMut() + Send>, ended: Arc<AtomicBool> },
    /// Free the timer with this id.
    EndTimer { id: u64 },
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adopt(_) => f.write_str("Adopt"),
            Self::ExpectDrain { serial, .. } => write!(f, "ExpectDrain({serial})"),
            Self::Drain { serial } => write!(f, "Drain({serial})"),
            Self::AnnounceShutdown(_) => f.write_str("AnnounceShutdown"),
            Self::BeginShutdown => f.write_str("BeginShutdown"),
            Self::Abort => f.write_str("Abort"),
            Self::Close(id) => write!(f, "Close({id})"),
            Self::StartTimer { id, period, .. } => write!(f, "StartTimer({id}, {period:?})"),
            Self::EndTimer { id } => write!(f, "EndTimer({id})"),
        }
    }
}

/// What all handles share with their reactors. There is one reactor, or one per shard.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) inboxes: Vec<Inbox>,
    pub(crate) threads: Arc<Threads>,
    directory: Mutex<Directory>,
    ready: AtomicBool,
    /// The network is simulated, and there are no sockets.
    pub(crate) is_simulated: bool,
    /// What a node of a simulation has in place of sockets.
    #[cfg(feature = "sim")]
    pub(crate) host: Option<Host>,
}

/// How one reactor is reached.
pub(crate) struct Inbox {
    pub(crate) notifier: Arc<Notifier>,
    commands: Mutex<VecDeque<Command>>,
    gone: AtomicBool,
    pub(crate) final_report: FinalReport,
    pub(crate) metrics: Arc<LoopMetrics>,
}

/// A listener that takes clients, and where connections are handed to it.
pub(crate) type Running = (Arc<Status>, Option<Arc<Admission<TcpStream>>>);

/// The listeners, by name.
#[derive(Debug, Default)]
struct Directory {
    entries: HashMap<Arc<str>, Entry>,
    /// Counters of listeners that have ended, and of what belongs to no listener.
    retired: Stats,
}

/// What a name stands for.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Listener,
    Connector,
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    status: Arc<Status>,
    /// Where a connection is handed to the listener. `None` if its streams are simulated.
    admission: Option<Arc<Admission<TcpStream>>>,
    /// Until it has started, other callers do not see it.
    started: bool,
    /// Where a listener listens, once it has started.
    addr: Option<Endpoint>,
    /// A handle has stopped the listener. Its name stays taken until every part has ended.
    stopping: bool,
}

impl Inbox {
    pub(crate) fn new(notifier: Notifier) -> Self {
        Self {
            notifier: Arc::new(notifier),
            commands: Mutex::default(),
            gone: AtomicBool::new(false),
            final_report: FinalReport::default(),
            metrics: Arc::default(),
        }
    }

    /// The number of commands that wait.
    pub(crate) fn commands(&self) -> usize {
        lock(&self.commands).len()
    }

    pub(crate) fn next_command(&self) -> Option<Command> {
        lock(&self.commands).pop_front()
    }

    /// The reactor is gone: from now on every command fails with [`Error::Gone`].
    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.drop_commands();
    }

    fn drop_commands(&self) {
        // The commands are dropped outside the lock, because their drops do more than free memory.
        // A `DrainPart` wakes the callers of `Drain::wait`, a `NameGuard` releases its name, and
        // the drop of a factory is the user's code.
        let commands = std::mem::take(&mut *lock(&self.commands));
        for command in commands {
            guarded(|| drop(command));
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    pub(crate) fn command(&self, command: Command) -> Result<(), Error> {
        if self.is_gone() {
            return Err(Error::Gone);
        }
        lock(&self.commands).push_back(command);
        // The reactor may have gone in the meantime. Then it will not drop the command, so this
        // does.
        if self.is_gone() {
            self.drop_commands();
            return Err(Error::Gone);
        }
        self.notifier.notify();
        Ok(())
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("gone", &self.is_gone()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(inboxes: Vec<Inbox>) -> Self {
        Self {
            threads: Arc::new(Threads::new(inboxes.len())),
            inboxes,
            directory: Mutex::default(),
            ready: AtomicBool::new(true),
            is_simulated: false,
            #[cfg(feature = "sim")]
            host: None,
        }
    }

    /// As [`new`](Self::new), for one reactor over a simulated network.
    pub(crate) fn simulated(inbox: Inbox) -> Self {
        Self { is_simulated: true, ..Self::new(vec![inbox]) }
    }

    /// As [`simulated`](Self::simulated), for a node of a simulation.
    #[cfg(feature = "sim")]
    pub(crate) fn on(host: Host, inbox: Inbox) -> Self {
        Self { host: Some(host), ..Self::simulated(inbox) }
    }

    /// Notes that a part of the listener has ended. After the last part the name is free again.
    fn release(&self, name: &str, status: &Status) {
        let mut directory = lock(&self.directory);
        if status.part_ended() && directory.entries.remove(name).is_some() {
            directory.retired.merge(&status.stats());
        }
    }

    /// Makes every reactor end everything at once.
    pub(crate) fn abort(&self) {
        for inbox in &self.inboxes {
            // A reactor that is gone has nothing left to end.
            let _ = inbox.command(Command::Abort);
        }
    }

    /// All reactors are gone: from now on every command fails with [`Error::Gone`].
    pub(crate) fn set_gone(&self) {
        self.inboxes.iter().for_each(Inbox::set_gone);
    }

    pub(crate) fn reserve(
        &self,
        kind: Kind,
        name: &str,
        max_connections: usize,
    ) -> Result<Arc<Status>, Error> {
        let parts = self.inboxes.len();
        let mut directory = lock(&self.directory);
        if directory.entries.contains_key(name) {
            return Err(Error::DuplicateName(name.to_owned()));
        }
        if directory.entries.len() >= MAX_LISTENERS {
            return Err(Error::TooManyListeners { name: name.to_owned(), max: MAX_LISTENERS });
        }
        let acceptor = directory.entries.len() % parts;
        let name: Arc<str> = name.into();
        let status = Arc::new(Status::new(Arc::clone(&name), acceptor, parts, max_connections));
        let entry = Entry {
            kind,
            status: Arc::clone(&status),
            admission: None,
            started: false,
            addr: None,
            stopping: false,
        };
        directory.entries.insert(name, entry);
        Ok(status)
    }

    /// Releases a reserved name, because its listener could not start.
    pub(crate) fn cancel(&self, name: &str) {
        lock(&self.directory).entries.remove(name);
    }

    /// Makes the listener visible to other callers, once every part is on its way to its reactor.
    /// Later commands to the listener then arrive after the part.
    ///
    /// The listener may have ended by now, and another one may be starting under its name.
    pub(crate) fn publish(&self, status: &Arc<Status>, addr: Option<Endpoint>) {
        if let Some(entry) = lock(&self.directory).entries.get_mut(status.name())
            && Arc::ptr_eq(&entry.status, status)
        {
            (entry.started, entry.addr) = (true, addr);
        }
    }

    /// Stores where connections are handed to the listener, which has a name and is not visible yet.
    pub(crate) fn set_admission(&self, status: &Status, admission: Arc<Admission<TcpStream>>) {
        if let Some(entry) = lock(&self.directory).entries.get_mut(status.name()) {
            entry.admission = Some(admission);
        }
    }

    /// The listener of this name. `None` if there is none, or if it drains. If `only` is given, a
    /// later listener of the same name is another.
    pub(crate) fn running(&self, name: &str, only: Option<&Arc<Status>>) -> Option<Running> {
        let directory = lock(&self.directory);
        let entry = directory.entries.get(name)?;
        let is_another = only.is_some_and(|status| !Arc::ptr_eq(status, &entry.status));
        if entry.addr.is_none() || is_another || entry.status.state() != ListenerState::Listening {
            return None;
        }
        Some((Arc::clone(&entry.status), entry.admission.clone()))
    }

    /// Marks a listener or a connector as being stopped. Returns `None` if none of that name runs, or
    /// if it is being stopped already. If `only` is given, a later one of the same name is another.
    pub(crate) fn begin_stop(
        &self,
        kind: Kind,
        name: &str,
        only: Option<&Arc<Status>>,
    ) -> Option<Arc<Status>> {
        let mut directory = lock(&self.directory);
        let entry = directory.entries.get_mut(name)?;
        let is_another = only.is_some_and(|status| !Arc::ptr_eq(status, &entry.status));
        if entry.kind != kind || entry.stopping || !entry.started || is_another {
            return None;
        }
        entry.stopping = true;
        entry.status.set_draining();
        Some(Arc::clone(&entry.status))
    }

    /// True until a shutdown is asked for, or a reactor has gone.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst) && !self.inboxes.iter().any(Inbox::is_gone)
    }

    /// Whether all reactors have ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.inboxes.iter().all(Inbox::is_gone)
    }

    pub(crate) fn set_unready(&self) {
        self.ready.store(false, Ordering::SeqCst);
    }

    /// The sum of the counters of all listeners and connectors, including those that have ended.
    pub(crate) fn stats(&self) -> Stats {
        let directory = lock(&self.directory);
        let mut stats = directory.retired.clone();
        for entry in directory.entries.values() {
            stats.merge(&entry.status.stats());
        }
        stats
    }

    /// Counts a panic of the user's code that belongs to no listener.
    pub(crate) fn count_panic(&self) {
        lock(&self.directory).retired.panics += 1;
    }

    /// Every listener with its endpoint and its counters, in the order of their names.
    pub(crate) fn listeners(&self) -> Vec<(String, Endpoint, Stats)> {
        let directory = lock(&self.directory);
        let mut listeners: Vec<_> = directory
            .entries
            .iter()
            .filter_map(|(name, entry)| {
                Some((name.to_string(), entry.addr.clone()?, entry.status.stats()))
            })
            .collect();
        listeners.sort_by(|a, b| a.0.cmp(&b.0));
        listeners
    }

    /// Every connector with its counters, in the order of their names.
    pub(crate) fn connectors(&self) -> Vec<(String, Stats)> {
        let directory = lock(&self.directory);
        let entries = directory.entries.iter();
        let is_one = |entry: &Entry| entry.kind == Kind::Connector && entry.started;
        let connectors = entries.filter(|(_, entry)| is_one(entry));
        let mut connectors: Vec<_> =
            connectors.map(|(name, entry)| (name.to_string(), entry.status.stats())).collect();
        connectors.sort_by(|a, b| a.0.cmp(&b.0));
        connectors
    }

    /// The shard of the listener part with this serial, if the part is one of these reactors'.
    pub(crate) fn shard_of(&self, serial: u64) -> Option<usize> {
        let directory = lock(&self.directory);
        directory.entries.values().find_map(|entry| entry.status.shard_of(serial))
    }
}

/// No code of the user runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds the name of a listener for one of its parts. The drop releases it, however the part ends,
/// even if no reactor has adopted the part.
#[derive(Debug)]
pub(crate) struct NameGuard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: Arc<str>,
    pub(crate) status: Arc<Status>,
}

impl Drop for NameGuard {
    fn drop(&mut self) {
        self.shared.release(&self.name, &self.status);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::thread;

    use super::*;
    use crate::drain::Drain;

    /// Goal: a listener that has ended before its start is complete does not show the next one of its
    /// name, which is still starting. Method: the steps of both starts, in that order.
    #[test]
    fn a_start_shows_only_its_own_listener() {
        let shared = Shared::new(vec![Inbox::new(Notifier::new(|| {}))]);
        let ended = shared.reserve(Kind::Listener, "name", 1).unwrap();
        shared.release("name", &ended);
        let starting = shared.reserve(Kind::Listener, "name", 1).unwrap();
        let addr = Endpoint::from(([127, 0, 0, 1], 7));
        shared.publish(&ended, Some(addr.clone()));
        assert!(shared.begin_stop(Kind::Listener, "name", None).is_none(), "it has not started");
        shared.publish(&starting, Some(addr));
        assert!(shared.begin_stop(Kind::Listener, "name", None).is_some());
    }

    /// Goal: no command is left behind when its reactor ends. A sender checks that the reactor still
    /// runs, and then stores its command. If the reactor ends in between, the sender drops the
    /// command and gets an error. Otherwise `Drain::wait` would never return. Method: the test holds
    /// the lock on the commands, so the sender blocks between the check and the store. The thread's
    /// state in `/proc` tells that it blocks.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_command_that_comes_while_the_reactor_goes_is_dropped() {
        let end = Inbox::new(Notifier::new(|| {}));
        let (drain, mut parts) = Drain::new(Arc::new(Threads::new(1)));
        let part = parts.pop().unwrap();
        let task = OnceLock::new();
        let result = thread::scope(|scope| {
            let mut commands = lock(&end.commands);
            let sender = scope.spawn(|| {
                task.get_or_init(|| std::fs::canonicalize("/proc/thread-self").unwrap());
                end.command(Command::AnnounceShutdown(part))
            });
            let sleeps = || {
                let stat = std::fs::read_to_string(task.get()?.join("stat")).unwrap();
                stat.rsplit_once(") ")?.1.starts_with('S').then_some(())
            };
            let patience = (0..30_000).any(|_| {
                thread::park_timeout(Duration::from_millis(1));
                sleeps().is_some()
            });
            assert!(patience, "the sender does not come to the lock");
            // What `set_gone` does, at a time that the test chooses.
            end.gone.store(true, Ordering::SeqCst);
            assert!(std::mem::take(&mut *commands).is_empty());
            drop(commands);
            sender.join().unwrap()
        });
        assert!(matches!(result, Err(Error::Gone)), "{result:?}");
        assert!(end.next_command().is_none(), "it was left to a reactor that is gone");
        assert!(matches!(drain.wait(), Err(Error::Gone)));
    }
}
