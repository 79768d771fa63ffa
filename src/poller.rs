//! Where events come from: the system's event queue, or a simulated network.
//!
//! A reactor polls either through the same calls, so that a test drives the reactor itself. What an
//! event says is a [`Readiness`], whatever made it.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll, Token};

use crate::flags::flag_set;
use crate::options::ReactorOptions;

/// The longest wait that is asked of the system, which counts milliseconds in 32 bits: 24.8 days at
/// most. The turn that ends a shorter wait finds nothing due, and waits again.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

flag_set! {
    /// What an event says of a stream.
    Readiness: u16 {
        /// There may be something to read.
        READABLE = 0,
        /// There may be room to write.
        WRITABLE = 1,
        /// A short read proves nothing: the event carried an end, an error or an urgent byte.
        READ_UNTIL_BLOCKED = 2,
        /// The event carried an error.
        ERROR = 3,
    }
}

impl From<&Event> for Readiness {
    fn from(event: &Event) -> Self {
        let mut readiness = Self::NONE;
        if event.is_writable() {
            readiness.insert(Self::WRITABLE);
        }
        if event.is_readable() {
            readiness.insert(Self::READABLE);
        }
        if event.is_read_closed() || event.is_priority() {
            readiness.insert(Self::READABLE.with(Self::READ_UNTIL_BLOCKED));
        }
        if event.is_error() {
            readiness.insert(Self::READABLE.with(Self::READ_UNTIL_BLOCKED).with(Self::ERROR));
        }
        readiness
    }
}

/// A network that exists in this process only.
pub(crate) trait SimulatedNetwork {
    /// Takes at most `most` events, oldest first.
    fn take_events(&mut self, most: usize, into: &mut Vec<(Token, Readiness)>);
}

/// Where sockets are registered.
#[derive(Debug)]
pub(crate) enum Registry {
    System(mio::Registry),
    Simulated,
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

    /// Waits for events, for `timeout` at most. A simulated network has all there is at once: time
    /// passes only by the hand of the test.
    pub(crate) fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::System { poll, events } => {
                poll.poll(events, timeout.map(|wait| wait.min(MAX_WAIT)))
            }
            Self::Simulated { network, events, most } => {
                events.clear();
                network.take_events(*most, events);
                Ok(())
            }
        }
    }

    /// Forgets the batch: the call was interrupted before it filled one.
    pub(crate) fn forget(&mut self) {
        match self {
            Self::System { events, .. } => events.clear(),
            Self::Simulated { events, .. } => events.clear(),
        }
    }

    /// Hands on each event of the batch. Returns how many there were, and whether the batch was
    /// full: then more may be ready than we know, and the next batch is larger.
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
