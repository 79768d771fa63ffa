//! Messages from any thread: the mailbox, and the notifier that wakes the reactor. `room` and
//! `waiting` have the connections that wait for room in a mailbox.
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
//! The reactor's own thread never wakes it: it runs code of the user, so the reactor is not asleep.
//! It only sets `notified`, and the reactor looks at that before it sleeps. A sender that then finds
//! `notified` set is done as well, for the same reason.
//!
//! Only [`Notifier::take`] clears `notified`. It does so before the messages are taken, so a sender
//! that comes later notifies again.
//!
//! No lock is held while code of the user runs. Messages are first taken out of the mailbox. Then
//! they are delivered, cloned or dropped.

mod caller;
mod room;
mod waiting;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{OnceLock, PoisonError};

use bytes::Bytes;

pub(crate) use self::caller::Caller;
pub(crate) use self::waiting::Baton;
pub use self::waiting::Recipients;
use self::waiting::Waiter;
use crate::error::DialFailure;
use crate::groups::GroupId;
use crate::reason::MessageError;
use crate::sync::{
    Arc, AtomicBool, AtomicUsize, Mutex, MutexGuard, ThreadId, current_thread as this_thread,
};

/// Wakes one reactor. It wakes it at most once until the reactor calls [`take`](Self::take).
pub(crate) struct Notifier {
    notified: AtomicBool,
    asleep: AtomicBool,
    /// The thread of the reactor, once the reactor is made.
    thread: OnceLock<ThreadId>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Notifier {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            notified: AtomicBool::new(false),
            asleep: AtomicBool::new(true),
            thread: OnceLock::new(),
            wake: Box::new(wake),
        }
    }

    /// The reactor is on the calling thread, for as long as it lives.
    pub(crate) fn bind_thread(&self) {
        self.thread.get_or_init(this_thread);
    }

    /// Tells the reactor that there is work. Call it after the work is visible to the reactor.
    pub(crate) fn notify(&self) {
        if self.notified.swap(true, Ordering::SeqCst) || self.is_own_thread() {
            return;
        }
        if self.asleep.swap(false, Ordering::SeqCst) {
            (self.wake)();
        }
    }

    /// Whether the caller is on the reactor's own thread.
    fn is_own_thread(&self) -> bool {
        self.thread.get().is_some_and(|thread| *thread == this_thread())
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
    /// An [`Address::wake`](crate::Address::wake) of one connection.
    Wake { key: u32, generation: u32 },
    /// An entry that is rarer or larger.
    Other(Box<Parcel<M>>),
}

/// An entry that is rarer or larger than a message.
pub(crate) enum Parcel<M> {
    /// A message for every member of a group at the time of delivery.
    Message { group: GroupId, message: M, clone: fn(&M) -> M },
    /// A packet for every member of a group at the time of delivery.
    Packet { group: GroupId, bytes: Bytes, slow: SlowMember },
    /// There is room where one connection wants to send.
    Ready { key: u32, generation: u32, baton: Baton },
    /// A dial that one connection has asked for has failed.
    DialFailed { key: u32, generation: u32, failure: DialFailure },
}

/// What happens to a member of a [`Group`](crate::Group) whose output is above the
/// [high-water mark](crate::ListenerOptions::write_high_water), or has no room, when
/// [`send_packet`](crate::Group::send_packet) has a packet for it.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SlowMember {
    /// The connection ends with [`CloseReason::SlowReader`](crate::CloseReason::SlowReader). What is
    /// queued for it is dropped.
    #[default]
    Disconnect,
    /// The member does not get this packet. [`Stats::skipped_packets`](crate::Stats::skipped_packets)
    /// counts it.
    Skip,
}

impl<M> Envelope<M> {
    /// The message of an entry for one connection that was refused.
    pub(crate) fn give_back(refused: MessageError<Self>) -> MessageError<M> {
        refused.map(|envelope| match envelope {
            Self::To { message, .. } => message,
            Self::Wake { .. } | Self::Other(_) => unreachable!("it is posted by other functions"),
        })
    }

    /// Whether it is a message or a packet of the user.
    pub(crate) fn is_message(&self) -> bool {
        match self {
            Self::To { .. } => true,
            Self::Wake { .. } => false,
            Self::Other(parcel) => parcel.group().is_some(),
        }
    }
}

impl<M> Parcel<M> {
    /// The group that it is for.
    pub(crate) fn group(&self) -> Option<GroupId> {
        match self {
            Self::Message { group, .. } | Self::Packet { group, .. } => Some(*group),
            Self::Ready { .. } | Self::DialFailed { .. } => None,
        }
    }

