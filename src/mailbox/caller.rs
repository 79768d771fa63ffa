//! A connection that has asked for something, and is told if that fails.

use std::fmt;

use super::Mailbox;
use super::waiting::AnyMailbox;
use crate::error::DialError;
use crate::identity::ConnectionId;
use crate::sync::Arc;

/// A dial that has failed: [`Info::DialFailed`](crate::Info::DialFailed).
#[derive(Debug)]
pub(crate) struct DialFailure {
    pub(crate) id: ConnectionId,
    /// The places that were dialled.
    pub(crate) target: String,
    pub(crate) error: DialError,
}

/// See the module's documentation.
pub(crate) struct Caller {
    mailbox: Arc<dyn AnyMailbox>,
    key: u32,
    generation: u32,
}

impl Caller {
    /// Tells the caller, if it still exists.
    pub(crate) fn dial_failed(&self, failure: DialFailure) {
        self.mailbox.dial_failed(self.key, self.generation, failure);
    }
}

impl<M: Send + 'static> Mailbox<M> {
    /// The owner of a slot, as a caller.
    pub(crate) fn caller(self: &Arc<Self>, key: u32, generation: u32) -> Caller {
        Caller { mailbox: Arc::clone(self) as Arc<dyn AnyMailbox>, key, generation }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({}.{})", self.key, self.generation)
    }
}
