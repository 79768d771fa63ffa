//! What a peer borrows while it is worked on.

use crate::logging::LogGate;
use crate::loop_state::LoopState;
use crate::profile::Profile;
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
    pub(crate) profile: &'a Profile<M>,
    pub(crate) gate: &'a mut LogGate,
    pub(crate) discarded: &'a mut Discarded,
}

impl<M> PeerCx<'_, M> {
    /// Drops a value of the user's. A panic is counted, and logged.
    pub(crate) fn drop_value<T>(&mut self, what: &str, value: T) {
        self.profile.drop_value(what, value, self.gate, self.state.nanos());
    }

    /// Counts the panics of owners of shared bytes that the pool has dropped.
    #[inline]
    pub(crate) fn count_drop_panics(&mut self) {
        if let Some(panics) = self.state.pool.take_panics() {
            let now = self.state.nanos();
            self.profile.drops_panicked("shared bytes", &panics, self.gate, now);
        }
    }
}
