//! Starts, calls and ends the timers of a reactor's own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Reactor;
use super::timers::{Periodic, next};
use crate::error::Error;
use crate::every::Every;
use crate::guard::caught;
use crate::logging::{Cause, PANIC_CURE, say};
use crate::loop_state::Timer;
use crate::sync::Arc;
use crate::wheel::{Tick, TimerKey};

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
