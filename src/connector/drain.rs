//! How a connector drains: it dials no more, and its connections come to their end.

use super::{Connector, Factory};
use crate::connector_state::ConnectorState;
use crate::dialer::Dialer;
use crate::handler::Handler;
use crate::loop_state::LoopState;
use crate::resolver::Resolver;

impl<H: Handler, D: Dialer + 'static> Connector<H, D> {
    pub(super) fn begin_drain(&mut self, state: &mut LoopState) {
        if self.peers.has_begun_to_drain() {
            return;
        }
        self.peers.profile.name_guard.status.set_draining();
        self.end_dials(state);
        self.peers.begin_drain(state);
        self.may_have_changed = true;
    }

    pub(super) fn stop_for_good(&mut self, state: &mut LoopState) {
        self.end_dials(state);
        self.peers.retire(state);
        self.tell(state, &ConnectorState::Ended);
        // As a listener's: a panic in the drop of the factory counts.
        let none: Factory<H> = Box::new(|_| panic!("a connector that has ended makes no handler"));
        let factory = std::mem::replace(&mut self.factory, none);
        let closures = [&mut self.resolver, &mut self.resolver_for_handlers];
        let closures = closures.map(Resolver::take_closure);
        let on_state = self.on_state.take();
        let (profile, gate) = (&self.peers.profile, &mut self.peers.gate);
        for closure in closures {
            profile.drop_value("its resolver", closure, gate, state.nanos());
        }
        profile.drop_value("its `on_state`", on_state, gate, state.nanos());
        profile.drop_value("its factory", factory, gate, state.nanos());
    }
}
