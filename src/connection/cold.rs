//! State that most connections never need, out of line. Each part has a box of its own, so that a
//! connection pays only for the parts it uses.

use std::time::Duration;

use crate::framing::Framing;
use crate::groups::Memberships;
use crate::reason::CloseReason;
use crate::timers::List;
use crate::wheel::Tick;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Cold {
    pub(super) framing: Option<Box<Framing>>,
    pub(super) timeouts: Option<Box<Timeouts>>,
    /// The close reason, if it is [`Ending::Other`](crate::life::Ending::Other).
    pub(super) reason: Option<Box<CloseReason>>,
    /// If a silence timeout is in force: the tick of the peer's last byte, or of the moment when the
    /// timeout was set.
    pub(super) heard: Tick,
    /// The deadline of the packet that is expected; the ticks left if its clock is stopped.
    pub(super) expected: u64,
    /// It was made to expect the first packet. Most connections never need it again.
    pub(super) for_first_packet: bool,
    /// The timers of the connection's handler.
    pub(super) timers: List,
    /// The groups that the connection is in.
    pub(super) groups: Option<Box<Memberships>>,
    /// The timer of its calls.
    pub(super) calls: Option<Box<CallsTimer>>,
}

impl Cold {
    /// Whether it has nothing but an expectation and the time of the last byte.
    pub(super) fn has_only_clocks(&self) -> bool {
        self.framing.is_none()
            && self.timeouts.is_none()
            && self.reason.is_none()
            && self.timers.is_empty()
            && self.groups.is_none()
            && self.calls.is_none()
    }
}

/// Timeouts that differ from the listener's.
#[derive(Debug, Default)]
pub(super) struct Timeouts {
    pub(super) packet: Option<Duration>,
    pub(super) idle: Option<Option<Duration>>,
    pub(super) silence: Option<Option<Duration>>,
}

/// The earliest deadline of a connection's calls to its peer.
#[derive(Debug)]
pub(super) struct CallsTimer {
    /// The list of calls that has set it: not zero. Zero if several lists have.
    pub(super) owner: u64,
    pub(super) at: Tick,
    /// When it was first found to be due, while bytes were not read yet.
    pub(super) due_since: Option<Tick>,
}

impl CallsTimer {
    pub(super) const OFF: Self = Self { owner: 0, at: Tick::NEVER, due_since: None };

    pub(super) fn set(&mut self, owner: u64, at: Tick) {
        if at != self.at {
            self.due_since = None;
        }
        (self.owner, self.at) = (owner, at);
    }
}
