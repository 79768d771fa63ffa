//! The timer wheel: many deadlines, one question, "what is due?".
//!
//! This module knows no clock and no socket. It takes the time as a [`Tick`] and returns due
//! values.
//!
//! ```text
//!                 now
//!   level 0        |>. . x . x . .     64 slots of       1 ms   fired from here
//!   level 1        |>. x . . . . .     64 slots of      64 ms ┐
//!   level 2        |>. . . . x . .     64 slots of     4.1 s  │ emptied into the
//!   level 3        |>x . . . . . .     64 slots of     4.4 min│ levels below when
//!   level 4        |>. . . . . . .     64 slots of     4.7 h  │ `now` reaches their
//!   level 5        |>. . . x . . .     64 slots of    12.4 d  ┘ first tick
//!
//!   due            armed for `now` or before: first out
//!   never          armed for `Tick::NEVER`: no slot, no wake-up
//! ```
//!
//! Write `now` and a deadline in base 64. The highest digit in which they differ is the timer's
//! level, and the deadline's digit there is its slot. So near deadlines are kept to the
//! millisecond, and far deadlines coarsely. A timer moves to a finer level as its time comes
//! closer: at most five moves between `arm` and firing. A deadline more than 63 top-level slots
//! away waits in the farthest slot. When the wheel reaches that slot, the timer is sorted again.
//!
//! A slot is a doubly linked list through one vector. So the cost of arming, cancelling and re-arming
//! does not depend on the number of timers. One bit per slot says whether its list is empty. So the
//! search for the next slot reads six words and walks no list. If the clock leaps over hours, the
//! wheel pays for the slots with timers, not for the time that passed.
//!
//! [`Wheel::expire`] takes timers one at a time against a budget. The caller may stop at any point.
//! The wheel then stays at the first tick of the slot that it was emptying (`draining`). Timers
//! armed meanwhile for a later time go to other slots. The remaining timers of this slot are sorted
//! before the wheel reaches those slots.
//!
//! The vector keeps the memory that its timers needed until [`Wheel::trim`] moves them to a shorter
//! one. Then keys change, and the owners of the timers are told.
//!
//! **Invariants**, checked by [`Wheel::invariants`]:
//!
//! - Every armed entry is in exactly one list, every other entry in the list of free ones. A slot's
//!   bit is set if and only if its list has entries.
//! - A slot with entries lies ahead of `now`, except `draining`, whose first tick *is* `now`.
//! - An entry's deadline is not before its slot's first tick. Below the top level it is not after
//!   its slot's last tick. So the lowest level with entries holds the earliest slot.

mod invariants;
mod trim;

use std::time::Duration;

const LEVELS: usize = 6;
const TOP: u32 = 5;
const DIGIT: u32 = 6; // bits of a deadline that one level sorts by
const SLOTS: u64 = 1 << DIGIT;
/// The two lists that belong to no level, numbered after the `LEVELS * SLOTS` slots.
const DUE: u16 = 384;
const NEVER: u16 = 385;
const LISTS: usize = 386;
/// The slot of an entry that is free.
const FREE: u16 = u16::MAX;
const NIL: u32 = u32::MAX; // the end of a list

/// A point in monotonic time, in wheel ticks of one millisecond since the reactor's start.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// The deadline that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The tick that lies `delay` after this one.
    ///
    /// A part of a millisecond counts as a whole one, so a deadline is never early. A zero delay
    /// adds nothing. A sum that does not fit becomes [`Tick::NEVER`].
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        let started = u64::from(delay.subsec_nanos().div_ceil(1_000_000));
        Self(delay.as_secs().saturating_mul(1_000).saturating_add(started).saturating_add(self.0))
    }
}

/// The key of one armed timer, in four bytes.
///
/// A key is valid until its timer fires or is cancelled. After that the wheel may give the same key
/// to another timer. So drop the key at once, or overwrite it with [`TimerKey::NONE`].
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey(u32);

impl TimerKey {
    /// The key of no timer.
    pub const NONE: Self = Self(NIL);

