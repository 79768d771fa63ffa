//! How the connections of a listener drain: what the drain waits for, and what it reports.

use std::time::Duration;

use super::Peers;
use crate::drain::{Report, SlowConnection};
use crate::handler::Handler;
use crate::loop_state::{LoopState, Timer};
use crate::peer::Marks;
use crate::reason::CloseReason;
use crate::stream::Stream;
use crate::wheel::TimerKey;

impl<H: Handler, S: Stream> Peers<H, S> {
    /// Marks every open connection for `Info::Shutdown`. A handler gets it as soon as everything
    /// that has arrived is delivered. No connection comes after this.
    pub(crate) fn begin_drain(&mut self, state: &mut LoopState) {
        let draining = self.draining.get_or_insert_default();
        draining.since = Some(state.nanos());
        if draining.forced {
            // Connections that came after the others were forced are forced as well.
            return self.force_all();
        }
        let at = state.now().after(self.profile.options.drain_timeout);
        let timer = Timer::Drain { listener: self.profile.slot };
        draining.deadline = Some(state.wheel.arm(at, timer));
        for (_, peer) in self.slots.iter_mut() {
            if peer.conn.life().is_open() {
                peer.marks.insert(Marks::DRAIN.with(Marks::READABLE));
                self.lists.put(peer);
            }
        }
    }

    /// Decides the end of all connections at once: nothing is waited for.
    pub(crate) fn force_all(&mut self) {
        self.draining.get_or_insert_default().forced = true;
        for (_, peer) in self.slots.iter_mut() {
            peer.force();
            self.lists.put(peer);
        }
    }

    /// The deadline of the drain has come.
    pub(crate) fn drain_is_due(&mut self) {
        self.force_all();
        self.draining.get_or_insert_default().deadline = None;
    }

    pub(super) fn drain_timer_moved(&mut self, entry: TimerKey) {
        self.draining.get_or_insert_default().deadline = Some(entry);
    }

    pub(super) fn end_drain_timer(&mut self, state: &mut LoopState) {
        if let Some(deadline) = self.draining.as_mut().and_then(|draining| draining.deadline.take())
        {
            state.wheel.cancel(deadline);
        }
    }

    /// Adds a connection that has ended to the report of the drain, if there is one, and frees its
    /// slot.
    pub(super) fn remove(&mut self, state: &mut LoopState, key: u32) {
        let Some(peer) = self.slots.get(key as usize) else { return };
        // A refused connection had no handler to drain.
        if let Some(draining) = &mut self.draining
            && !peer.is_marked(Marks::REFUSED)
        {
            let slow = SlowConnection {
                id: self.profile.id_of(&peer.identity),
                peer_addr: peer.identity.peer_addr(),
                reason: peer.conn.reason().unwrap_or(CloseReason::Normal),
                after: draining
                    .since
                    .map_or(Duration::ZERO, |since| since.elapsed_at(state.nanos())),
            };
            draining.report.count(slow, peer.conn.life().is_forced());
        }
        self.free(state, key);
    }

    pub(crate) fn drain_report(&self) -> Report {
        let report = self.draining.as_ref().map(|draining| draining.report.clone());
        Report {
            undelivered_bytes: self.discarded.input as u64,
            unsent_bytes: self.discarded.output as u64,
            ..report.unwrap_or_default()
        }
    }

    pub(crate) fn has_begun_to_drain(&self) -> bool {
        self.draining.as_ref().is_some_and(|draining| draining.since.is_some())
    }

    pub(crate) fn is_forced(&self) -> bool {
        self.draining.as_ref().is_some_and(|draining| draining.forced)
    }
}
