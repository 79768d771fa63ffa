//! What stays the same while a listener or a connector runs, for its connections and their handlers.

use crate::address::Address;
use crate::clock::Nanos;
use crate::connection::Limits;
use crate::directory::NameGuard;
use crate::framing::{Framing, Shape};
use crate::guard::Panics;
use crate::handle::Handle;
use crate::identity::{ConnectionId, Identity};
use crate::logging::{Cause, LogGate, PANIC_CURE, say};
use crate::mailbox::Mailbox;
use crate::options::ConnectionOptions;
use crate::stats::Counters;
use crate::sync::Arc;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Profile<M> {
    pub(crate) name: Arc<str>,
    /// What lines of the log begin with: what it is, and its name.
    pub(crate) label: Arc<str>,
    /// The shard of this part.
    pub(crate) shard: usize,
    pub(crate) slot: u16,
    pub(crate) serial: u64,
    pub(crate) options: ConnectionOptions,
    pub(crate) framing: Framing,
    /// The shape of that framing, computed once.
    pub(crate) shape: Shape,
    pub(crate) limits: Limits,
    /// See [`ConnectionOptions::read_at_once`].
    pub(crate) read_at_once: usize,
    pub(crate) mailbox: Arc<Mailbox<M>>,
    /// The mailboxes of all parts, in the order of the shards.
    pub(crate) mailboxes: Arc<[Arc<Mailbox<M>>]>,
    pub(crate) counters: Arc<Counters>,
    /// The handle of the reactor, for callbacks.
    pub(crate) handle: Handle,
    pub(crate) name_guard: NameGuard,
}

impl<M> Profile<M> {
    /// The name of the connection with this identity.
    pub(crate) fn id_of(&self, identity: &Identity) -> ConnectionId {
        ConnectionId { serial: self.serial, key: identity.key, generation: identity.generation }
    }

    /// Where messages for the connection with this identity go.
    pub(crate) fn address_of(&self, identity: &Identity) -> Address<M> {
        Address {
            mailbox: Arc::clone(&self.mailbox),
            key: identity.key,
            generation: identity.generation,
        }
    }

    /// Drops a value of the user's. A panic is counted, and logged.
    pub(crate) fn drop_value<T>(&self, what: &str, value: T, gate: &mut LogGate, now: Nanos) {
        let mut panics = Panics::default();
        panics.drop(value);
        if panics.count > 0 {
            self.drops_panicked(what, &panics, gate, now);
        }
    }

    /// Counts panics in drops of the user's values, and logs a line.
    #[cold]
    pub(crate) fn drops_panicked(
        &self,
        what: &str,
        panics: &Panics,
        gate: &mut LogGate,
        now: Nanos,
    ) {
        self.counters.panics.add(panics.count);
        if gate.opens(Cause::DropPanic, now) {
            let (label, text) = (&self.label, &panics.text);
            say!(Error, "{label}: the drop of {what} panicked: {text}; {PANIC_CURE}");
        }
    }
}

impl<M> Drop for Profile<M> {
    /// Closes the mailbox, so that sends fail even if no reactor has adopted the listener. Messages
    /// and framers are dropped one by one: a second panic during the drop of one value would abort
    /// the process.
    fn drop(&mut self) {
        let mut panics = Panics::default();
        for envelope in self.mailbox.close() {
            self.counters.dropped_messages.add(envelope.is_message().into());
            panics.drop(envelope);
        }
        for framing in [std::mem::take(&mut self.framing), self.options.take_framing()] {
            framing.discard(&mut panics);
        }
        if panics.count > 0 {
            self.counters.panics.add(panics.count);
            let (label, Panics { count, text }) = (&self.label, panics);
            say!(Error, "{label}: {count} drops panicked at its end: {text}; {PANIC_CURE}");
        }
    }
}
