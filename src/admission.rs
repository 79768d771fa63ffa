//! Whether a connection may be accepted, and on which shard it lives: the state that the parts of
//! one listener share.
//!
//! A listener has a part on every shard, and one part accepts. That part hands each connection to
//! the part with the fewest connections, which may be itself. Any thread may hand over a connection
//! as well: [`adopt`](Admission::adopt).
//!
//! The count is exact. A place is [reserved](Admission::reserve) before a connection is accepted or
//! adopted. It is free again when nothing came of it, or when the slot of the connection becomes
//! free.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::acceptor::Acceptor;
use crate::identity::PeerName;
use crate::mailbox::Notifier;
use crate::status::Status;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, MutexGuard};

/// One shard's part, as the others see it.
#[derive(Debug)]
struct Part<S> {
    /// The number of connections that were handed to it and have not ended.
    open: AtomicUsize,
    arrivals: Mutex<Arrivals<S>>,
    /// There are arrivals. It changes under their lock.
    has_arrivals: AtomicBool,
    notifier: Arc<Notifier>,
}

/// Connections that were handed over, and that the part has not taken yet.
#[derive(Debug)]
struct Arrivals<S> {
    queue: VecDeque<Arrival<S>>,
    /// No more connections arrive.
    closed: bool,
}

/// A connection that was handed over.
#[derive(Debug)]
pub(crate) struct Arrival<S> {
    pub(crate) stream: S,
    pub(crate) peer: PeerName,
    /// A handle gave it to the listener, which did not accept it itself.
    pub(crate) adopted: bool,
}

