//! Says which part of a slow turn took the time.

use std::time::Duration;

use super::Reactor;
use crate::logging::{Cause, SLOW_TURN_CURE, say};

impl Reactor {
    /// Logs a turn that took longer than `slow_turn`.
    #[cold]
    pub(super) fn say_slow(&mut self, took: Duration) {
        if !self.gate.opens(Cause::SlowTurn, self.state.latest()) {
            return;
        }
        let slow = self.state.options.slow_turn;
        if self.timers.took_in(self.state.began()) > took / 2 {
            say!(
                Warn,
                "reactor: a turn took {took:?}, most of it in calls of `every`: slow_turn is \
                 {slow:?}; {SLOW_TURN_CURE}"
            );
            return;
        }
        let slowest = self.listeners.iter().max_by_key(|(_, entry)| entry.took);
        match slowest.map(|(_, entry)| entry.listener.label()) {
            Some(label) => say!(
                Warn,
                "{label}: a turn took {took:?}, most of it here: slow_turn is \
                 {slow:?}; {SLOW_TURN_CURE}"
            ),
            None => {
                say!(Warn, "reactor: a turn took {took:?}: slow_turn is {slow:?}; {SLOW_TURN_CURE}")
            }
        }
    }
}
