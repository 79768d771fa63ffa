//! When a mailbox has room, and whom it tells. It also tells callers of their dials.

use std::sync::atomic::Ordering;

use super::waiting::{AnyMailbox, Baton, Recipients, Waiter};
use super::{Caller, Envelope, Mailbox, Parcel};
use crate::error::DialFailure;
use crate::sync::Arc;

impl Recipients {
    pub(crate) fn of<M: Send + 'static>(mailboxes: &[Arc<Mailbox<M>>]) -> Self {
        Self(mailboxes.iter().map(|mailbox| Arc::clone(mailbox) as Arc<dyn AnyMailbox>).collect())
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

impl<M: Send + 'static> Mailbox<M> {
    /// The owner of a slot, as a caller.
    pub(crate) fn caller(self: &Arc<Self>, key: u32, generation: u32) -> Caller {
        Caller { mailbox: Arc::clone(self) as Arc<dyn AnyMailbox>, key, generation }
    }

    /// A connection of this mailbox waits for `awaited`.
    pub(crate) fn wait_for(self: &Arc<Self>, key: u32, generation: u32, awaited: Recipients) {
        let own = Arc::clone(self) as Arc<dyn AnyMailbox>;
        drop(Waiter::new(own, key, generation, awaited).wait(Baton::none()));
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

    fn dial_failed(&self, key: u32, generation: u32, failure: DialFailure) {
        let mut contents = self.contents();
        if !contents.closed {
            let failed = Parcel::DialFailed { key, generation, failure };
            contents.queue.push_back(Envelope::Other(Box::new(failed)));
            drop(contents);
            self.notifier.notify();
        }
    }
}
