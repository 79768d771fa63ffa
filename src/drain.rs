//! Waits for a drain, and reports its result.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::identity::ConnectionId;
use crate::reason::CloseReason;

/// The result of a drain.
///
/// It is printed as one line of numbers, for a log:
///
/// ```
/// let line = condor::Report::default().to_string();
/// assert_eq!(line, "drained=0 forced=0 opening=0 undelivered_bytes=0 unsent_bytes=0");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Connections that were not forced. They ended between packets, or for a reason of their own.
    pub drained: u64,
    /// Connections that were ended at the drain deadline, or by a second shutdown. This includes
    /// connections whose end was decided before, and whose last output could not leave.
    pub forced: u64,
    /// Accepted connections that were still opening: their PROXY header had not arrived. They got no
    /// handler, and were refused.
    pub opening: u64,
    /// Bytes of unfinished packets that forced connections had received. No handler got them.
    pub undelivered_bytes: u64,
    /// Bytes of answers that forced connections had queued, and that were not sent.
    pub unsent_bytes: u64,
    /// The connections that took longest, sorted so that the last one to end comes last. At most
    /// [`Report::SLOWEST`] of each listener and shard.
    pub slowest: Vec<SlowConnection>,
}

/// One of the last connections that ended in a drain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowConnection {
    /// The connection's name.
    pub id: ConnectionId,
    /// The peer's endpoint.
    pub peer_addr: Endpoint,
    /// The reason for its end.
    pub reason: CloseReason,
    /// The time from the beginning of the drain to the end of the connection.
    pub after: Duration,
}

impl Report {
    /// The largest number of connections in [`slowest`](Self::slowest), for each listener and
    /// shard.
    pub const SLOWEST: usize = 8;

    /// Counts a connection that has ended.
    pub(crate) fn count(&mut self, slow: SlowConnection, was_forced: bool) {
        if was_forced {
            self.forced += 1;
        } else {
            self.drained += 1;
        }
        if self.slowest.len() == Self::SLOWEST {
            self.slowest.remove(0);
        }
        self.slowest.push(slow);
    }

    /// Adds the report of another listener or shard.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.drained += other.drained;
        self.forced += other.forced;
        self.opening += other.opening;
        self.undelivered_bytes += other.undelivered_bytes;
        self.unsent_bytes += other.unsent_bytes;
        self.slowest.extend_from_slice(&other.slowest);
        self.slowest.sort_by_key(|slow| slow.after);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "drained={} forced={} opening={} undelivered_bytes={} unsent_bytes={}",
            self.drained, self.forced, self.opening, self.undelivered_bytes, self.unsent_bytes
        )
    }
}

#[derive(Debug, Default)]
struct Progress {
    /// Parts of the drain that are not over. There is one part per shard.
    pending: usize,
    report: Report,
    /// A reactor went away before its part was over.
    gone: bool,
}

#[derive(Debug, Default)]
struct State {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl State {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A drain under way. A drop of this value does not stop the drain.
#[derive(Debug, Clone)]
pub struct Drain {
    state: Arc<State>,
    threads: Arc<Threads>,
}

/// The threads that do the work that a drain waits for.
#[derive(Debug)]
pub(crate) struct Threads {
    /// The reactors' threads. Each is known once its reactor is on it.
    reactors: Box<[OnceLock<ThreadId>]>,
    /// For shards that do not run yet: the thread that used them last.
    owner: Mutex<Option<ThreadId>>,
}

impl Threads {
    pub(crate) fn new(reactors: usize) -> Self {
        Self { reactors: (0..reactors).map(|_| OnceLock::new()).collect(), owner: Mutex::default() }
    }

    /// Notes that the reactor of `shard` is on the calling thread from now on.
    pub(crate) fn bind_thread(&self, shard: usize) {
        self.reactors[shard].get_or_init(|| thread::current().id());
    }

    /// Notes that shards that do not run yet are on the calling thread.
    pub(crate) fn owned_here(&self) {
        *self.owner() = Some(thread::current().id());
    }

    /// Notes that the shards run: from now on the reactors' threads do the work.
    pub(crate) fn disown(&self) {
        *self.owner() = None;
    }

    fn is_reactor_here(&self) -> bool {
        let here = thread::current().id();
        self.reactors.iter().any(|thread| thread.get() == Some(&here))
    }

    fn is_owner_here(&self) -> bool {
        *self.owner() == Some(thread::current().id())
    }

