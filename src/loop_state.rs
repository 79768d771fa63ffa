//! What all phases of a turn share: the time, the wheel, the buffers, and the options with the
//! budgets.
//!
//! There is one `LoopState` per reactor. It knows no listener and no connection. They get it as an
//! argument, use it, and leave it with `out` empty.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use mio::Token;

use crate::buffer::Pool;
use crate::clock::{Clock, Nanos};
use crate::dial_requests::RequestDesk;
use crate::framing::Notes;
use crate::groups::Groups;
use crate::loop_metrics::LoopMetrics;
use crate::options::ReactorOptions;
use crate::pairs::Pairs;
use crate::poller::Registry;
use crate::random::Random;
use crate::sync::Arc;
use crate::time_budget::{FIRST_SLICE, Phase, SLICE, TimeBudget};
use crate::wheel::{Tick, TimerKey, Wheel};

/// What an entry of the wheel is for. An owner cancels its entries when it goes, so no generation
/// is needed here.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The one entry of a connection: one of its deadlines may be due.
    Peer { listener: u16, key: u32 },
    /// A `send_after`.
    User { listener: u16, index: u32 },
    /// The pause of a listener is over: it may try to accept again.
    Accept { listener: u16 },
    /// The oldest connection that is opening has to be open.
    Opening { listener: u16 },
    /// The next thing that is due for a dial of a connector.
    Dial { listener: u16, dial: u32 },
    /// A listener's drain deadline.
    Drain { listener: u16 },
    /// A timer of the reactor's own.
    Every { index: u32 },
    /// The `shutdown_delay` is over: the listening sockets close.
    ShutdownDelay,
    /// Memory that was not needed lately goes back to the system.
    Trim,
}

/// `worst_case_memory` counts on it.
const _: () = assert!(size_of::<Timer>() <= size_of::<u64>());

/// Memory that is not needed for this long goes back to the system. A service with bursts every few
/// seconds keeps the memory that its bursts need.
const TRIM_EVERY: Duration = Duration::from_secs(10);

/// In bytes. Once the output of a peer reaches this size, it is written before the peer gets more
/// packets.
pub(crate) const FLUSH_AT: usize = 256 * 1024;

/// In bytes. The most queued output of one connection that one turn writes. The answers to the packets
/// of a turn, and to each message, may take this much as well, and the last one goes beyond it.
const OUTPUT_BUDGET: usize = 256 * 1024;

