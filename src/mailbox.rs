//! Messages from any thread: the address, the mailbox behind it, and the notifier that wakes.
//!
//! ```text
//!   Address::send ──► Mailbox (bounded, one per listener) ──► Reactor: deliver
//!        └─ ring ──► Notifier: wakes the reactor only if it sleeps or is about to
//! ```
//!
//! The wake-up protocol has two flags. A sender stores its mail, then sets `notified`, then looks at
//! `asleep`. The reactor sets `asleep`, then looks at `notified`. In the single order that all threads
//! agree on, one of the two sees the other: no wake-up is lost. Only [`Notifier::answer`] clears
//! `notified`, before the mail is taken, so that mail that comes later rings again.
//!
//! No lock is held while code of the user runs: messages are taken out of the mailbox first, then
//! delivered, cloned or dropped.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::identity::ConnectionId;
use crate::reason::MessageError;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, MutexGuard};

/// Wakes one reactor, at most once for everything that happens until it answers.
pub(crate) struct Notifier {
    notified: AtomicBool,
    asleep: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Notifier {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            notified: AtomicBool::new(false),
            asleep: AtomicBool::new(true),
            wake: Box::new(wake),
        }
    }

    /// There is something to do. Call it after the something can be seen.
    pub(crate) fn notify(&self) {
        if !self.notified.swap(true, Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst)
        {
            (self.wake)();
        }
    }

    /// The reactor is about to sleep. Returns whether it may: nobody has notified since the last
    /// [`answer`](Self::take).
    ///
    /// Both sides swap what they set, so that whoever comes second has seen all that the first one
    /// did; this needs no order that all threads agree on.
    pub(crate) fn prepare_to_sleep(&self) -> bool {
        self.asleep.swap(true, Ordering::SeqCst);
        !self.notified.load(Ordering::SeqCst)
    }

    /// The reactor is up: no need to wake it.
    pub(crate) fn woke_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Whether somebody has notified. The reactor then looks after all its mail.
    pub(crate) fn take(&self) -> bool {
        self.notified.load(Ordering::Relaxed) && self.notified.swap(false, Ordering::SeqCst)
    }

    /// Whether somebody has notified and was not answered.
    pub(crate) fn is_notified(&self) -> bool {
        self.notified.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").field("notified", &self.is_notified()).finish_non_exhaustive()
    }
}

/// One entry of a mailbox.
pub(crate) enum Mail<M> {
    /// For the owner of a slot, if it is still that generation.
    To { key: u32, generation: u32, message: M },
    /// For every connection there is when it is delivered.
    All { message: M, clone: fn(&M) -> M },
}

impl<M> Mail<M> {
    fn into_message(self) -> M {
        match self {
            Self::To { message, .. } | Self::All { message, .. } => message,
        }
    }
}

impl<M> fmt::Debug for Mail<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To { key, generation, .. } => write!(f, "To({key}.{generation})"),
            Self::All { .. } => f.write_str("All"),
        }
    }
}

struct Letters<M> {
    queue: VecDeque<Mail<M>>,
    closed: bool,
}

/// The messages to one listener's connections.
pub(crate) struct Mailbox<M> {
    letters: Mutex<Letters<M>>,
    /// Taken out by the reactor, but not delivered yet: they count as well. Only the reactor changes
    /// it.
    taken: AtomicUsize,
    capacity: usize,
    serial: u32,
    notifier: Arc<Notifier>,
    refused: Box<dyn Fn() + Send + Sync>,
}

