//! The value that stands for a timer of a reactor's own.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::directory::{Command, Shared};
use crate::error::Error;
use crate::sync::Arc;

/// The id of the next timer in this process.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A timer of a reactor's own. A drop of this value ends the timer.
///
/// [`Handle::every`](crate::Handle::every) and [`Reactor::every`](crate::Reactor::every) return it.
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