/// In bytes. Smaller reads and writes take no time of their own: the budgets of packets and of output
/// bound how many there are.
const COUNTED_FROM: usize = 1024;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct LoopState {
    clock: Clock,
    /// The newest sample of the clock. Deadlines are counted from it.
    now: Nanos,
    /// The tick that begins at `now`, or the next one after `now`.
    tick: Tick,
    /// When this turn began, after `poll`.
    began: Nanos,
    /// A time before `poll` looked. Everything that had arrived by then has been announced.
    /// Deadlines are judged against this time.
    expiry_now: Nanos,
    attributed_until: Nanos,
    /// The time that this turn may take.
    time: TimeBudget,
    /// The last batch of events was full, so more events may be ready.
    pub(crate) more_events: bool,
    /// Bytes that may still be written for the connection that is being worked on.
    output_left: usize,
    /// How long the turn before this one took, in nanoseconds.
    pub(crate) took: u64,
    /// Whether to measure each listener, so that the log can name the slowest one after a slow
    /// turn.
    pub(crate) per_listener_timing: bool,
    pub(crate) wheel: Wheel<Timer>,
    /// For delays that are not to be in step with those of others.
    pub(crate) random: Random,
    /// Framed output of the connection that is being worked on. It belongs to that connection
    /// alone.
    pub(crate) out: Vec<u8>,
    /// A packet that is written piece by piece, for a framing that needs the whole of it. It is empty
    /// between two packets.
    pub(crate) draft: Vec<u8>,
    /// What a user's framer has noted about the partial packet of the connection that is being
    /// worked on.
    pub(crate) notes: Notes,
    pub(crate) pool: Pool,
    /// The groups of the connections of all listeners.
    pub(crate) groups: Groups,
    /// The dials that handlers ask for.
    pub(crate) dial_requests: RequestDesk,
    /// Connections of any listeners that are pairs, and what they have for each other.
    pub(crate) pairs: Pairs,
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
            time: TimeBudget::new(options.turn_budget, now),
            more_events: false,
            output_left: OUTPUT_BUDGET,
            took: 0,
            per_listener_timing: false,
            expiry_now: now,
            wheel: Wheel::new(),
            random: Random::new(seed(&registry)),
            out: Vec::new(),
            draft: Vec::new(),
            notes: Notes::default(),
            pool: Pool::default(),
            groups: Groups::new(),
            dial_requests: RequestDesk::default(),
            pairs: Pairs::default(),
            trim_armed: false,
            options,
            registry,
            metrics,
        }
    }

    /// Begins a turn. `before` is the newest time known before `poll` looked. Deadlines are judged
    /// against `before` and not against the present: what arrived in between has not been
    /// announced, and a peer must not be timed out for it. If `poll` was interrupted, it did not
    /// look: then `before` is `None`, and no further deadline is due.
    pub(crate) fn begin(&mut self, before: Option<Nanos>) {
        self.sample();
        (self.began, self.attributed_until) = (self.now, self.now);
        self.time.begin_turn(self.now);
        self.expiry_now = before.unwrap_or(self.expiry_now);
    }

    /// Reads the clock again, for deadlines that are set late in a long turn.
    pub(crate) fn sample(&mut self) {
        self.now = self.clock.now();
        self.tick = self.now.round_up();
    }

    /// Reads the clock, and leaves the sample of the turn as it is.
    pub(crate) fn present(&self) -> Nanos {
        self.clock.now()
    }

    /// Samples the clock. Returns the time since the last call, or since the turn began. Without
    /// `per_listener_timing` it reads no clock and returns zero.
    pub(crate) fn attribute_time(&mut self) -> Duration {
        self.attribute_if(self.per_listener_timing)
    }

    /// The same for a phase in which a listener is `timed`. Otherwise it reads no clock.
    #[inline]
    pub(crate) fn attribute_if(&mut self, timed: bool) -> Duration {
        if !timed {
            return Duration::ZERO;
        }
        self.sample();
        std::mem::replace(&mut self.attributed_until, self.now).elapsed_at(self.now)
    }

    // ---- the time budget ----

    #[inline]
    pub(crate) fn begin_phase(&mut self, phase: Phase) {
        self.time.begin_phase(phase, self.now);
    }

    /// From now on so many listeners share a phase.
    pub(crate) fn expect_sharers(&mut self, listeners: usize) {
        self.time.expect_sharers(u32::try_from(listeners).unwrap_or(u32::MAX));
    }

    /// Spends units of work, and returns whether the listener's share of the phase is over.
    #[inline]
    pub(crate) fn is_share_over(&mut self, units: usize) -> bool {
        !self.time.spends(units) && self.look_at_share()
    }

    #[cold]
    #[inline(never)]
    fn look_at_share(&mut self) -> bool {
        self.sample();
        self.time.look(self.now);
        let over =
            self.time.is_share_over(self.now) || self.time.calls_handlers() && self.pairs.is_full();
        if over {
            // The caller's caller asks again.
            self.time.look_next();
        }
        over
    }

    /// Begins the work on a connection.
    #[inline]
    pub(crate) fn begin_slice(&mut self) {
        self.time.begin_slice();
    }

    /// How many packets to deliver before the next call of [`is_slice_over`](Self::is_slice_over).
    /// At least one.
    #[inline]
    pub(crate) fn packets_until_look(&self) -> u32 {
        u32::try_from(self.time.left()).unwrap_or(u32::MAX).max(1)
    }

    /// Spends `packets`, and returns whether the connection's slice is over. `served` says whether
    /// packets of it were delivered before this slice.
    pub(crate) fn is_slice_over(&mut self, packets: u32, served: bool) -> bool {
        let slice = if served { SLICE } else { FIRST_SLICE };
        !self.time.spends(packets as usize)
            && (self.look_at_share() || self.time.is_slice_over(self.now, slice))
    }

    /// Leaves a packet for the partner of a connection. If there is much to forward, the connection that
    /// is being worked on has to stop soon.
    #[inline]
    pub(crate) fn forward(&mut self, partner: Token, packet: &[u8]) {
        self.pairs.forward(partner, packet);
        if self.pairs.is_full() {
            self.time.look_next();
        }
    }

    /// Counts packets without looking at the clock.
    #[inline]
    pub(crate) fn spend_packets(&mut self, packets: u32) {
        self.time.spend(packets as usize);
    }

    /// Counts bytes that the kernel has taken for the connection that is being worked on.
    #[inline]
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.output_left = self.output_left.saturating_sub(bytes);
        if bytes >= COUNTED_FROM {
            self.time.spend_bytes(bytes);
        }
    }

    /// Counts bytes that the kernel has given.
    #[inline]
    pub(crate) fn has_read(&mut self, bytes: usize) {
        if bytes >= COUNTED_FROM {
            self.time.spend_bytes(bytes);
        }
    }

    /// Bytes that may still be written for the connection that is being worked on.
    #[inline]
    pub(crate) fn output_left(&self) -> usize {
        self.output_left
    }

    /// The next connection has an output budget of its own.
    #[inline]
    pub(crate) fn renew_output_budget(&mut self) {
        self.output_left = OUTPUT_BUDGET;
    }

    /// The newest time that the clock has returned. It reads no clock.
    pub(crate) fn latest(&self) -> Nanos {
        self.clock.latest()
    }

    /// Ends a turn. Returns how long it has taken, in nanoseconds.
    pub(crate) fn end(&mut self) -> u64 {
        let now = self.clock.now();
        self.time.end_turn(now);
        now.0 - self.began.0
    }

    /// When this turn began.
    pub(crate) fn began(&self) -> Nanos {
        self.began
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

    /// When a tick begins.
    pub(crate) fn instant_of(&self, tick: Tick) -> Instant {
        self.instant() + self.now.until(tick)
    }

    /// Plans a trim if there is enough memory to give back: a timer for a little is not worth it.
    #[inline]
    pub(crate) fn plan_trim(&mut self) {
        if !self.trim_armed && self.pool.wants_trim() {
            self.trim_armed = true;
            self.wheel.arm(self.now().after(TRIM_EVERY), Timer::Trim);
        }
    }

    /// Asks for a trim if it is worth it for the wheel, or for `spare` bytes of a listener.
    pub(crate) fn ask_for_trim(&mut self, spare: usize) {
        self.pool.note_spare(spare + self.wheel.spare());
    }

    /// The number of entries in the wheel, without that of the trim.
    pub(crate) fn deadlines(&self) -> usize {
        self.wheel.len() - usize::from(self.trim_armed)
    }

    /// Begins a trim, because the time planned for it has come. The listeners are trimmed next.
    pub(crate) fn begin_trim(&mut self) {
        self.trim_armed = false;
        self.wheel.unreserve();
    }

    /// Trims the wheel, then the pool, which returns to the system what all of them have freed.
    /// Calls `moved` for each timer whose entry in the wheel has another key. The listeners still
    /// have `spare` bytes for a later trim.
    pub(crate) fn trim(&mut self, spare: usize, moved: impl FnMut(Timer, TimerKey)) {
        self.wheel.trim(moved);
        self.groups.trim();
        self.pairs.trim();
        self.pool.trim();
        self.ask_for_trim(spare + self.groups.spare());
    }

    /// Empties `out`, and gives back the memory that one large answer took.
    pub(crate) fn clear_out(&mut self) {
        clear(&mut self.out);
    }

    /// Keeps the memory of a draft for the next one.
    pub(crate) fn put_draft_back(&mut self, mut draft: Vec<u8>) {
        clear(&mut draft);
        self.draft = draft;
    }
}

