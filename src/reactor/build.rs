//! Makes a reactor: first the parts whose making can fail, then the rest on the reactor's own
//! thread.

use std::sync::Once;

use mio::{Poll, Waker};
use slab::Slab;

use super::Reactor;
use super::timers::Timers;
use crate::clock::{Clock, Nanos};
use crate::directory::{Inbox, Shared};
use crate::error::Error;
use crate::handle::Handle;
use crate::logging::{LogGate, say};
use crate::loop_state::LoopState;
use crate::mailbox::Notifier;
use crate::options::ReactorOptions;
use crate::poller::{Poller, Registry};
use crate::sync::Arc;
use crate::token;

/// The parts of a reactor that can be made on another thread. Making them can fail.
pub(crate) struct ReactorParts {
    pub(super) shard: usize,
    pub(super) poll: Poll,
    pub(super) registry: mio::Registry,
    pub(super) options: ReactorOptions,
}

impl ReactorParts {
    pub(crate) fn new(shard: usize, options: ReactorOptions) -> Result<(Self, Inbox), Error> {
        let options = options.checked()?;
        let failed = |what| move |source| Error::Poll { what, source };
        let poll = Poll::new().map_err(failed("make an event queue"))?;
        let waker = Waker::new(poll.registry(), token::WAKER).map_err(failed("make a waker"))?;
        let registry = poll.registry().try_clone().map_err(failed("share the event queue"))?;
        let logged = Once::new();
        let notifier = Notifier::new(move || {
            if let Err(error) = waker.wake() {
                logged.call_once(|| say!(Error, "reactor: cannot be woken: {error}"));
            }
        });
        Ok((Self { shard, poll, registry, options }, Inbox::new(notifier)))
    }

    /// Makes the reactor, on the calling thread.
    pub(crate) fn grow(self, shared: Arc<Shared>) -> Reactor {
        let Self { shard, poll, registry, options } = self;
        let poller = Poller::system(poll, options.events);
        let registry = Registry::System(registry);
        Reactor::assemble(shard, poller, registry, Clock::monotonic(), options, shared)
    }
}

impl Reactor {
    /// A reactor with the default [`ReactorOptions`].
    ///
    /// # Errors
    ///
    /// [`Error::Poll`] if the system has no descriptors left for it.
    pub fn new() -> Result<Self, Error> {
        Self::with_options(ReactorOptions::default())
    }

    /// A reactor with these options.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and [`Error::ReactorOptions`] with everything that is
    /// [wrong](ReactorOptions::check) with the options.
    pub fn with_options(options: ReactorOptions) -> Result<Self, Error> {
        let (parts, end) = ReactorParts::new(0, options)?;
        Ok(parts.grow(Arc::new(Shared::new(vec![end]))))
    }

    /// Puts a reactor together, on the calling thread.
    pub(crate) fn assemble(
        shard: usize,
        poller: Poller,
        registry: Registry,
        clock: Clock,
        options: ReactorOptions,
        shared: Arc<Shared>,
    ) -> Self {
        shared.threads.bind_thread(shard);
        shared.inboxes[shard].notifier.bind_thread();
        let metrics = Arc::clone(&shared.inboxes[shard].metrics);
        Self {
            shard,
            poller,
            more_commands: false,
            last_event: Nanos(0),
            read: vec![0; options.read_buffer],
            listeners: Slab::new(),
            state: LoopState::new(clock, options, registry, metrics),
            handle: Handle { shared },
            shutdown: None,
            timers: Timers::default(),
            gate: LogGate::default(),
            stopped: false,
        }
    }
}
