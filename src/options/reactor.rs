//! Options of a reactor: its buffers and its budgets.

use std::time::Duration;

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
    pub(crate) drain_lead: Duration,
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
            drain_lead: Duration::ZERO,
        }
    }
}

impl ReactorOptions {
    /// A batch of events this large or larger is not grown any more.
    pub(crate) const MAX_EVENTS: usize = 16 * 1024;

    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Size of the one buffer that all sockets are read into, and with it the most bytes that one
    /// connection is read per turn, in reads of 64 KiB at most. Default: 256 KiB. At least 4 KiB.
    pub fn read_buffer(mut self, bytes: usize) -> Self {
        self.read_buffer = bytes.max(4096);
        self
    }

    /// The most packets delivered to one connection per turn. Default: 4,096. At least 1.
    pub fn packet_budget(mut self, packets: u32) -> Self {
        self.packet_budget = packets.max(1);
        self
    }

    /// The most connections accepted per listener and turn; short turns take fewer, until it shows
    /// that more wait. Default: 64. At least 1.
    pub fn accept_budget(mut self, connections: u32) -> Self {
        self.accept_budget = connections.max(1);
        self
    }

    /// The most messages delivered per listener and turn, each recipient of a broadcast counted.
    /// Default: 1,024. At least 1.
    pub fn message_budget(mut self, messages: u32) -> Self {
        self.message_budget = messages.max(1);
        self
    }

    /// The most timers fired or moved per turn. Default: 4,096. At least 1.
    pub fn timer_budget(mut self, timers: usize) -> Self {
        self.timer_budget = timers.max(1);
        self
    }

    /// Capacity of the first batch of events. Default: 256. It grows to 16,384 when a
    /// batch comes back full.
    pub fn events(mut self, events: usize) -> Self {
        self.events = events.clamp(1, Self::MAX_EVENTS);
        self
    }

    /// A turn that takes longer than this is logged as a warning, with the listener that took most
    /// of it. Default: 100 ms.
    pub fn slow_turn(mut self, threshold: Duration) -> Self {
        self.slow_turn = threshold;
        self
    }

    /// How long to poll without blocking after the last event: latency for the price of a busy
    /// core. Default: zero, block at once.
    pub fn busy_poll(mut self, duration: Duration) -> Self {
        self.busy_poll = duration;
        self
    }

    /// How long [`Handle::shutdown`](crate::Handle::shutdown) leaves the listening sockets open
    /// after [`Handle::is_ready`](crate::Handle::is_ready) has turned to no, so that a load balancer
    /// has time to notice. Default: zero.
    pub fn drain_lead(mut self, lead: Duration) -> Self {
        self.drain_lead = lead;
        self
    }
}
