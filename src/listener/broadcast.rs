//! Broadcasts that are being delivered to each connection of a listener.

pub(super) type Copier<M> = fn(&M) -> M;

/// Consecutive broadcasts that go through the slab together.
#[derive(Debug)]
pub(super) struct Broadcast<M> {
    /// The messages in order, each with the function that copies it.
    pub(super) said: Vec<(M, Copier<M>)>,
    pub(super) next_key: u32,
}
