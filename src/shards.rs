//! One reactor per core, behind the same API as one.
//!
//! ```text
//!   listener ──► the shard that accepts ──► the part with fewest connections, on any shard
//!   Handle ────► directory, then the shard that a command is about
//! ```
//!
//! Shards share nothing that a packet touches. What they share is who is let in
//! ([`Admission`](crate::admission)), the names of the listeners, and a way to tell each other to
//! stop.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::dispatch::panic_text;
use crate::error::Error;
use crate::handle::{Handle, ListenerHandle, Shared};
use crate::handler::{Accepted, Handler};
use crate::options::{ListenerOptions, ReactorOptions};
use crate::reactor::{Reactor, Seed};
use crate::sync::Arc;

/// Several reactors, each on a thread of its own.
///
/// A handler is made on its shard and stays there, so it need not be `Send`; the factory is cloned
/// for each shard. Addresses, broadcasts, [`Handle::close`] and statistics reach across shards, and
/// [`max_connections`](ListenerOptions::max_connections) counts all of them together.
///
/// # Examples
///
/// ```
/// use condor::{Action, Context, Handler, ListenerOptions, Shards};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     type Message = ();
///     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
///         Action::send(packet)
///     }
/// }
///
/// # fn main() -> Result<(), condor::Error> {
/// let shards = Shards::new(2)?;
/// shards.start_listener("echo", ListenerOptions::port(0), |_peer| Echo)?;
/// let handle = shards.handle();
/// # let _ = handle.shutdown()?;
/// shards.run()
/// # }
/// ```
///
/// # Pinning
///
/// [`on_thread_start`](Self::on_thread_start) runs on each shard's thread before anything else;
/// with a crate such as `core_affinity` it pins:
///
/// ```ignore
/// let cores = core_affinity::get_core_ids().unwrap_or_default();
/// let shards = Shards::new(cores.len())?.on_thread_start(move |shard| {
///     core_affinity::set_for_current(cores[shard]);
/// });
/// ```
pub struct Shards {
    seeds: Vec<Seed>,
    handle: Handle,
    on_thread_start: Arc<dyn Fn(usize) + Send + Sync>,
}

impl Shards {
    /// `count` shards with the default [`ReactorOptions`]. Zero is taken for one.
    ///
    /// # Errors
    ///
    /// As [`Reactor::new`].
    pub fn new(count: usize) -> Result<Self, Error> {
        Self::with_options(count, ReactorOptions::default())
    }

    /// `count` shards with these options each.
    ///
    /// # Errors
    ///
    /// As [`Reactor::new`].
    pub fn with_options(count: usize, options: ReactorOptions) -> Result<Self, Error> {
        let mut seeds = Vec::new();
        let mut ends = Vec::new();
        for shard in 0..count.max(1) {
            let (seed, end) = Seed::new(shard, options.clone())?;
            seeds.push(seed);
            ends.push(end);
        }
        let handle = Handle { shared: Arc::new(Shared::new(ends)) };
        Ok(Self { seeds, handle, on_thread_start: Arc::new(|_shard| {}) })
    }

    /// Has `hook` called on each shard's thread, with the shard's number from 0, before it serves.
    pub fn on_thread_start(mut self, hook: impl Fn(usize) + Send + Sync + 'static) -> Self {
        self.on_thread_start = Arc::new(hook);
        self
    }

    /// Starts a listener on all shards. See [`Reactor::start_listener`].
    ///
    /// # Errors
    ///
    /// As [`Reactor::start_listener`].
    pub fn start_listener<H, F>(
        &self,
        name: &str,
        options: ListenerOptions,
        factory: F,
    ) -> Result<ListenerHandle<H::Message>, Error>
    where
        H: Handler,
        F: FnMut(&Accepted<'_>) -> H + Clone + Send + 'static,
    {
        self.handle.start_listener(name, options, factory)
    }

    /// What other threads may ask of these shards.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs all shards until [`Handle::shutdown`] has drained every listener.
    ///
    /// The threads are named after the listeners that have been started, and their shard.
    ///
    /// # Errors
    ///
    /// [`Error::Shard`] if a shard ended in any other way, by an error of its event queue or a bug:
    /// all others are ended then, rather than serving on in part. [`Error::Poll`] if a thread
    /// cannot be made.
    pub fn run(self) -> Result<(), Error> {
        let names: Vec<String> =
            self.handle.listeners().into_iter().map(|(name, ..)| name).collect();
        let label = names.join("+");
        let (ended, ends) = mpsc::channel();
        let mut threads = Vec::new();
        let mut outcome = Ok(());
        for (shard, seed) in self.seeds.into_iter().enumerate() {
            let job = Job {
                shard,
                seed,
                shared: Arc::clone(&self.handle.shared),
                hook: Arc::clone(&self.on_thread_start),
                ended: ended.clone(),
            };
            let named = thread::Builder::new().name(format!("{label}/{shard}"));
            match named.spawn(move || job.run()) {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    outcome = Err(Error::Poll { what: "make a thread", source });
                    break;
                }
            }
        }
        drop(ended);
        if outcome.is_err() {
            self.handle.shared.abort();
        }
        for (shard, why) in ends {
            if let Some(why) = why {
                self.handle.shared.abort();
                log::error!("shard {shard} ended: {why}");
                outcome = outcome.and(Err(Error::Shard { shard, why }));
            }
        }
        threads.into_iter().for_each(join);
        outcome
    }
}

/// A shard's panics were caught and reported on its own thread.
fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        log::error!("a shard's thread panicked while it ended");
    }
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").field("count", &self.seeds.len()).finish_non_exhaustive()
    }
}

/// What a shard's thread does.
struct Job {
    shard: usize,
    seed: Seed,
    shared: Arc<Shared>,
    hook: Arc<dyn Fn(usize) + Send + Sync>,
    ended: mpsc::Sender<(usize, Option<String>)>,
}

impl Job {
    fn run(self) {
        let Self { shard, seed, shared, hook, ended } = self;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            hook(shard);
            Reactor::from_seed(seed, shared).run()
        }));
        let why = match caught {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(describe(panic.as_ref())),
        };
        // Nobody listens only if `run` itself is gone.
        let _ = ended.send((shard, why));
    }
}

fn describe(panic: &(dyn Any + Send)) -> String {
    format!("it panicked: {}", panic_text(panic))
}
