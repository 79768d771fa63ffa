//! Whether a connection may be accepted, and on which shard it lives: the state that the parts of
//! one listener share.
//!
//! A listener has a part on every shard, and one part accepts. That part hands each connection to
//! the part with the fewest connections, which may be itself. The count is exact: only the
//! accepting part adds to it, before the hand-over. Each part subtracts when one of its slots
//! becomes free.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::acceptor::Acceptor;
use crate::endpoint::Endpoint;
use crate::mailbox::Notifier;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex};

/// One shard's part, as the others see it.
#[derive(Debug)]
struct Part<S> {
    /// The number of connections that were handed to it and have not ended.
    open: AtomicUsize,
    /// Connections that were handed over, and that the part has not taken yet.
    arrivals: Mutex<Vec<(S, Endpoint)>>,
    has_arrivals: AtomicBool,
    notifier: Arc<Notifier>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Admission<S> {
    parts: Vec<Part<S>>,
    /// The part that accepts.
    acceptor: usize,
    max_connections: usize,
    /// The acceptor has found the limit reached, and waits to be notified when a connection ends.
    full: AtomicBool,
    /// No connection is handed over any more.
    closed: AtomicBool,
}

impl<S> Admission<S> {
    /// One part for each notifier.
    pub(crate) fn new(
        notifiers: impl IntoIterator<Item = Arc<Notifier>>,
        acceptor: usize,
        max_connections: usize,
    ) -> Self {
        let part = |notifier| Part {
            open: AtomicUsize::new(0),
            arrivals: Mutex::default(),
            has_arrivals: AtomicBool::new(false),
            notifier,
        };
        Self {
            parts: notifiers.into_iter().map(part).collect(),
            acceptor,
            max_connections,
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
        if self.open() < self.max_connections {
            return true;
        }
        self.full.swap(true, Ordering::SeqCst);
        self.open() < self.max_connections
    }

    fn open(&self) -> usize {
        self.parts.iter().map(|part| part.open.load(Ordering::SeqCst)).sum()
    }

    /// Adds a connection to the count. Returns the part that gets it: the one with the fewest.
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
        if shard != self.acceptor && self.full.swap(false, Ordering::SeqCst) {
            self.parts[self.acceptor].notifier.notify();
        }
    }

    /// Hands a connection to another shard. The connection is in the count already.
    pub(crate) fn hand_over(&self, shard: usize, stream: S, peer_addr: Endpoint) {
        let part = &self.parts[shard];
        let mut arrivals = part.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.push((stream, peer_addr));
        drop(arrivals);
        part.has_arrivals.store(true, Ordering::SeqCst);
        part.notifier.notify();
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

    /// Takes the connections that were handed to `shard` since the last call.
    pub(crate) fn arrivals(&self, shard: usize) -> Vec<(S, Endpoint)> {
        let part = &self.parts[shard];
        // The flag is read in every turn and seldom set, and a load is cheaper than a swap.
        if !part.has_arrivals.load(Ordering::Relaxed)
            || !part.has_arrivals.swap(false, Ordering::SeqCst)
        {
            return Vec::new();
        }
        std::mem::take(&mut *part.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records that the listening socket is closed: no connection is handed over after this. Every
    /// part is notified, and drains.
    pub(crate) fn close(&self) {
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