impl<S> Part<S> {
    fn arrivals(&self) -> MutexGuard<'_, Arrivals<S>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a connection over. If the listener is closed, the connection comes back.
    fn hand_over(&self, arrival: Arrival<S>) -> Result<(), Arrival<S>> {
        let mut arrivals = self.arrivals();
        if arrivals.closed {
            return Err(arrival);
        }
        arrivals.queue.push_back(arrival);
        self.has_arrivals.store(true, Ordering::SeqCst);
        drop(arrivals);
        self.notifier.notify();
        Ok(())
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Admission<S> {
    parts: Vec<Part<S>>,
    /// The part that accepts.
    acceptor: usize,
    /// Places that are reserved or taken.
    places: AtomicUsize,
    /// It has the limit on connections.
    status: Arc<Status>,
    /// The acceptor has found the limit reached, and waits to be notified when a connection ends.
    full: AtomicBool,
    /// No connection is handed over any more.
    closed: AtomicBool,
}

impl<S> Admission<S> {
    /// One part for each notifier.
    pub(crate) fn new(
        notifiers: impl IntoIterator<Item = Arc<Notifier>>,
        status: Arc<Status>,
    ) -> Self {
        let part = |notifier| Part {
            open: AtomicUsize::new(0),
            arrivals: Mutex::new(Arrivals { queue: VecDeque::new(), closed: false }),
            has_arrivals: AtomicBool::new(false),
            notifier,
        };
        Self {
            parts: notifiers.into_iter().map(part).collect(),
            acceptor: status.acceptor(),
            places: AtomicUsize::new(0),
            status,
            full: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn accepts(&self, shard: usize) -> bool {
        shard == self.acceptor
    }

    /// Whether one more connection may be accepted. If not, the acceptor is notified when a
    /// connection of another shard ends.
    ///
    /// The order matters. The acceptor first sets `full`, then reads the count again. A connection
    /// that ends first lowers the count, then reads `full`. So at least one of them sees the
    /// other's change.
    pub(crate) fn has_room(&self) -> bool {
        if self.is_below_limit() {
            return true;
        }
        self.full.swap(true, Ordering::SeqCst);
        self.is_below_limit()
    }

    /// Whether there are no more connections than the limit allows. There are if it was lowered.
    pub(crate) fn is_within_limit(&self) -> bool {
        self.places.load(Ordering::SeqCst) <= self.status.max_connections()
    }

    /// Whether one part has all connections.
    pub(crate) fn is_alone(&self) -> bool {
        self.parts.len() == 1
    }

    fn is_below_limit(&self) -> bool {
        self.places.load(Ordering::SeqCst) < self.status.max_connections()
    }

    /// Takes a place for a connection that comes next. Returns false if there is none.
    ///
    /// The limit may be lowered at any time. Then there are more connections than it allows, until
    /// enough of them have ended.
    pub(crate) fn reserve(&self) -> bool {
        let max = self.status.max_connections();
        let add = |places| (places < max).then_some(places + 1);
        self.places.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).is_ok()
    }

    /// Gives a reserved place back, because no connection came. Any thread may call it, so it
    /// notifies the acceptor if that waits.
    pub(crate) fn give_back(&self) {
        self.places.fetch_sub(1, Ordering::SeqCst);
        if self.full.swap(false, Ordering::SeqCst) {
            self.parts[self.acceptor].notifier.notify();
        }
    }

    /// Gives a connection its reserved place. Returns the part that gets it: the one with the fewest.
    pub(crate) fn enter(&self) -> usize {
        let fewest = self
            .parts
            .iter()
            .enumerate()
            .min_by_key(|(_, part)| part.open.load(Ordering::Relaxed))
            .map_or(0, |(shard, _)| shard);
        self.parts[fewest].open.fetch_add(1, Ordering::SeqCst);
        fewest
    }

    /// Subtracts a connection of `shard` from the count.
    pub(crate) fn leave(&self, shard: usize) {
        self.parts[shard].open.fetch_sub(1, Ordering::SeqCst);
        self.places.fetch_sub(1, Ordering::SeqCst);
        if shard != self.acceptor && self.full.swap(false, Ordering::SeqCst) {
            self.parts[self.acceptor].notifier.notify();
        }
    }

    /// Hands an accepted connection to another shard. The connection is in the count already.
    pub(crate) fn hand_over(&self, shard: usize, stream: S, peer: PeerName) {
        // Only the acceptor closes the listener, so this does not fail.
        let _ = self.parts[shard].hand_over(Arrival { stream, peer, adopted: false });
    }

    /// Hands over a connection that a handle gives to the listener, on any thread. A place is
    /// reserved for it. If the listener is closed, the connection comes back, and the place is free
    /// again.
    pub(crate) fn adopt(&self, stream: S, peer: PeerName) -> Result<(), S> {
        let shard = self.enter();
        self.parts[shard].hand_over(Arrival { stream, peer, adopted: true }).map_err(|back| {
            self.leave(shard);
            back.stream
        })
    }

    /// Whether connections were handed to `shard` that it has not taken.
    pub(crate) fn has_arrivals(&self, shard: usize) -> bool {
        self.parts[shard].has_arrivals.load(Ordering::SeqCst)
    }

    /// Whether `shard` has something to do: connections were handed to it, or the listener is
    /// closed.
    pub(crate) fn has_news(&self, shard: usize) -> bool {
        self.has_arrivals(shard) || self.is_closed()
    }

    /// Takes the oldest connection that was handed to `shard`.
    pub(crate) fn next_arrival(&self, shard: usize) -> Option<Arrival<S>> {
        let part = &self.parts[shard];
        // The flag is read in every turn and seldom set, and a load is cheaper than a lock.
        if !part.has_arrivals.load(Ordering::Relaxed) {
            return None;
        }
        let mut arrivals = part.arrivals();
        let next = arrivals.queue.pop_front();
        if arrivals.queue.is_empty() {
            // The memory of a burst goes back.
            arrivals.queue = VecDeque::new();
            part.has_arrivals.store(false, Ordering::SeqCst);
        }
        next
    }

    /// Records that the listening socket is closed: no connection is handed over after this. Every
    /// part is notified, and drains.
    pub(crate) fn close(&self) {
        // This comes first. Each connection that another thread hands over is now there, or comes
        // back to that thread.
        for part in &self.parts {
            part.arrivals().closed = true;
        }
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        for part in &self.parts {
            part.notifier.notify();
        }
    }

    /// Whether the listening socket is closed. A part that reads `true` also sees every connection
    /// that was handed over.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

/// The listening socket of the part that accepts. Dropping it closes the socket, then the
/// admission, even if no reactor ever adopted the part. The closed admission tells the other parts
/// to drain.
#[derive(Debug)]
pub(crate) struct Listening<A: Acceptor> {
    /// `None` in a simulated network, where no client reaches the listener.
    socket: Option<A>,
    admission: Arc<Admission<A::Stream>>,
}

impl<A: Acceptor> Listening<A> {
    pub(crate) fn new(socket: Option<A>, admission: Arc<Admission<A::Stream>>) -> Self {
        Self { socket, admission }
    }

    pub(crate) fn has_socket(&self) -> bool {
        self.socket.is_some()
    }

    pub(crate) fn socket(&mut self) -> Option<&mut A> {
        self.socket.as_mut()
    }
}

impl<A: Acceptor> Drop for Listening<A> {
    fn drop(&mut self) {
        drop(self.socket.take());
        self.admission.close();
    }
}
