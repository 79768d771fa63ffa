//! Compares the timer wheel with a sorted set.
//!
//! A [`Model`] has a [`Wheel`] and a `BTreeSet` of the same timers. It applies each operation to both,
//! and panics if they differ. [`wheel_ops`] reads the operations from bytes, so that a fuzzer, a seeded
//! loop and a saved input run the same check.

use std::collections::{BTreeMap, BTreeSet};

use condor::internals::{Tick, TimerKey, Wheel};

/// How far ahead the wheel's top level reaches: 64^6 ticks.
const SPAN: u64 = 1 << 36;

/// The clock stops here (139 years), well before `Tick::NEVER`.
const CLOCK_MAX: u64 = 1 << 42;

/// Timers that are due before this tick are fired when a run ends; later ones are cancelled.
const DRAIN_MAX: u64 = 1 << 43;

/// A deadline (or a time), relative to the latest clock reading.
#[derive(Copy, Clone, Debug)]
pub(crate) enum When {
    /// `Tick::NEVER`.
    Never,
    /// The tick just before `Tick::NEVER`.
    AlmostNever,
    /// Tick 0.
    Zero,
    /// This many ticks ago.
    Ago(u16),
    /// In this many ticks.
    In(u16),
    /// The `nth` next multiple of 64^level, and `off` ticks more or less.
    Boundary { level: u8, nth: u8, off: i8 },
    /// 64^level ticks ahead, `nth` times, and `off` ticks more or less.
    Distance { level: u8, nth: u8, off: i8 },
    /// The deadline of another armed timer.
    Same(u16),
}

/// One operation on the wheel.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Op {
    /// Arms a timer.
    Arm(When),
    /// Cancels one of the armed timers.
    Cancel(u16),
    /// Moves one of the armed timers.
    Rearm(u16, When),
    /// Sets the clock, and expires until the budget is used up or no timer is due.
    Expire { clock: When, budget: u16 },
    /// Sets the clock, and expires at most one timer.
    ExpireOne { clock: When },
    /// Sets the clock to `next_expiry`, and expires.
    FollowNext { budget: u16 },
}

/// An armed timer in the model.
#[derive(Copy, Clone, Debug)]
struct Timer {
    key: TimerKey,
    at: u64,
    /// Armed for a time in the past. It fires at once. The order among such timers is not defined.
    late: bool,
}

/// The wheel, and the timers that it must have.
#[derive(Debug, Default)]
pub(crate) struct Model {
    wheel: Wheel<u32>,
    armed: BTreeMap<u32, Timer>,
    by_deadline: BTreeSet<(u64, u32)>,
    clock: u64,
    next_id: u32,
    /// Budget spent so far, and the most that the timers armed so far may have cost.
    spent: u64,
    allowed: u64,
}

impl Model {
    /// Applies `op` to the wheel and the set, and compares them.
    pub(crate) fn apply(&mut self, op: Op) {
        match op {
            Op::Arm(when) => self.arm(self.resolve(when)),
            Op::Cancel(nth) => {
                if let Some(id) = self.pick(nth) {
                    self.cancel(id);
                }
            }
            Op::Rearm(nth, when) => {
                if let Some(id) = self.pick(nth) {
                    self.rearm(id, self.resolve(when));
                }
            }
            Op::Expire { clock, budget } => {
                let now = self.resolve(clock).min(CLOCK_MAX);
                self.expire(now, usize::from(budget), usize::MAX);
            }
            Op::ExpireOne { clock } => {
                let now = self.resolve(clock).min(CLOCK_MAX);
                self.expire(now, usize::from(u16::MAX), 1);
            }
            Op::FollowNext { budget } => {
                if let Some(next) = self.wheel.next_expiry() {
                    self.expire(next.0.min(CLOCK_MAX), usize::from(budget), usize::MAX);
                }
            }
        }
        self.check();
    }

    /// Fires the remaining timers by setting the clock only to `next_expiry`. Each step must use some
    /// budget.
    pub(crate) fn finish(mut self) {
        while self.by_deadline.first().is_some_and(|&(at, _)| at < DRAIN_MAX) {
            let next = self.wheel.next_expiry().expect("timers are armed").0;
            let before = (self.spent, self.armed.len());
            self.expire(next, 64, usize::MAX);
            assert!(self.spent > before.0, "an expiry was announced at {next}: nothing to do");
            self.check();
        }
        while let Some((&id, _)) = self.armed.first_key_value() {
            self.cancel(id);
        }
        self.check();
        assert_eq!(self.wheel.next_expiry(), None, "an empty wheel has nothing to do");
    }

    fn resolve(&self, when: When) -> u64 {
        let offset = |at: u64, off: i8| at.saturating_add_signed(i64::from(off));
        match when {
            When::Never => u64::MAX,
            When::AlmostNever => u64::MAX - 1,
            When::Zero => 0,
            When::Ago(ticks) => self.clock.saturating_sub(u64::from(ticks)),
            When::In(ticks) => self.clock + u64::from(ticks),
            When::Boundary { level, nth, off } => {
                let shift = 6 * u32::from(level % 7);
                offset((self.clock >> shift).saturating_add(1 + u64::from(nth)) << shift, off)
            }
            When::Distance { level, nth, off } => {
                let step = 1 << (6 * u32::from(level % 7));
                offset(self.clock + step * u64::from(nth), off)
            }
            When::Same(nth) => self.pick(nth).map_or(self.clock, |id| self.armed[&id].at),
        }
    }

    fn pick(&self, nth: u16) -> Option<u32> {
        let nth = usize::from(nth).checked_rem(self.armed.len())?;
        self.armed.keys().nth(nth).copied()
    }

