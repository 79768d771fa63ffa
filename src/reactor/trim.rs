//! Gives memory back after a burst.

use super::Reactor;
use crate::loop_state::Timer;

impl Reactor {
    /// Gives the memory of earlier bursts back to the system.
    pub(super) fn trim(&mut self) {
        self.state.begin_trim();
        let (listeners, timers) = (&mut self.listeners, &mut self.timers);
        let spare = listeners.iter_mut().map(|(_, slot)| slot.listener.trim(&mut self.state)).sum();
        self.state.trim(spare, |timer, entry| match timer {
            Timer::Peer { listener, .. }
            | Timer::User { listener, .. }
            | Timer::Accept { listener }
            | Timer::Opening { listener }
            | Timer::Dial { listener, .. }
            | Timer::Drain { listener } => {
                if let Some(slot) = listeners.get_mut(listener.into()) {
                    slot.listener.timer_moved(timer, entry);
                }
            }
            Timer::Every { index } => timers.moved(index, entry),
            // Their keys are not kept.
            Timer::ShutdownDelay | Timer::Trim => {}
        });
    }
}
