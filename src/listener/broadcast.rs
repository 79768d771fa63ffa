//! Broadcasts on their way to each connection of a listener.

use crate::guard::guarded;

pub(super) type Copier<M> = fn(&M) -> M;

/// Broadcasts on their way through the slab.
#[derive(Debug)]
pub(super) struct Broadcast<M> {
    /// What is said, in order, and how to copy it.
    pub(super) said: Vec<(M, Copier<M>)>,
    pub(super) next_key: u32,
}

impl<M> Broadcast<M> {
    /// One by one: the drop of each is code of the user.
    pub(super) fn forget(self, mut each: impl FnMut()) {
        for (message, _) in self.said {
            guarded(|| drop(message));
            each();
        }
    }
}
