//! What the test kit reads of a reactor between turns.

use super::Reactor;
use crate::phases::AnyListener;

impl Reactor {
    /// The listener of this name.
    pub(crate) fn listener(&self, name: &str) -> Option<&dyn AnyListener> {
        let entry = self.listeners.iter().find(|(_, entry)| entry.listener.name() == name);
        entry.map(|(_, entry)| &*entry.listener)
    }

    /// Reads the clock, so that the newest time known is the present.
    pub(crate) fn look_at_clock(&self) {
        self.state.present();
    }

    /// Memberships in groups, of all connections.
    pub(crate) fn memberships(&self) -> usize {
        self.state.groups.len()
    }

    /// Connections that have a partner.
    pub(crate) fn paired(&self) -> usize {
        self.state.pairs.len()
    }

    /// The number of deadlines of listeners and connections.
    pub(crate) fn deadlines(&self) -> usize {
        self.state.deadlines()
    }
}
