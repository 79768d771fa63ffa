//! Where a reactor gets the time from: monotonic nanoseconds since the reactor's start, and ticks
//! made of them.
//!
//! Every module below this one takes the time as an argument. A deadline is *set* from a time
//! rounded up to a tick, and *judged* against a time rounded down. So it never fires early, however
//! the system's timers round.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::wheel::Tick;

const NANOS_PER_TICK: u64 = 1_000_000;

/// A moment: nanoseconds since the clock's origin.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nanos(pub(crate) u64);

impl Nanos {
    /// The tick that a deadline is counted from.
    pub(crate) fn round_up(self) -> Tick {
        Tick(self.0.div_ceil(NANOS_PER_TICK))
    }

    /// The tick that a deadline is judged against.
    pub(crate) fn round_down(self) -> Tick {
        Tick(self.0 / NANOS_PER_TICK)
    }

    /// Whole microseconds.
    pub(crate) fn micros(self) -> u64 {
        self.0 / 1_000
    }

    /// The time from this moment to `now`. Zero if `now` is not later.
    pub(crate) fn elapsed_at(self, now: Self) -> Duration {
        Duration::from_nanos(now.0.saturating_sub(self.0))
    }

    /// The time from this moment until `tick` begins. Zero if it has begun.
    pub(crate) fn until(self, tick: Tick) -> Duration {
        Duration::from_nanos(tick.0.saturating_mul(NANOS_PER_TICK).saturating_sub(self.0))
    }
}

/// The reactor's source of time: the system's monotonic clock, or a [`ManualClock`].
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    last: Cell<u64>,
    by_hand: Option<ManualClock>,
}

impl Clock {
    pub(crate) fn monotonic() -> Self {
        Self { origin: system_now(), last: Cell::new(0), by_hand: None }
    }

    pub(crate) fn manual(hand: ManualClock) -> Self {
        Self { by_hand: Some(hand), ..Self::monotonic() }
    }

    /// The present. It is never less than what was returned before, even if the source goes back.
    pub(crate) fn now(&self) -> Nanos {
        let read = match &self.by_hand {
            None => nanos(system_now().saturating_duration_since(self.origin)),
            Some(hand) => hand.0.get(),
        };
        self.last.set(read.max(self.last.get()));
        Nanos(self.last.get())
    }

    /// What [`now`](Self::now) returned last.
    pub(crate) fn latest(&self) -> Nanos {
        Nanos(self.last.get())
    }

    /// The same moment in the standard library's terms.
    pub(crate) fn instant(&self, now: Nanos) -> Instant {
        self.origin + Duration::from_nanos(now.0)
    }
}

/// A clock that stands still until it is moved. Clones share the time.
#[derive(Clone, Debug, Default)]
pub(crate) struct ManualClock(Rc<Cell<u64>>);

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.set(self.0.get().saturating_add(nanos(by)));
    }

    #[cfg(test)]
    pub(crate) fn set_back(&self, by: Duration) {
        self.0.set(self.0.get().saturating_sub(nanos(by)));
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.0.get())
    }
}

/// The duration in nanoseconds. It saturates after 584 years.
fn nanos(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(duration.subsec_nanos().into())
}

#[expect(clippy::disallowed_methods, reason = "the only place where a reactor reads the time")]
fn system_now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: if the source goes back, the clock stands still.
    #[test]
    fn a_clock_set_back_stands_still() {
        let hand = ManualClock::default();
        let clock = Clock::manual(hand.clone());
        hand.advance(Duration::from_millis(5));
        assert_eq!(clock.now(), Nanos(5_000_000));
        hand.set_back(Duration::from_millis(3));
        assert_eq!(clock.now(), Nanos(5_000_000));
    }

    /// Goal: a deadline never fires early. Method: set it from any moment, judge it one nanosecond
    /// before it is due.
    #[test]
    fn rounding_never_fires_early() {
        for start in [0, 1, 999_999, 1_000_000, 1_000_001] {
            let deadline = Nanos(start).round_up().after(Duration::from_millis(2));
            assert!(Nanos(start + 2_000_000 - 1).round_down() < deadline, "from {start}");
            assert!(Nanos(start + 4_000_000).round_down() >= deadline, "two ticks late at most");
        }
    }
}
