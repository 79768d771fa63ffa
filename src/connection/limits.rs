//! The limits of a connection, and the clocks that can run out.

use std::time::Duration;

/// The limits in force, named as in the options: three time limits, and two water marks in bytes.
#[derive(Debug, Copy, Clone)]
pub(crate) struct Limits {
    pub(crate) packet_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) write_stall_timeout: Duration,
    pub(crate) write_high_water: usize,
    pub(crate) write_low_water: usize,
}

/// The clock that has run out.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    Packet,
    Idle,
    Stall,
    Close,
}
