//! The groups that a connection is in.

use super::Connection;
use crate::groups::Memberships;

impl Connection {
    /// The groups that it is in. Makes the list if there is none.
    pub(crate) fn groups(&mut self) -> &mut Memberships {
        self.cold().groups.get_or_insert_default()
    }

    /// The groups that it is in. `None` if it was never in any.
    pub(crate) fn groups_if_any(&mut self) -> Option<&mut Memberships> {
        self.cold.as_mut()?.groups.as_deref_mut()
    }

    /// Takes the list of groups out, because the connection leaves them all.
    pub(crate) fn take_groups(&mut self) -> Option<Memberships> {
        Some(*self.cold.as_mut()?.groups.take()?)
    }
}
