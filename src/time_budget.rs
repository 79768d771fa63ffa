//! The time budget of a turn: when a phase is over, when a connection's slice is over, and how much
//! work is done between two looks at the clock.
//!
//! A look at the clock costs about as much as a small packet, so there is no look at each packet.
//! Work is counted in *units* instead: a packet, a message, a timer, or 4 KiB that the kernel has
//! copied. After so many units the clock is read once. The number adapts, so that
//! [`LOOK_EVERY`] passes between two looks, however long a callback takes.
//!
//! This module reads no clock. Times come in as arguments.

use std::time::Duration;

use crate::clock::Nanos;

/// The time that should pass between two looks, in nanoseconds.
const LOOK_EVERY: u64 = 50_000;
/// The most units between two looks. At 20 ns a packet, a look then costs 0.2 % of the time.
const MOST: usize = 512;
/// The most units before the first look in the work on a connection. The units of the connection
/// before it may have been far cheaper.
const FIRST: usize = 64;
/// The budget has so many parts. A phase may use the time that earlier phases have left, and never less
/// than one part.
const PARTS: u64 = 8;

/// In nanoseconds: what a connection gets before the next one has its turn.
pub(crate) const SLICE: u64 = 250_000;
/// In nanoseconds: what a connection gets before its first packet is delivered. When many
/// connections come at once, each of them is served once before any is served twice.
pub(crate) const FIRST_SLICE: u64 = 100_000;

/// The units of `bytes` that the kernel copies.
#[inline]
pub(crate) const fn units_of(bytes: usize) -> usize {
    bytes / 4096
}

/// The phases that are bounded in time.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    Accept,
    Work,
    Commands,
    Deliver,
    Expire,
    Flush,
    Sweep,
    /// What cannot be put off, and may take any time.
    Unbounded,
}

impl Phase {
    /// How many parts of the budget are used up when this phase ends.
    const fn until(self) -> u64 {
        match self {
            Self::Accept => 1,
            Self::Work | Self::Commands => 5,
            Self::Deliver => 7,
            Self::Expire | Self::Flush | Self::Sweep | Self::Unbounded => 8,
        }
    }
}

/// See the module's documentation. Each beginning is recorded in a few instructions. What it means is
/// computed at a look.
#[derive(Debug)]
pub(crate) struct TimeBudget {
    /// In nanoseconds. Zero: time is not bounded.
    budget: u64,
    turn_began: Nanos,
    phase: Phase,
    /// The phase at the last look.
    seen: Phase,
    /// The last look before the first one in this phase.
    phase_began: Nanos,
    share_began: Nanos,
    /// The listeners that divide what is left of the phase, this one included. Zero: one listener
    /// has the whole phase.
    sharers: u32,
    /// The listeners that have work in the coming phase and have not begun.
    expected: u32,
    /// The last look before the work on the connection began. `None` before the first look in it.
    slice_began: Option<Nanos>,
    /// Units that are left until the next look.
    left: usize,
    /// Units from the last look to the next one.
    stretch: usize,
    /// Units that take about [`LOOK_EVERY`].
    distance: usize,
    /// The last look, or the beginning of the turn if that is later.
    looked: Nanos,
    /// Nanoseconds of work since the last look that earlier turns have done.
    carried: u64,
}

