//! Who may come in, and to which shard: what the parts of one listener share.
//!
//! A listener has a part on every shard, and one of them accepts. It hands each connection to the
//! part that has fewest, itself included, and keeps the count exact: it alone adds, before the
//! hand-over; the parts subtract, each when a slot of its own comes free.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::acceptor::Acceptor;
use crate::endpoint::Endpoint;
use crate::mailbox::Notifier;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex};

/// One shard's part, as the others see it.
#[derive(Debug)]
struct Part<S> {
    /// Connections handed to it and not ended.
    open: AtomicUsize,
    /// Handed over, and not taken yet.
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
    /// The acceptor found no room, and wants to hear of some.
    full: AtomicBool,
    /// Nothing will be handed over any more.
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

    /// Whether one more may come in. If not, the acceptor is woken when one leaves.
    ///
    /// The order matters: first say that there is no room, then look again. Whoever leaves does it
    /// the other way round, so that one of the two sees the other.
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

    /// Counts a connection in. Returns the part that is to have it: the one with fewest.
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

    /// Counts a connection of `shard` out.
    pub(crate) fn leave(&self, shard: usize) {
        self.parts[shard].open.fetch_sub(1, Ordering::SeqCst);
        if shard != self.acceptor && self.full.swap(false, Ordering::SeqCst) {
            self.parts[self.acceptor].notifier.notify();
        }
    }

    /// Hands a connection, counted in already, to another shard.
    pub(crate) fn hand_over(&self, shard: usize, stream: S, peer_addr: Endpoint) {
        let part = &self.parts[shard];
        let mut arrivals = part.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.push((stream, peer_addr));
        drop(arrivals);
        part.has_arrivals.store(true, Ordering::SeqCst);
        part.notifier.notify();
    }

    /// Whether somebody was handed to `shard`.
    pub(crate) fn has_arrivals(&self, shard: usize) -> bool {
        self.parts[shard].has_arrivals.load(Ordering::SeqCst)
    }

    /// Whether `shard` has to look: somebody was handed to it, or nobody will be any more.
    pub(crate) fn has_news(&self, shard: usize) -> bool {
        self.has_arrivals(shard) || self.is_closed()
    }

    /// Whoever was handed to `shard` since it last asked.
    pub(crate) fn arrivals(&self, shard: usize) -> Vec<(S, Endpoint)> {
        let part = &self.parts[shard];
        // Looked at in every turn, and hardly ever set: a load is cheaper than a swap.
        if !part.has_arrivals.load(Ordering::Relaxed)
            || !part.has_arrivals.swap(false, Ordering::SeqCst)
        {
            return Vec::new();
        }
        std::mem::take(&mut *part.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The listening socket is closed: nobody is handed over after this. The parts see it, and
    /// drain.
    pub(crate) fn close(&self) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        for part in &self.parts {
            part.notifier.notify();
        }
    }

    /// Whoever sees this sees also everybody who was handed over.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

/// The listening socket of the part that accepts. Dropping it closes the socket, then the
/// admission, also if no reactor ever adopted the part: the other parts learn from it that they end.
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
