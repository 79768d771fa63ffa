//! A listener in its slot of the reactor, and what the reactor knows of it beside.

use std::time::Duration;

use crate::drain::DrainPart;
use crate::loop_state::LoopState;
use crate::phases::AnyListener;
use crate::time_budget::Phase;

/// A listener in its slot, and the parts of drains that wait for it.
pub(super) struct ListenerSlot {
    pub(super) listener: Box<dyn AnyListener>,
    pub(super) parts: Vec<DrainPart>,
    /// How long this listener took in this turn. Zero if it is the only one.
    pub(super) took: Duration,
}

impl ListenerSlot {
    pub(super) fn new(listener: Box<dyn AnyListener>) -> Self {
        Self { listener, parts: Vec::new(), took: Duration::ZERO }
    }

    /// Whether the time of this phase is measured for it: it has work, and it is not the only listener.
    #[inline]
    pub(super) fn is_timed(&self, state: &LoopState, phase: Phase) -> bool {
        state.per_listener_timing && self.listener.has_work(phase)
    }
}
