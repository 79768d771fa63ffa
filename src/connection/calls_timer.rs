//! The one timer for the calls that a connection's handler has sent to its peer.

use super::Connection;
use crate::wheel::Tick;

/// The earliest deadline of a connection's calls.
#[derive(Debug)]
pub(super) struct CallsTimer {
    /// The list of calls that has set it: not zero. Zero if several lists have.
    owner: u64,
    at: Tick,
}

impl CallsTimer {
    const OFF: Self = Self { owner: 0, at: Tick::NEVER };
}

impl Connection {
    /// The list `owner` has its earliest deadline at `at`, or has none at [`Tick::NEVER`].
    ///
    /// The list that has set the timer moves it anywhere. If a second list has a deadline, too, both
    /// only move the timer to an earlier time, so that neither loses its own. The timer may then be
    /// too early, once.
    pub(crate) fn set_calls_timer(&mut self, owner: u64, at: Tick) {
        let timer = self.cold().calls.get_or_insert_with(|| Box::new(CallsTimer::OFF));
        if timer.at == Tick::NEVER || timer.owner == owner {
            **timer = CallsTimer { owner, at };
        } else if at != Tick::NEVER {
            **timer = CallsTimer { owner: 0, at: timer.at.min(at) };
        }
    }

    /// Turns the timer off.
    pub(crate) fn stop_calls_timer(&mut self) {
        if let Some(timer) = self.cold.as_mut().and_then(|cold| cold.calls.as_deref_mut()) {
            *timer = CallsTimer::OFF;
        }
    }

    /// The tick at which the timer fires. It never stands still: whoever waits for the result of a
    /// call waits, too, while the peer is not read.
    pub(crate) fn calls_deadline(&self) -> Tick {
        let timer = self.cold.as_ref().and_then(|cold| cold.calls.as_deref());
        timer.map_or(Tick::NEVER, |timer| timer.at)
    }
}
