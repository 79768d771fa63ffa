//! What of a listener never changes while it runs, as its connections and their handlers see it.

use crate::connection::Limits;
use crate::directory::NameGuard;
use crate::framing::{Framing, Shape};
use crate::guard::guarded;
use crate::handle::Handle;
use crate::identity::{ConnectionId, Identity};
use crate::mailbox::Mailbox;
use crate::options::ListenerOptions;
use crate::stats::Counters;
use crate::sync::Arc;

/// What of a listener never changes while it runs.
#[derive(Debug)]
pub(crate) struct ListenerShared<M> {
    pub(crate) name: Arc<str>,
    /// Which shard this part of the listener lives on.
    pub(crate) shard: usize,
    pub(crate) slot: u16,
    pub(crate) serial: u32,
    pub(crate) options: ListenerOptions,
    pub(crate) framing: Framing,
    /// Of that framing, found out once.
    pub(crate) shape: Shape,
    pub(crate) limits: Limits,
    pub(crate) mailbox: Arc<Mailbox<M>>,
    pub(crate) counters: Arc<Counters>,
    /// The handle of the reactor, for callbacks.
    pub(crate) handle: Handle,
    #[expect(dead_code, reason = "it is only there to be dropped")]
    pub(crate) name_guard: NameGuard,
}

impl<M> ListenerShared<M> {
    /// The name of the connection that sits there.
    pub(crate) fn id_of(&self, identity: &Identity) -> ConnectionId {
        ConnectionId { serial: self.serial, key: identity.key, generation: identity.generation }
    }

    pub(crate) fn limits(options: &ListenerOptions) -> Limits {
        Limits {
            packet_timeout: options.packet_timeout,
            idle_timeout: options.idle_timeout,
            write_stall_timeout: options.write_stall_timeout,
            write_high_water: options.write_high_water,
            write_low_water: options.write_low_water,
        }
    }
}

impl<M> Drop for ListenerShared<M> {
    /// Whoever sends to a listener that ends before a reactor has adopted it is told so.
    fn drop(&mut self) {
        guarded(|| drop(self.mailbox.close()));
    }
}
