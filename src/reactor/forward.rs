//! The phase in which the two ends of pairs reach each other.

use super::Reactor;
use crate::token::{self, Target};

/// A step may leave another one for the partner: that its output is full, or its end. Those are carried
/// out in the same turn, so many times. A handler that pairs itself again and again waits for the next.
const ROUNDS: usize = 4;

impl Reactor {
    /// Carries out what connections have left for their partners: packets that they forward, the end
    /// of their input, their own end. The output leaves at once, because all of it is there.
    pub(super) fn forward(&mut self) {
        for _ in 0..ROUNDS {
            if self.state.pairs.is_quiet() {
                return;
            }
            self.forward_round();
        }
    }

    #[inline(never)]
    fn forward_round(&mut self) {
        let steps = self.state.pairs.take_steps();
        for run in steps.runs() {
            if let Target::Peer { listener, key, generation } = token::target(run.to)
                && let Some(entry) = self.listeners.get_mut(listener.into())
            {
                entry.listener.carry_out(&mut self.state, key, generation, run);
            }
        }
        self.state.pairs.give_back(steps);
        self.invariants();
    }
}