    /// The same for another shard.
    fn duplicate(&self) -> Option<Self> {
        match self {
            Self::Message { group, message, clone } => {
                Some(Self::Message { group: *group, message: clone(message), clone: *clone })
            }
            Self::Packet { group, bytes, slow } => {
                Some(Self::Packet { group: *group, bytes: bytes.clone(), slow: *slow })
            }
            Self::Ready { .. } | Self::DialFailed { .. } => None,
        }
    }
}

impl<M> fmt::Debug for Envelope<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To { key, generation, .. } => write!(f, "To({key}.{generation})"),
            Self::Wake { key, generation } => write!(f, "Wake({key}.{generation})"),
            Self::Other(parcel) => parcel.fmt(f),
        }
    }
}

impl<M> fmt::Debug for Parcel<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message { group, .. } => write!(f, "Message({})", group.0),
            Self::Packet { group, bytes, .. } => write!(f, "Packet({}, {})", group.0, bytes.len()),
            Self::Ready { key, generation, .. } => write!(f, "Ready({key}.{generation})"),
            Self::DialFailed { key, generation, .. } => {
                write!(f, "DialFailed({key}.{generation})")
            }
        }
    }
}

struct Contents<M> {
    queue: VecDeque<Envelope<M>>,
    /// The connections, by key and generation, that have an [`Envelope::Wake`] here or in the hands
    /// of the reactor.
    woken: HashSet<(u32, u32)>,
    /// The connections that wait for room, in the order of asking.
    waiting: VecDeque<Waiter>,
    /// A connection was told of the room, and has not had its turn yet. The next one waits for that.
    told: bool,
    closed: bool,
}

/// The messages to one listener's connections.
pub(crate) struct Mailbox<M> {
    contents: Mutex<Contents<M>>,
    /// Messages that the reactor has taken out and not delivered yet. They count against
    /// `capacity`, too. Only the reactor changes this.
    taken: AtomicUsize,
    /// Whether connections wait for room. It changes under the lock.
    awaited: AtomicBool,
    capacity: usize,
    serial: u64,
    notifier: Arc<Notifier>,
    refused: Box<dyn Fn() + Send + Sync>,
}

impl<M> Mailbox<M> {
    /// The most bytes of memory for the entries of a mailbox of this capacity: the queue that fills
    /// and the queue that is read, each of which doubles as it grows, and what entries point to.
    pub(crate) const fn most_memory(capacity: usize) -> usize {
        let entries = match capacity.checked_next_power_of_two() {
            Some(entries) => entries,
            None => usize::MAX,
        };
        let each = 2 * size_of::<Envelope<M>>() + size_of::<Parcel<M>>();
        entries.saturating_mul(each)
    }

