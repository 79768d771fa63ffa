//! How a listener drains: it takes the clients that wait, closes its socket, and drains its
//! connections.

use super::{Factory, Listener};
use crate::acceptor::Acceptor;
use crate::handler::Handler;
use crate::loop_state::LoopState;

impl<H: Handler, A: Acceptor + 'static> Listener<H, A> {
    /// Closes the listening socket, and begins to drain the connections.
    pub(super) fn begin_drain(&mut self, state: &mut LoopState) {
        if self.peers.has_begun_to_drain() {
            return;
        }
        self.peers.profile.name_guard.status.set_draining();
        if self.peers.is_forced() {
            self.refuse_openings(state);
        } else {
            self.accept_last(state);
            self.end_openings(state);
        }
        self.stop_accepting(state);
        // No connection arrives after this.
        self.take_arrivals(state, true);
        self.end_openings(state);
        self.peers.begin_drain(state);
    }

    /// Whether no connection is left and no other can arrive.
    pub(super) fn is_drained(&self) -> bool {
        self.peers.has_begun_to_drain()
            && self.peers.slots.is_empty()
            && self.admission.is_closed()
            && !self.admission.has_arrivals(self.peers.profile.shard)
    }

    /// Whether the part that accepts has closed its socket, and this part has not begun to drain.
    pub(super) fn acceptor_is_gone(&self) -> bool {
        self.admission.is_closed() && !self.peers.has_begun_to_drain()
    }

    pub(super) fn stop_for_good(&mut self, state: &mut LoopState) {
        self.stop_accepting(state);
        self.refuse_openings(state);
        self.peers.retire(state);
        // The factory goes before the counters are added to those of the listeners that have ended:
        // its drop is code of the user, and a panic in it counts.
        let none: Factory<H> = Box::new(|_| panic!("a listener that has ended makes no handler"));
        let factory = std::mem::replace(&mut self.factory, none);
        let (profile, gate) = (&self.peers.profile, &mut self.peers.gate);
        profile.drop_value("its factory", factory, gate, state.nanos());
    }
}