    fn arm(&mut self, at: u64) {
        let id = self.next_id;
        self.next_id += 1;
        let key = self.wheel.arm(Tick(at), id);
        assert!(!key.is_none());
        assert!(self.armed.values().all(|other| other.key != key), "{key:?} is taken");
        self.note(id, key, at);
    }

    fn note(&mut self, id: u32, key: TimerKey, at: u64) {
        self.armed.insert(id, Timer { key, at, late: at <= self.clock });
        self.by_deadline.insert((at, id));
        // A timer costs at most five moves and the firing. Beyond the span of the wheel it costs
        // one move more for each 63 slots of the top level. The clock stays below `DRAIN_MAX`.
        self.allowed += 6 + at.min(DRAIN_MAX) / (SPAN / 64 * 63);
    }

    fn rearm(&mut self, id: u32, at: u64) {
        let timer = self.armed[&id];
        self.wheel.rearm(timer.key, Tick(at));
        self.by_deadline.remove(&(timer.at, id));
        self.note(id, timer.key, at);
    }

    fn cancel(&mut self, id: u32) {
        let timer = self.armed.remove(&id).expect("picked from the map");
        self.by_deadline.remove(&(timer.at, id));
        assert_eq!(self.wheel.cancel(timer.key), id, "cancelled another timer");
        assert_eq!(self.wheel.get(timer.key), None, "still there after cancelling");
    }

    /// Expires at `now` until the wheel says `None` or `count` timers have fired.
    fn expire(&mut self, now: u64, budget: usize, count: usize) {
        self.clock = self.clock.max(now);
        let mut left = budget;
        let mut fired = 0;
        let mut exhausted = false;
        while fired < count && !exhausted {
            match self.wheel.expire(Tick(now), &mut left) {
                Some(id) => self.fired(id),
                None => exhausted = true,
            }
            fired += 1;
        }
        self.spent += (budget - left) as u64;
        if exhausted && left > 0 {
            let due = self.by_deadline.first().filter(|&&(at, _)| at <= self.clock);
            assert_eq!(due, None, "due at {} and not fired", self.clock);
            let next = self.wheel.next_expiry();
            assert!(next.is_none_or(|at| at.0 > self.clock), "{next:?}: not finished");
        }
    }

    fn fired(&mut self, id: u32) {
        let timer = self.armed.remove(&id).expect("fired, and was not armed");
        self.by_deadline.remove(&(timer.at, id));
        assert!(timer.at <= self.clock, "{timer:?} fired early, at {}", self.clock);
        for (_, earlier) in self.by_deadline.range(..(timer.at, 0)) {
            let other = self.armed[earlier];
            assert!(timer.late && other.late, "{timer:?} fired before {other:?}");
        }
    }

    fn check(&self) {
        self.wheel.invariants();
        assert_eq!(self.wheel.len(), self.armed.len());
        assert_eq!(self.wheel.is_empty(), self.armed.is_empty());
        for (&id, timer) in &self.armed {
            assert_eq!(self.wheel.get(timer.key), Some(id));
            assert_eq!(self.wheel.deadline(timer.key), Tick(timer.at));
        }
        let first = self.by_deadline.first().map(|&(at, _)| at).filter(|&at| at != u64::MAX);
        let next = self.wheel.next_expiry();
        assert_eq!(next.is_some(), first.is_some(), "something to do, and timers that can fire");
        if let (Some(next), Some(first)) = (next, first) {
            assert!(next.0 <= first, "{next:?} would be late for {first}");
        }
        assert!(self.spent <= self.allowed, "timers moved too often: {}", self.spent);
    }
}

/// Reads operations from `data`, applies them to a wheel and a map, and panics if they differ.
pub fn wheel_ops(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut model = Model::default();
    // A check takes time in proportion to the timers, and more operations would find nothing more.
    for _ in 0..1_000 {
        let Some(op) = read_op(&mut bytes) else { break };
        model.apply(op);
    }
    model.finish();
}

fn read_op(bytes: &mut impl Iterator<Item = u8>) -> Option<Op> {
    let op = match bytes.next()? % 16 {
        0..=5 => Op::Arm(read_when(bytes)?),
        6 | 7 => Op::Cancel(read_u16(bytes)?),
        8 | 9 => Op::Rearm(read_u16(bytes)?, read_when(bytes)?),
        10 => Op::Expire { clock: read_when(bytes)?, budget: u16::MAX },
        11 | 12 => Op::Expire { clock: read_when(bytes)?, budget: u16::from(bytes.next()? % 8) },
        13 => Op::ExpireOne { clock: read_when(bytes)? },
        _ => Op::FollowNext { budget: u16::from(bytes.next()? % 16) },
    };
    Some(op)
}

fn read_when(bytes: &mut impl Iterator<Item = u8>) -> Option<When> {
    let when = match bytes.next()? {
        0..=3 => When::Never,
        4 | 5 => When::AlmostNever,
        6..=9 => When::Zero,
        10..=29 => When::Ago(u16::from(bytes.next()? % 80)),
        30..=79 => When::In(u16::from(bytes.next()?)),
        80..=99 => When::In(read_u16(bytes)?),
        100..=159 => When::Boundary {
            level: bytes.next()?,
            nth: bytes.next()? % 66,
            off: i8::from_be_bytes([bytes.next()?]) % 3,
        },
        160..=219 => When::Distance {
            level: bytes.next()?,
            nth: bytes.next()? % 66,
            off: i8::from_be_bytes([bytes.next()?]) % 3,
        },
        220..=255 => When::Same(read_u16(bytes)?),
    };
    Some(when)
}

fn read_u16(bytes: &mut impl Iterator<Item = u8>) -> Option<u16> {
    Some(u16::from_be_bytes([bytes.next()?, bytes.next()?]))
}
