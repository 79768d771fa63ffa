//! Timers of a reactor's own: how handles start and end them. What a reactor does with them is in
//! `reactor/every`.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Handle;
use crate::directory::{Command, Shared};
use crate::error::Error;
use crate::sync::Arc;

/// The id of the next timer in this process.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Handle {
    /// Calls `call` again and again, on the reactor's own thread: first after `period`, then once in
    /// each further `period`. It is meant for what belongs to no connection, such as the expiry of a
    /// cache, or a line of statistics. With [`Shards`](crate::Shards) it is the thread of the first
    /// shard.
    ///
    /// - The timer ends when the [`Every`] is dropped, or when the reactor ends. It does not keep
    ///   [`run`](crate::Reactor::run) from returning.
    /// - The times are multiples of `period`, counted from the turn in which the reactor starts the
    ///   timer, so they do not drift. If the reactor is late, the calls that it has missed are left
    ///   out: there is at most one call in a turn.
    /// - Time counts in milliseconds, and a part of one counts as a whole one. `Duration::MAX` never
    ///   comes.
    /// - A panic in `call` is logged, and [`Stats::panics`](crate::Stats::panics) of
    ///   [`stats`](Self::stats) counts it. The timer goes on.
    /// - Like a handler, `call` must not block: meanwhile no connection is served.
    ///
    /// If `call` is not `Send`, use [`Reactor::every`](crate::Reactor::every).
    ///
    /// # Errors
    ///
    /// [`Error::ZeroPeriod`] if `period` is zero; [`Error::Gone`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use std::sync::{Arc, Mutex};
    /// use std::time::{Duration, Instant};
    ///
    /// use condor::Reactor;
    ///
    /// let reactor = Reactor::new()?;
    /// let cache: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    /// let expiring = Arc::clone(&cache);
    /// let _expiry = reactor.handle().every(Duration::from_secs(10), move || {
    ///     let mut cache = expiring.lock().unwrap();
    ///     cache.retain(|_, used| used.elapsed() < Duration::from_secs(60));
    /// })?;
    /// # Ok::<(), condor::Error>(())
    /// ```
    pub fn every(
        &self,
        period: Duration,
        call: impl FnMut() + Send + 'static,
    ) -> Result<Every, Error> {
        const SHARD: usize = 0;
        let every = Every::new(&self.shared, SHARD, period)?;
        let (id, ended) = (every.id, Arc::clone(&every.ended));
        let command = Command::StartTimer { id, period, call: Box::new(call), ended };
        self.shared.inboxes[SHARD].command(command)?;
        Ok(every)
    }
}

/// A timer of a reactor's own. A drop of this value ends the timer.
///
/// [`Handle::every`] and [`Reactor::every`](crate::Reactor::every) return it.
///
/// ```
/// use std::time::Duration;
///
/// use condor::Reactor;
///
/// let reactor = Reactor::new()?;
/// let handle = reactor.handle();
/// let ticking = handle.every(Duration::from_secs(1), || println!("tick"))?;
/// ticking.cancel();
/// handle.every(Duration::from_secs(60), || println!("one more minute"))?.detach();
/// # Ok::<(), condor::Error>(())
/// ```
#[must_use = "a drop of it ends the timer"]
pub struct Every {
    shared: Arc<Shared>,
    shard: usize,
    pub(crate) id: u64,
    /// The reactor makes no call once this is true. The command that follows frees the closure.
    pub(crate) ended: Arc<AtomicBool>,
    detached: bool,
}

impl Every {
    pub(crate) fn new(shared: &Arc<Shared>, shard: usize, period: Duration) -> Result<Self, Error> {
        if period.is_zero() {
            return Err(Error::ZeroPeriod);
        }
        Ok(Self {
            shared: Arc::clone(shared),
            shard,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            ended: Arc::default(),
            detached: false,
        })
    }

    /// Ends the timer, as a drop does. On the reactor's own thread, there is no further call. On any
    /// other thread, a call that has begun meanwhile comes to its end. The reactor drops the closure
    /// in its next turn.
    pub fn cancel(self) {}

    /// Lets the timer go on for as long as the reactor runs, without this value.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl Drop for Every {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        self.ended.store(true, Ordering::SeqCst);
        // A reactor that is gone has no timers.
        let _ = self.shared.inboxes[self.shard].command(Command::EndTimer { id: self.id });
    }
}

impl fmt::Debug for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Every").field("id", &self.id).finish_non_exhaustive()
    }
}
