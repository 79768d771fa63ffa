//! What a connector's part tells of itself: its state, at the end of a turn that may have changed it.

use super::Connector;
use crate::connector_state::ConnectorState;
use crate::dialer::Dialer;
use crate::guard::caught;
use crate::handler::Handler;
use crate::logging::{Cause, PANIC_CURE, say};
use crate::loop_state::LoopState;

/// The memory for so many dials is kept when none is left.
const FEW: usize = 64;

impl<H: Handler, D: Dialer + 'static> Connector<H, D> {
    /// Has connections that have ended dialled again, and tells the state of this part.
    #[inline(never)]
    pub(super) fn end_turn(&mut self, state: &mut LoopState) {
        if self.peers.take_freed() > 0 {
            self.may_have_changed = true;
            self.look_for_ends(state);
        }
        if std::mem::take(&mut self.may_have_changed) {
            let now = self.part_state(state);
            self.tell(state, &now);
            if self.dials.is_empty() && self.dials.capacity() > FEW {
                self.trim_dials();
            }
        }
    }

    fn part_state(&self, state: &LoopState) -> ConnectorState {
        if self.peers.has_begun_to_drain() || self.peers.is_forced() {
            return ConnectorState::Draining;
        }
        let up = self.peers.slots.len();
        if up > 0 {
            return ConnectorState::Up(up);
        }
        let last_error = || self.last_error.clone();
        if self.dials.len() > self.waiting.len() {
            ConnectorState::Connecting
        } else if let Some((next, _)) = self.waiting.first() {
            ConnectorState::Waiting { until: state.instant_of(*next), last_error: last_error() }
        } else if self.given_up == 0 {
            ConnectorState::Idle
        } else {
            ConnectorState::GivenUp { last_error: last_error() }
        }
    }

    /// Tells a state, first to the handles and then to the closure. The closure is the user's, and runs
    /// under no lock.
    pub(super) fn tell(&mut self, state: &LoopState, now: &ConnectorState) {
        let profile = &self.peers.profile;
        if !self.states.set(profile.shard, now) {
            return;
        }
        if let Some(on_state) = &self.on_state
            && let Err(text) = caught(|| on_state(profile.shard, now))
        {
            profile.counters.panics.add(1);
            if self.peers.gate.opens(Cause::Panic, state.nanos()) {
                let label = &profile.label;
                say!(Error, "{label}: its `on_state` panicked: {text}; {PANIC_CURE}");
            }
        }
    }
}
