//! Messages from any thread: the address, its mailbox, and the notifier that wakes the reactor.
//!
//! ```text
//!   Address::send ──► Mailbox (bounded, one per listener) ──► Reactor: deliver
//!        └ notify ──► Notifier: wakes the reactor only if it sleeps or is about to
//! ```
//!
//! The wake-up protocol has two flags, `notified` and `asleep`:
//!
//! - A sender stores its message. Then it swaps `notified` to `true`. If `notified` was `true`
//!   already, the sender is done, because an earlier sender does the rest. Otherwise the sender
//!   swaps `asleep` to `false`, and if `asleep` was `true`, it wakes the reactor.
//! - The reactor swaps `asleep` to `true`. Then it loads `notified`, and sleeps only if that is
//!   `false`.
//!
//! No wake-up is lost, because both sides swap `asleep`. The side whose swap is second sees
//! everything that the other side did before its swap. If the sender is second, it sees `asleep`
//! and wakes the reactor. If the reactor is second, it sees `notified` and does not sleep. So the
//! two swaps need only acquire and release, and no single order of all accesses (`loom_tests.rs`
//! checks this).
//!
//! Only [`Notifier::take`] clears `notified`. It does so before the messages are taken, so a sender
//! that comes later notifies again.
//!
//! No lock is held while code of the user runs. Messages are first taken out of the mailbox. Then
//! they are delivered, cloned or dropped.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::identity::ConnectionId;
use crate::reason::MessageError;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, MutexGuard};

/// Wakes one reactor. It wakes it at most once until the reactor calls [`take`](Self::take).
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

    /// Tells the reactor that there is work. Call it after the work is visible to the reactor.
    pub(crate) fn notify(&self) {
        if !self.notified.swap(true, Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst)
        {
            (self.wake)();
        }
    }

    /// The reactor is about to sleep. Returns whether it may sleep: there was no
    /// [`notify`](Self::notify) since the last [`take`](Self::take).
    ///
    /// Both sides swap `asleep`, so the side that is second sees everything that the first side
    /// did. A plain store here would need a single order of all accesses.
    pub(crate) fn prepare_to_sleep(&self) -> bool {
        self.asleep.swap(true, Ordering::SeqCst);
        !self.notified.load(Ordering::SeqCst)
    }

    /// The reactor is awake: senders need not wake it.
    pub(crate) fn woke_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Returns whether there was a [`notify`](Self::notify), and clears the flag. If so, the
    /// reactor then takes the messages out of all its mailboxes.
    pub(crate) fn take(&self) -> bool {
        self.notified.load(Ordering::Relaxed) && self.notified.swap(false, Ordering::SeqCst)
    }

    /// Whether there was a [`notify`](Self::notify) since the last [`take`](Self::take).
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
pub(crate) enum Envelope<M> {
    /// For one connection: the owner of the slot `key`, if its generation is still the same.
    To { key: u32, generation: u32, message: M },
    /// For every connection that is open at the time of delivery.
    All { message: M, clone: fn(&M) -> M },
}

impl<M> Envelope<M> {
    pub(crate) fn into_message(self) -> M {
        match self {
            Self::To { message, .. } | Self::All { message, .. } => message,
        }
    }
}

impl<M> fmt::Debug for Envelope<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To { key, generation, .. } => write!(f, "To({key}.{generation})"),
            Self::All { .. } => f.write_str("All"),
        }
    }
}

struct Contents<M> {
    queue: VecDeque<Envelope<M>>,
    closed: bool,
}

/// The messages to one listener's connections.
pub(crate) struct Mailbox<M> {
    contents: Mutex<Contents<M>>,
    /// Messages that the reactor has taken out and not delivered yet. They count against
    /// `capacity`, too. Only the reactor changes this.
    taken: AtomicUsize,
    capacity: usize,
    serial: u64,
    notifier: Arc<Notifier>,
    refused: Box<dyn Fn() + Send + Sync>,
}

impl<M> Mailbox<M> {
    /// The most bytes of memory for the entries of a mailbox of this capacity: the queue that fills
    /// and the queue that is read, each of which doubles as it grows.
    pub(crate) const fn most_memory(capacity: usize) -> usize {
        let entries = match capacity.checked_next_power_of_two() {
            Some(entries) => entries,
            None => usize::MAX,
        };
        entries.saturating_mul(2 * size_of::<Envelope<M>>())
    }

