//! How many connections to accept in one turn, and when to accept none.

use std::time::Duration;

use crate::wheel::{Tick, TimerKey};

/// How long accepting pauses after the system had no resources for a connection.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The quota grows fourfold after this many full rounds: consecutive turns that filled their quota.
pub(super) const FULL_ROUNDS: u32 = 4;

/// Whether the listening socket may be accepted from.
#[derive(Debug, Default)]
pub(super) struct Accepting {
    /// The kernel has announced the socket readable. Since then `accept` has not found it empty,
    /// and the kernel has not been asked to announce it again.
    pub(super) ready: bool,
    /// The timer that ends the pause after a lack of resources. `None` without a pause.
    pub(super) pause: Option<TimerKey>,
    /// A connection that ends in a pause causes an early try, if the one before was at this time or
    /// earlier.
    pub(super) early_try_from: Tick,
    /// A connection that was opening has been closed because resources were missing, and none was
    /// accepted since.
    pub(super) has_made_room: bool,
    /// Consecutive calls of `accept` that failed, since the last pause.
    pub(super) failures: u32,
    /// The listening socket has failed. The listener drains.
    pub(super) broken: bool,
    /// Clients wait because the limit on connections is reached.
    pub(super) full: bool,
    /// Consecutive turns that filled their quota. The count falls by [`FULL_ROUNDS`] after a quota
    /// that was too large, and to 0 after a turn in which nothing waited.
    pub(super) full_rounds: u32,
}

impl Accepting {
    /// How many connections to accept before the kernel is asked whether more wait.
    ///
    /// The quota starts at one, because an event means that at least one connection waits. The
    /// kernel makes a socket and a file before it finds that no connection waits. So a wasted
    /// `accept` costs as much as asking the kernel ten times. nginx accepts one connection per
    /// event as well, unless `multi_accept` is on.
    pub(super) fn quota(&self) -> u32 {
        1 << (self.full_rounds / FULL_ROUNDS * 2).min(u32::BITS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the quota starts at one connection, and grows fourfold after each four full rounds. It
    /// has no overflow.
    #[test]
    fn the_quota_grows_with_the_full_rounds() {
        for (full_rounds, quota) in
            [(0, 1), (3, 1), (4, 4), (7, 4), (8, 16), (12, 64), (u32::MAX, 1 << 31)]
        {
            let accepting = Accepting { full_rounds, ..Accepting::default() };
            assert_eq!(accepting.quota(), quota, "{full_rounds}");
        }
    }
}
