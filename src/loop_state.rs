//! What a turn lends to everybody who works in it: the time, the wheel, the buffers, the budgets.
//!
//! There is one of it per reactor. It knows no listener and no connection; those get it as an
//! argument, use it, and leave it as it was, with `out` empty.

use std::time::{Duration, Instant};

use crate::buffer::Pool;
use crate::clock::{Clock, Nanos};
use crate::loop_metrics::LoopMetrics;
use crate::options::ReactorOptions;
use crate::poller::Registry;
use crate::sync::Arc;
use crate::wheel::{Tick, Wheel};

/// Whom an entry of the wheel is for. Entries are cancelled when their owner goes, so that no
/// generation is needed here.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The one entry of a connection: something may be due.
    Peer { listener: u16, key: u32 },
    /// A `send_after`.
    User { listener: u16, index: u32 },
    /// A listener may try to accept again.
    Accept { listener: u16 },
    /// A listener's drain deadline.
    Drain { listener: u16 },
    /// The lead time of a shutdown: now the listening sockets close.
    ShutdownDelay,
    /// The pool gives back what nobody has needed lately.
    Trim,
}

/// Memory that nobody has needed for so long goes back to the system: long enough that a service
/// with bursts every few seconds keeps what it needs for them.
const TRIM_EVERY: Duration = Duration::from_secs(10);

/// Output of one peer beyond which it is written before the peer gets more packets, in bytes.
pub(crate) const FLUSH_AT: usize = 256 * 1024;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct LoopState {
    clock: Clock,
    /// The newest sample: what deadlines are counted from.
    now: Nanos,
    /// The tick that begins with it or next.
    tick: Tick,
    /// When this turn began, after `poll`.
    began: Nanos,
    /// A moment before `poll` looked: whatever had arrived by then was announced. What deadlines
    /// are expiry_now against.
    expiry_now: Nanos,
    attributed_until: Nanos,
    /// How long the turn before this one took, in nanoseconds.
    pub(crate) took: u64,
    /// Whether there are listeners to be told apart when the turn turns out to be slow.
    pub(crate) per_listener_timing: bool,
    pub(crate) wheel: Wheel<Timer>,
    /// Output of the connection that is being worked on, framed. It belongs to that one alone.
    pub(crate) out: Vec<u8>,
    pub(crate) pool: Pool,
    /// A [`Timer::Trim`] is in the wheel.
    trim_armed: bool,
    pub(crate) options: ReactorOptions,
    pub(crate) registry: Registry,
    pub(crate) metrics: Arc<LoopMetrics>,
}

impl LoopState {
    pub(crate) fn new(
        clock: Clock,
        options: ReactorOptions,
        registry: Registry,
        metrics: Arc<LoopMetrics>,
    ) -> Self {
        let now = clock.now();
        Self {
            clock,
            now,
            tick: now.round_up(),
            began: now,
            attributed_until: now,
            took: 0,
            per_listener_timing: false,
            expiry_now: now,
            wheel: Wheel::new(),
            out: Vec::new(),
            pool: Pool::default(),
            trim_armed: false,
            options,
            registry,
            metrics,
        }
    }

    /// A turn begins. Deadlines are expiry_now against `before`, the newest time known before `poll`
    /// looked, and not against the present: what arrived in between has not been announced, and no
    /// peer is to blame for it. Nothing new is expiry_now if `poll` was interrupted, and did not look.
    pub(crate) fn begin(&mut self, before: Option<Nanos>) {
        self.sample();
        (self.began, self.attributed_until) = (self.now, self.now);
        self.expiry_now = before.unwrap_or(self.expiry_now);
    }

    /// Takes the time again, for deadlines armed late in a long turn.
    pub(crate) fn sample(&mut self) {
        self.now = self.clock.now();
        self.tick = self.now.round_up();
    }

    /// The time as it is, without keeping it.
    pub(crate) fn present(&self) -> Nanos {
        self.clock.now()
    }

    /// Takes the time, and tells how much of it has passed since the last lap, or since the turn
    /// began. Without laps it costs nothing and none has.
    pub(crate) fn attribute_time(&mut self) -> Duration {
        if !self.per_listener_timing {
            return Duration::ZERO;
        }
        self.sample();
        std::mem::replace(&mut self.attributed_until, self.now).elapsed_at(self.now)
    }

    /// The newest time that anybody has asked for. Costs nothing.
    pub(crate) fn latest(&self) -> Nanos {
        self.clock.latest()
    }

    /// How long this turn has taken so far, in nanoseconds.
    pub(crate) fn since_began(&self) -> u64 {
        self.clock.now().0 - self.began.0
    }

