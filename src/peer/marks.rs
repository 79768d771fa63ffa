//! What events have said about a peer, and which lists it is in.

use crate::flags::flag_set;
use crate::poller::Readiness;

flag_set! {
    /// The first four flags come from a [`Readiness`]. Work on the peer removes them.
    Marks: u16 {
        /// There may be something to read.
        READABLE = 0,
        /// The kernel may have space for output.
        WRITABLE = 1,
        /// The event carried an end, an error or an urgent byte, so a short read does not prove
        /// that the socket is empty.
        READ_UNTIL_BLOCKED = 2,
        /// The event carried an error.
        ERROR = 3,
        /// In the listener's run queue.
        QUEUED = 4,
        /// In the listener's list of peers with fresh output.
        FLUSH = 5,
        /// In the listener's list of peers to end.
        SWEEP = 6,
        /// The listener drains, and the handler has not been told yet.
        DRAIN = 7,
        /// The stream is registered for writable events, because a write was refused before.
        WRITE_INTEREST = 8,
        /// The turn's output budget was used up while the kernel had space for more.
        OUTPUT_CUT = 9,
        /// The factory has refused the connection: it only lingers.
        REFUSED = 10,
        /// A connector keeps the connection up: its end is told.
        KEPT_UP = 11,
    }
}

impl Marks {
    /// Whether nothing but `marks` is in the set.
    #[inline(always)]
    pub(crate) const fn has_only(self, marks: Self) -> bool {
        self.0 & !marks.0 == 0
    }

    #[inline(always)]
    pub(crate) fn insert(&mut self, marks: Self) {
        self.0 |= marks.0;
    }

    #[inline(always)]
    pub(crate) fn remove(&mut self, marks: Self) {
        self.0 &= !marks.0;
    }
}

impl From<Readiness> for Marks {
    fn from(readiness: Readiness) -> Self {
        Self(readiness.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an event means the same to the poller and to a peer.
    #[test]
    fn readiness_keeps_its_meaning() {
        for (readiness, marks) in [
            (Readiness::READABLE, Marks::READABLE),
            (Readiness::WRITABLE, Marks::WRITABLE),
            (Readiness::READ_UNTIL_BLOCKED, Marks::READ_UNTIL_BLOCKED),
            (Readiness::ERROR, Marks::ERROR),
        ] {
            assert_eq!(Marks::from(readiness), marks);
        }
    }
}
