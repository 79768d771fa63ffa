//! How handles start timers of a reactor's own. What the reactor does with them is in `reactor/every`.

use std::time::Duration;

use super::Handle;
use crate::directory::Command;
use crate::error::Error;
use crate::every::Every;
use crate::sync::Arc;

impl Handle {
    /// Calls `call` again and again, on the reactor's own thread: first after `period`, then once in
    /// each further `period`. It is meant for what belongs to no connection, such as the expiry of a
    /// cache, or a line of statistics. With [`Shards`](crate::Shards) it is the first shard, on its
    /// thread.
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
    /// - `call` may hold a `Handle` of the reactor. This does not keep the reactor alive.
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
