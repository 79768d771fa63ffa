//! Dials that handlers have asked for: they have a slot and an address before they are up.

use super::{Connector, Dial};
use crate::dial_requests::DialRequest;
use crate::dialer::Dialer;
use crate::error::{DialError, DialFailure};
use crate::handler::Handler;
use crate::identity::ConnectionId;
use crate::loop_state::LoopState;

impl<H: Handler, D: Dialer + 'static> Connector<H, D> {
    /// Lends keys for as many dials as there may be.
    pub(super) fn lend_keys(&mut self, state: &mut LoopState) {
        if self.peers.has_begun_to_drain() {
            return;
        }
        let in_use = self.peers.slots.len() + self.dials.len();
        let room = self.options.connection.max_connections.saturating_sub(in_use);
        let mut requests = self.requests.borrow_mut();
        for _ in 0..requests.wants_keys(room) {
            let key = self.peers.hold(state);
            requests.lend(key, self.peers.generation(key));
        }
    }

    /// Begins the next dial that was asked for. Returns whether there was one.
    pub(super) fn begin_wanted(&mut self, state: &mut LoopState) -> bool {
        let Some(request) = self.requests.borrow_mut().take() else { return false };
        let slot = request.key;
        let key = self.dials.insert(Dial::new(0, Some(Box::new(request))));
        let key = u32::try_from(key).unwrap_or(u32::MAX);
        self.wanted.insert(slot, key);
        self.begin(state, key);
        true
    }

    /// A dial that was asked for has failed: its caller is told, and its address is of no use.
    pub(super) fn wanted_failed(&mut self, state: &mut LoopState, key: u32, error: DialError) {
        let Some(dial) = self.dials.try_remove(key as usize) else { return };
        if let Some(timer) = dial.timer {
            state.wheel.cancel(timer);
        }
        if let Some(wanted) = dial.wanted {
            self.wanted.remove(&wanted.key);
            self.give_up(state, &wanted, error);
        }
        self.lend_keys(state);
    }

    /// There will be no connection: tells the caller, and frees the slot.
    fn give_up(&mut self, state: &mut LoopState, wanted: &DialRequest, error: DialError) {
        self.peers.let_go(state, wanted.key);
        self.tell_caller(wanted, error);
    }

    pub(super) fn tell_caller(&self, wanted: &DialRequest, error: DialError) {
        let DialRequest { key, generation, targets, caller, .. } = wanted;
        let (key, generation) = (*key, *generation);
        let id = ConnectionId { serial: self.peers.profile.serial, key, generation };
        let target = targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let _place = self.requests.borrow().place();
        caller.dial_failed(DialFailure { id, target, error, _place });
    }

    /// Stops the dial whose connection would have this id. Returns whether there was one.
    pub(super) fn stop_wanted(&mut self, state: &mut LoopState, id: ConnectionId) -> bool {
        if !self.peers.is_dialled(id.key, id.generation) {
            return false;
        }
        // The slot is held for this generation, so the dial that it is held for is the one.
        if let Some(key) = self.wanted.get(&id.key).copied() {
            self.stop_looking_up(key);
            self.failed(state, key, DialError::Stopped);
            return true;
        }
        let is_it = |request: &DialRequest| request.key == id.key;
        let Some(request) = self.requests.borrow_mut().take_if(is_it) else { return false };
        self.give_up(state, &request, DialError::Stopped);
        self.lend_keys(state);
        true
    }

    /// Ends all dials that were asked for, and lends no more keys.
    pub(super) fn end_wanted(&mut self, state: &mut LoopState) {
        state.dial_requests.close(&self.requests);
        let wanted: Vec<_> =
            self.dials.iter_mut().filter_map(|(_, dial)| dial.wanted.take()).collect();
        self.wanted.clear();
        for request in wanted {
            self.give_up(state, &request, DialError::Stopped);
        }
        loop {
            let Some(request) = self.requests.borrow_mut().take() else { break };
            self.give_up(state, &request, DialError::Stopped);
        }
        loop {
            let Some((key, _)) = self.requests.borrow_mut().take_back() else { break };
            self.peers.let_go(state, key);
        }
    }
}
