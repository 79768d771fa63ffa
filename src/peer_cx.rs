//! What a peer borrows while it is worked on.

use crate::listener_shared::ListenerShared;
use crate::logging::LogGate;
use crate::loop_state::LoopState;
use crate::timers::Timers;

/// Bytes that were dropped because an end was forced.
#[derive(Debug, Default)]
pub(crate) struct Discarded {
    pub(crate) input: usize,
    pub(crate) output: usize,
}

impl Discarded {
    pub(crate) fn add(&mut self, (input, output): (usize, usize)) {
        self.input += input;
        self.output += output;
    }
}

/// What a peer borrows while it is worked on.
#[derive(Debug)]
pub(crate) struct PeerCx<'a, M> {
    pub(crate) state: &'a mut LoopState,
    pub(crate) timers: &'a mut Timers<M>,
    pub(crate) profile: &'a ListenerShared<M>,
    pub(crate) gate: &'a mut LogGate,
    pub(crate) discarded: &'a mut Discarded,
}
