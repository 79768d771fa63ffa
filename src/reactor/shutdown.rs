//! A shutdown, from the announcement to the last listener's report.
//!
//! ```text
//!   announced ──► lead ──► draining ──► done: `run` returns
//!                  └─ the listening sockets stay open for a while
//! ```

use super::stage::Stage;
use super::{Reactor, Tenant};
use crate::drain::{Report, Ticket};
use crate::guard::guarded;
use crate::turn::Timer;

impl Reactor {
    /// Every listener's report counts from now on. The second time, nobody is waited for.
    pub(super) fn announce_shutdown(&mut self, ticket: Ticket) {
        let again = self.shutdown.is_some();
        let shutdown = self.shutdown.get_or_insert_default();
        shutdown.tickets.push(ticket);
        if again {
            shutdown.forced = true;
            for (_, tenant) in &mut self.listeners {
                tenant.listener.force();
            }
        }
    }

    /// All shards know of the shutdown.
    pub(super) fn begin_shutdown(&mut self) {
        let Some(shutdown) = &mut self.shutdown else { return };
        let lead = self.turn.options.drain_lead;
        if shutdown.stage == Stage::Announced && !lead.is_zero() && !shutdown.forced {
            shutdown.stage = Stage::Lead;
            let at = self.turn.now().after(lead);
            self.turn.wheel.arm(at, Timer::Lead);
        } else if shutdown.stage != Stage::Lead || shutdown.forced {
            self.lead_is_over();
        }
    }

    pub(super) fn lead_is_over(&mut self) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.stage = Stage::Draining;
            self.drain_acceptors();
        }
    }

    /// Everything ends at once, and `run` with it: another shard died.
    pub(super) fn abort(&mut self) {
        self.terminate_all();
        self.stopped = true;
    }

    /// The parts that do not accept follow by themselves.
    pub(super) fn drain_acceptors(&mut self) {
        let accepts = |(_, tenant): &(usize, &Tenant)| tenant.listener.accepts();
        let slots: Vec<usize> =
            self.listeners.iter().filter(accepts).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.drain_slot(slot);
        }
    }

    /// The last listener has gone.
    pub(super) fn finish_shutdown(&mut self) {
        let Some(shutdown) = self.shutdown.take() else { return };
        self.stopped = true;
        self.end().farewell.get_or_init(|| shutdown.report.clone());
        for ticket in shutdown.tickets {
            ticket.complete(&shutdown.report);
        }
    }

    /// A drained listener leaves, and its name is free before anybody is told.
    pub(super) fn evict(&mut self, slot: usize, report: Report) {
        let Tenant { mut listener, tickets, .. } = self.listeners.remove(slot);
        listener.retire(&mut self.turn);
        log::info!("listener \"{}\": stopped, {report}", listener.name());
        // With it goes the factory, which is the user's.
        if guarded(|| drop(listener)).is_none() {
            log::error!("the drop of a factory panicked");
        }
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.report.merge(&report);
        }
        for ticket in tickets {
            ticket.complete(&report);
        }
    }

    /// Ends everything at once.
    pub(super) fn terminate_all(&mut self) {
        let slots: Vec<usize> = self.listeners.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let listener = &mut self.listeners[slot].listener;
            listener.force();
            listener.sweep(&mut self.turn);
            let report = listener.report();
            self.evict(slot, report);
        }
    }
}
