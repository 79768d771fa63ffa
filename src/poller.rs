//! Where events come from: the system's event queue, or a simulated network.
//!
//! A reactor polls both through the same calls, so a test drives the reactor itself. Both describe
//! an event by a [`Readiness`].

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll, Token};

use crate::flags::flag_set;
use crate::options::ReactorOptions;

/// The longest wait that is asked of the system. The system counts milliseconds in 32 bits, 24.8
/// days at most. If a wait is cut to this length, the turn after it finds nothing due, and waits
/// again.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

flag_set! {
    /// What an event says about a stream.
    Readiness: u16 {
        /// The stream may be readable.
        READABLE = 0,
        /// The stream may be writable.
        WRITABLE = 1,
        /// A short read does not mean that the kernel has no more: the event carried an end, an
        /// error or an urgent byte.
        READ_UNTIL_BLOCKED = 2,
        /// The event carried an error.
        ERROR = 3,
    }
}

impl From<&Event> for Readiness {
    fn from(event: &Event) -> Self {
        let mut readiness = Self::default();
        if event.is_writable() {
            readiness = readiness.with(Self::WRITABLE);
        }
        if event.is_readable() {
            readiness = readiness.with(Self::READABLE);
        }
        if event.is_read_closed() || event.is_priority() {
            readiness = readiness.with(Self::READABLE).with(Self::READ_UNTIL_BLOCKED);
        }
        if event.is_error() {
            readiness =
                readiness.with(Self::READABLE).with(Self::READ_UNTIL_BLOCKED).with(Self::ERROR);
        }
        readiness
    }
}

/// A network that exists in this process only.
pub(crate) trait SimulatedNetwork {
    /// Takes at most `most` events, oldest first.
    fn take_events(&mut self, most: usize, into: &mut Vec<(Token, Readiness)>) -> io::Result<()>;
}

/// Where sockets are registered.
#[derive(Debug)]
pub(crate) enum Registry {
    System(mio::Registry),
    /// A simulated network has none. The random numbers of its reactor come from the seed.
    Simulated {
        seed: u64,
    },
}

impl Registry {
    /// Makes a call of the system's registry. A simulated network has none, and nothing fails there.
    pub(crate) fn with(
        &self,
        call: impl FnOnce(&mio::Registry) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Self::System(registry) => call(registry),
            Self::Simulated { .. } => Ok(()),
        }
    }
}

/// See the module's documentation.
pub(crate) enum Poller {
    System { poll: Poll, events: Events },
    Simulated { network: Box<dyn SimulatedNetwork>, events: Vec<(Token, Readiness)>, most: usize },
}

impl Poller {
    pub(crate) fn system(poll: Poll, events: usize) -> Self {
        Self::System { poll, events: Events::with_capacity(events) }
    }

    pub(crate) fn simulated(network: Box<dyn SimulatedNetwork>, events: usize) -> Self {
        Self::Simulated { network, events: Vec::new(), most: events }
    }

    /// Waits for events, for `timeout` at most. A simulated network returns its events at once:
    /// there only the test moves the time.
    pub(crate) fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::System { poll, events } => {
                poll.poll(events, timeout.map(|wait| wait.min(MAX_WAIT)))
            }
            Self::Simulated { network, events, most } => {
                events.clear();
                network.take_events(*most, events)
            }
        }
    }

    /// Empties the batch, because the call was interrupted before it filled one.
    pub(crate) fn forget(&mut self) {
        match self {
            Self::System { events, .. } => events.clear(),
            Self::Simulated { events, .. } => events.clear(),
        }
    }

    /// Calls `event` for each event of the batch. Returns the number of events, and whether the
    /// batch was full. After a full batch more events may be ready, so the next batch is larger.
    pub(crate) fn each(&mut self, mut event: impl FnMut(Token, Readiness)) -> (usize, bool) {
        let mut count = 0;
        match self {
            Self::System { events, .. } => {
                for seen in &*events {
                    count += 1;
                    event(seen.token(), Readiness::from(seen));
                }
                let full = count == events.capacity();
                if full && count < ReactorOptions::MAX_EVENTS {
                    *events = Events::with_capacity(ReactorOptions::MAX_EVENTS);
                }
                (count, full)
            }
            Self::Simulated { events, most, .. } => {
                for (token, readiness) in events.drain(..) {
                    count += 1;
                    event(token, readiness);
                }
                let full = count == *most;
                if full {
                    *most = ReactorOptions::MAX_EVENTS.max(count);
                }
                (count, full)
            }
        }
    }
}

impl AsRawFd for Poller {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::System { poll, .. } => poll.as_raw_fd(),
            Self::Simulated { .. } => -1,
        }
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System { .. } => "System",
            Self::Simulated { .. } => "Simulated",
        })
    }
}