    /// Whether this is [`TimerKey::NONE`].
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

#[derive(Copy, Clone, Debug)]
struct Entry<T> {
    deadline: Tick,
    prev: u32,
    next: u32,
    value: T,
    /// The list this entry is in.
    slot: u16,
}

/// A first-in first-out list, so that equal deadlines fire in the order in which they were armed.
#[derive(Copy, Clone, Debug)]
struct List {
    head: u32,
    tail: u32,
}

/// Timers with one `T` each. They fire in the order of their deadlines.
#[derive(Debug)]
pub struct Wheel<T> {
    /// The tick that the wheel has reached. Before `latest` only while an `expire` is unfinished.
    now: u64,
    /// The latest time that was given to `expire`.
    latest: u64,
    /// The slot that starts at `now` and may still have entries; `DUE` when there is none.
    draining: u16,
    /// One bit per slot, one word per level. A bit is set while its slot has entries.
    occupied: [u64; LEVELS],
    lists: [List; LISTS],
    entries: Vec<Entry<T>>,
    /// The first free entry. The list goes on through `next`.
    free: u32,
    armed: usize,
    /// The most timers that [`spare`](Self::spare) has found armed since the last trim.
    peak: usize,
    /// [`make_room`](Self::make_room) was called for this many timers.
    reserved: usize,
}

impl<T: Copy> Default for Wheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> Wheel<T> {
    /// An empty wheel that stands at `Tick(0)`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            now: 0,
            latest: 0,
            draining: DUE,
            occupied: [0; LEVELS],
            lists: [List { head: NIL, tail: NIL }; LISTS],
            entries: Vec::new(),
            free: NIL,
            armed: 0,
            peak: 0,
            reserved: 0,
        }
    }

    /// How many timers are armed, those for [`Tick::NEVER`] and those already due included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Whether no timer is armed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Arms a timer that fires once `expire` is given `at` or a later time.
    ///
    /// A time that has passed is not an error: the timer fires on the next `expire`.
    ///
    /// # Panics
    ///
    /// If `u32::MAX` timers are armed already.
    pub fn arm(&mut self, at: Tick, value: T) -> TimerKey {
        let slot = self.slot_for(at);
        let entry = Entry { deadline: at, prev: NIL, next: NIL, value, slot };
        let key = self.free;
        let key = match self.entries.get_mut(key as usize) {
            Some(free) => {
                self.free = free.next;
                *free = entry;
                key
            }
            None => self.grow(entry),
        };
        self.armed += 1;
        self.link(key, slot);
        TimerKey(key)
    }

    #[inline(never)]
    fn grow(&mut self, entry: Entry<T>) -> u32 {
        let key = index(self.entries.len());
        assert!(key != NIL, "the wheel is full");
        self.entries.push(entry);
        key
    }

    /// Notes that `key`, which is in no list any more, is free.
    #[inline]
    fn release(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        (entry.slot, entry.next) = (FREE, self.free);
        self.free = key;
        self.armed -= 1;
    }

    /// Disarms a timer and returns its value. The timer does not fire any more, even if it was due.
    ///
    /// # Panics
    ///
    /// If `key` is not armed.
    #[track_caller]
    pub fn cancel(&mut self, key: TimerKey) -> T {
        let Some(&entry) = self.armed(key) else { not_armed(key) };
        self.unlink(&entry);
        self.release(key.0);
        entry.value
    }

    /// Moves a timer to another deadline, earlier or later. Its key stays the same.
    ///
    /// # Panics
    ///
    /// If `key` is not armed.
    #[track_caller]
    pub fn rearm(&mut self, key: TimerKey, at: Tick) {
        let slot = self.slot_for(at);
        let entry = self.entries.get_mut(key.0 as usize).filter(|entry| entry.slot != FREE);
        let Some(entry) = entry else { not_armed(key) };
        entry.deadline = at;
        // A deadline that moves a little often stays in its slot. Then no neighbour is touched.
        if entry.slot != slot {
            let entry = *entry;
            self.unlink(&entry);
            self.link(key.0, slot);
        }
    }

    /// The deadline of the timer `key`.
    ///
    /// # Panics
    ///
    /// If `key` is not armed.
    #[must_use]
    #[track_caller]
    pub fn deadline(&self, key: TimerKey) -> Tick {
        let Some(entry) = self.armed(key) else { not_armed(key) };
        entry.deadline
    }

    /// The value of the timer `key`. `None` if it is not armed.
    #[must_use]
    pub fn get(&self, key: TimerKey) -> Option<T> {
        self.armed(key).map(|entry| entry.value)
    }

    #[inline]
    fn armed(&self, key: TimerKey) -> Option<&Entry<T>> {
        self.entries.get(key.0 as usize).filter(|entry| entry.slot != FREE)
    }

    /// The time at which `expire` next has work: to fire a timer, or to move far timers to finer
    /// slots. `None` if no timer will ever fire.
    ///
    /// It is never later than any armed deadline. While a timer is armed for a time that had
    /// already passed, it is `Tick(0)`, which means *at once*. It can be earlier than every
    /// deadline. Then `expire` fires no timer, but the next result of this is closer to the
    /// deadline.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Tick> {
        self.earliest().map(|(_, start)| Tick(start))
    }

    /// Removes the next timer that is due at `now`, and returns its value.
    ///
    /// Call it until it returns `None`. Then either no more timers are due, or `budget` is used up.
    /// In the second case [`next_expiry`](Self::next_expiry) says whether to call again. Each timer
    /// that fires or moves to a finer slot costs one unit of the budget.
    ///
    /// Between two calls any timer may be armed, cancelled or moved, timers that are due included.
    /// A timer armed for `now` is due in the same round. So if each timer arms the next, only the
    /// budget ends the round.
    ///
    /// No timer fires before its deadline, and deadlines fire in order. Timers armed for a time
    /// that had passed are the exception: they fire in no defined order among each other. A `now`
    /// before the latest one given counts as the latest one.
    pub fn expire(&mut self, now: Tick, budget: &mut usize) -> Option<T> {
        self.latest = self.latest.max(now.0);
        loop {
            let next = self.earliest().filter(|&(_, start)| start <= self.latest);
            let Some((slot, start)) = next else {
                self.now = self.latest;
                self.draining = DUE;
                return None;
            };
            *budget = budget.checked_sub(1)?;
            if slot != DUE {
                self.now = start;
                self.draining = slot;
            }
            let key = self.lists[usize::from(slot)].head;
            let entry = self.entries[key as usize];
            self.unlink(&entry);
            if entry.deadline.0 <= self.now {
                self.release(key);
                return Some(entry.value);
            }
            self.link(key, self.slot_for(entry.deadline));
        }
    }

    /// The list in which a timer for `at` belongs, at the present `now`.
    ///
    /// It is never `draining`. A later deadline differs from `now` in the digit of a finer level,
    /// or lies in another slot of the same level. So a slot that is being emptied only shrinks.
    #[inline]
    fn slot_for(&self, at: Tick) -> u16 {
        if at == Tick::NEVER {
            return NEVER;
        }
        if at.0 <= self.now {
            return DUE;
        }
        let level = ((at.0 ^ self.now).ilog2() / DIGIT).min(TOP);
        let shift = DIGIT * level;
        let here = self.now >> shift;
        // Only the top level can be too short. The slot 64 ahead is the current slot again.
        let ahead = ((at.0 >> shift) - here).min(SLOTS - 1);
        (level as u16) << DIGIT | ((here + ahead) % SLOTS) as u16
    }

    /// The next list to take timers from, and the first tick at which this is allowed.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "level < 6 and index < 64")]
    fn earliest(&self) -> Option<(u16, u64)> {
        if self.is_empty() {
            return None;
        }
        if self.lists[usize::from(DUE)].head != NIL {
            return Some((DUE, 0));
        }
        if self.lists[usize::from(self.draining)].head != NIL {
            return Some((self.draining, self.now));
        }
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        let shift = DIGIT * level as u32;
        let here = self.now >> shift;
        let ahead = self.occupied[level].rotate_right((here % SLOTS) as u32).trailing_zeros();
        let index = here + u64::from(ahead);
        Some(((level as u16) << DIGIT | (index % SLOTS) as u16, index << shift))
    }

    /// Puts an entry at the end of `slot`'s list.
    #[inline]
    fn link(&mut self, key: u32, slot: u16) {
        let list = &mut self.lists[usize::from(slot)];
        let prev = std::mem::replace(&mut list.tail, key);
        if prev == NIL {
            list.head = key;
            self.mark(slot, true);
        } else {
            self.entries[prev as usize].next = key;
        }
        let entry = &mut self.entries[key as usize];
        (entry.slot, entry.prev, entry.next) = (slot, prev, NIL);
    }

    /// Removes `entry` from its list.
    #[inline]
    fn unlink(&mut self, entry: &Entry<T>) {
        let list = &mut self.lists[usize::from(entry.slot)];
        match entry.prev {
            NIL => list.head = entry.next,
            prev => self.entries[prev as usize].next = entry.next,
        }
        match entry.next {
            NIL => list.tail = entry.prev,
            next => self.entries[next as usize].prev = entry.prev,
        }
        if (entry.prev, entry.next) == (NIL, NIL) {
            self.mark(entry.slot, false);
        }
    }

    /// Sets the bit of `slot`: whether it has entries. The lists outside the levels have no bit.
    #[inline]
    fn mark(&mut self, slot: u16, occupied: bool) {
        if let Some(bits) = self.occupied.get_mut(usize::from(slot >> DIGIT)) {
            let bit = 1 << (u64::from(slot) % SLOTS);
            *bits = if occupied { *bits | bit } else { *bits & !bit };
        }
    }
}

fn index(entry: usize) -> u32 {
    u32::try_from(entry).unwrap_or(NIL)
}

#[cold]
#[track_caller]
fn not_armed(key: TimerKey) -> ! {
    panic!("timer {} is not armed", key.0)
}
