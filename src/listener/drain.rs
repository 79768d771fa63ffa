//! How a listener drains: what it closes, what it waits for, and what it reports.

use super::{Factory, Listener};
use crate::acceptor::Acceptor;
use crate::drain::Report;
use crate::handler::Handler;
use crate::loop_state::{LoopState, Timer};
use crate::peer::Marks;

impl<H: Handler, A: Acceptor + 'static> Listener<H, A> {
    /// Closes the listening socket, and marks every open connection for `Info::Shutdown`. A handler
    /// gets it as soon as everything that has arrived is delivered.
    pub(super) fn begin_drain(&mut self, state: &mut LoopState) {
        if self.has_begun_to_drain() {
            return;
        }
        self.profile.name_guard.status.set_draining();
        let forced = self.is_forced();
        if !forced {
            self.accept_last(state);
        }
        self.stop_accepting(state);
        // No connection arrives after this.
        self.take_arrivals(state, true);
        let draining = self.draining.get_or_insert_default();
        draining.since = Some(state.nanos());
        if forced {
            // Connections that were accepted after the others were forced are forced as well.
            return self.force_all();
        }
        let at = state.now().after(self.profile.options.drain_timeout);
        let timer = Timer::Drain { listener: self.profile.slot };
        draining.deadline = Some(state.wheel.arm(at, timer));
        for (_, peer) in self.peers.iter_mut() {
            if peer.conn.life().is_open() {
                peer.marks.insert(Marks::DRAIN.with(Marks::READABLE));
                self.lists.put(peer);
            }
        }
    }

    /// Decides the end of all connections at once: nothing is waited for.
    pub(super) fn force_all(&mut self) {
        self.draining.get_or_insert_default().forced = true;
        for (_, peer) in self.peers.iter_mut() {
            peer.force();
            self.lists.put(peer);
        }
    }

    /// Whether no connection is left and no other can arrive.
    pub(super) fn is_drained(&self) -> bool {
        self.has_begun_to_drain()
            && self.peers.is_empty()
            && self.admission.is_closed()
            && !self.admission.has_arrivals(self.profile.shard)
    }

    pub(super) fn drain_report(&self) -> Report {
        let report = self.draining.as_ref().map(|draining| draining.report.clone());
        Report {
            undelivered_bytes: self.discarded.input as u64,
            unsent_bytes: self.discarded.output as u64,
            ..report.unwrap_or_default()
        }
    }

    pub(super) fn has_begun_to_drain(&self) -> bool {
        self.draining.as_ref().is_some_and(|draining| draining.since.is_some())
    }

    pub(super) fn is_forced(&self) -> bool {
        self.draining.as_ref().is_some_and(|draining| draining.forced)
    }

    /// Whether the part that accepts has closed its socket, and this part has not begun to drain.
    pub(super) fn acceptor_is_gone(&self) -> bool {
        self.admission.is_closed() && !self.has_begun_to_drain()
    }

    pub(super) fn stop_for_good(&mut self, state: &mut LoopState) {
        self.stop_accepting(state);
        if let Some(deadline) = self.draining.as_mut().and_then(|draining| draining.deadline.take())
        {
            state.wheel.cancel(deadline);
        }
        let unread = self.profile.mailbox.close();
        for envelope in std::mem::take(&mut self.inbox).into_iter().chain(unread) {
            self.profile.counters.dropped_messages.add(envelope.is_message().into());
            self.profile.drop_value("a message", envelope, &mut self.gate, state.nanos());
        }
        self.forget_broadcast(state);
        // The factory goes before the counters are added to those of the listeners that have ended:
        // its drop is code of the user, and a panic in it counts.
        let none: Factory<H> = Box::new(|_| panic!("a listener that has ended makes no handler"));
        let factory = std::mem::replace(&mut self.factory, none);
        self.profile.drop_value("its factory", factory, &mut self.gate, state.nanos());
    }
}
