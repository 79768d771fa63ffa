//! The one timer for the calls that a connection's handler has sent to its peer.

use std::time::Duration;

use super::Connection;
use super::cold::CallsTimer;
use crate::wheel::Tick;

/// For this long after a call was found to be due, bytes that are not read yet may be its answer.
const GRACE: Duration = Duration::from_millis(100);

impl Connection {
    /// The list `owner` has its earliest deadline at `at`, or has none at [`Tick::NEVER`].
    ///
    /// The list that has set the timer moves it anywhere. If a second list has a deadline, too, both
    /// only move the timer to an earlier time, so that neither loses its own. The timer may then be
    /// too early, once.
    pub(crate) fn set_calls_timer(&mut self, owner: u64, at: Tick) {
        let timer = self.cold().calls.get_or_insert_with(|| Box::new(CallsTimer::OFF));
        if timer.at == Tick::NEVER || timer.owner == owner {
            timer.set(owner, at);
        } else if at != Tick::NEVER {
            timer.set(0, timer.at.min(at));
        }
    }

    /// Turns the timer off.
    pub(crate) fn stop_calls_timer(&mut self) {
        if let Some(timer) = self.calls_timer() {
            *timer = CallsTimer::OFF;
        }
    }

    /// The timer is due, and bytes are not read yet. Returns whether to read them first. A peer that
    /// sends without a pause cannot put the timer off for ever.
    pub(crate) fn may_read_before_calls(&mut self, now: Tick) -> bool {
        self.calls_timer().is_some_and(|timer| {
            let since = *timer.due_since.get_or_insert(now);
            now < since.after(GRACE)
        })
    }

    fn calls_timer(&mut self) -> Option<&mut CallsTimer> {
        self.cold.as_mut()?.calls.as_deref_mut()
    }

    /// The tick at which the timer fires. It never stands still: the result of a call is waited for
    /// while the peer is not read, too.
    pub(crate) fn calls_deadline(&self) -> Tick {
        let timer = self.cold.as_ref().and_then(|cold| cold.calls.as_deref());
        timer.map_or(Tick::NEVER, |timer| timer.at)
    }
}
