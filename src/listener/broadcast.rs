//! Broadcasts that are being delivered to each connection of a listener.

use crate::guard::guarded;

pub(super) type Copier<M> = fn(&M) -> M;

/// Consecutive broadcasts that go through the slab together.
#[derive(Debug)]
pub(super) struct Broadcast<M> {
    /// The messages in order, each with the function that copies it.
    pub(super) said: Vec<(M, Copier<M>)>,
    pub(super) next_key: u32,
}

impl<M> Broadcast<M> {
    /// Drops the messages and calls `each` after each of them. Each drop is guarded by itself,
    /// because it runs the user's code.
    pub(super) fn forget(self, mut each: impl FnMut()) {
        for (message, _) in self.said {
            guarded(|| drop(message));
            each();
        }
    }
}