impl TimeBudget {
    /// A budget of zero does not bound the time. The clock is then read after every [`MOST`] units,
    /// so that deadlines that are set late in a long turn are right.
    pub(crate) fn new(budget: Duration, now: Nanos) -> Self {
        let distance = if budget.is_zero() { MOST } else { FIRST };
        Self {
            budget: u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX),
            turn_began: now,
            phase: Phase::Accept,
            seen: Phase::Accept,
            phase_began: now,
            share_began: now,
            sharers: 0,
            expected: 0,
            slice_began: None,
            left: distance,
            stretch: distance,
            distance,
            looked: now,
            carried: 0,
        }
    }

    pub(crate) fn begin_turn(&mut self, now: Nanos) {
        (self.turn_began, self.looked, self.phase_began) = (now, now, now);
        self.phase = Phase::Accept;
    }

    /// Ends a turn. Its units and its time count for the next look, so that many turns with a few
    /// dear units each are looked at as one with many.
    pub(crate) fn end_turn(&mut self, now: Nanos) {
        self.carried += now.0.saturating_sub(self.looked.0);
    }

    /// From now on so many listeners share a phase, each from its call of
    /// [`begin_phase`](Self::begin_phase) on.
    pub(crate) fn expect_sharers(&mut self, listeners: u32) {
        self.expected = listeners;
    }

    /// Begins a phase, or a listener's share of it. [`Phase::Unbounded`] lasts until the next turn.
    #[inline]
    pub(crate) fn begin_phase(&mut self, phase: Phase, now: Nanos) {
        if self.phase == Phase::Unbounded {
            return;
        }
        (self.phase, self.sharers) = (phase, self.expected);
        if self.expected > 0 {
            self.share_began = now;
            self.expected -= 1;
        }
    }

    /// Begins the work on a connection.
    #[inline]
    pub(crate) fn begin_slice(&mut self) {
        self.slice_began = None;
        if self.left > FIRST && self.budget > 0 {
            self.stretch -= self.left - FIRST;
            self.left = FIRST;
        }
    }

    /// Spends units. Returns false if it is time for a look.
    #[inline]
    pub(crate) fn spends(&mut self, units: usize) -> bool {
        let enough = self.left > units;
        if enough {
            self.left -= units;
        }
        enough
    }

    #[inline]
    pub(crate) fn spend(&mut self, units: usize) {
        self.left = self.left.saturating_sub(units);
    }

    /// Spends the units of `bytes` that the kernel has copied.
    #[inline]
    pub(crate) fn spend_bytes(&mut self, bytes: usize) {
        self.spend(units_of(bytes));
    }

    /// Units that are left until the next look.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Records a look at the clock, and decides how many units there are before the next one.
    pub(crate) fn look(&mut self, now: Nanos) {
        if self.stretch > 0 && self.budget > 0 {
            let took = (now.0.saturating_sub(self.looked.0) + self.carried).max(1);
            let fitting = usize::try_from(self.stretch as u64 * LOOK_EVERY / took);
            self.distance = fitting.unwrap_or(MOST).clamp(1, MOST.min(self.distance * 2));
        }
        (self.left, self.stretch, self.carried) = (self.distance, self.distance, 0);
        if self.seen != self.phase {
            (self.seen, self.phase_began) = (self.phase, self.looked);
        }
        self.slice_began.get_or_insert(self.looked);
        self.looked = now;
    }

    /// The next piece of work looks at the clock at once.
    pub(crate) fn look_next(&mut self) {
        (self.left, self.stretch) = (0, 0);
    }

    /// Whether handlers are called in this phase, and may be called later.
    pub(crate) fn calls_handlers(&self) -> bool {
        matches!(self.phase, Phase::Work | Phase::Deliver | Phase::Expire)
    }

    /// Whether the listener's share of the phase is over.
    pub(crate) fn is_share_over(&self, now: Nanos) -> bool {
        if self.budget == 0 || self.phase == Phase::Unbounded {
            return false;
        }
        let end = self.turn_began.0.saturating_add(self.budget / PARTS * self.phase.until());
        let end = end.max(self.phase_began.0.saturating_add(self.budget / PARTS));
        if self.sharers == 0 {
            return now.0 >= end;
        }
        let share = end.saturating_sub(self.share_began.0) / u64::from(self.sharers);
        now.0 >= self.share_began.0.saturating_add(share)
    }

    /// Whether the connection's slice of so many nanoseconds is over.
    pub(crate) fn is_slice_over(&self, now: Nanos, slice: u64) -> bool {
        let began = self.slice_began.unwrap_or(self.looked);
        self.budget > 0 && now.0 >= began.0.saturating_add(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_millis(2);

    fn millis(count: u64) -> Nanos {
        Nanos(count * 1_000_000)
    }

    /// The units between two looks, after many looks at work of `nanos` a unit.
    fn distance(budget: &mut TimeBudget, now: &mut u64, nanos: u64) -> usize {
        for _ in 0..40 {
            *now += budget.left() as u64 * nanos;
            budget.spend(budget.left());
            budget.look(Nanos(*now));
        }
        budget.left()
    }

    /// Goal: cheap work is looked at seldom, and dear work at each unit. Method: work of several
    /// costs, in turn.
    #[test]
    fn the_distance_of_looks_follows_the_cost() {
        let mut budget = TimeBudget::new(BUDGET, Nanos(0));
        let mut now = 0;
        for (nanos, units) in [(20, 512), (10_000, 5), (1_000_000, 1), (500, 100), (20, 512)] {
            assert_eq!(distance(&mut budget, &mut now, nanos), units, "{nanos} ns a unit");
        }
        // The next connection may be dearer.
        budget.begin_slice();
        assert_eq!(budget.left(), FIRST);
        now += FIRST as u64 * 1_000_000;
        budget.look(Nanos(now));
        assert_eq!(budget.left(), 1);
    }

    /// Goal: a look that comes early because of a new connection counts only what was done since
    /// the last one. Method: the same cost with and without connections in between.
    #[test]
    fn a_new_connection_does_not_change_the_distance() {
        let mut budget = TimeBudget::new(BUDGET, Nanos(0));
        let mut now = 0;
        assert_eq!(distance(&mut budget, &mut now, 500), 100);
        for _ in 0..10 {
            budget.begin_slice();
            now += 64 * 500;
            budget.look(Nanos(now));
            assert_eq!(budget.left(), 100);
        }
    }

    /// Goal: many turns with a few dear units each end as soon as one with many would. Method: turns of
    /// two units of 10 µs, with long waits between them.
    #[test]
    fn units_and_time_are_carried_to_the_next_turn() {
        let mut budget = TimeBudget::new(BUDGET, Nanos(0));
        let mut now = 0;
        let mut looks = 0;
        for _ in 0..100 {
            now += 1_000_000_000;
            budget.begin_turn(Nanos(now));
            for _ in 0..2 {
                now += 10_000;
                if !budget.spends(1) {
                    budget.look(Nanos(now));
                    looks += 1;
                }
            }
            budget.end_turn(Nanos(now));
        }
        assert_eq!(budget.distance, 5, "the waits do not count, and the units do");
        assert!(looks > 20, "{looks} looks");
    }

    /// Whether the share is over at a look, `nanos` after the start of the clock.
    fn over_at(budget: &mut TimeBudget, nanos: u64) -> bool {
        budget.look(Nanos(nanos));
        budget.is_share_over(Nanos(nanos))
    }

    /// Goal: a phase may use what earlier ones have left, and always gets its least part. Method:
    /// phases that begin early and late.
    #[test]
    fn each_phase_gets_its_part() {
        let mut budget = TimeBudget::new(BUDGET, Nanos(0));
        budget.begin_turn(millis(10));
        budget.begin_phase(Phase::Work, Nanos(0));
        assert!(!over_at(&mut budget, 11_249_999));
        assert!(over_at(&mut budget, 11_250_000));
        budget.begin_turn(millis(20));
        budget.begin_phase(Phase::Deliver, Nanos(0));
        assert!(!over_at(&mut budget, 21_749_999), "work has left its part");
        assert!(over_at(&mut budget, 40_000_000));
        budget.begin_phase(Phase::Expire, Nanos(0));
        assert!(!over_at(&mut budget, 40_249_999), "a long phase came before");
        assert!(over_at(&mut budget, 40_250_000));
        budget.begin_phase(Phase::Unbounded, Nanos(0));
        assert!(!over_at(&mut budget, 90_000_000));
    }

    /// Goal: two listeners share a phase, and the second one gets what the first one has left.
    #[test]
    fn listeners_share_a_phase() {
        let mut budget = TimeBudget::new(BUDGET, Nanos(0));
        budget.begin_turn(millis(0));
        budget.expect_sharers(2);
        budget.begin_phase(Phase::Work, millis(0));
        assert!(!over_at(&mut budget, 624_999) && over_at(&mut budget, 625_000));
        budget.begin_phase(Phase::Work, Nanos(700_000));
        assert!(!over_at(&mut budget, 1_249_999) && over_at(&mut budget, 1_250_000));
    }

    /// Goal: a slice ends with its time, and nothing ends without a budget.
    #[test]
    fn a_slice_ends_in_time() {
        let mut budget = TimeBudget::new(BUDGET, Nanos(0));
        budget.begin_phase(Phase::Work, Nanos(0));
        budget.look(Nanos(100_000));
        budget.begin_slice();
        budget.look(Nanos(150_000));
        assert!(!budget.is_slice_over(Nanos(100_000 + SLICE - 1), SLICE));
        assert!(budget.is_slice_over(Nanos(100_000 + SLICE), SLICE));
        let mut none = TimeBudget::new(Duration::ZERO, Nanos(0));
        none.begin_turn(millis(0));
        none.expect_sharers(3);
        none.begin_phase(Phase::Work, millis(0));
        none.begin_slice();
        none.look(millis(1));
        assert!(!none.is_share_over(millis(1_000)) && !none.is_slice_over(millis(1_000), SLICE));
    }
}
