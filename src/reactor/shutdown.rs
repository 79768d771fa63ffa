//! A shutdown, from the announcement to the last listener's report.
//!
//! ```text
//!   announced ──► delay ──► draining ──► done: `run` returns
//!                  └─ the listening sockets stay open for `shutdown_delay`
//! ```

use super::Reactor;
use super::listener_slot::ListenerSlot;
use super::stage::Stage;
use crate::drain::{DrainPart, Report};
use crate::logging::say;
use crate::loop_state::Timer;
use crate::time_budget::Phase;

impl Reactor {
    /// From now on, the shutdown counts the report of every listener that ends. If a shutdown is
    /// announced a second time, it waits for no connection.
    pub(super) fn announce_shutdown(&mut self, part: DrainPart) {
        let again = self.shutdown.is_some();
        let shutdown = self.shutdown.get_or_insert_default();
        shutdown.parts.push(part);
        if again {
            shutdown.forced = true;
            for (_, entry) in &mut self.listeners {
                entry.listener.force();
            }
        }
    }

    /// Begins the shutdown, because all shards know of it by now.
    pub(super) fn begin_shutdown(&mut self) {
        let Some(shutdown) = &mut self.shutdown else { return };
        let delay = self.state.options.shutdown_delay;
        if shutdown.stage == Stage::Announced && !delay.is_zero() && !shutdown.forced {
            shutdown.stage = Stage::Delay;
            let at = self.state.now().after(delay);
            self.state.wheel.arm(at, Timer::ShutdownDelay);
        } else if shutdown.stage != Stage::Delay || shutdown.forced {
            self.delay_is_over();
        }
    }

    pub(super) fn delay_is_over(&mut self) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.stage = Stage::Draining;
            self.drain_acceptors();
        }
    }

    /// Drains the parts that accept. The other parts then drain by themselves.
    pub(super) fn drain_acceptors(&mut self) {
        let accepts = |(_, entry): &(usize, &ListenerSlot)| entry.listener.accepts();
        let slots: Vec<usize> =
            self.listeners.iter().filter(accepts).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.drain_slot(slot);
        }
    }

    /// Completes a shutdown that is under way, because no listener is left.
    pub(super) fn finish_shutdown(&mut self) {
        let Some(shutdown) = self.shutdown.take() else { return };
        self.stopped = true;
        self.end_timers();
        // In this order: a handle that finds the reactor gone looks for the report.
        self.inbox().final_report.get_or_init(|| shutdown.report.clone());
        self.inbox().set_gone();
        for part in shutdown.parts {
            part.complete(&shutdown.report);
        }
    }

    /// Removes a drained listener. Its name is free before its report is sent.
    pub(super) fn evict(&mut self, slot: usize, report: Report) {
        if let Some(listener) = self.listeners.get(slot) {
            listener.listener.status().keep_report(self.shard, &report);
        }
        let parts = self.remove(slot);
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.report.merge(&report);
        }
        for part in parts {
            part.complete(&report);
        }
    }

    /// Removes a listener. Returns the parts of drains that wait for it.
    fn remove(&mut self, slot: usize) -> Vec<DrainPart> {
        let ListenerSlot { mut listener, parts, .. } = self.listeners.remove(slot);
        listener.retire(&mut self.state);
        self.state.pairs.close(listener.serial());
        say!(Info, "{}: stopped: {}", listener.label(), listener.report());
        parts
    }

    /// Ends the reactor at once, with all listeners and connections. Drains that are not over find
    /// that the reactor is gone.
    pub(super) fn end(&mut self) {
        self.stopped = true;
        // This comes first: a thread that learns of an end then finds handles that know of it.
        self.inbox().set_gone();
        self.end_timers();
        self.state.begin_phase(Phase::Unbounded);
        let slots: Vec<usize> = self.listeners.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let listener = &mut self.listeners[slot].listener;
            listener.force();
            listener.sweep(&mut self.state);
            self.remove(slot);
        }
        self.shutdown = None;
    }
}