/// Another seed for each reactor. The test chooses that of a simulated one.
fn seed(registry: &Registry) -> u64 {
    match registry {
        Registry::System(_) => RandomState::new().build_hasher().finish(),
        Registry::Simulated { seed } => *seed,
    }
}

#[inline]
fn clear(output: &mut Vec<u8>) {
    output.clear();
    if output.capacity() > 4 * FLUSH_AT {
        output.shrink_to(2 * FLUSH_AT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn by_hand(hand: &ManualClock) -> LoopState {
        let clock = Clock::manual(hand.clone());
        LoopState::new(
            clock,
            ReactorOptions::new(),
            Registry::Simulated { seed: 0 },
            Arc::default(),
        )
    }

    /// Goal: what arrives after `poll` looked causes no timeout, however long the thread was kept
    /// from reading the clock. Method: time passes between the sample and the turn.
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

    /// Moves the clock by `after`, and returns the timer that is due then.
    fn fired(state: &mut LoopState, hand: &ManualClock, after: Duration) -> Option<Timer> {
        hand.advance(after);
        state.begin(Some(state.present()));
        state.wheel.expire(state.expiry_now(), &mut 100)
    }

    /// Goal: memory that a burst needed goes back by the second trim, and then no deadline is left.
    /// Without a burst no trim is planned. Method: the test gives buffers to the pool, and moves
    /// the clock.
    #[test]
    fn what_a_burst_needed_is_trimmed_and_no_deadline_is_left() {
        let tick = Duration::from_millis(1);
        let hand = ManualClock::default();
        let mut state = by_hand(&hand);
        state.plan_trim();
        assert_eq!(state.wheel.len(), 0, "nothing to trim");
        let buffers = [(); 4].map(|()| state.pool.take_buffer(Pool::TRIM_FROM / 4));
        buffers.into_iter().for_each(|buffer| state.pool.give_buffer(buffer));
        for left in [Pool::TRIM_FROM, 0] {
            state.plan_trim();
            state.plan_trim();
            assert_eq!(state.wheel.len(), 1, "one trim is planned");
            assert_eq!(fired(&mut state, &hand, TRIM_EVERY - tick), None);
            assert_eq!(fired(&mut state, &hand, tick), Some(Timer::Trim));
            state.begin_trim();
            state.trim(0, |_, _| ());
            assert_eq!(state.pool.held(), left);
        }
        state.plan_trim();
        assert_eq!(state.wheel.len(), 0, "nothing is left to trim");
    }

    /// Goal: the output buffer does not stay as large as the largest answer, and is not allocated
    /// again for each answer of ordinary size. Method: its capacity after both.
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