impl<M> Mailbox<M> {
    /// `refused` is called for every message that found the mailbox full.
    pub(crate) fn new(
        serial: u32,
        capacity: usize,
        notifier: Arc<Notifier>,
        refused: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            letters: Mutex::new(Letters { queue: VecDeque::new(), closed: false }),
            taken: AtomicUsize::new(0),
            capacity,
            serial,
            notifier,
            refused: Box::new(refused),
        }
    }

    pub(crate) fn post(&self, mail: Mail<M>) -> Result<(), MessageError<M>> {
        let mut letters = self.letters();
        if letters.closed {
            drop(letters);
            return Err(MessageError::Gone(mail.into_message()));
        }
        if letters.queue.len() + self.taken.load(Ordering::Relaxed) >= self.capacity {
            drop(letters);
            (self.refused)();
            return Err(MessageError::Full(mail.into_message()));
        }
        letters.queue.push_back(mail);
        drop(letters);
        self.notifier.notify();
        Ok(())
    }

    /// Takes all mail out into `into`, which is empty: the two swap, and with them their memory.
    /// Broadcasts that were taken before may still be on their way; they count on.
    pub(crate) fn take(&self, into: &mut VecDeque<Mail<M>>) {
        debug_assert!(into.is_empty());
        let mut letters = self.letters();
        std::mem::swap(&mut letters.queue, into);
        self.taken.store(self.taken.load(Ordering::Relaxed) + into.len(), Ordering::Relaxed);
    }

    /// One letter that was taken has been delivered or dropped.
    pub(crate) fn delivered(&self) {
        self.taken.store(self.taken.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// Refuses all mail from now on. Returns what nobody will read, to be dropped without a lock.
    pub(crate) fn close(&self) -> VecDeque<Mail<M>> {
        let mut letters = self.letters();
        letters.closed = true;
        std::mem::take(&mut letters.queue)
    }

    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }

    /// No code of the user runs under this lock, so it cannot be poisoned by it.
    fn letters(&self) -> MutexGuard<'_, Letters<M>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// Where messages to one connection are sent, from any thread: Condor's pid.
///
/// An address outlives its connection. What is sent to it then reaches nobody, in particular not
/// the next connection in the same slot.
pub struct Address<M> {
    pub(crate) mailbox: Arc<Mailbox<M>>,
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

impl<M> Address<M> {
    /// Sends `message`; the connection gets it as [`Info::Message`](crate::Info::Message).
    ///
    /// `Ok` means that it is in the mailbox. A connection that ends meanwhile never sees it; then
    /// it is dropped and counted in [`Stats::dropped_messages`](crate::Stats::dropped_messages).
    /// Messages from one thread to one connection arrive in order.
    ///
    /// # Errors
    ///
    /// Both give the message back: [`MessageError::Full`] if the listener's mailbox holds
    /// [`mailbox_capacity`](crate::ListenerOptions::mailbox_capacity) messages,
    /// [`MessageError::Gone`] if its listener or its reactor has ended.
    pub fn send(&self, message: M) -> Result<(), MessageError<M>> {
        self.mailbox.post(Mail::To { key: self.key, generation: self.generation, message })
    }

    /// The connection's name.
    pub fn id(&self) -> ConnectionId {
        ConnectionId { serial: self.mailbox.serial(), key: self.key, generation: self.generation }
    }
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { mailbox: Arc::clone(&self.mailbox), key: self.key, generation: self.generation }
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.id())
    }
}

impl<M> PartialEq for Address<M> {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl<M> Eq for Address<M> {}

impl<M> Hash for Address<M> {
    fn hash<S: Hasher>(&self, state: &mut S) {
        self.id().hash(state);
    }
}

#[cfg(all(test, loom))]
mod loom_tests;

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn bell() -> (Notifier, Arc<AtomicU32>) {
        let wakes = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&wakes);
        let wake = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        (Notifier::new(wake), wakes)
    }

    /// Goal: a command that comes before the first turn is not slept through. Method: ring a bell
    /// that nobody has answered or slept beside yet.
    #[test]
    fn a_reactor_that_has_not_begun_can_be_woken() {
        let (bell, wakes) = bell();
        bell.notify();
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        assert!(!bell.prepare_to_sleep(), "and it does not go to sleep over it");
    }

    /// Goal: one wake-up for everything until the reactor answers, none while it is up.
    #[test]
    fn rings_are_coalesced() {
        let (bell, wakes) = bell();
        bell.woke_up();
        (0..1_000).for_each(|_| bell.notify());
        assert_eq!(wakes.load(Ordering::SeqCst), 0);
        assert!(bell.take() && !bell.take());
        assert!(bell.prepare_to_sleep());
        (0..1_000).for_each(|_| bell.notify());
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
    }
}
