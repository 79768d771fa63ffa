//! The connections that wait for room in a mailbox.
//!
//! They are told one after the other, in the order of asking. The one that was told holds the
//! [`Baton`] of the mailbox. Its drop, after the callback, tells the next one, if the mailbox still
//! has room. So a connection that fills the mailbox at once comes after those that asked before.

use std::fmt;

use crate::error::DialFailure;
use crate::sync::Arc;

/// A mailbox, whatever its messages are.
pub(super) trait AnyMailbox: Send + Sync {
    /// Keeps the waiter until this mailbox has room. Returns it if the mailbox has room now, or if it
    /// is closed.
    fn keep(&self, waiter: Waiter, has_baton: bool) -> Option<Waiter>;

    /// Puts a [`Parcel::Ready`](super::Parcel::Ready) for a connection of this mailbox into it.
    /// Returns the baton if the mailbox is closed.
    fn tell(&self, key: u32, generation: u32, baton: Baton) -> Option<Baton>;

    /// The one that was told has had its turn: tells the next one.
    fn tell_next(&self);

    /// Puts a [`Parcel::DialFailed`](super::Parcel::DialFailed) for a connection of this mailbox into
    /// it, however full it is: the connector bounds how many there are.
    fn dial_failed(&self, key: u32, generation: u32, failure: DialFailure);
}

/// Where a connection wants to send: [`Context::notify_when_ready`](crate::Context::notify_when_ready)
/// takes it. An `&Address`, a `&Group` and a `&ListenerHandle` turn into one.
#[derive(Clone)]
pub struct Recipients(pub(super) Arc<[Arc<dyn AnyMailbox>]>);

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipients({})", self.0.len())
    }
}

/// The right to be told of the room in a mailbox. The drop passes it on.
pub(crate) struct Baton(pub(super) Option<Arc<dyn AnyMailbox>>);

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
    pub(super) awaited: Recipients,
    /// The one of the mailboxes that keeps it.
    pub(super) at: usize,
}

impl Waiter {
    /// The connection waits for `awaited`. Its own messages come by `own`.
    pub(super) fn new(
        own: Arc<dyn AnyMailbox>,
        key: u32,
        generation: u32,
        awaited: Recipients,
    ) -> Self {
        Self { own, key, generation, awaited, at: 0 }
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