    pub(crate) fn nanos(&self) -> Nanos {
        self.now
    }

    pub(crate) fn now(&self) -> Tick {
        self.tick
    }

    pub(crate) fn expiry_now(&self) -> Tick {
        self.expiry_now.round_down()
    }

    pub(crate) fn instant(&self) -> Instant {
        self.clock.instant(self.now)
    }

    /// Has the pool trimmed later, if that is worth it: no timer runs for a little.
    #[inline]
    pub(crate) fn plan_trim(&mut self) {
        if !self.trim_armed && self.pool.wants_trim() {
            self.trim_armed = true;
            self.wheel.arm(self.now().after(TRIM_EVERY), Timer::Trim);
        }
    }

    /// Entries of the wheel but for the pool's own.
    pub(crate) fn deadlines(&self) -> usize {
        self.wheel.len() - usize::from(self.trim_armed)
    }

    /// The time planned for it has come.
    pub(crate) fn trim(&mut self) {
        self.trim_armed = false;
        self.pool.trim();
    }

    /// Forgets what is in `out`, and gives memory back that one large answer took.
    pub(crate) fn clear_out(&mut self) {
        self.out.clear();
        if self.out.capacity() > 4 * FLUSH_AT {
            self.out.shrink_to(2 * FLUSH_AT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Buffer;
    use crate::clock::ManualClock;

    fn by_hand(hand: &ManualClock) -> LoopState {
        let clock = Clock::manual(hand.clone());
        LoopState::new(clock, ReactorOptions::new(), Registry::Simulated, Arc::default())
    }

    /// Goal: what arrived after `poll` looked is not held against anybody, however long we were
    /// kept from reading the clock. Method: time passes between the sample and the turn.
    #[test]
    fn deadlines_are_judged_by_a_time_before_poll_looked() {
        let hand = ManualClock::default();
        let mut state = by_hand(&hand);
        hand.advance(Duration::from_millis(10));
        let before = state.present();
        hand.advance(Duration::from_millis(500));
        state.begin(Some(before));
        assert_eq!((state.expiry_now(), state.now()), (Tick(10), Tick(510)));
        hand.advance(Duration::from_millis(500));
        state.begin(None);
        assert_eq!((state.expiry_now(), state.now()), (Tick(10), Tick(1_010)), "poll did not look");
    }

    /// What the wheel has at the end of so much time.
    fn fired(state: &mut LoopState, hand: &ManualClock, after: Duration) -> Option<Timer> {
        hand.advance(after);
        state.begin(Some(state.present()));
        state.wheel.expire(state.expiry_now(), &mut 100)
    }

    /// Goal: what a burst needed goes back, by the second trim, and then no deadline is left; without
    /// a burst there never is one. Method: buffers given to the pool, time passed by hand.
    #[test]
    fn what_a_burst_needed_is_trimmed_and_no_deadline_is_left() {
        let tick = Duration::from_millis(1);
        let hand = ManualClock::default();
        let mut state = by_hand(&hand);
        state.plan_trim();
        assert_eq!(state.wheel.len(), 0, "nothing to trim");
        for _ in 0..4 {
            let mut buffer: Box<Buffer> = Box::default();
            buffer.append(&[7; Pool::TRIM_FROM / 4]);
            state.pool.give_buffer(buffer);
        }
        for left in [Pool::TRIM_FROM, 0] {
            state.plan_trim();
            state.plan_trim();
            assert_eq!(state.wheel.len(), 1, "one trim is planned");
            assert_eq!(fired(&mut state, &hand, TRIM_EVERY - tick), None);
            assert_eq!(fired(&mut state, &hand, tick), Some(Timer::Trim));
            state.trim();
            assert_eq!(state.pool.held(), left);
        }
        state.plan_trim();
        assert_eq!(state.wheel.len(), 0, "nothing is left to trim");
    }

    /// Goal: the buffer of output does not stay as large as the largest answer, and is not made anew for
    /// each of ordinary size. Method: its capacity after either.
    #[test]
    fn one_large_answer_does_not_stay_in_memory() {
        let mut state = by_hand(&ManualClock::default());
        for len in [64 << 20, 4 * FLUSH_AT + 1, FLUSH_AT] {
            state.out.extend_from_slice(&vec![7; len]);
            state.clear_out();
            assert!(state.out.is_empty());
            let kept = state.out.capacity();
            assert!(kept <= 4 * FLUSH_AT, "{kept} bytes are kept of {len}");
            assert!(kept >= FLUSH_AT, "{kept} bytes are kept of {len}");
        }
    }
}
