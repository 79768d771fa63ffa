//! The water marks of the output queue, and what they stop: the connection itself, or its partner.

use super::limits::{Crossing, Limits};
use super::{Connection, Flags};

impl Connection {
    /// Compares the length of the queue with the water marks. Returns each crossing once.
    #[inline]
    pub(crate) fn watch_water(&mut self, limits: &Limits) -> Option<Crossing> {
        let queued = self.queued();
        if queued > limits.write_high_water && !self.has(Flags::IS_OVER) {
            self.insert(self.over().with(Flags::OWES_WRITABLE));
            return Some(Crossing::Over);
        }
        if queued <= limits.write_low_water && self.has(Flags::IS_OVER) {
            self.remove(Flags::IS_OVER);
            return Some(Crossing::Down);
        }
        None
    }

    /// The flag of a queue over the high-water mark. In a pair it is not this connection that has to
    /// wait: what fills the queue comes from the partner.
    fn over(&self) -> Flags {
        if self.has(Flags::PAIRED) { Flags::FILLS_PARTNER } else { Flags::OVER_HIGH_WATER }
    }

    /// Whether `Info::Writable` is to be delivered now. If so, it is no longer owed.
    pub(crate) fn take_writable(&mut self, limits: &Limits) -> bool {
        let now = self.has(Flags::OWES_WRITABLE)
            && self.is_open_without(Flags::OVER_HIGH_WATER)
            && self.queued() <= limits.write_low_water;
        if now {
            self.remove(Flags::OWES_WRITABLE);
        }
        now
    }

    /// From now on it has a partner. Returns whether the partner has to wait, because output is over
    /// the high-water mark.
    pub(crate) fn begin_pair(&mut self) -> bool {
        self.insert(Flags::PAIRED);
        self.rename_over()
    }

    /// It has no partner any more.
    pub(crate) fn end_pair(&mut self) {
        self.remove(Flags::PAIRED.with(Flags::PARTNER_FULL));
        self.rename_over();
    }

    fn rename_over(&mut self) -> bool {
        let is_over = self.has(Flags::IS_OVER);
        if is_over {
            self.remove(Flags::IS_OVER);
            self.insert(self.over());
        }
        is_over
    }
}
