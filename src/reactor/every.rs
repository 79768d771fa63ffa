//! Timers of a reactor's own: what the reactor calls, and when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use slab::Slab;

use super::Reactor;
use crate::clock::Nanos;
use crate::error::Error;
use crate::guard::caught;
use crate::handle::Every;
use crate::logging::{Cause, PANIC_CURE, say};
use crate::loop_state::Timer;
use crate::sync::Arc;
use crate::wheel::{Tick, TimerKey};

/// All timers of one reactor.
#[derive(Default)]
pub(super) struct Timers {
    list: Slab<Periodic>,
    /// The turn of the latest call, by its beginning, and how long the calls took in it.
    took: Option<(Nanos, Duration)>,
}

/// One timer.
struct Periodic {
    id: u64,
    /// In ticks. At least one.
    period: u64,
    /// When the next call is due.
    next: Tick,
    entry: TimerKey,
    call: Box<dyn FnMut()>,
    /// A handle has ended the timer. A command that frees it follows.
    ended: Arc<AtomicBool>,
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
fn next(due: Tick, period: u64, now: Tick) -> Tick {
    let missed = now.0.saturating_sub(due.0) / period;
    Tick(due.0.saturating_add(missed.saturating_add(1).saturating_mul(period)))
}

impl Reactor {
    /// As [`Handle::every`](crate::Handle::every), for a closure that need not be `Send`, because it
    /// never leaves this thread. It may share state with the handlers.
    ///
    /// # Errors
    ///
    /// As [`Handle::every`](crate::Handle::every).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use std::time::Duration;
    ///
    /// use condor::Reactor;
    ///
    /// let mut reactor = Reactor::new()?;
    /// let requests = Rc::new(Cell::new(0));
    /// let counted = Rc::clone(&requests);
    /// let _log = reactor.every(Duration::from_secs(60), move || {
    ///     println!("{} requests in the last minute", counted.replace(0));
    /// })?;
    /// // Each handler gets a clone of `requests`.
    /// # Ok::<(), condor::Error>(())
    /// ```
    pub fn every(
        &mut self,
        period: Duration,
        call: impl FnMut() + 'static,
    ) -> Result<Every, Error> {
        let every = Every::new(&self.handle.shared, self.shard, period)?;
        if self.inbox().is_gone() {
            return Err(Error::Gone);
        }
        self.start_timer(every.id, period, Box::new(call), Arc::clone(&every.ended));
        Ok(every)
    }

    pub(super) fn start_timer(
        &mut self,
        id: u64,
        period: Duration,
        call: Box<dyn FnMut()>,
        ended: Arc<AtomicBool>,
    ) {
        // Between two turns the last sample may be old.
        self.state.sample();
        let next = self.state.now().after(period);
        let place = self.timers.list.vacant_entry();
        let index = u32::try_from(place.key()).unwrap_or(u32::MAX);
        let entry = self.state.wheel.arm(next, Timer::Every { index });
        let period = Tick(0).after(period).0;
        place.insert(Periodic { id, period, next, entry, call, ended });
    }

    /// Ends the timer with this id.
    pub(super) fn end_timer(&mut self, id: u64) {
        let found = self.timers.list.iter().find(|(_, timer)| timer.id == id);
        if let Some(index) = found.map(|(index, _)| index) {
            self.free_timer(index);
        }
    }

    /// Ends all timers, because the reactor ends.
    pub(super) fn end_timers(&mut self) {
        let all: Vec<usize> = self.timers.list.iter().map(|(index, _)| index).collect();
        for index in all {
            self.free_timer(index);
        }
    }

    fn free_timer(&mut self, index: usize) {
        let Periodic { entry, call, .. } = self.timers.list.remove(index);
        if !entry.is_none() {
            self.state.wheel.cancel(entry);
        }
        if let Err(text) = caught(|| drop(call)) {
            self.timer_panicked("the drop of a timer's closure", &text);
        }
    }

    /// Makes the call of a timer that is due.
    pub(super) fn call_timer(&mut self, index: u32) {
        let Some(timer) = self.timers.list.get_mut(index as usize) else { return };
        timer.entry = TimerKey::NONE;
        if timer.ended.load(Ordering::SeqCst) {
            return;
        }
        let now = self.state.expiry_now();
        self.state.metrics.timer_lateness.record(now.0.saturating_sub(timer.next.0));
        timer.next = next(timer.next, timer.period, now);
        timer.entry = self.state.wheel.arm(timer.next, Timer::Every { index });
        let from = self.state.present();
        let called = caught(|| (timer.call)());
        let turn = self.state.began();
        let took = self.timers.took_in(turn) + from.elapsed_at(self.state.present());
        self.timers.took = Some((turn, took));
        // No listener is charged with this time.
        self.state.attribute_time();
        if let Err(text) = called {
            self.timer_panicked("the call of a timer", &text);
        }
    }

    #[cold]
    fn timer_panicked(&mut self, what: &str, text: &str) {
        self.handle.shared.count_panic();
        if self.gate.opens(Cause::Panic, self.state.latest()) {
            say!(Error, "reactor: {what} panicked: {text}; {PANIC_CURE}");
        }
    }
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
