//! The groups that a connection is in, and whether it takes their packets as they are.

use super::{Connection, Flags};
use crate::groups::Memberships;
use crate::life::Life;

impl Connection {
    /// Whether frames in the listener's framing can go to the kernel as they are, and restart no
    /// clock. It reads nothing that is out of line, so that a member costs as little memory as it can.
    #[inline(always)]
    pub(crate) fn takes_frames(&self) -> bool {
        const SPECIAL: u32 = Flags::OWN_FRAMING.bits() | Life::NO_OUTPUT | Life::TIMES_OUTPUT;
        self.word & SPECIAL == 0 && self.output.is_none()
    }

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