    /// `refused` is called for every message that is refused because the mailbox is full.
    pub(crate) fn new(
        serial: u64,
        capacity: usize,
        notifier: Arc<Notifier>,
        refused: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            contents: Mutex::new(Contents {
                queue: VecDeque::new(),
                woken: HashSet::new(),
                waiting: VecDeque::new(),
                told: false,
                closed: false,
            }),
            taken: AtomicUsize::new(0),
            awaited: AtomicBool::new(false),
            capacity,
            serial,
            notifier,
            refused: Box::new(refused),
        }
    }

    pub(crate) fn post(&self, envelope: Envelope<M>) -> Result<(), MessageError<Envelope<M>>> {
        self.post_below(self.capacity, envelope)
    }

    /// Posts `envelope` if the mailbox holds fewer than `most` messages.
    pub(crate) fn post_below(
        &self,
        most: usize,
        envelope: Envelope<M>,
    ) -> Result<(), MessageError<Envelope<M>>> {
        let mut contents = self.contents();
        if contents.closed {
            return Err(MessageError::Gone(envelope));
        }
        if self.held(&contents) >= most {
            drop(contents);
            (self.refused)();
            return Err(MessageError::Full(envelope));
        }
        contents.queue.push_back(envelope);
        drop(contents);
        self.notifier.notify();
        Ok(())
    }

    /// Posts a parcel of a group to each of these mailboxes that is open, or to none of them: none
    /// gets it if one is full. It is `Gone` if all are closed. The mailboxes are always in the same
    /// order, so two callers that hold several locks do not wait for each other.
    pub(crate) fn post_to_all(
        mailboxes: &[Arc<Self>],
        parcel: Parcel<M>,
    ) -> Result<(), MessageError<Parcel<M>>> {
        // A clone is code of the user, and so is a drop. Neither runs under a lock.
        let copies = mailboxes.iter().skip(1).filter_map(|_| parcel.duplicate());
        let mut copies: Vec<Box<Parcel<M>>> = copies.map(Box::new).collect();
        let mut locked: Vec<_> = mailboxes.iter().map(|mailbox| mailbox.contents()).collect();
        let full = mailboxes.iter().zip(&locked).find(|(mailbox, contents)| {
            !contents.closed && mailbox.held(contents) >= mailbox.capacity
        });
        if let Some((mailbox, _)) = full {
            drop(locked);
            (mailbox.refused)();
            return Err(MessageError::Full(parcel));
        }
        let mut open = mailboxes.iter().zip(&mut locked).filter(|(_, held)| !held.closed);
        let Some((first, contents)) = open.next() else {
            drop(locked);
            return Err(MessageError::Gone(parcel));
        };
        contents.queue.push_back(Envelope::Other(Box::new(parcel)));
        let mut reached = vec![first];
        for (mailbox, contents) in open {
            if let Some(copy) = copies.pop() {
                contents.queue.push_back(Envelope::Other(copy));
                reached.push(mailbox);
            }
        }
        drop(locked);
        reached.iter().for_each(|mailbox| mailbox.notifier.notify());
        Ok(())
    }

    /// Posts an [`Envelope::Wake`], unless one is on its way already. Returns whether the mailbox is
    /// open.
    pub(crate) fn wake(&self, key: u32, generation: u32) -> bool {
        let mut contents = self.contents();
        if contents.closed {
            return false;
        }
        if contents.woken.insert((key, generation)) {
            contents.queue.push_back(Envelope::Wake { key, generation });
            drop(contents);
            self.notifier.notify();
        }
        true
    }

    /// The reactor is about to deliver an [`Envelope::Wake`]. A later [`wake`](Self::wake) posts
    /// another one.
    pub(crate) fn begin_wake(&self, key: u32, generation: u32) {
        let mut contents = self.contents();
        contents.woken.remove(&(key, generation));
        if contents.woken.is_empty() {
            contents.woken.shrink_to(64);
        }
    }

    /// The messages that count against the capacity.
    fn held(&self, contents: &Contents<M>) -> usize {
        contents.queue.len() + self.taken.load(Ordering::Relaxed)
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

    /// Refuses all messages from now on, and tells the connections that wait for room. Returns the
    /// undelivered messages, so that the caller drops them without the lock.
    pub(crate) fn close(&self) -> VecDeque<Envelope<M>> {
        let mut contents = self.contents();
        contents.closed = true;
        contents.woken = HashSet::new();
        let waiting = std::mem::take(&mut contents.waiting);
        let queue = std::mem::take(&mut contents.queue);
        drop(contents);
        for waiter in waiting {
            drop(waiter.wait(Baton::none()));
        }
        queue
    }

    /// Whether it refuses all messages.
    pub(crate) fn is_closed(&self) -> bool {
        self.contents().closed
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// No code of the user runs under this lock, so a panic of the user cannot poison it.
    fn contents(&self) -> MutexGuard<'_, Contents<M>> {
        #[cfg(test)]
        LOCKS.set(LOCKS.get() + 1);
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("serial", &self.serial).finish_non_exhaustive()
    }
}

#[cfg(test)]
thread_local! {
    static LOCKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many locks of mailboxes this thread has taken.
#[cfg(test)]
pub(crate) fn locks() -> usize {
    LOCKS.get()
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

    /// Goal: a notification from the reactor's own thread makes no system call, also between two
    /// turns, and the reactor sees it. One from another thread that follows need not wake it either:
    /// the reactor's thread is not asleep. Method: the wake-ups of a notifier that rests.
    #[test]
    fn the_reactors_own_thread_does_not_wake_it() {
        let (notifier, wakes) = notifier();
        notifier.bind_thread();
        assert!(notifier.prepare_to_sleep());
        notifier.notify();
        std::thread::scope(|scope| {
            scope.spawn(|| notifier.notify());
        });
        assert_eq!(wakes.load(Ordering::SeqCst), 0);
        assert!(notifier.is_notified(), "the reactor looks at it before it sleeps");
        assert!(notifier.take());
        std::thread::scope(|scope| {
            scope.spawn(|| notifier.notify());
        });
        assert_eq!(wakes.load(Ordering::SeqCst), 1, "it may sleep again");
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
