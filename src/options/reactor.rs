//! Options of a reactor: its buffers and its budgets.

use std::time::Duration;

use super::check::{Findings, zeros};
use crate::error::{Error, OptionsError};

/// Options of a reactor: its buffers, and the budgets that keep it fair.
///
/// A budget bounds what one turn does for one connection, listener, mailbox or wheel. What is left
/// over is done in the next turn, after everybody else's share, and without waiting for new events.
#[derive(Debug, Clone)]
pub struct ReactorOptions {
    pub(crate) read_buffer: usize,
    pub(crate) packet_budget: u32,
    pub(crate) accept_budget: u32,
    pub(crate) message_budget: u32,
    pub(crate) timer_budget: usize,
    pub(crate) events: usize,
    pub(crate) slow_turn: Duration,
    pub(crate) busy_poll: Duration,
    pub(crate) shutdown_delay: Duration,
}

impl Default for ReactorOptions {
    fn default() -> Self {
        Self {
            read_buffer: 256 * 1024,
            packet_budget: 4096,
            accept_budget: 64,
            message_budget: 1024,
            timer_budget: 4096,
            events: 256,
            slow_turn: Duration::from_millis(100),
            busy_poll: Duration::ZERO,
            shutdown_delay: Duration::ZERO,
        }
    }
}

impl ReactorOptions {
    /// The most [`events`](Self::events) of one batch: 16,384.
    pub const MAX_EVENTS: usize = 16 * 1024;
    /// The smallest [`read_buffer`](Self::read_buffer), in bytes: 4 KiB.
    pub const MIN_READ_BUFFER: usize = 4 * 1024;
    /// The largest [`read_buffer`](Self::read_buffer), in bytes: 1 GiB.
    pub const MAX_READ_BUFFER: usize = 1 << 30;

    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Size of the one buffer that all sockets are read into, and with it the most bytes that one
    /// connection is read per turn, in reads of 64 KiB at most. Default: 256 KiB. From
    /// [`MIN_READ_BUFFER`](Self::MIN_READ_BUFFER) to [`MAX_READ_BUFFER`](Self::MAX_READ_BUFFER).
    pub fn read_buffer(mut self, bytes: usize) -> Self {
        self.read_buffer = bytes;
        self
    }

    /// The most packets delivered to one connection per turn. Default: 4,096. At least 1.
    pub fn packet_budget(mut self, packets: u32) -> Self {
        self.packet_budget = packets;
        self
    }

    /// The most connections accepted per listener and turn; short turns take fewer, until it shows
    /// that more wait. Default: 64. At least 1.
    pub fn accept_budget(mut self, connections: u32) -> Self {
        self.accept_budget = connections;
        self
    }

    /// The most messages delivered per listener and turn, each recipient of a broadcast counted.
    /// Default: 1,024. At least 1.
    pub fn message_budget(mut self, messages: u32) -> Self {
        self.message_budget = messages;
        self
    }

    /// The most timers fired or moved per turn. Default: 4,096. At least 1.
    pub fn timer_budget(mut self, timers: usize) -> Self {
        self.timer_budget = timers;
        self
    }

    /// Capacity of the first batch of events. Default: 256. It grows to
    /// [`MAX_EVENTS`](Self::MAX_EVENTS) when a batch comes back full. At least 1, and no more than
    /// that.
    pub fn events(mut self, events: usize) -> Self {
        self.events = events;
        self
    }

    /// A turn that takes longer than this is logged as a warning, with the listener that took most
    /// of it, once a second at most. Default: 100 ms. Zero: every turn. `Duration::MAX`: none.
    pub fn slow_turn(mut self, threshold: Duration) -> Self {
        self.slow_turn = threshold;
        self
    }

    /// How long to poll without blocking after the last event: latency for the price of a busy
    /// core. Default: zero, block at once. `Duration::MAX`: never block.
    pub fn busy_poll(mut self, duration: Duration) -> Self {
        self.busy_poll = duration;
        self
    }

    /// How long [`Handle::shutdown`](crate::Handle::shutdown) leaves the listening sockets open
    /// after [`Handle::is_ready`](crate::Handle::is_ready) has turned to no, so that a load balancer
    /// has time to notice. Default: zero. `Duration::MAX`: until shutdown is asked for again.
    pub fn shutdown_delay(mut self, delay: Duration) -> Self {
        self.shutdown_delay = delay;
        self
    }

    /// Everything that is wrong. A reactor with such options is not made.
    pub fn check(&self) -> Findings {
        let mut errors: Vec<_> = zeros([
            (self.packet_budget == 0, "packet_budget"),
            (self.accept_budget == 0, "accept_budget"),
            (self.message_budget == 0, "message_budget"),
            (self.timer_budget == 0, "timer_budget"),
            (self.events == 0, "events"),
        ])
        .collect();
        let (option, asked, min) = ("read_buffer", self.read_buffer, Self::MIN_READ_BUFFER);
        if asked < min {
            errors.push(OptionsError::TooSmall { option, asked, min });
        }
        for (option, asked, max) in [
            ("read_buffer", self.read_buffer, Self::MAX_READ_BUFFER),
            ("events", self.events, Self::MAX_EVENTS),
        ] {
            if asked > max {
                errors.push(OptionsError::TooLarge { option, asked, max });
            }
        }
        Findings { errors, warnings: Vec::new() }
    }

    /// These options, if nothing is wrong with them.
    pub(crate) fn checked(self) -> Result<Self, Error> {
        let errors = self.check().errors;
        if errors.is_empty() { Ok(self) } else { Err(Error::ReactorOptions { errors }) }
    }
}
