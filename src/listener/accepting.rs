//! How many connections to accept in one turn, and when not to.

use crate::wheel::TimerKey;

/// After so many turns in a row that found whom they looked for, each looks for four times as many.
pub(super) const FULL_ROUNDS: u32 = 4;

/// Whether the listening socket may be accepted from.
#[derive(Debug, Default)]
pub(super) struct Accepting {
    /// It was announced readable, and is neither known to be empty nor asked to say so.
    pub(super) ready: bool,
    /// Resting after a fault; `NONE` if not.
    pub(super) pause: Option<TimerKey>,
    /// A socket closed during this rest has allowed one early try already.
    pub(super) retried: bool,
    /// The limit on connections keeps clients waiting.
    pub(super) full: bool,
    /// Turns in a row in which somebody waited and no fewer than were looked for; less after a share
    /// that was too large, and none after a turn without anybody.
    pub(super) full_rounds: u32,
}

impl Accepting {
    /// How many to take before the kernel is asked whether more wait. One at first, who is sure to
    /// be there: the system makes a socket and a file before it finds that nobody waits, so that an
    /// `accept` in vain costs as much as ten questions. nginx (`multi_accept`) takes one an event
    /// as well.
    pub(super) fn quota(&self) -> u32 {
        1 << (self.full_rounds / FULL_ROUNDS * 2).min(u32::BITS - 1)
    }
}
