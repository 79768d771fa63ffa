//! The timers of a reactor's own: what is known of each, and when its next call is due.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use slab::Slab;

use crate::clock::Nanos;
use crate::sync::Arc;
use crate::wheel::{Tick, TimerKey};

/// All timers of one reactor.
#[derive(Default)]
pub(super) struct Timers {
    pub(super) list: Slab<Periodic>,
    /// The turn of the latest call, by its beginning, and how long the calls took in it.
    pub(super) took: Option<(Nanos, Duration)>,
}

/// One timer.
pub(super) struct Periodic {
    pub(super) id: u64,
    /// In ticks. At least one.
    pub(super) period: u64,
    /// When the next call is due.
    pub(super) next: Tick,
    pub(super) entry: TimerKey,
    pub(super) call: Box<dyn FnMut()>,
    /// A handle has ended the timer. A command that frees it follows.
    pub(super) ended: Arc<AtomicBool>,
}

impl Timers {
    /// How long their calls took in the turn that began at `turn`.
    pub(super) fn took_in(&self, turn: Nanos) -> Duration {
        self.took.filter(|(when, _)| *when == turn).map_or(Duration::ZERO, |(_, took)| took)
    }

    pub(super) fn moved(&mut self, index: u32, entry: TimerKey) {
        if let Some(timer) = self.list.get_mut(index as usize) {
            timer.entry = entry;
        }
    }
}

/// The first multiple of `period` after `due` that lies after `now`.
pub(super) fn next(due: Tick, period: u64, now: Tick) -> Tick {
    let missed = now.0.saturating_sub(due.0) / period;
    Tick(due.0.saturating_add(missed.saturating_add(1).saturating_mul(period)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the calls of a timer neither drift nor come in bursts. Method: the next time after calls
    /// that are on time, late, and later than one or many periods, and at the end of time.
    #[test]
    fn the_next_time_is_a_multiple_after_the_present() {
        for (due, period, now, expected) in [
            (100, 10, 100, 110),
            (100, 10, 109, 110),
            (100, 10, 110, 120),
            (100, 10, 1_005, 1_010),
            (100, 1, 100, 101),
            (100, 7, 1_000, 1_003),
            (u64::MAX - 5, 10, u64::MAX - 5, u64::MAX),
            (5, u64::MAX, 5, u64::MAX),
        ] {
            assert_eq!(next(Tick(due), period, Tick(now)), Tick(expected), "{due} {period} {now}");
        }
    }
}
