//! The limits of a connection, and the clocks that can run out.

use std::time::Duration;

/// How the queue has crossed a water mark.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Crossing {
    /// It is over the high-water mark.
    Over,
    /// It is down at the low-water mark.
    Down,
}

/// The limits in force, named as in the options: the time limits, and two water marks in bytes.
#[derive(Debug, Copy, Clone)]
pub(crate) struct Limits {
    pub(crate) packet_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) silence_timeout: Option<Duration>,
    pub(crate) first_packet_timeout: Option<Duration>,
    /// Whether a clock runs for a connection that has nothing to do: the idle or the silence clock.
    pub(crate) time_the_idle: bool,
    pub(crate) write_stall_timeout: Duration,
    pub(crate) half_close_timeout: Duration,
    pub(crate) write_high_water: usize,
    pub(crate) write_low_water: usize,
}

/// The clock that has run out.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    Packet,
    /// A packet was expected by now.
    Expected,
    Idle,
    Silence,
    /// The queue has waited for a while: it is offered to the kernel once more.
    Offer,
    Stall,
    /// The input has ended, and no answer has left for a while.
    HalfClose,
    /// A call to the peer got no answer in time.
    Calls,
    Close,
}
