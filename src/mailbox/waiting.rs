//! The connections that wait for room in a mailbox.
//!
//! They are told one after the other, in the order of asking. The one that was told holds the
//! [`Baton`] of the mailbox. Its drop, after the callback, tells the next one, if the mailbox still
//! has room. So a connection that fills the mailbox at once comes after those that asked before.

use std::fmt;
use std::sync::atomic::Ordering;

use super::{Address, Envelope, Mailbox, Parcel};
use crate::sync::Arc;

/// A mailbox, whatever its messages are.
trait AnyMailbox: Send + Sync {
    /// Keeps the waiter until this mailbox has room. Returns it if the mailbox has room now, or if it
    /// is closed.
    fn keep(&self, waiter: Waiter, has_baton: bool) -> Option<Waiter>;

    /// Puts [`Parcel::Ready`] for a connection of this mailbox into it. Returns the baton if the
    /// mailbox is closed.
    fn tell(&self, key: u32, generation: u32, baton: Baton) -> Option<Baton>;

    /// The one that was told has had its turn: tells the next one.
    fn tell_next(&self);
}

/// Where a connection wants to send: [`Context::notify_when_ready`](crate::Context::notify_when_ready)
/// takes it. An `&Address`, a `&Group` and a `&ListenerHandle` turn into one.
#[derive(Clone)]
pub struct Recipients(Arc<[Arc<dyn AnyMailbox>]>);

impl Recipients {
    pub(crate) fn of<M: Send + 'static>(mailboxes: &[Arc<Mailbox<M>>]) -> Self {
        Self(mailboxes.iter().map(|mailbox| Arc::clone(mailbox) as Arc<dyn AnyMailbox>).collect())
    }
}

impl<M: Send + 'static> From<&Address<M>> for Recipients {
    fn from(address: &Address<M>) -> Self {
        Self::of(std::slice::from_ref(&address.mailbox))
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipients({})", self.0.len())
    }
}

/// The right to be told of the room in a mailbox. The drop passes it on.
pub(crate) struct Baton(Option<Arc<dyn AnyMailbox>>);

impl Baton {
    /// The baton of no mailbox.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    fn is_of(&self, mailbox: &Arc<dyn AnyMailbox>) -> bool {
        self.0.as_ref().is_some_and(|own| Arc::ptr_eq(own, mailbox))
    }
}

impl Drop for Baton {
    fn drop(&mut self) {
        if let Some(mailbox) = self.0.take() {
            mailbox.tell_next();
        }
    }
}

/// A connection that waits until each of some mailboxes has room.
pub(crate) struct Waiter {
    own: Arc<dyn AnyMailbox>,
    key: u32,
    generation: u32,
    awaited: Recipients,
    /// The one of the mailboxes that keeps it.
    at: usize,
}

impl Waiter {
    /// The connection waits for `awaited`. Its own messages come by `own`.
    pub(crate) fn new<M: Send + 'static>(own: &Address<M>, awaited: Recipients) -> Self {
        let Address { mailbox, key, generation } = own.clone();
        Self { own: mailbox, key, generation, awaited, at: 0 }
    }

    /// Waits at the first of the mailboxes that has no room. If each has room, the connection is
    /// told. Returns the baton if the connection does not take it.
    pub(crate) fn wait(mut self, baton: Baton) -> Option<Baton> {
        let Recipients(awaited) = self.awaited.clone();
        for (at, mailbox) in awaited.iter().enumerate() {
            self.at = at;
            match mailbox.keep(self, baton.is_of(mailbox)) {
                Some(waiter) => self = waiter,
                None => return Some(baton),
            }
        }
        self.own.tell(self.key, self.generation, baton)
    }
}

impl<M> Mailbox<M> {
    fn is_crowded(&self, held: usize) -> bool {
        held > self.capacity / 2
    }

    /// Tells the first of those that wait, if the mailbox is at most half full. The reactor calls it
    /// after a delivery.
    #[inline]
    pub(crate) fn tell_waiting(&self) {
        if self.awaited.load(Ordering::Relaxed) {
            self.tell_first(false);
        }
    }

    /// Tells the first of those that wait. `had_turn`: the one that was told before has had its turn.
    #[inline(never)]
    fn tell_first(&self, had_turn: bool) {
        let mut had_turn = had_turn;
        loop {
            let mut contents = self.contents();
            contents.told &= !had_turn;
            if contents.told || self.is_crowded(self.held(&contents)) && !contents.closed {
                return;
            }
            let Some(waiter) = contents.waiting.pop_front() else { return };
            if contents.waiting.is_empty() {
                self.awaited.store(false, Ordering::Relaxed);
            }
            contents.told = true;
            drop(contents);
            let baton = Baton(waiter.awaited.0.get(waiter.at).map(Arc::clone));
            // A baton that comes back must not tell the next one from its drop: that would nest as
            // deep as there are waiters.
            let Some(mut back) = waiter.wait(baton) else { return };
            back.0 = None;
            had_turn = true;
        }
    }
}

impl<M: Send + 'static> AnyMailbox for Mailbox<M> {
    fn keep(&self, waiter: Waiter, has_baton: bool) -> Option<Waiter> {
        let mut contents = self.contents();
        let is_crowded = self.is_crowded(self.held(&contents));
        let comes_later = !has_baton && (contents.told || !contents.waiting.is_empty());
        if contents.closed || !is_crowded && !comes_later {
            return Some(waiter);
        }
        if has_baton {
            contents.waiting.push_front(waiter);
        } else {
            contents.waiting.push_back(waiter);
        }
        self.awaited.store(true, Ordering::Relaxed);
        drop(contents);
        // The reactor looks for waiters after each delivery. It may just have made the last one.
        self.notifier.notify();
        None
    }

    fn tell(&self, key: u32, generation: u32, baton: Baton) -> Option<Baton> {
        let mut contents = self.contents();
        if contents.closed {
            return Some(baton);
        }
        let ready = Parcel::Ready { key, generation, baton };
        contents.queue.push_back(Envelope::Other(Box::new(ready)));
        drop(contents);
        self.notifier.notify();
        None
    }

    fn tell_next(&self) {
        self.tell_first(true);
    }
}
