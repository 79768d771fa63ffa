//! What handles report of one listener, while it runs and afterwards.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::drain::{FinalReport, Report};
use crate::error::Error;
use crate::stats::{Counters, Stats};
use crate::sync::Arc;

/// How far a listener has come. [`ListenerHandle::state`](crate::ListenerHandle::state) returns it.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListenerState {
    /// Its socket listens. Clients that connect are served once the reactor runs.
    Listening,
    /// It takes no more clients, and its connections come to their end: it was stopped, its reactor
    /// shuts down, or its socket [failed](crate::ListenerHandle::failure).
    Draining,
    /// It has no connection left, or its reactor has ended. Its name is free again.
    Ended,
}

/// The serial of the next listener part in this process.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Status {
    name: Arc<str>,
    /// The serial of the part on the first shard. The other parts have the serials after it. No
    /// other listener of this process has any of them.
    serial: u64,
    /// The shard that accepts.
    acceptor: usize,
    counters: Vec<Arc<Counters>>,
    /// For each part, the report of its drain, once it is drained.
    reports: Vec<FinalReport>,
    /// The parts that have not ended.
    parts: AtomicUsize,
    draining: AtomicBool,
    /// A handle has paused accepting. A drain ends the pause.
    paused: AtomicBool,
    max_connections: AtomicUsize,
    failure: OnceLock<Error>,
}

impl Status {
    /// A listener with this many parts.
    pub(crate) fn new(
        name: Arc<str>,
        acceptor: usize,
        parts: usize,
        max_connections: usize,
    ) -> Self {
        Self {
            name,
            serial: NEXT_SERIAL.fetch_add(parts as u64, Ordering::Relaxed),
            acceptor,
            counters: (0..parts).map(|_| Arc::default()).collect(),
            reports: (0..parts).map(|_| FinalReport::default()).collect(),
            parts: AtomicUsize::new(parts),
            draining: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            max_connections: AtomicUsize::new(max_connections),
            failure: OnceLock::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn acceptor(&self) -> usize {
        self.acceptor
    }

    pub(crate) fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// The shard of the part with this serial. `None` if it is another listener's.
    pub(crate) fn shard_of(&self, serial: u64) -> Option<usize> {
        let shard = usize::try_from(serial.checked_sub(self.serial)?).ok()?;
        (shard < self.counters.len()).then_some(shard)
    }

    /// The sum of the counters of all parts.
    pub(crate) fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        for counters in &self.counters {
            sum.merge(&counters.snapshot());
        }
        sum
    }

    pub(crate) fn state(&self) -> ListenerState {
        if self.parts.load(Ordering::SeqCst) == 0 {
            ListenerState::Ended
        } else if self.draining.load(Ordering::SeqCst) {
            ListenerState::Draining
        } else {
            ListenerState::Listening
        }
    }

    /// Notes that no more clients are taken.
    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Pauses accepting, or ends the pause. The caller then notifies the part that accepts.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }

    /// Whether a handle has paused accepting. False once the listener drains: a drain serves the
    /// clients that wait.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst) && !self.draining.load(Ordering::SeqCst)
    }

    /// Changes the limit. The caller then notifies the part that accepts.
    pub(crate) fn set_max_connections(&self, connections: usize) {
        self.max_connections.store(connections, Ordering::SeqCst);
    }

    pub(crate) fn max_connections(&self) -> usize {
        self.max_connections.load(Ordering::SeqCst)
    }

    /// Where the report of the part on this shard stays.
    pub(crate) fn report(&self, shard: usize) -> &FinalReport {
        &self.reports[shard]
    }

    /// Keeps the report of the part on this shard.
    pub(crate) fn keep_report(&self, shard: usize, report: &Report) {
        self.reports[shard].get_or_init(|| report.clone());
    }

    /// Notes that a part has ended. Returns whether it was the last one.
    pub(crate) fn part_ended(&self) -> bool {
        self.parts.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Notes why the listening socket failed. The first reason stands.
    pub(crate) fn fail(&self, source: io::Error) -> &Error {
        self.failure.get_or_init(|| Error::Accept { name: self.name.to_string(), source })
    }

    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each part leaves its report in its own place, and the first one stays. The part that
    /// accepts is the one that was named.
    #[test]
    fn each_part_leaves_its_own_report() {
        let status = Status::new("two".into(), 1, 2, 8);
        assert_eq!(status.acceptor(), 1);
        let report = |drained| Report { drained, ..Report::default() };
        status.keep_report(1, &report(3));
        status.keep_report(1, &report(4));
        assert_eq!(status.report(0).get(), None);
        assert_eq!(status.report(1).get(), Some(&report(3)));
    }
}
