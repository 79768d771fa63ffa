//! The time limits of a connection, and what can run out.

use std::time::Duration;

/// Time limits in force, in the terms of the options.
#[derive(Debug, Copy, Clone)]
pub(crate) struct Limits {
    pub(crate) packet_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) write_stall_timeout: Duration,
    pub(crate) write_high_water: usize,
    pub(crate) write_low_water: usize,
}

/// What has run out.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    Packet,
    Idle,
    Stall,
    Close,
}