    /// `refused` is called for every message that is refused because the mailbox is full.
    pub(crate) fn new(
        serial: u64,
        capacity: usize,
        notifier: Arc<Notifier>,
        refused: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            contents: Mutex::new(Contents { queue: VecDeque::new(), closed: false }),
            taken: AtomicUsize::new(0),
            capacity,
            serial,
            notifier,
            refused: Box::new(refused),
        }
    }

    pub(crate) fn post(&self, envelope: Envelope<M>) -> Result<(), MessageError<M>> {
        self.post_below(self.capacity, envelope)
    }

    /// Posts `envelope` if the mailbox holds fewer than `most` messages.
    fn post_below(&self, most: usize, envelope: Envelope<M>) -> Result<(), MessageError<M>> {
        let mut contents = self.contents();
        if contents.closed {
            drop(contents);
            return Err(MessageError::Gone(envelope.into_message()));
        }
        if contents.queue.len() + self.taken.load(Ordering::Relaxed) >= most {
            drop(contents);
            (self.refused)();
            return Err(MessageError::Full(envelope.into_message()));
        }
        contents.queue.push_back(envelope);
        drop(contents);
        self.notifier.notify();
        Ok(())
    }

    /// Moves all messages into `into`, which must be empty. The two queues swap, so both keep their
    /// memory. A broadcast that was taken before may still be undelivered. It continues to count.
    pub(crate) fn take(&self, into: &mut VecDeque<Envelope<M>>) {
        debug_assert!(into.is_empty());
        let mut contents = self.contents();
        std::mem::swap(&mut contents.queue, into);
        self.taken.store(self.taken.load(Ordering::Relaxed) + into.len(), Ordering::Relaxed);
    }

    /// Frees the memory for more than `most` messages.
    pub(crate) fn shrink(&self, most: usize) {
        self.contents().queue.shrink_to(most);
    }

    /// One message that was taken has been delivered or dropped.
    pub(crate) fn delivered(&self) {
        self.taken.store(self.taken.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// Refuses all messages from now on. Returns the undelivered messages, so that the caller drops
    /// them without the lock.
    pub(crate) fn close(&self) -> VecDeque<Envelope<M>> {
        let mut contents = self.contents();
        contents.closed = true;
        std::mem::take(&mut contents.queue)
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// No code of the user runs under this lock, so a panic of the user cannot poison it.
    fn contents(&self) -> MutexGuard<'_, Contents<M>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// The address of one connection. Any thread sends messages to it. In Erlang's Condor it is a pid.
///
/// [`Context::address`](crate::Context::address) returns it. An address outlives its connection. A
/// message sent after the end of the connection is refused or dropped. It never reaches the next
/// connection in the same slot.
///
/// # Examples
///
/// A function for `handle_packet`. It gives the work to another thread, and the result comes back
/// as a message:
///
/// ```
/// use std::thread;
///
/// use condor::{Action, Context};
///
/// fn work(packet: &[u8], ctx: &mut Context<'_, String>) -> Action<'static> {
///     let (address, request) = (ctx.address(), packet.to_vec());
///     thread::spawn(move || {
///         let result = format!("{} bytes", request.len());
///         // An error means that the result is not needed any more, or that the mailbox is full.
///         // If it must not be lost, or if answers must keep their order, use `Replies`.
///         let _ = address.send(result);
///     });
///     Action::Continue
/// }
/// # struct Works;
/// # impl condor::Handler for Works {
/// #     type Message = String;
/// #     fn handle_packet<'a>(
/// #         &'a mut self,
/// #         packet: &'a [u8],
/// #         ctx: &mut Context<'_, String>,
/// #     ) -> Action<'a> {
/// #         work(packet, ctx)
/// #     }
/// #     fn handle_info<'a>(
/// #         &'a mut self,
/// #         info: condor::Info<'a, String>,
/// #         _: &mut Context<'_, String>,
/// #     ) -> Action<'a> {
/// #         match info {
/// #             condor::Info::Message(result) => Action::send(result),
/// #             other => other.default_action(),
/// #         }
/// #     }
/// # }
/// # let harness = condor::testing::Harness::of(Works);
/// # harness.packet(b"hello");
/// # let mut packets = harness.packets();
/// # while packets.is_empty() {
/// #     thread::yield_now();
/// #     harness.run();
/// #     packets = harness.packets();
/// # }
/// # assert_eq!(packets, [b"5 bytes"]);
/// ```
pub struct Address<M> {
    pub(crate) mailbox: Arc<Mailbox<M>>,
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

impl<M> Address<M> {
    /// Sends `message` to the connection. Its handler gets it as
    /// [`Info::Message`](crate::Info::Message).
    ///
    /// `Ok` means that the message is in the mailbox. If the connection ends before the delivery,
    /// the message is dropped and counted in
    /// [`Stats::dropped_messages`](crate::Stats::dropped_messages). Messages from one thread to one
    /// connection arrive in order.
    ///
    /// # Errors
    ///
    /// Each error gives the message back.
    ///
    /// - [`MessageError::Full`]: the listener's mailbox holds
    ///   [`mailbox_capacity`](crate::ListenerOptions::mailbox_capacity) messages.
    /// - [`MessageError::Gone`]: the listener or the reactor has ended.
    pub fn send(&self, message: M) -> Result<(), MessageError<M>> {
        self.mailbox.post(self.envelope(message))
    }

    /// Sends `message` even if the mailbox is full. Drops it if the listener has ended. The caller
    /// bounds how many such messages there are.
    pub(crate) fn send_anyway(&self, message: M) {
        drop(self.mailbox.post_below(usize::MAX, self.envelope(message)));
    }

    fn envelope(&self, message: M) -> Envelope<M> {
        Envelope::To { key: self.key, generation: self.generation, message }
    }

    /// The connection's id.
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

    fn notifier() -> (Notifier, Arc<AtomicU32>) {
        let wakes = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&wakes);
        let wake = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        (Notifier::new(wake), wakes)
    }

    /// Goal: a command that comes before the first turn wakes the reactor. Method: notify a new
    /// notifier, before any other call.
    #[test]
    fn a_reactor_that_has_not_begun_can_be_woken() {
        let (notifier, wakes) = notifier();
        notifier.notify();
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        assert!(!notifier.prepare_to_sleep(), "and it does not go to sleep over it");
    }

    /// Goal: all notifications until the next `take` cause one wake-up, and none while the reactor
    /// is awake.
    #[test]
    fn rings_are_coalesced() {
        let (notifier, wakes) = notifier();
        notifier.woke_up();
        (0..1_000).for_each(|_| notifier.notify());
        assert_eq!(wakes.load(Ordering::SeqCst), 0);
        assert!(notifier.take() && !notifier.take());
        assert!(notifier.prepare_to_sleep());
        (0..1_000).for_each(|_| notifier.notify());
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
    }
}
