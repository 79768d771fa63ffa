//! A connection that has asked for something, and is told if that fails.

use std::fmt;

use super::waiting::AnyMailbox;
use crate::error::DialFailure;
use crate::sync::Arc;

/// See the module's documentation.
pub(crate) struct Caller {
    pub(super) mailbox: Arc<dyn AnyMailbox>,
    pub(super) key: u32,
    pub(super) generation: u32,
}

impl Caller {
    /// Tells the caller, if it still exists.
    pub(crate) fn dial_failed(&self, failure: DialFailure) {
        self.mailbox.dial_failed(self.key, self.generation, failure);
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({}.{})", self.key, self.generation)
    }
}
