//! Options of a reactor: its buffers and its budgets.

use std::time::Duration;

use super::check::{Findings, zeros};
use crate::error::{Error, OptionsError};

/// Options of a reactor: its buffers, and the budgets that keep it fair.
///
/// A turn is one round of the event loop. A budget limits the work that one turn does for one
/// connection, listener, mailbox or timer wheel. The next turn continues with the remaining work,
/// after the shares of all others. It does not wait for new events before that.
///
/// The options, with their defaults in parentheses:
///
/// - Work for one connection: [`read_buffer`](Self::read_buffer) (256 KiB),
///   [`packet_budget`](Self::packet_budget) (4,096 packets).
/// - Work for one listener: [`accept_budget`](Self::accept_budget) (64 connections),
///   [`message_budget`](Self::message_budget) (1,024 messages).
/// - Work for the reactor: [`timer_budget`](Self::timer_budget) (4,096 timers),
///   [`events`](Self::events) (256 at first).
/// - Time: [`turn_budget`](Self::turn_budget) (2 ms), [`slow_turn`](Self::slow_turn) (100 ms),
///   [`busy_poll`](Self::busy_poll) (none), [`shutdown_delay`](Self::shutdown_delay) (none).
///
/// Wrong values give no error in the setters. [`check`](Self::check) finds them, and a reactor is
/// refused with [`Error::ReactorOptions`](crate::Error::ReactorOptions).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use condor::{Reactor, ReactorOptions};
///
/// let options = ReactorOptions::new().packet_budget(256).slow_turn(Duration::from_millis(20));
/// let reactor = Reactor::with_options(options)?;
/// # drop(reactor);
/// # Ok::<(), condor::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ReactorOptions {
    pub(crate) read_buffer: usize,
    pub(crate) packet_budget: u32,
    pub(crate) accept_budget: u32,
    pub(crate) message_budget: u32,
    pub(crate) timer_budget: usize,
    pub(crate) events: usize,
    pub(crate) turn_budget: Duration,
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
            turn_budget: Duration::from_millis(2),
            slow_turn: Duration::from_millis(100),
            busy_poll: Duration::ZERO,
            shutdown_delay: Duration::ZERO,
        }
    }
}

impl ReactorOptions {
    /// The largest [`events`](Self::events): 16,384 events per batch.
    pub const MAX_EVENTS: usize = 16 * 1024;
    /// The smallest [`read_buffer`](Self::read_buffer), in bytes: 4 KiB.
    pub const MIN_READ_BUFFER: usize = 4 * 1024;
    /// The largest [`read_buffer`](Self::read_buffer), in bytes: 1 GiB.
    pub const MAX_READ_BUFFER: usize = 1 << 30;

    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Size in bytes of the one buffer that all sockets are read into. Default: 256 KiB. From
    /// [`MIN_READ_BUFFER`](Self::MIN_READ_BUFFER) to [`MAX_READ_BUFFER`](Self::MAX_READ_BUFFER).
    ///
    /// It is also the read budget: the most bytes that one turn reads from one connection. A single
    /// read takes at most 64 KiB.
    pub fn read_buffer(mut self, bytes: usize) -> Self {
        self.read_buffer = bytes;
        self
    }

    /// The most packets delivered to one connection per turn. Default: 4,096. At least 1.
    pub fn packet_budget(mut self, packets: u32) -> Self {
        self.packet_budget = packets;
        self
    }

    /// The most connections accepted per listener and turn. Default: 64. At least 1. Short turns
    /// accept fewer, until the listener finds that more clients wait.
    pub fn accept_budget(mut self, connections: u32) -> Self {
        self.accept_budget = connections;
        self
    }

    /// The most messages delivered per listener and turn. Default: 1,024. At least 1. A broadcast
    /// counts once for each connection that receives it.
    pub fn message_budget(mut self, messages: u32) -> Self {
        self.message_budget = messages;
        self
    }

    /// The most timers per turn that fire or are moved inside the timer wheel. Default: 4,096. At
    /// least 1.
    pub fn timer_budget(mut self, timers: usize) -> Self {
        self.timer_budget = timers;
        self
    }

    /// How many events the first batch can hold. Default: 256. From 1 to
    /// [`MAX_EVENTS`](Self::MAX_EVENTS). When a batch is full, later batches hold more, up to
    /// `MAX_EVENTS`.
    pub fn events(mut self, events: usize) -> Self {
        self.events = events;
        self
    }

    /// How long a turn may take. Default: 2 ms. Zero: turns are not bounded in time, only by the
    /// other budgets.
    ///
    /// Each phase of the turn (accepting, packets, commands, messages, timers, writes) has a share
    /// of this time, and listeners divide it evenly. A connection gets a slice of 250 µs. The rest
    /// of its packets waits for a later turn, behind the connections that have become ready in the
    /// meantime. So one connection, or thousands, that send without pause cannot delay the others
    /// for longer than a few turns.
    ///
    /// The reactor reads the clock after each few callbacks, about every 50 µs. It cannot interrupt
    /// a callback, so a turn takes this time and the callbacks between two looks at the clock.
    pub fn turn_budget(mut self, time: Duration) -> Self {
        self.turn_budget = time;
        self
    }

    /// If a turn takes longer than this, a warning is logged, at most once a second. It names the
    /// listener that took most of the time. Default: 100 ms. Zero: every turn is too long.
    /// `Duration::MAX`: no turn is.
    pub fn slow_turn(mut self, threshold: Duration) -> Self {
        self.slow_turn = threshold;
        self
    }

    /// How long the reactor polls without blocking after the last event. This lowers latency, and
    /// keeps a core busy. Default: zero, the reactor blocks at once. `Duration::MAX`: it never
    /// blocks.
    pub fn busy_poll(mut self, duration: Duration) -> Self {
        self.busy_poll = duration;
        self
    }

    /// How long [`Handle::shutdown`](crate::Handle::shutdown) leaves the listening sockets open
    /// after [`Handle::is_ready`](crate::Handle::is_ready) has become `false`. A load balancer can
    /// notice the change in this time. Default: zero. `Duration::MAX`: until `shutdown` is called
    /// again.
    pub fn shutdown_delay(mut self, delay: Duration) -> Self {
        self.shutdown_delay = delay;
        self
    }

    /// Finds every error in these options. If there is any, the reactor is not made.
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

    /// Returns these options if they have no errors.
    pub(crate) fn checked(self) -> Result<Self, Error> {
        let errors = self.check().errors;
        if errors.is_empty() { Ok(self) } else { Err(Error::ReactorOptions { errors }) }
    }
}
