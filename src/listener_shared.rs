//! What stays the same while a listener runs, for its connections and their handlers.

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

/// What stays the same while a listener runs.
#[derive(Debug)]
pub(crate) struct ListenerShared<M> {
    pub(crate) name: Arc<str>,
    /// The shard of this part of the listener.
    pub(crate) shard: usize,
    pub(crate) slot: u16,
    pub(crate) serial: u32,
    pub(crate) options: ListenerOptions,
    pub(crate) framing: Framing,
    /// The shape of that framing, computed once.
    pub(crate) shape: Shape,
    pub(crate) limits: Limits,
    pub(crate) mailbox: Arc<Mailbox<M>>,
    pub(crate) counters: Arc<Counters>,
    /// The handle of the reactor, for callbacks.
    pub(crate) handle: Handle,
    #[expect(dead_code, reason = "it is held for its drop")]
    pub(crate) name_guard: NameGuard,
}

impl<M> ListenerShared<M> {
    /// The name of the connection with this identity.
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
    /// Closes the mailbox, so that sends fail even if no reactor has adopted the listener.
    fn drop(&mut self) {
        for envelope in self.mailbox.close() {
            guarded(|| drop(envelope));
        }
    }
}
