//! Carries out the commands of other threads and of callbacks.

use super::Reactor;
use super::listener_slot::ListenerSlot;
use super::stage::Stage;
use crate::directory::Command;
use crate::drain::DrainPart;
use crate::identity::ConnectionId;
use crate::phases::AnyListener;
use crate::time_budget::Phase;

/// The most commands of one turn, unless many wait.
const COMMANDS: usize = 1024;
/// A turn carries out at least one of so many parts of the commands that wait, whatever time that
/// takes. So handlers cannot add them faster than they are carried out, and the list does not grow
/// for ever.
const PARTS: usize = 8;

impl Reactor {
    /// Carries out the commands that wait, or as many as one turn has time for.
    pub(super) fn obey_commands(&mut self) {
        self.state.begin_phase(Phase::Commands);
        self.more_commands = true;
        let least = self.inbox().commands() / PARTS;
        for done in 1.. {
            let Some(command) = self.inbox().next_command() else {
                self.more_commands = false;
                return;
            };
            if done == 1 {
                // It may have come long after the turn began, and deadlines count from it.
                self.state.sample();
            }
            self.obey(command);
            let over = self.state.is_share_over(1) || done >= COMMANDS;
            if over && done >= least {
                return;
            }
        }
    }

    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Adopt(make) => self.adopt(make),
            Command::ExpectDrain { serial, part } => self.expect_drain(serial, part),
            Command::Drain { serial } => self.drain_listener(serial),
            Command::AnnounceShutdown(part) => self.announce_shutdown(part),
            Command::BeginShutdown => self.begin_shutdown(),
            Command::Abort => self.end(),
            Command::Close(id) => self.close(id),
            Command::StartTimer { id, period, call, ended } => {
                self.start_timer(id, period, call, ended);
            }
            Command::EndTimer { id } => self.end_timer(id),
        }
    }

    pub(super) fn adopt(&mut self, make: impl FnOnce(u16) -> Box<dyn AnyListener>) {
        let entry = self.listeners.vacant_entry();
        let slot = entry.key();
        let short = u16::try_from(slot).unwrap_or(u16::MAX);
        let mut listener = make(short);
        // If the socket cannot be watched, the listener drains at once.
        listener.register(&mut self.state);
        self.state.pairs.open(listener.serial(), short);
        entry.insert(ListenerSlot::new(listener));
        let Some(shutdown) = &self.shutdown else { return };
        if shutdown.forced {
            self.listeners[slot].listener.force();
        }
        if shutdown.stage == Stage::Draining {
            self.drain_acceptors();
        }
    }

    /// The listener part with this serial is about to drain. Its report goes to `part`.
    fn expect_drain(&mut self, serial: u64, part: DrainPart) {
        match self.slot_of(serial) {
            Some(slot) => self.listeners[slot].parts.push(part),
            // The listener part has ended before, and has left its report.
            None => drop(part),
        }
    }

    /// Drains the part of a listener that accepts. The other parts then drain by themselves: they
    /// see that no more connections will be handed to them.
    fn drain_listener(&mut self, serial: u64) {
        if let Some(slot) = self.slot_of(serial) {
            self.drain_slot(slot);
        }
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(slot) = self.slot_of(id.serial) {
            self.listeners[slot].listener.close(&mut self.state, id);
        }
    }

    pub(super) fn drain_slot(&mut self, slot: usize) {
        self.listeners[slot].listener.drain(&mut self.state);
    }

    fn slot_of(&self, serial: u64) -> Option<usize> {
        self.listeners.iter().find(|(_, entry)| entry.listener.serial() == serial).map(|(s, _)| s)
    }
}