    fn owner(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The report of a shutdown, which stays when the shutdown has ended the reactor.
pub(crate) type FinalReport = Arc<OnceLock<Report>>;

impl Drain {
    /// If the shards are on the calling thread and do not run, `wait` gives up after this time.
    /// Until then they may be moved to another thread and run.
    const GRACE: Duration = Duration::from_secs(1);

    /// A drain, and one part for each reactor. The drain is over when all parts are complete.
    pub(crate) fn new(threads: Arc<Threads>) -> (Self, Vec<DrainPart>) {
        let parts = threads.reactors.len();
        let state = Arc::new(State::default());
        state.progress().pending = parts;
        let part = |_| DrainPart { state: Arc::clone(&state), report: None, final_report: None };
        let parts = (0..parts).map(part).collect();
        (Self { state, threads }, parts)
    }

    /// Blocks until the last connection has ended, and returns the report. Once the drain is over,
    /// every call returns the report at once, on any thread.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`] on a reactor's own thread while the drain is not over, for example
    /// in a callback or between two turns. [`Error::WouldDeadlock`] after 1 s on the thread that
    /// last used [`Shards`](crate::Shards) that do not run. Within that second another thread may
    /// begin to run them. [`Error::Gone`] if a reactor ended before the drain was over: it was
    /// dropped, or its `run` returned an error.
    pub fn wait(&self) -> Result<Report, Error> {
        let mut progress = self.state.progress();
        if progress.pending > 0 && self.threads.is_reactor_here() {
            return Err(Error::WouldDeadlock);
        }
        let grace = now() + Self::GRACE;
        while progress.pending > 0 {
            let changed = &self.state.changed;
            progress = if self.threads.is_owner_here() {
                let left = grace.saturating_duration_since(now());
                if left.is_zero() {
                    return Err(Error::WouldDeadlock);
                }
                changed.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0
            } else {
                changed.wait(progress).unwrap_or_else(PoisonError::into_inner)
            };
        }
        if progress.gone { Err(Error::Gone) } else { Ok(progress.report.clone()) }
    }

    /// The report, if the drain is over.
    pub fn report(&self) -> Option<Report> {
        let progress = self.state.progress();
        (progress.pending == 0 && !progress.gone).then(|| progress.report.clone())
    }
}

#[expect(clippy::disallowed_methods, reason = "`wait` blocks, and uses no reactor's clock")]
fn now() -> Instant {
    Instant::now()
}

/// A reactor's part of a [`Drain`]. If it is dropped without a report, it marks the reactor as
/// gone.
#[derive(Debug)]
pub(crate) struct DrainPart {
    state: Arc<State>,
    report: Option<Report>,
    final_report: Option<FinalReport>,
}

impl DrainPart {
    /// Makes this a part of a shutdown. A reactor that has shut down already is not gone: its final
    /// report counts.
    pub(crate) fn or(mut self, final_report: &FinalReport) -> Self {
        self.final_report = Some(Arc::clone(final_report));
        self
    }

    pub(crate) fn complete(mut self, report: &Report) {
        self.report = Some(report.clone());
    }
}

impl Drop for DrainPart {
    fn drop(&mut self) {
        let mut progress = self.state.progress();
        progress.pending -= 1;
        let final_report = self.final_report.as_ref().and_then(|final_report| final_report.get());
        match self.report.as_ref().or(final_report) {
            Some(report) => progress.report.merge(report),
            None => progress.gone = true,
        }
        self.state.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report with these numbers, and one slow connection that ended `secs` seconds after the
    /// beginning.
    fn report(drained: u64, forced: u64, undelivered: u64, unsent: u64, secs: u64) -> Report {
        let slow = SlowConnection {
            id: ConnectionId { serial: 1, key: 2, generation: 3 },
            peer_addr: ([127, 0, 0, 1], 4).into(),
            reason: CloseReason::Shutdown,
            after: Duration::from_secs(secs),
        };
        Report {
            drained,
            forced,
            opening: drained * 3,
            undelivered_bytes: undelivered,
            unsent_bytes: unsent,
            slowest: vec![slow],
        }
    }

    /// Goal: reports of listeners and shards add up, each number to its own sum. Method: three
    /// reports with numbers that give different sums in every combination.
    #[test]
    fn reports_add_up() {
        let mut sum = Report::default();
        for part in [
            report(1, 10, 100, 1_000, 9),
            report(2, 20, 200, 2_000, 3),
            report(4, 40, 400, 4_000, 6),
        ] {
            sum.merge(&part);
        }
        assert_eq!((sum.drained, sum.forced, sum.opening), (7, 70, 21));
        assert_eq!((sum.undelivered_bytes, sum.unsent_bytes), (700, 7_000));
        let after = sum.slowest.iter().map(|slow| slow.after.as_secs());
        assert_eq!(after.collect::<Vec<_>>(), [3, 6, 9], "the last one last");
    }

    /// Goal: a wait gives up after a second only on the thread that has the shards, and only until
    /// they run elsewhere. Method: the question that `wait` asks, on this thread and on another.
    #[test]
    fn shards_are_on_the_thread_that_used_them_last_until_they_run() {
        let threads = Threads::new(2);
        assert!(!threads.is_owner_here());
        threads.owned_here();
        assert!(threads.is_owner_here() && !threads.is_reactor_here());
        thread::scope(|scope| {
            scope.spawn(|| assert!(!threads.is_owner_here()));
        });
        threads.disown();
        assert!(!threads.is_owner_here(), "they run on other threads");
    }

    /// Goal: a drain is over when all parts are, with the sum of their reports. A part that is
    /// dropped counts with the report that its shutdown or its listener has left. Without one, the
    /// reactor is gone. Method: parts that end in each of these ways.
    #[test]
    fn a_part_counts_with_its_own_report_or_with_the_one_that_was_left() {
        let (own, left) = (report(1, 10, 100, 1_000, 2), report(2, 20, 200, 2_000, 1));
        let final_report = FinalReport::default();
        let (drain, mut parts) = Drain::new(Arc::new(Threads::new(2)));
        let [first, second] =
            [parts.remove(0).or(&final_report), parts.remove(0).or(&final_report)];
        final_report.get_or_init(|| left.clone());
        first.complete(&own);
        assert_eq!(drain.report(), None, "a part is not over");
        drop(second);
        let mut sum = Report::default();
        sum.merge(&own);
        sum.merge(&left);
        assert_eq!(drain.report(), Some(sum.clone()));
        assert_eq!(drain.wait().unwrap(), sum);

        let (drain, parts) = Drain::new(Arc::new(Threads::new(1)));
        drop(parts);
        assert_eq!(drain.report(), None);
        assert!(matches!(drain.wait(), Err(Error::Gone)));
    }
}
