//! State that most connections never need, out of line. Each part has a box of its own, so that a
//! connection pays only for the parts it uses.

use std::time::Duration;

use crate::framing::Framing;
use crate::reason::CloseReason;
use crate::timers;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Cold {
    pub(super) framing: Option<Box<Framing>>,
    pub(super) timeouts: Option<Box<Timeouts>>,
    /// The close reason, if it is [`Ending::Other`](crate::life::Ending::Other).
    pub(super) reason: Option<Box<CloseReason>>,
    /// Head of the list of this connection's timers.
    pub(super) first_timer: u32,
}

impl Default for Cold {
    fn default() -> Self {
        Self { framing: None, timeouts: None, reason: None, first_timer: timers::NONE }
    }
}

/// Timeouts that differ from the listener's.
#[derive(Debug, Default)]
pub(super) struct Timeouts {
    pub(super) packet: Option<Duration>,
    pub(super) idle: Option<Option<Duration>>,
}
